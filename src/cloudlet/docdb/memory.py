"""The in-memory twin of the document store: the same planner, keys and decisions; nothing survives it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from cloudlet.docdb.base import (
    Change,
    CollectionInfo,
    CreateCollection,
    CreateIndex,
    Decision,
    DropCollection,
    DropIndex,
    Found,
    Keys,
    Operation,
    Put,
    Read,
    Row,
    SchemaChange,
    Select,
    SetPreset,
    Turn,
    find_collection,
    id_key,
)
from cloudlet.docdb.body import decode_body, encode_body
from cloudlet.docdb.bytekeys import Entries, index_entries
from cloudlet.docdb.catalog import duplicate_key, owner_index, with_collection, with_index, without_index
from cloudlet.docdb.execute import select
from cloudlet.docdb.limits import DEFAULT_LIMITS, DocdbLimits, Overrun
from cloudlet.docdb.planner import Ids, IndexInfo, Plan, Ranges, plan
from cloudlet.docdb.values import Document
from cloudlet.docdb.workerproto import make_job, stored_row
from cloudlet.docdb.workers import WorkerPool
from cloudlet.model.errors import QueryTooCostly, RevisionConflict, ShuttingDown

T = TypeVar("T")


@dataclass(slots=True)
class _Collection:
    """Rows by id and the sorted entries of each index, by the index's number."""

    rows: dict[bytes, Row] = field(default_factory=dict)
    by_did: dict[int, Row] = field(default_factory=dict)
    ids: list[tuple[bytes, int]] = field(default_factory=list)
    entries: dict[int, list[tuple[bytes, int]]] = field(default_factory=dict)


