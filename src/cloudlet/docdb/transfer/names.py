"""Field names of imported documents: a dotted name is a path, as in the vendors' import."""

from __future__ import annotations

from cloudlet.docdb.limits import DEPTH_MAX
from cloudlet.docdb.values import Document, Value
from cloudlet.model.errors import InvalidDocument


def check_name(name: str) -> None:
    """Raises InvalidDocument for a name no import may have."""
    if not name:
        raise InvalidDocument("a field has no name")
    if name.startswith(".") or name.endswith(".") or ".." in name:
        raise InvalidDocument(
            f"the field name {name[:80]!r} begins or ends with a dot, or has two dots in a row"
        )


def nested(document: Document, depth: int = DEPTH_MAX) -> Document:
    """The document with every dotted name as nested objects: ``{"a.b": 1}`` is ``{"a": {"b": 1}}``.

    Raises InvalidDocument for names that are not allowed and for those that contradict each other, as in
    ``{"a": {"b": 1}, "a.b": 2}``.
    """
    made: Document = {}
    for name, value in document.items():
        check_name(name)
        inner = _inside(value, depth - 1)
        if "." in name:
            put_at(made, name, inner)
        elif name in made:
            raise _ambiguous(name)
        else:
            made[name] = inner
    return made


def put_at(document: Document, path: str, value: Value) -> None:
    """Set a field that has no value yet. Raises InvalidDocument if it has one, or cannot have one."""
    *parents, last = path.split(".")
    if len(parents) >= DEPTH_MAX:
        raise InvalidDocument(f"the field name {path[:80]!r} has more than {DEPTH_MAX} parts")
    for parent in parents:
        document = document.setdefault(parent, {})
        if type(document) is not dict:
            raise _ambiguous(path)
    if last in document:
        raise _ambiguous(path)
    document[last] = value


def _inside(value: Value, depth: int) -> Value:
    if depth < 0:
        raise InvalidDocument(f"the document is nested more than {DEPTH_MAX} levels deep")
    if type(value) is dict:
        return nested(value, depth)
    if type(value) is list:
        return [_inside(item, depth - 1) for item in value]
    return value


def _ambiguous(name: str) -> InvalidDocument:
    return InvalidDocument(f"the field {name[:80]!r} is given twice, or is both a value and an object")
