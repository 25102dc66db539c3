"""What a filter says about the document that is inserted because nothing matched it.

Manual: "db.collection.update()", "Upsert Behavior": of a filter its equalities count.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from cloudlet.docdb.filter.ast import And, Compare, In, Node, Op, Or
from cloudlet.docdb.paths import Segments
from cloudlet.docdb.update_errors import Code, refused
from cloudlet.docdb.update_tree import Branch, Change, Context, Leaf
from cloudlet.docdb.values import Document, Value

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def upsert_document(node: Node) -> Document:
    """A document with the values that the filter demands by equality.

    Looked through are ``$and``, an ``$or`` of one, ``$eq`` and an ``$in`` of one value. Raises InvalidUpdate
    if the filter demands two values at one path, or one below another.
    """
    return _document(list(_equalities(node)))


def upsert_id(node: Node) -> Document:
    """Of that document the id alone: what a replacement takes from the filter."""
    return _document([found for found in _equalities(node) if found[0][0] == "_id"])


def _document(equalities: list[tuple[list[str], Segments, Value]]) -> Document:
    _refuse_conflicts([names for names, _, _ in equalities])
    root = Branch()
    for names, segments, value in equalities:
        root.add(segments, Leaf(".".join(names), _constant(value)))
    root.sort()
    document: Document = root.in_object({}, Context({}, _EPOCH, lambda _: None), "")
    return document


def _equalities(node: Node) -> Iterator[tuple[list[str], Segments, Value]]:
    match node:
        case And(children) | Or((_,) as children):
            for child in children:
                yield from _equalities(child)
        case Compare(path, Op.EQ, value) | In(path, (value,), ()):
            # In a document under construction there are no arrays: a number is a name like any other, and
            # what would be a dynamic step of an update is one, too.
            yield path.text.split("."), tuple((name, -1) for name, _ in path.segments), value
        case _:
            return


def _constant(value: Value) -> Change:
    return lambda _, __: value


def _refuse_conflicts(paths: list[list[str]]) -> None:
    seen: set[str] = set()
    for names in paths:
        path = ".".join(names)
        if path in seen:
            raise refused(
                Code.NotSingleValueField,
                f"cannot infer query fields to set, path '{path[:200]}' is matched twice",
            )
        seen.add(path)
    for names in paths:
        for length in range(1, len(names)):
            above = ".".join(names[:length])
            if above in seen:
                raise refused(
                    Code.NotSingleValueField,
                    f"cannot infer query fields to set, both paths '{'.'.join(names)[:200]}' "
                    f"and '{above[:200]}' are matched",
                )
