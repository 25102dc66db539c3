"""What a write does with the rows it is about: pure decisions that run inside a store's turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import msgspec

from cloudlet.docdb import update as updates
from cloudlet.docdb.base import Decision, Put, Row, Select
from cloudlet.docdb.filter import Where
from cloudlet.docdb.filter.position import matched_index
from cloudlet.docdb.limits import Overrun
from cloudlet.docdb.update_errors import Code, refused
from cloudlet.docdb.update_upsert import upsert_document, upsert_id
from cloudlet.docdb.values import Document, Value, date_from_ms, identical

T = TypeVar("T")

Writes: TypeAlias = Callable[[Sequence[Row]], Decision[T]]
"""A pure function of the rows that match."""


class Updated(msgspec.Struct, frozen=True):
    """What an update did."""

    matched: int
    modified: int
    upserted_id: Value = None
    document: Document | None = None
    """The (last) document as it is afterwards."""
    before: Document | None = None
    """The (last) document as it was."""

    @staticmethod
    def total(parts: Sequence[Updated]) -> Updated:
        """Several turns as one result."""
        if len(parts) == 1:
            return parts[0]
        matched, modified = sum(part.matched for part in parts), sum(part.modified for part in parts)
        return msgspec.structs.replace(parts[-1], matched=matched, modified=modified)

    def projected(self, project: Callable[[Document], Document]) -> Updated:
        """With the wanted fields of the documents only."""
        document, before = (
            None if image is None else project(image) for image in (self.document, self.before)
        )
        return msgspec.structs.replace(self, document=document, before=before)


def insert(documents: Sequence[Document]) -> Writes[None]:
    """Store new documents."""

    def decide(_rows: Sequence[Row]) -> Decision[None]:
        return Decision(None, [Put(document) for document in documents])

    return decide


class Update(msgspec.Struct, frozen=True):
    """Apply operators to each row."""

    where: Where
    update: updates.Update
    now_ms: int

    def __call__(self, rows: Sequence[Row]) -> Decision[Updated]:
        now = date_from_ms(self.now_ms)
        return _changed(
            rows, lambda document: self.update.apply(document, now, _position(self.where, document))
        )

    def on_insert(self, document: Document) -> Document:
        """The document that is inserted when nothing matched."""
        return self.update.apply(document, date_from_ms(self.now_ms), _nowhere, inserting=True)


class Replacement(msgspec.Struct, frozen=True):
    """Put a whole document in each row's place, keeping id and owner."""

    where: Where
    document: Document

    def __call__(self, rows: Sequence[Row]) -> Decision[Updated]:
        return _changed(rows, self._replaced)

    def _replaced(self, document: Document) -> Document:
        new = updates.replaced(document, self.document)
        return document if identical(document, new) else new

    def on_insert(self, document: Document) -> Document:
        """The document that is inserted when nothing matched: of the filter only the id counts."""
        kept = {"_id": document["_id"]} if "_id" in document else {}
        return updates.replaced(kept, self.document)


class NewDocument(msgspec.Struct, frozen=True):
    """How an upsert makes the document it inserts."""

    where: Where
    complete: Callable[[Document], Document]
    """Checks a document and gives it id and owner."""


class Upsert(msgspec.Struct, frozen=True):
    """Change the rows, or insert a document if there are none."""

    work: Writes[Updated]
    new: NewDocument

    def __call__(self, rows: Sequence[Row]) -> Decision[Updated]:
        if rows or not isinstance(self.work, Update | Replacement):
            return self.work(rows)
        node = self.new.where.node
        base = upsert_id(node) if isinstance(self.work, Replacement) else upsert_document(node)
        document = self.new.complete(self.work.on_insert(base))
        return Decision(Updated(0, 0, document["_id"], document), [Put(document)])


class Taken(msgspec.Struct, frozen=True):
    """Remove one row and keep what it was."""

    def __call__(self, rows: Sequence[Row]) -> Decision[Updated]:
        if not rows:
            return Decision(Updated(0, 0))
        return Decision(Updated(1, 1, before=rows[0].document), deletes=rows[:1])


class Deleted(msgspec.Struct, frozen=True):
    """Remove each row."""

    where: Where

    def __call__(self, rows: Sequence[Row]) -> Decision[int]:
        return Decision(len(rows), deletes=rows)


def bounded(work: Writes[T], target: Select) -> Writes[T]:
    """Refuse to do more than one turn's work at once: raises Overrun, and the caller goes by keys."""

    def decide(rows: Sequence[Row]) -> Decision[T]:
        if target.limit is not None and len(rows) == target.limit > 1:
            raise Overrun("too many documents for one turn")
        return work(rows)

    return decide


@dataclass(frozen=True, slots=True)
class Piece(Generic[T]):
    """What one turn did with documents that were found before it."""

    result: T | None
    """None if no document was left to work on."""
    left: list[Value]
    """Ids of documents that changed meanwhile and have to be matched again outside."""


def rechecked(work: Writes[T], where: Where, revisions: Mapping[bytes, int]) -> Writes[Piece[T]]:
    """Work on rows that were matched before the turn; what changed since is matched again or left."""

    def decide(rows: Sequence[Row]) -> Decision[Piece[T]]:
        kept, left = [], []
        for row in rows:
            matches = row.rev == revisions[row.id_key] or _matches_here(where, row)
            if matches is None:
                left.append(row.document["_id"])
            elif matches:
                kept.append(row)
        if not kept:
            return Decision(Piece(None, left))
        decision = work(kept)
        return Decision(Piece(decision.result, left), decision.puts, decision.deletes)

    return decide


def first_of(work: Writes[T], where: Where, revisions: Mapping[bytes, int]) -> Writes[Piece[T]]:
    """Work on the first of rows that were matched before the turn, passing over what no longer matches."""

    def decide(rows: Sequence[Row]) -> Decision[Piece[T]]:
        for row in rows:
            if row.rev == revisions[row.id_key] or _matches_here(where, row):
                decision = work([row])
                return Decision(Piece(decision.result, []), decision.puts, decision.deletes)
        return Decision(Piece(None, []))

    return decide


def _matches_here(where: Where, row: Row) -> bool | None:
    """Whether a row still matches; None if finding out would cost too much inside a turn."""
    if where.costly:
        return None
    try:
        return where.match(row.document)
    except Overrun:
        return None


def _changed(rows: Sequence[Row], change: Callable[[Document], Document]) -> Decision[Updated]:
    """``change`` gives the very same document back if nothing changed."""
    puts = []
    before: Document | None = None
    after: Document | None = None
    for row in rows:
        before = row.document
        after = change(before)
        if after is not before:
            puts.append(Put(after, row))
    return Decision(Updated(len(rows), len(puts), None, after, before), puts)


def _position(where: Where, document: Document) -> updates.Position:
    if where.costly:
        return _too_costly
    return lambda path: matched_index(where.node, document, path)


def _nowhere(_path: tuple[str, ...]) -> int | None:
    return None


def _too_costly(_path: tuple[str, ...]) -> int | None:
    raise refused(Code.BadValue, "the positional operator cannot follow a costly regular expression")
