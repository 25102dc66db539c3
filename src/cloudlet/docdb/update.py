"""Updates: parsed once, then applied to copies, so that a failing one leaves nothing behind.

The rules are MongoDB's ("Update Operators" of its manual): two operators may not touch the same path or one
above the other, ``_id`` never changes, a path is not created through a value that is neither object nor
array, new fields are appended in the order of their names. Updates by an aggregation pipeline are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Final

import msgspec

from cloudlet.docdb.paths import Segments
from cloudlet.docdb.update_errors import Code, refused, shown
from cloudlet.docdb.update_operators import OPERATORS
from cloudlet.docdb.update_paths import Tests, array_filters, check_all_used, update_path
from cloudlet.docdb.update_rename import Rename, parse_rename
from cloudlet.docdb.update_tree import Branch, Context, Leaf, Position
from cloudlet.docdb.values import MISSING, Document, Value, equals, type_name

__all__ = ["Position", "Update", "parse_replacement", "parse_update", "replaced"]

OPERATIONS_MAX: Final = 2_000
_CACHED_PATH_MAX: Final = 100
_COUNTER: Final = {"$inc"}
KEPT_BY_REPLACE: Final = ("_id", "_openid")


class Update(msgspec.Struct, frozen=True):
    """A parsed update. ``fields`` are the first segments of all paths it writes."""

    root: Branch
    fields: frozenset[str]
    renames: tuple[Rename, ...] = ()
    filters: Tests = msgspec.field(default_factory=dict)

    def apply(
        self, document: Document, now: datetime, position: Position, inserting: bool = False
    ) -> Document:
        """The changed document, or the very same object if nothing changed. Raises InvalidUpdate.

        What did not change is shared with the old document, which is never touched.
        """
        context = Context(document, now, position, inserting, self.filters)
        if self.renames:
            moved = {rename.target_text: rename.value(context) for rename in self.renames}
            context = Context(document, now, position, inserting, self.filters, moved)
        changed: Document = self.root.in_object(document, context, "")
        if "_id" in self.fields:
            return _with_same_id(document, changed)
        return changed


def parse_update(value: Value, filters: Value = None) -> Update:
    """The operators of a prepared update, with its array filters. Raises InvalidUpdate."""
    if filters is None and type(value) is dict and value.keys() == _COUNTER:
        fields = value["$inc"]
        if type(fields) is dict and len(fields) == 1:
            ((path, step),) = fields.items()
            if type(step) is int and len(path) <= _CACHED_PATH_MAX:
                return _counter(path, step)
    if type(value) is list:
        raise refused(
            Code.FailedToParse,
            "an update by an aggregation pipeline (an array of stages) is not supported; "
            "use update operators such as $set",
        )
    if type(value) is not dict or not value:
        raise refused(Code.FailedToParse, "an update must be an object with at least one operator")
    return _Parser(array_filters(filters)).update(value)


@lru_cache(maxsize=1_024)
def _counter(path: str, step: int) -> Update:
    """The commonest update of all: one whole number is added."""
    return _Parser({}).update({"$inc": {path: step}})


def parse_replacement(value: Value) -> Document:
    """A whole new document. Raises InvalidUpdate if it holds operators."""
    if type(value) is not dict:
        raise refused(Code.FailedToParse, "a document must be an object")
    for name in value:
        if name.startswith("$"):
            raise refused(
                Code.DollarPrefixedFieldName,
                f"The dollar ($) prefixed field '{name[:80]}' in '{name[:80]}' is not valid for storage: "
                "a whole document cannot hold operators",
            )
    return value


def replaced(before: Document, replacement: Document) -> Document:
    """``replacement`` with the id and owner of ``before``. Raises InvalidUpdate if it has another id."""
    if "_id" in before and "_id" in replacement and not equals(before["_id"], replacement["_id"]):
        raise refused(
            Code.ImmutableField,
            "After applying the update, the (immutable) field '_id' was found to have been altered to "
            f"{shown('_id', replacement['_id'])}",
        )
    kept: Document = {name: before[name] for name in KEPT_BY_REPLACE if name in before}
    merged = {**kept, **replacement}
    return {**merged, "_id": before["_id"]} if "_id" in before else merged


@dataclass(slots=True)
class _Parser:
    """One update being read."""

    filters: Tests
    root: Branch = field(default_factory=Branch)
    paths: list[Segments] = field(default_factory=list)
    renames: list[Rename] = field(default_factory=list)

    def update(self, value: Document) -> Update:
        for name, fields in value.items():
            if name not in OPERATORS and name != "$rename":
                raise refused(Code.FailedToParse, _unknown(name))
            if type(fields) is not dict:
                raise refused(
                    Code.FailedToParse,
                    f"Modifiers operate on fields but we found type {type_name(fields)} instead. "
                    f"For example: {{$mod: {{<field>: ...}}}} not {shown(name, fields)}",
                )
            for path, operand in fields.items():
                self.operation(name, path, operand)
                if len(self.paths) > OPERATIONS_MAX:
                    raise refused(Code.BadValue, f"an update may change {OPERATIONS_MAX} fields")
        self.root.sort()
        if self.filters:
            check_all_used(self.filters, self.paths)
        names = frozenset(segments[0][0] for segments in self.paths)
        return Update(self.root, names, tuple(self.renames), self.filters)

    def operation(self, name: str, path: str, operand: Value) -> None:
        if name == "$rename":
            rename = parse_rename(path, operand)
            self.renames.append(rename)
            self.add(rename.source, rename.removal())
            self.add(rename.target, rename.arrival())
            return
        segments = update_path(path, self.filters)
        spec = OPERATORS[name]
        self.add(segments, Leaf(path, spec.parse(path, operand), spec.blocked, name == "$setOnInsert"))

    def add(self, segments: Segments, leaf: Leaf) -> None:
        self.root.add(segments, leaf)
        self.paths.append(segments)


def _unknown(name: str) -> str:
    if name.startswith("$"):
        return f"Unknown modifier: {name[:80]}. Expected one of {', '.join([*OPERATORS, '$rename'])}"
    return f"an update consists of operators such as $set; {name[:80]!r} is not one"


def _with_same_id(before: Document, after: Document) -> Document:
    if "_id" not in before or after.get("_id", MISSING) is before["_id"]:
        return after
    if "_id" not in after or not equals(after["_id"], before["_id"]):
        raise refused(
            Code.ImmutableField,
            "Performing an update on the path '_id' would modify the immutable field '_id'",
        )
    return {**after, "_id": before["_id"]}
