"""What a client's query and data look like to a rule."""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from cloudlet.docdb.filter.ast import And, ElemMatch, Node, Not, Or
from cloudlet.docdb.rules.prove import path_text
from cloudlet.docdb.values import Document, Value
from cloudlet.model.access import Access
from cloudlet.model.errors import PermissionDenied

Path: TypeAlias = tuple[str, ...]
"""Field names from the document down."""

OPENID: Final = "{openid}"
UID: Final = "{uid}"


def filled_in(filter: Document, access: Access) -> Document:
    """The filter with the caller's ids in place of the texts ``{openid}`` and ``{uid}``.

    Who has no openid (a web user) has the uid in its place. Raises PermissionDenied for callers without.
    """
    return {name: _value(item, access) for name, item in filter.items()}


def _value(value: Value, access: Access) -> Value:
    if type(value) is str:
        if value == OPENID:
            return _known(access.openid or access.uid, value)
        return _known(access.uid, value) if value == UID else value
    if type(value) is dict:
        return {name: _value(item, access) for name, item in value.items()}
    if type(value) is list:
        return [_value(item, access) for item in value]
    return value


def _known(found: str, template: str) -> str:
    if not found:
        raise PermissionDenied(f"the query says {template}, but this caller has none; sign in first")
    return found


class Written(msgspec.Struct, frozen=True):
    """What an update or replacement writes."""

    data: Document
    """``request.data``."""
    paths: tuple[Path, ...]
    """All fields that are written."""
    reads: tuple[Path, ...] = ()
    """Those whose old values, or whose neighbours' values, decide what is written."""
    replacement: Document | None = None


def written_by(replacement: Document) -> Written:
    """What replacing a whole document writes."""
    return Written(replacement, tuple((name,) for name in replacement), (), replacement)


def written_by_update(update: Document) -> Written:
    """What an update's operators write. ``data`` has the fields as the program wrote them.

    ``$set`` gives the values themselves, dotted names as nested objects; other operators give themselves, so
    that ``request.data.role == undefined`` is only true for an update that leaves ``role`` alone.
    """
    data: Document = {}
    paths: list[Path] = []
    reads: list[Path] = []
    for operator, fields in update.items():
        for text, value in fields.items() if type(fields) is dict else ():
            path = tuple(text.split("."))
            paths.append(path)
            _put(data, path, value if operator == "$set" else {operator: value})
            if operator not in _BLIND:
                reads.append(path)
            if operator == "$rename" and type(value) is str:
                paths.append(tuple(value.split(".")))
                _put(data, paths[-1], {operator: text})
            chosen = next((at for at, name in enumerate(path) if name.startswith("$[") and name != "$[]"), 0)
            if chosen:
                reads.append(path[:chosen])
    return Written(data, tuple(paths), tuple(reads))


_BLIND: Final = ("$set", "$unset", "$setOnInsert")
"""Operators that do not look at the old value."""


def _put(data: Document, path: Path, value: Value) -> None:
    for name in path[:-1]:
        below = data.get(name)
        # A copy, because the object may be part of the update itself.
        data[name] = below = dict(below) if type(below) is dict else {}
        data = below
    data[path[-1]] = value


def filter_paths(node: Node) -> list[Path] | None:
    """All paths a filter looks at; None if it looks at the whole document (``$expr``, ``$jsonSchema``)."""
    match node:
        case And(nodes) | Or(nodes):
            found: list[Path] = []
            for child in nodes:
                below = filter_paths(child)
                if below is None:
                    return None
                found += below
            return found
        case Not(child):
            return filter_paths(child)
        case ElemMatch(path):
            # Anything of an element may be compared: the whole path counts as looked at.
            return [tuple(path.text.split("."))]
        case _:
            text = path_text(node)
            return None if text is None else [tuple(text.split("."))]


def overlaps(one: Path, other: Path) -> bool:
    """Whether one path lies on the way to the other. Indexes of elements and ``$`` segments do not count."""
    left, right = _without_elements(one), _without_elements(other)
    shorter = min(len(left), len(right))
    return left[:shorter] == right[:shorter]


def is_below(path: Path, other: Path) -> bool:
    """Whether the first path goes through the other and further. Indexes of elements do not count."""
    left, right = _without_elements(path), _without_elements(other)
    return len(left) > len(right) and left[: len(right)] == right


def _without_elements(path: Path) -> Path:
    return tuple(name for name in path if not name.isdecimal() and not name.startswith("$"))


def has_field(value: Value, path: Path) -> bool:
    """Whether there is anything at the path, in elements of arrays too."""
    if type(value) is list:
        return any(has_field(item, path) for item in value)
    if not path:
        return True
    return type(value) is dict and path[0] in value and has_field(value[path[0]], path[1:])


def without_field(value: Value, path: Path) -> Value:
    """A copy without what stands at the path, in elements of arrays too; the same value if nothing does."""
    if type(value) is list:
        return [without_field(item, path) for item in value]
    if type(value) is not dict or path[0] not in value:
        return value
    if len(path) == 1:
        return {name: item for name, item in value.items() if name != path[0]}
    return {**value, path[0]: without_field(value[path[0]], path[1:])}
