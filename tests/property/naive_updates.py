"""Updates done the slow and obvious way: on a deep copy, one operator after the other, step by step."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from cloudlet.docdb.numeric import INT64_MAX, INT64_MIN, Decimal128, Long, add, long_number

ABSENT: Any = object()
"""The old value of a field that does not exist."""


class NotPossible(Exception):
    """The update has to be refused."""


def updated(document: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    """The document after ``$set``, ``$unset``, ``$inc`` and ``$push``; raises NotPossible."""
    paths = [path.split(".") for fields in update.values() for path in fields]
    for at, one in enumerate(paths):
        for other in paths[at + 1 :]:
            shorter = min(len(one), len(other))
            if one[:shorter] == other[:shorter]:
                raise NotPossible
    result = deepcopy(document)
    steps = [(path, name, operand) for name, fields in update.items() for path, operand in fields.items()]
    for path, name, operand in sorted(steps, key=lambda step: _order(step[0])):
        _change(result, path.split("."), name, operand)
    return result


def _order(path: str) -> list[tuple[str, int]]:
    return [("0", int(name)) if name.isdecimal() else (name, -1) for name in path.split(".")]


def _change(container: Any, names: list[str], name: str, operand: Any) -> None:
    for depth, step in enumerate(names):
        key: Any = step
        if isinstance(container, dict):
            old = container.get(key, ABSENT)
        elif isinstance(container, list) and step.isdecimal():
            key = int(step)
            old = container[key] if key < len(container) else ABSENT
        elif name == "$unset":
            return
        else:
            raise NotPossible
        if old is ABSENT and name == "$unset":
            return
        if depth < len(names) - 1:
            new = {} if old is ABSENT else old
        elif name == "$unset" and isinstance(container, dict):
            del container[key]
            return
        else:
            new = _value(old, name, operand)
        if isinstance(container, list) and key >= len(container):
            container += [None] * (key + 1 - len(container))
        container[key] = new
        container = new


def _value(old: Any, name: str, operand: Any) -> Any:
    if name == "$unset":
        return None
    if name == "$set":
        return deepcopy(operand)
    if name == "$push":
        if old is not ABSENT and not isinstance(old, list):
            raise NotPossible
        return [*([] if old is ABSENT else old), *deepcopy(operand["$each"])]
    if not _is_number(operand) or not (old is ABSENT or _is_number(old)):
        raise NotPossible
    if old is ABSENT:
        return operand
    if isinstance(old, Decimal128):
        return add(old, operand)
    total = old + operand
    if isinstance(old, Long) and isinstance(total, int):
        total = long_number(total)
    if isinstance(total, int) and not INT64_MIN <= total <= INT64_MAX:
        raise NotPossible
    return total


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal128) and not isinstance(value, bool)
