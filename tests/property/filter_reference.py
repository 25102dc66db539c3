"""What a filter means, written for being right and not for being fast: the reference of the matcher.

It reads the filter itself, not the tree, and knows nothing of closures, sets or short ways. Only operators
that the property tests generate are here.
"""

from __future__ import annotations

import math
import re
from typing import Any

from cloudlet.docdb.values import (
    MAX_KEY,
    MIN_KEY,
    MISSING,
    Decimal128,
    Document,
    Regex,
    Value,
    compare,
    type_name,
)

Leaf = tuple[Value, bool]
"""What a path leads to, and whether an array there is also taken apart."""


def matches(filter: Document, document: Document) -> bool:
    """Whether the document matches."""
    return all(_clause(name, item, document) for name, item in filter.items())


def _clause(name: str, item: Value, document: Document) -> bool:
    if name == "$and":
        return all(matches(inner, document) for inner in item)
    if name == "$or":
        return any(matches(inner, document) for inner in item)
    if name == "$nor":
        return not any(matches(inner, document) for inner in item)
    return _asked(item, _leaves(document, name.split(".")))


def _leaves(value: Value, names: list[str]) -> list[Leaf]:
    if not names:
        return [(value, True)]
    name, rest = names[0], names[1:]
    if isinstance(value, dict):
        return _leaves(value[name], rest) if name in value else [(MISSING, True)]
    if not isinstance(value, list):
        return [(MISSING, True)]
    found: list[Leaf] = []
    for at, item in enumerate(value):
        if isinstance(item, dict):
            found += _leaves(item, names)
        if name == str(at):
            if not rest:
                found.append((item, False))
            elif isinstance(item, dict | list):
                found += _leaves(item, rest)
    return found


def _candidates(leaves: list[Leaf]) -> list[Value]:
    found = []
    for value, apart in leaves:
        if apart and isinstance(value, list):
            found += value
        found.append(value)
    return found


def _asked(item: Value, leaves: list[Leaf]) -> bool:
    if isinstance(item, dict) and next(iter(item), "").startswith("$"):
        return all(
            _operator(name, operand, leaves, item) for name, operand in item.items() if name != "$options"
        )
    return _operator("$regex" if isinstance(item, Regex) else "$eq", item, leaves, {})


def _operator(name: str, operand: Value, leaves: list[Leaf], beside: Document) -> bool:
    candidates = _candidates(leaves)
    if name == "$not":
        return not _asked(operand, leaves)
    if name == "$ne":
        return not any(_equal(value, operand) for value in candidates)
    if name == "$nin":
        return not _operator("$in", operand, leaves, {})
    if name == "$exists":
        return any(value is not MISSING for value, _ in leaves) == bool(operand)
    if name == "$size":
        return any(isinstance(value, list) and len(value) == operand for value, _ in leaves)
    if name == "$all":
        return bool(operand) and all(_asked(item, leaves) for item in operand)
    if name == "$elemMatch":
        arrays = [value for value, _ in leaves if isinstance(value, list)]
        return any(_element(item, operand) for array in arrays for item in array)
    if name == "$regex":
        pattern = Regex(operand, beside.get("$options", "")) if isinstance(operand, str) else operand
        return any(_found(pattern, value) for value in candidates)
    return any(_holds(name, value, operand) for value in candidates)


def _element(item: Value, condition: Document) -> bool:
    first = next(iter(condition), "")
    if first.startswith("$") and first not in ("$and", "$or", "$nor"):
        return _asked(condition, [(item, False)])
    if isinstance(item, list):
        item = {str(at): inner for at, inner in enumerate(item)}
    return isinstance(item, dict) and matches(condition, item)


def _found(pattern: Regex, value: Value) -> bool:
    if isinstance(value, str):
        return re.search(pattern.pattern, value, re.IGNORECASE if "i" in pattern.options else 0) is not None
    return bool(value == pattern)


def _family(value: Value) -> str:
    if value is MISSING:
        return "null"
    name = type_name(value)
    return "number" if name in ("int", "long", "double", "decimal") else name


def _is_nan(value: Value) -> bool:
    return isinstance(value, float | Decimal128) and math.isnan(value)


def _equal(value: Value, operand: Value) -> bool:
    return _family(value) == _family(operand) and compare(value, operand) == 0


def _holds(name: str, value: Value, operand: Value) -> bool:
    if name == "$eq":
        return _equal(value, operand)
    if name == "$in":
        return any(_found(one, value) if isinstance(one, Regex) else _equal(value, one) for one in operand)
    if name in ("$gt", "$gte", "$lt", "$lte"):
        return _ordered(name, value, operand)
    if name == "$type":
        wanted = operand if isinstance(operand, list) else [operand]
        return value is not MISSING and (type_name(value) in wanted or _family(value) in wanted)
    if name == "$mod":
        return _family(value) == "number" and _remains(value, *operand)
    if name.startswith("$bits"):
        return _bits(name, value, operand)
    raise AssertionError(name)


def _ordered(name: str, value: Value, operand: Value) -> bool:
    if _family(value) != _family(operand):
        return (operand == MIN_KEY and name in ("$gt", "$gte")) or (
            operand == MAX_KEY and name in ("$lt", "$lte")
        )
    order = compare(value, operand)
    if order == 0:
        return name in ("$gte", "$lte")
    if _is_nan(value) or _is_nan(operand):
        return False
    return order > 0 if name in ("$gt", "$gte") else order < 0


def _remains(value: Value, divisor: int, remainder: int) -> bool:
    if not math.isfinite(value) or not -(2**63) <= int(value) < 2**63:
        return False
    rest = abs(int(value)) % abs(divisor)
    return (-rest if value < 0 else rest) == remainder


def _bits(name: str, value: Value, operand: Value) -> bool:
    positions = operand if isinstance(operand, list) else _positions(operand)
    if isinstance(value, bytes):
        number, width = int.from_bytes(value, "little"), None
    elif _family(value) == "number" and math.isfinite(value) and value == int(value):
        number, width = int(value), 63
        if not -(2**63) <= number < 2**63:
            return False
    else:
        return False
    states = [bool(number >> (at if width is None else min(at, width)) & 1) for at in positions]
    every: Any = all if "All" in name else any
    return bool(every(states if name.endswith("Set") else [not state for state in states]))


def _positions(mask: int | bytes) -> list[int]:
    number = int.from_bytes(mask, "little") if isinstance(mask, bytes) else mask
    return [at for at in range(number.bit_length()) if number >> at & 1]
