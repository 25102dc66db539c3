"""What a write does with the rows it is about: pure decisions that run inside a store's turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from cloudlet.docdb import update as updates
from cloudlet.docdb.base import Decision, Put, Row, Select
from cloudlet.docdb.filter import Where
from cloudlet.docdb.filter.position import matched_index
from cloudlet.docdb.limits import Overrun
from cloudlet.docdb.values import Document, Value, date_from_ms, identical
from cloudlet.model.errors import InvalidUpdate

T = TypeVar("T")

Writes: TypeAlias = Callable[[Sequence[Row]], Decision[T]]
"""A pure function of the rows that match."""


@dataclass(frozen=True, slots=True)
class Updated:
    """What an update did."""

    matched: int
    modified: int
    upserted_id: Value = None
    document: Document | None = None
    """The (last) document as it is afterwards."""

    @staticmethod
    def total(parts: Sequence[Updated]) -> Updated:
        """Several turns as one result."""
        matched, modified = sum(part.matched for part in parts), sum(part.modified for part in parts)
        return Updated(matched, modified, parts[-1].upserted_id, parts[-1].document)


def insert(documents: Sequence[Document]) -> Writes[None]:
    """Store new documents."""

    def decide(_rows: Sequence[Row]) -> Decision[None]:
        return Decision(None, [Put(document) for document in documents])

    return decide


@dataclass(frozen=True, slots=True)
class Update:
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


@dataclass(frozen=True, slots=True)
class Replacement:
    """Put a whole document in each row's place, keeping id and owner."""

    where: Where
    document: Document

    def __call__(self, rows: Sequence[Row]) -> Decision[Updated]:
        return _changed(rows, lambda document: updates.replaced(document, self.document))

    def on_insert(self, document: Document) -> Document:
        """The document that is inserted when nothing matched: of the filter only the id counts."""
        kept = {"_id": document["_id"]} if "_id" in document else {}
        return updates.replaced(kept, self.document)


@dataclass(frozen=True, slots=True)
class NewDocument:
    """How an upsert makes the document it inserts."""

    where: Where
    complete: Callable[[Document], Document]
    """Checks a document and gives it id and owner."""


@dataclass(frozen=True, slots=True)
class Upsert:
    """Change the rows, or insert a document if there are none."""

    work: Writes[Updated]
    new: NewDocument

    def __call__(self, rows: Sequence[Row]) -> Decision[Updated]:
        if rows or not isinstance(self.work, Update | Replacement):
            return self.work(rows)
        base = updates.upsert_document(self.new.where.node)
        document = self.new.complete(self.work.on_insert(base))
        return Decision(Updated(0, 0, document["_id"], document), [Put(document)])


@dataclass(frozen=True, slots=True)
class Deleted:
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


def _matches_here(where: Where, row: Row) -> bool | None:
    """Whether a row still matches; None if finding out would cost too much inside a turn."""
    if where.costly:
        return None
    try:
        return where.match(row.document)
    except Overrun:
        return None


def _changed(rows: Sequence[Row], change: Callable[[Document], Document]) -> Decision[Updated]:
    puts = []
    last: Document | None = None
    for row in rows:
        last = change(row.document)
        if last is not row.document and not identical(row.document, last):
            puts.append(Put(last, row))
    return Decision(Updated(len(rows), len(puts), None, last), puts)


def _position(where: Where, document: Document) -> updates.Position:
    if where.costly:
        return _too_costly
    return lambda path: matched_index(where.node, document, path)


def _nowhere(_path: tuple[str, ...]) -> int | None:
    return None


def _too_costly(_path: tuple[str, ...]) -> int | None:
    raise InvalidUpdate("the positional operator cannot follow a costly regular expression")
