"""Writing one batch of an import: ordinary turns of the store, with an answer for every record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from cloudlet.docdb.base import Decision, Keys, Put, Row, Store, Turn, id_key
from cloudlet.docdb.transfer.reading import Record
from cloudlet.docdb.values import Document, identical
from cloudlet.model.errors import DuplicateKey, InvalidDocument, RevisionConflict

Mode: TypeAlias = Literal["insert", "upsert"]

CONFLICTS_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Writing:
    """How the records of one import are written."""

    collection: str
    mode: Mode
    stop_on_error: bool
    now_ms: int
    job: str
    """Ids that are made depend on the job and the line only: a line written again is the same document."""
    replayed_after: int | None = None
    """Set for the batch that was under way when the process ended: what was written after this change, and
    is exactly what a record would insert, is that record's document."""


@dataclass(slots=True)
class Written:
    """What became of a batch. After ``stopped`` nothing was written any more."""

    inserted: int = 0
    replaced: int = 0
    unchanged: int = 0
    failed: list[tuple[int, str]] = field(default_factory=list)
    stopped: bool = False

    def add(self, other: Written) -> None:
        """Count what came after."""
        self.inserted += other.inserted
        self.replaced += other.replaced
        self.unchanged += other.unchanged
        self.failed += other.failed
        self.stopped = self.stopped or other.stopped


_Item: TypeAlias = tuple[int, bytes, Document]


async def write_records(store: Store, writing: Writing, records: Sequence[Record]) -> Written:
    """Write a batch in the order of its lines. Raises what ``commit`` raises about the store itself."""
    total = Written()
    for group in _groups(writing, records):
        part = _refused(group, writing) if isinstance(group, Record) else await _write(store, writing, group)
        total.add(part)
        if total.stopped:
            break
    return total


def made_id(writing: Writing, line: int) -> str:
    """The id of a document without one; ids ascend with the lines, as those of inserts do with time."""
    return f"{writing.now_ms & 0xFFFFFFFFFFFF:012x}{line & 0xFFFFFFFFFF:010x}{writing.job[:10]:0>10}"


def _groups(writing: Writing, records: Sequence[Record]) -> Iterator[list[_Item] | Record]:
    """Documents that go together: no id twice. Records that cannot be written come alone."""
    group: dict[bytes, _Item] = {}
    for record in records:
        refused: Record | None = record
        if record.document is not None:
            document = _with_id(writing, record.line, record.document)
            try:
                key = id_key(document["_id"])
            except InvalidDocument as exc:
                refused = Record(record.line, None, exc.message)
            else:
                refused = None
                if key in group:
                    yield list(group.values())
                    group = {}
                group[key] = record.line, key, document
        if refused is not None:
            if group:
                yield list(group.values())
                group = {}
            yield refused
    if group:
        yield list(group.values())


def _with_id(writing: Writing, line: int, document: Document) -> Document:
    """The document with its id in front, as the store keeps it."""
    if "_id" not in document:
        return {"_id": made_id(writing, line), **document}
    if next(iter(document)) == "_id":
        return document
    return {"_id": document["_id"], **document}


def _refused(record: Record, writing: Writing) -> Written:
    return Written(failed=[(record.line, record.problem)], stopped=writing.stop_on_error)


async def _write(store: Store, writing: Writing, items: list[_Item]) -> Written:
    """One turn; if it is refused because of one document, that one is looked for by halves."""
    decide = _Decide(writing, items)
    keys = Keys([key for _, key, _ in items])
    for attempt in range(CONFLICTS_MAX):
        try:
            return await store.commit(Turn(writing.collection, writing.now_ms, decide, keys))
        except RevisionConflict:
            if attempt == CONFLICTS_MAX - 1:
                raise
        except (DuplicateKey, InvalidDocument) as exc:
            if len(items) == 1:
                return Written(failed=[(items[0][0], exc.message)], stopped=writing.stop_on_error)
            break
    middle = len(items) // 2
    first = await _write(store, writing, items[:middle])
    if not first.stopped:
        first.add(await _write(store, writing, items[middle:]))
    return first


@dataclass(frozen=True, slots=True)
class _Decide:
    """What a turn does with the documents of those ids that are there."""

    writing: Writing
    items: Sequence[_Item]

    def __call__(self, rows: Sequence[Row]) -> Decision[Written]:
        there = {row.id_key: row for row in rows}
        done = Written()
        puts: list[Put] = []
        for line, key, document in self.items:
            row = there.get(key)
            if row is None:
                done.inserted += 1
                puts.append(Put(document))
            elif self._ours(row, document):
                done.inserted += 1
            elif self.writing.mode == "insert":
                done.failed.append((line, f"a document with this _id exists already: {_shown(document)}"))
                if self.writing.stop_on_error:
                    done.stopped = True
                    break
            elif identical(row.document, document):
                done.unchanged += 1
            else:
                done.replaced += 1
                puts.append(Put(document, row))
        return Decision(done, puts)

    def _ours(self, row: Row, document: Document) -> bool:
        after = self.writing.replayed_after
        return after is not None and row.rev > after and identical(row.document, document)


def _shown(document: Document) -> str:
    return repr(document["_id"])[:80]
