"""Choosing which fields of a document are returned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from cloudlet.docdb.paths import split_path
from cloudlet.docdb.values import Document, Value
from cloudlet.model.errors import InvalidProjection

Projector: TypeAlias = Callable[[Document], Document]

FIELDS_MAX: Final = 500


class _Tree(dict[str, "_Tree"]):
    """Fields by name; an empty tree means the whole field."""


def compile_projection(value: Value) -> Projector | None:
    """What makes the returned document, or None if documents are returned whole. Raises InvalidProjection.

    Fields are all included (1, true) or all excluded (0, false); only ``_id`` may differ, and it is included
    unless it is excluded by name.
    """
    if value is None or value == {}:
        return None
    if type(value) is not dict:
        raise InvalidProjection("a projection must be an object")
    if len(value) > FIELDS_MAX:
        raise InvalidProjection(f"a projection may have {FIELDS_MAX} fields")
    wanted = {path: _is_included(path, choice) for path, choice in value.items()}
    with_id = wanted.pop("_id", None)
    choices = set(wanted.values())
    if len(choices) > 1:
        raise InvalidProjection("a projection cannot both include and exclude fields")
    tree = _tree(wanted)
    including = choices == {True} or (not choices and with_id is True)
    if including:
        if with_id is not False:
            tree["_id"] = _Tree()
        return lambda document: _included(document, tree)
    if with_id is False:
        tree["_id"] = _Tree()
    return lambda document: _excluded(document, tree)


def _is_included(path: str, choice: Value) -> bool:
    if type(choice) is dict and choice:
        raise InvalidProjection(f"the projection operator {str(next(iter(choice)))[:40]} is not supported")
    if type(choice) not in (bool, int, float):
        raise InvalidProjection(f"the projection of {path[:80]!r} must be 0 or 1")
    if path.startswith("$") or ".$" in path:
        raise InvalidProjection(f"the path {path[:80]!r} cannot be projected")
    return bool(choice != 0)


def _tree(paths: dict[str, bool]) -> _Tree:
    root = _Tree()
    for path in paths:
        at = root
        names = [name for name, _ in split_path(path, InvalidProjection)]
        for position, name in enumerate(names):
            if position and not at:
                raise InvalidProjection(f"the projected paths collide at {path[:80]!r}")
            known = name in at
            at = at.setdefault(name, _Tree())
            if known and (position == len(names) - 1 or not at):
                raise InvalidProjection(f"the projected paths collide at {path[:80]!r}")
            if not known and position < len(names) - 1:
                _grow(at, names[position + 1 :])
                break
    return root


def _grow(at: _Tree, names: list[str]) -> None:
    for name in names:
        at = at.setdefault(name, _Tree())


def _included(document: Document, tree: _Tree) -> Document:
    result: Document = {}
    for name, item in document.items():
        below = tree.get(name)
        if below is None:
            continue
        if not below:
            result[name] = item
        elif type(item) is dict:
            result[name] = _included(item, below)
        elif type(item) is list:
            result[name] = _included_list(item, below)
    return result


def _included_list(items: list[Value], tree: _Tree) -> list[Value]:
    result: list[Value] = []
    for item in items:
        if type(item) is dict:
            result.append(_included(item, tree))
        elif type(item) is list:
            result.append(_included_list(item, tree))
    return result


def _excluded(document: Document, tree: _Tree) -> Document:
    result: Document = {}
    for name, item in document.items():
        below = tree.get(name)
        if below is None:
            result[name] = item
        elif below:
            result[name] = _excluded_below(item, below)
    return result


def _excluded_below(item: Value, tree: _Tree) -> Value:
    if type(item) is dict:
        return _excluded(item, tree)
    if type(item) is list:
        return [_excluded_below(entry, tree) for entry in item]
    return item
