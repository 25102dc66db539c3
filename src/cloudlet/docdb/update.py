"""Updates: operators parsed once, then applied to copies, so that a failing one leaves nothing behind.

The rules are MongoDB's: two operators may not touch the same path or one above the other, ``_id`` never
changes, a path is not created through a value that is neither object nor array.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cloudlet.docdb.filter.ast import And, Compare, In, Node, Op
from cloudlet.docdb.paths import Segments, split_path
from cloudlet.docdb.update_operators import OPERATORS, Change
from cloudlet.docdb.values import MISSING, Document, Value, equals, type_name
from cloudlet.model.errors import InvalidUpdate

OPERATIONS_MAX: Final = 2_000
ARRAY_PADDING_MAX: Final = 10_000
KEPT_BY_REPLACE: Final = ("_id", "_openid")

Position = Callable[[tuple[str, ...]], int | None]
"""The index ``$`` stands for, below the array at this path."""


@dataclass(frozen=True, slots=True)
class _Operation:
    path: str
    segments: Segments
    change: Change
    creates: bool
    """Whether a missing field comes into being."""
    only_on_insert: bool = False


@dataclass(frozen=True, slots=True)
class _Rename:
    path: str
    segments: Segments
    target: Segments


@dataclass(frozen=True, slots=True)
class Update:
    """A parsed update. ``fields`` are the first segments of all paths it writes."""

    operations: tuple[_Operation | _Rename, ...]
    fields: frozenset[str]

    def apply(
        self, document: Document, now: datetime, position: Position, inserting: bool = False
    ) -> Document:
        """The changed document; what did not change is shared with the old one. Raises InvalidUpdate."""
        changed = document
        for operation in self.operations:
            if isinstance(operation, _Rename):
                changed = _renamed(changed, operation)
            elif inserting or not operation.only_on_insert:
                segments = _placed(operation, position)
                changed = _Writer(operation, segments, now).container(changed, 0)
        return _with_same_id(document, changed)


def parse_update(value: Value) -> Update:
    """The operators of a prepared update. Raises InvalidUpdate that names operator or path."""
    if type(value) is not dict or not value:
        raise InvalidUpdate("an update must be an object with at least one operator")
    operations: list[_Operation | _Rename] = []
    for name, fields in value.items():
        if not name.startswith("$"):
            raise InvalidUpdate(f"an update consists of operators; {name[:80]!r} is not one")
        if type(fields) is not dict:
            raise InvalidUpdate(f"{name} needs an object of fields")
        if name not in OPERATORS and name != "$rename":
            raise InvalidUpdate(f"unknown update operator: {name}")
        for path, operand in fields.items():
            operations.append(
                _rename(path, operand) if name == "$rename" else _operation(name, path, operand)
            )
    if len(operations) > OPERATIONS_MAX:
        raise InvalidUpdate(f"an update may change {OPERATIONS_MAX} fields")
    paths = [_text(item.segments) for item in operations]
    paths += [_text(item.target) for item in operations if isinstance(item, _Rename)]
    _refuse_conflicts(paths)
    return Update(tuple(operations), frozenset(path.split(".", 1)[0] for path in paths))


def parse_replacement(value: Value) -> Document:
    """A whole new document. Raises InvalidUpdate if it holds operators."""
    if type(value) is not dict:
        raise InvalidUpdate("a document must be an object")
    for name in value:
        if name.startswith("$"):
            raise InvalidUpdate(f"a whole document cannot hold the operator {name[:80]}")
    return value


def replaced(before: Document, replacement: Document) -> Document:
    """``replacement`` with the id and owner of ``before``. Raises InvalidUpdate if it has another id."""
    kept: Document = {name: before[name] for name in KEPT_BY_REPLACE if name in before}
    merged = {**kept, **replacement}
    return _with_same_id(before, merged)


def upsert_document(node: Node) -> Document:
    """What the equalities of a filter say about a document that is inserted because nothing matched."""
    document: Document = {}
    paths: list[str] = []
    for path, segments, value in _equalities(node):
        paths.append(path)
        document = _with_value(document, path, segments, value)
    _refuse_conflicts(paths)
    return document


def _equalities(node: Node) -> list[tuple[str, Segments, Value]]:
    match node:
        case And(children):
            return [found for child in children for found in _equalities(child)]
        case Compare(path, Op.EQ, value):
            return [(path.text, path.segments, value)]
        case In(path, (value,), ()):
            return [(path.text, path.segments, value)]
        case _:
            return []


def _operation(name: str, path: str, operand: Value) -> _Operation:
    segments = _update_path(path)
    spec = OPERATORS[name]
    return _Operation(path, segments, spec.parse(path, operand), spec.creates, name == "$setOnInsert")


def _rename(path: str, operand: Value) -> _Rename:
    if type(operand) is not str:
        raise InvalidUpdate("$rename needs the new name as text")
    segments, target = _update_path(path), _update_path(operand)
    if any(name == "$" for name, _ in (*segments, *target)):
        raise InvalidUpdate("$rename cannot use the positional operator")
    return _Rename(path, segments, target)


def _update_path(path: str) -> Segments:
    segments = split_path(path, InvalidUpdate)
    for at, (name, _) in enumerate(segments):
        if name == "$" and at:
            continue
        if name.startswith("$"):
            reason = "array filters are not supported" if at else "field names cannot start with $"
            raise InvalidUpdate(f"the path {path[:80]!r} cannot be updated: {reason}")
    return segments


def _text(segments: Segments) -> str:
    return ".".join(name for name, _ in segments)


def _refuse_conflicts(paths: list[str]) -> None:
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            raise InvalidUpdate(f"Updating the path '{path}' would create a conflict at '{path}'")
        seen.add(path)
    for path in paths:
        names = path.split(".")
        for length in range(1, len(names)):
            above = ".".join(names[:length])
            if above in seen:
                raise InvalidUpdate(f"Updating the path '{path}' would create a conflict at '{above}'")


def _placed(operation: _Operation, position: Position) -> Segments:
    """The path with ``$`` replaced by the index of the matched element."""
    segments = operation.segments
    for at, (name, _) in enumerate(segments):
        if name == "$":
            index = position(tuple(above for above, _ in segments[:at]))
            if index is None:
                raise InvalidUpdate(
                    "The positional operator did not find the match needed from the query "
                    f"for the path '{operation.path}'"
                )
            segments = (*segments[:at], (str(index), index), *segments[at + 1 :])
    return segments


def _with_same_id(before: Document, after: Document) -> Document:
    if "_id" not in before or after.get("_id", MISSING) is before["_id"]:
        return after
    if "_id" not in after or not equals(after["_id"], before["_id"]):
        raise InvalidUpdate("Performing an update on the path '_id' would modify the immutable field '_id'")
    return {**after, "_id": before["_id"]}


@dataclass(frozen=True, slots=True)
class _Writer:
    """One operator on its way down a path, copying what it passes."""

    operation: _Operation
    segments: Segments
    now: datetime | None

    def container(self, value: Value, at: int) -> Value:
        if type(value) is dict:
            return self.object(value, at)
        if type(value) is list:
            return self.array(value, at)
        if not self.operation.creates:
            return value
        raise InvalidUpdate(
            f"Cannot create field '{self.segments[at][0]}' in element '{self.segments[at - 1][0]}' "
            f"of type {type_name(value)} (path '{self.operation.path}')"
        )

    def object(self, value: Document, at: int) -> Document:
        name = self.segments[at][0]
        old = value.get(name, MISSING)
        new = self.below(old, at)
        if new is old:
            return value
        if new is MISSING:
            return {key: item for key, item in value.items() if key != name}
        return {**value, name: new}

    def array(self, value: list[Value], at: int) -> list[Value]:
        name, index = self.segments[at]
        if index < 0:
            if not self.operation.creates:
                return value
            raise InvalidUpdate(
                f"Cannot create field '{name}' in the array at path "
                f"'{_text(self.segments[:at])}' (path '{self.operation.path}')"
            )
        old = value[index] if index < len(value) else MISSING
        new = self.below(old, at)
        if new is old:
            return value
        if new is MISSING:
            new = None  # Removing an element by its index leaves a hole, so that the others keep theirs.
        if index - len(value) > ARRAY_PADDING_MAX:
            raise InvalidUpdate(f"the index {index} is too far behind the end of the array")
        padded = value + [None] * (index + 1 - len(value))
        padded[index] = new
        return padded

    def below(self, old: Value, at: int) -> Value:
        if at + 1 == len(self.segments):
            return self.operation.change(old, self.now)
        if old is MISSING:
            return self.container({}, at + 1) if self.operation.creates else MISSING
        return self.container(old, at + 1)


def _renamed(document: Document, rename: _Rename) -> Document:
    value: Value = document
    for name, _ in rename.segments:
        if type(value) is list:
            raise InvalidUpdate(f"$rename cannot go through the array on the path '{rename.path}'")
        value = value.get(name, MISSING) if type(value) is dict else MISSING
    if value is MISSING:
        return document
    removal = _Operation(rename.path, rename.segments, lambda _, __: MISSING, creates=False)
    without = _Writer(removal, rename.segments, None).container(document, 0)
    return _with_value(without, rename.path, rename.target, value)


def _with_value(document: Document, path: str, segments: Segments, value: Value) -> Document:
    operation = _Operation(path, segments, lambda _, __: value, creates=True)
    result: Document = _Writer(operation, segments, None).container(document, 0)
    return result