class MemoryStore:
    """A Store without a file. Costly reads go to the worker pool, as with every engine."""

    def __init__(self, limits: DocdbLimits = DEFAULT_LIMITS, workers: WorkerPool | None = None) -> None:
        self._limits = limits
        self._workers = workers
        self._catalog: dict[str, CollectionInfo] = {}
        self._collections: dict[int, _Collection] = {}
        self._changes: list[Change] = []
        self._number = 0
        self._did = 0
        self._seq = 0
        self._closed = False

    def catalog(self) -> Mapping[str, CollectionInfo]:
        return MappingProxyType(self._catalog)

    async def define(self, change: SchemaChange) -> None:
        self._check_open()
        catalog = dict(self._catalog)
        match change:
            case CreateCollection(name, preset):
                number = self._next_number()
                index = owner_index(self._next_number())
                info = CollectionInfo(number, name, preset, (index,))
                with_collection(catalog, info, self._limits)
                self._collections[number] = _Collection(entries={index.number: []})
            case DropCollection(name):
                del self._collections[find_collection(catalog, name).number]
                del catalog[name]
            case SetPreset(name, preset):
                catalog[name] = replace(find_collection(catalog, name), preset=preset)
            case CreateIndex():
                self._create_index(catalog, change)
            case DropIndex(name, index_name):
                info = find_collection(catalog, name)
                catalog[name], dropped = without_index(info, index_name)
                del self._collections[info.number].entries[dropped.number]
        self._catalog = catalog

    async def read(self, read: Read) -> Found:
        self._check_open()
        info = find_collection(self._catalog, read.collection)
        if read.counts_all:
            return Found(count=len(self._collections[info.number].rows))
        if not read.where.costly:
            chosen = plan(read.where.node, read.sort, info.indexes)
            examined_max = self._limits.examined_max(read.where.patterned)
            try:
                candidates = self._candidates(info, chosen)
                found = select(candidates, read, chosen.ordered, examined_max, self._limits)
                return replace(found, rows=[_copied(row) for row in found.rows])
            except Overrun:
                if self._workers is None:
                    raise
        if self._workers is None:
            raise QueryTooCostly("this query needs a worker process, and there is none")
        rows = [stored_row(row) for row in self._collections[info.number].by_did.values()]
        return await self._workers.run(make_job(read, self._limits, rows=rows))

    async def get_many(self, collection: str, ids: Sequence[bytes]) -> list[Row]:
        self._check_open()
        return [_copied(row) for row in self._by_ids(find_collection(self._catalog, collection), ids)]

    async def commit(self, turn: Turn[T]) -> T:
        self._check_open()
        info = find_collection(self._catalog, turn.collection)
        decision = turn.decide(self._target(info, turn.target))
        self._apply(info, decision, turn.at_ms)
        return decision.result

    async def changes(self, after_seq: int, limit: int) -> list[Change]:
        self._check_open()
        start = bisect_left(self._changes, after_seq + 1, key=lambda change: change.seq)
        return self._changes[start : start + limit]

    async def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ShuttingDown("the document store is closed")

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _target(self, info: CollectionInfo, target: Select | Keys | None) -> Sequence[Row]:
        if target is None:
            return ()
        if isinstance(target, Keys):
            return self._by_ids(info, target.ids)
        if target.where.costly:
            raise Overrun("the filter is too costly for the writer")
        chosen = plan(target.where.node, (), info.indexes)
        read = Read(info.name, target.where, limit=target.limit)
        examined_max = self._limits.examined_max(target.where.patterned)
        return select(self._candidates(info, chosen), read, True, examined_max, self._limits).rows

    def _by_ids(self, info: CollectionInfo, ids: Sequence[bytes]) -> list[Row]:
        rows = self._collections[info.number].rows
        return [rows[key] for key in ids if key in rows]

    def _candidates(self, info: CollectionInfo, chosen: Plan) -> Iterator[Row]:
        stored = self._collections[info.number]
        source = chosen.source
        if isinstance(source, Ids):
            yield from self._by_ids(info, source.keys)
        elif isinstance(source, Ranges):
            entries = stored.entries[source.index.number] if source.index.number else stored.ids
            yield from _in_ranges(stored, entries, source)
        else:
            yield from list(stored.by_did.values())

    def _apply(self, info: CollectionInfo, decision: Decision[T], at_ms: int) -> None:
        """Everything is checked on a copy of the touched rows before anything is changed."""
        staged = _Staged(self._collections[info.number], info)
        for row in decision.deletes:
            staged.delete(row)
        did = self._did
        for put in decision.puts:
            did += put.before is None
            staged.put(put, did, self._limits.document_bytes_max)
        self._did = did
        staged.apply()
        if staged.indexes != info.indexes:
            self._catalog = {**self._catalog, info.name: replace(info, indexes=staged.indexes)}
        for before, after in staged.log:
            self._log(info.name, before, after, at_ms)

    def _log(self, collection: str, before: Row | None, after: Row | None, at_ms: int) -> None:
        self._seq += 1
        last = after or before
        if last is None:
            return
        operation = Operation.INSERT if before is None else Operation.UPDATE if after else Operation.DELETE
        rev = last.rev if after else last.rev + 1
        documents = (before.document if before else None, after.document if after else None)
        change = Change(self._seq, collection, last.document["_id"], rev, operation, *documents, at_ms)
        self._changes.append(change)
        del self._changes[: -self._limits.changes_kept_max]

    def _create_index(self, catalog: dict[str, CollectionInfo], change: CreateIndex) -> None:
        info = find_collection(catalog, change.collection)
        index = IndexInfo(self._next_number(), change.name, change.parts, change.unique)
        catalog[info.name] = with_index(info, index, self._limits)
        entries: list[tuple[bytes, int]] = []
        owners: dict[bytes, int] = {}
        for row in self._collections[info.number].by_did.values():
            made = index_entries(row.document, index.parts, index.unique)
            for key in made.keys:
                if index.unique and key in owners:
                    raise duplicate_key(info.name, index.name)
                owners[key] = row.did
                entries.append((key, row.did))
            index = _flagged(index, made)
        catalog[info.name] = with_index(info, index, self._limits)
        self._collections[info.number].entries[index.number] = sorted(entries)


class _Staged:
    """The changes of one turn: collected and checked, then applied at once."""

    def __init__(self, stored: _Collection, info: CollectionInfo) -> None:
        self._stored = stored
        self._name = info.name
        self.indexes = info.indexes
        self.log: list[tuple[Row | None, Row | None]] = []
        self._rows: dict[bytes, Row | None] = {}
        self._added: dict[int, set[tuple[bytes, int]]] = {index.number: set() for index in info.indexes}
        self._removed: dict[int, set[tuple[bytes, int]]] = {index.number: set() for index in info.indexes}

    def _check_current(self, row: Row) -> None:
        known = self._rows.get(row.id_key, self._stored.rows.get(row.id_key))
        if known is None or known.rev != row.rev:
            raise RevisionConflict(f"document {row.document['_id']!r} was changed in the meantime")

    def delete(self, row: Row) -> None:
        self._check_current(row)
        self._rows[row.id_key] = None
        self._move(row.did, row.document, None)
        self.log.append((row, None))

    def put(self, put: Put, did: int, bytes_max: int) -> None:
        body = encode_body(put.document, bytes_max)
        key = id_key(put.document["_id"])
        before = put.before
        if before is None and self._rows.get(key, self._stored.rows.get(key)) is not None:
            raise duplicate_key(self._name, "_id_", put.document["_id"])
        if before is not None:
            self._check_current(before)
        row = Row(
            before.did if before else did, key, before.rev + 1 if before else 1, len(body), decode_body(body)
        )
        self._move(row.did, before.document if before else None, row.document)
        self._rows[key] = row
        self.log.append((before, row))

    def _move(self, did: int, before: Document | None, after: Document | None) -> None:
        flagged = []
        for index in self.indexes:
            old = index_entries(before, index.parts, index.unique).keys if before else frozenset()
            made = index_entries(after, index.parts, index.unique) if after else None
            new = made.keys if made else frozenset()
            added, removed = self._added[index.number], self._removed[index.number]
            for key in old - new:
                added.discard((key, did))
                removed.add((key, did))
            for key in new - old:
                if index.unique:
                    self._check_unique(index, key, did)
                removed.discard((key, did))
                added.add((key, did))
            flagged.append(_flagged(index, made) if made else index)
        self.indexes = tuple(flagged)

    def _check_unique(self, index: IndexInfo, key: bytes, did: int) -> None:
        entries, removed = self._stored.entries[index.number], self._removed[index.number]
        at = bisect_left(entries, (key, 0))
        taken = at < len(entries) and entries[at][0] == key and entries[at] not in removed
        if taken or any(other == key and owner != did for other, owner in self._added[index.number]):
            raise duplicate_key(self._name, index.name)

    def apply(self) -> None:
        for number, removed in self._removed.items():
            entries = self._stored.entries[number]
            for entry in removed:
                at = bisect_left(entries, entry)
                if at < len(entries) and entries[at] == entry:
                    del entries[at]
        for number, added in self._added.items():
            for entry in added:
                insort(self._stored.entries[number], entry)
        for key, row in self._rows.items():
            self._replace(key, row)

    def _replace(self, key: bytes, row: Row | None) -> None:
        stored = self._stored
        old = stored.rows.pop(key, None)
        if old is not None and (row is None or row.did != old.did):
            del stored.by_did[old.did]
            del stored.ids[bisect_left(stored.ids, (key, old.did))]
        if row is not None:
            if old is None or old.did != row.did:
                insort(stored.ids, (key, row.did))
            stored.rows[key] = row
            stored.by_did[row.did] = row


def _copied(row: Row) -> Row:
    """What a caller may change without changing the store."""
    return replace(row, document=deepcopy(row.document))


def _flagged(index: IndexInfo, made: Entries) -> IndexInfo:
    if (made.multikey and not index.multikey) or (made.lossy and not index.lossy):
        return replace(index, multikey=index.multikey or made.multikey, lossy=index.lossy or made.lossy)
    return index


def _in_ranges(stored: _Collection, entries: list[tuple[bytes, int]], source: Ranges) -> Iterator[Row]:
    seen: set[int] = set()
    for low, high in reversed(source.ranges) if source.reverse else source.ranges:
        found = entries[bisect_left(entries, (low, 0)) : bisect_left(entries, (high, 0))]
        for _, did in reversed(found) if source.reverse else found:
            if did not in seen:
                seen.add(did)
                yield stored.by_did[did]
