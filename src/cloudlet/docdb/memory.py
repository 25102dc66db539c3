"""The in-memory twin of the document store: the same planner, keys and decisions; nothing survives it."""

from __future__ import annotations

import sys
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from cloudlet.docdb.base import (
    Batch,
    Change,
    CollectionInfo,
    CollectionStats,
    CreateCollection,
    CreateIndex,
    DropCollection,
    DropIndex,
    Explained,
    Found,
    Keys,
    Listener,
    Operation,
    Put,
    Read,
    Row,
    SchemaChange,
    Select,
    SetPreset,
    SetRule,
    Turn,
    find_collection,
    id_key,
)
from cloudlet.docdb.batches import batch_steps, check_revision
from cloudlet.docdb.body import decode_body, encode_body
from cloudlet.docdb.catalog import (
    duplicate_key,
    flagged,
    new_index,
    owner_index,
    with_collection,
    with_index,
    without_index,
)
from cloudlet.docdb.execute import check_reaches, explained, index_name, select
from cloudlet.docdb.geo.nearest import Nearest
from cloudlet.docdb.geo.rings import Rings
from cloudlet.docdb.indexes.entries import NOTHING, entries_of
from cloudlet.docdb.limits import DEFAULT_LIMITS, DocdbLimits, Overrun
from cloudlet.docdb.listeners import announce
from cloudlet.docdb.pipeline.execute import Aggregated, Aggregation, run_here
from cloudlet.docdb.pipeline.jobs import answer_aggregated, make_pipeline_job
from cloudlet.docdb.pipeline.reader import Examined, PlannedReader
from cloudlet.docdb.planner import Ids, IndexInfo, Plan, Probe, Ranges, Scan, Source, Union, plan
from cloudlet.docdb.values import Document
from cloudlet.docdb.workerproto import make_job, stored_row
from cloudlet.docdb.workers import WorkerPool
from cloudlet.model.errors import (
    InvalidDocument,
    QueryTooCostly,
    RevisionConflict,
    ShuttingDown,
    StoreUnavailable,
)

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
        self._listeners: list[Listener] = []
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
            case SetRule(name, rule):
                catalog[name] = replace(find_collection(catalog, name), rule=rule)
            case CreateIndex():
                self._create_index(catalog, change)
            case DropIndex(name, index_name):
                info = find_collection(catalog, name)
                catalog[name], dropped = without_index(info, index_name)
                del self._collections[info.number].entries[dropped.number]
        self._catalog = catalog

    async def read(self, read: Read) -> Found:
        return (await self._read(read))[0]

    async def _read(self, read: Read) -> tuple[Found, bool]:
        """The answer, and whether a worker gave it."""
        self._check_open()
        info = find_collection(self._catalog, read.collection)
        if read.counts_all:
            return Found(count=len(self._collections[info.number].rows)), False
        if not read.where.costly:
            chosen = self._plan(info, read)
            counted = read.counted(chosen)
            if counted is not None:
                count = self._entries(info, counted, sys.maxsize)
                return Found(count=count, index=index_name(counted)), False
            examined_max = self._limits.examined_max(read.where.patterned)
            try:
                candidates = self._candidates(info, chosen.source)
                found = select(candidates, read, chosen.ordered, examined_max, self._limits, chosen.source)
                return replace(found, rows=[_copied(row) for row in found.rows]), False
            except Overrun:
                if self._workers is None:
                    raise
        if self._workers is None:
            raise QueryTooCostly("this query needs a worker process, and there is none")
        rows = [stored_row(row) for row in self._collections[info.number].by_did.values()]
        return await self._workers.run(make_job(read, self._limits, rows=rows)), True

    async def aggregate(self, work: Aggregation) -> Aggregated:
        self._check_open()
        find_collection(self._catalog, work.collection)
        if not work.pipeline.costly:
            examined = Examined(self._limits.examined_inline_max)
            reader = PlannedReader(
                self._catalog,
                self._plan,
                self._candidates,
                lambda info: len(self._collections[info.number].rows),
                examined,
            )
            try:
                return Aggregated(deepcopy(run_here(work, reader, self._limits)), examined.count)
            except Overrun:
                if self._workers is None:
                    raise
        if self._workers is None:
            raise QueryTooCostly("this pipeline needs a worker process, and there is none")
        rows = {
            name: [stored_row(row) for row in self._collections[self._catalog[name].number].by_did.values()]
            for name in work.collections
            if name in self._catalog
        }
        answer = await self._workers.answer(make_pipeline_job(work, self._limits, rows=rows))
        return answer_aggregated(answer)

    async def get_many(self, collection: str, ids: Sequence[bytes]) -> list[Row]:
        self._check_open()
        return [_copied(row) for row in self._by_ids(find_collection(self._catalog, collection), ids)]

    async def commit(self, turn: Turn[T]) -> T:
        self._check_open()
        info = find_collection(self._catalog, turn.collection)
        decision = turn.decide(self._target(info, turn.target))
        staged = _Staged(self)
        for row in decision.deletes:
            staged.delete(info.name, row)
        for put in decision.puts:
            staged.put(info.name, put)
        self._apply(staged, turn.at_ms)
        return decision.result

    async def commit_batch(self, batch: Batch) -> int:
        self._check_open()
        steps = batch_steps(batch)
        staged = _Staged(self)
        rows = []
        for step in steps:
            expected = step.expected
            info = find_collection(self._catalog, expected.collection)
            row = self._collections[info.number].rows.get(expected.id_key)
            check_revision(expected, None if row is None else row.rev)
            rows.append(row)
        for step, row in zip(steps, rows, strict=True):
            if step.document is not None:
                staged.put(step.expected.collection, Put(step.document, row))
            elif step.writes and row is not None:
                staged.delete(step.expected.collection, row)
        self._apply(staged, batch.at_ms)
        return self._seq

    async def last_seq(self) -> int:
        self._check_open()
        return self._seq

    async def changes(self, after_seq: int, limit: int, collection: str | None = None) -> list[Change]:
        self._check_open()
        check_reaches(after_seq, self._changes[0].seq if self._changes else 0)
        start = bisect_left(self._changes, after_seq + 1, key=lambda change: change.seq)
        found = (
            change
            for change in self._changes[start:]
            if collection is None or change.collection == collection
        )
        return [_copied_change(change) for change in islice(found, limit)]

    def listen(self, listener: Listener) -> Callable[[], None]:
        own: Listener = lambda changes: listener(changes)  # noqa: E731 - one listener may listen twice
        self._listeners.append(own)

        def end() -> None:
            if own in self._listeners:
                self._listeners.remove(own)

        return end

    async def scan(self, collection: str, after_did: int, limit: int) -> list[Row]:
        self._check_open()
        stored = self._collections[find_collection(self._catalog, collection).number]
        return [_copied(row) for row in islice((r for d, r in stored.by_did.items() if d > after_did), limit)]

    async def explain(self, read: Read) -> Explained:
        began = time.perf_counter()
        info = find_collection(self._catalog, read.collection)
        found, worker = await self._read(read)
        ms = (time.perf_counter() - began) * 1000
        return explained(self._plan(info, read), found, worker, ms)

    async def stats(self, collection: str) -> CollectionStats:
        self._check_open()
        info = find_collection(self._catalog, collection)
        stored = self._collections[info.number]
        entries = {index.name: len(stored.entries[index.number]) for index in info.indexes}
        documents = len(stored.rows)
        size = sum(row.size for row in stored.rows.values())
        return CollectionStats(documents, size, {"_id_": documents, **entries})

    async def backup(self, target: Path) -> int:
        """There is no file to copy: raises StoreUnavailable."""
        raise StoreUnavailable("a store in memory cannot be backed up")

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
        chosen = plan(target.where.node, (), info.indexes, unions=True)
        read = Read(info.name, target.where, limit=target.limit)
        examined_max = self._limits.examined_max(target.where.patterned)
        return select(self._candidates(info, chosen.source), read, True, examined_max, self._limits).rows

    def _plan(self, info: CollectionInfo, read: Read) -> Plan:
        probe: Probe = lambda source, most: self._entries(info, source, most)  # noqa: E731
        return plan(read.where.node, read.sort, info.indexes, read.wanted, probe, unions=True)

    def _by_ids(self, info: CollectionInfo, ids: Sequence[bytes]) -> list[Row]:
        rows = self._collections[info.number].rows
        return [rows[key] for key in ids if key in rows]

    def _candidates(self, info: CollectionInfo, source: Source) -> Iterator[Row]:
        if isinstance(source, Rings):
            stored = self._collections[info.number]
            return Nearest(source, lambda ranges: _in_ranges(stored, Ranges(source.index, ranges)))
        return self._unordered(info, source)

    def _unordered(self, info: CollectionInfo, source: Ids | Ranges | Union | Scan) -> Iterator[Row]:
        stored = self._collections[info.number]
        if isinstance(source, Ids):
            yield from self._by_ids(info, source.keys)
        elif isinstance(source, Ranges):
            yield from _in_ranges(stored, source)
        elif isinstance(source, Union):
            rows = chain.from_iterable(self._candidates(info, part) for part in source.sources)
            yield from {row.did: row for row in rows}.values()
        else:
            yield from list(stored.by_did.values())

    def _entries(self, info: CollectionInfo, source: Ids | Ranges, most: int) -> int:
        if isinstance(source, Ids):
            return len(self._by_ids(info, source.keys))
        stored = self._collections[info.number]
        entries = stored.entries[source.index.number] if source.index.number else stored.ids
        count = sum(
            bisect_left(entries, (high, 0)) - bisect_left(entries, (low, 0)) for low, high in source.ranges
        )
        return min(count, most)

    def _apply(self, staged: _Staged, at_ms: int) -> None:
        """Everything was checked on a copy of the touched rows; now it happens."""
        self._did = staged.did
        staged.apply()
        changes = [_change(name, before, after, seq, at_ms) for name, before, after, seq in staged.log]
        self._seq += len(changes)
        self._changes += changes
        del self._changes[: -max(1, self._limits.changes_kept_max)]
        if changes and self._listeners:
            announce(list(self._listeners), [_copied_change(change) for change in changes])

    def _create_index(self, catalog: dict[str, CollectionInfo], change: CreateIndex) -> None:
        info = find_collection(catalog, change.collection)
        index = new_index(change, self._next_number())
        with_index(info, index, self._limits)
        entries: list[tuple[bytes, int]] = []
        owners: dict[bytes, int] = {}
        for row in self._collections[info.number].by_did.values():
            made = entries_of(row.document, index)
            for key in made.keys:
                if index.unique and key in owners:
                    raise duplicate_key(info.name, index.name)
                owners[key] = row.did
                entries.append((key, row.did))
            index = flagged(index, made)
        catalog[info.name] = with_index(info, index, self._limits)
        self._collections[info.number].entries[index.number] = sorted(entries)


class _Staged:
    """The changes of one turn or batch: collected and checked, then applied at once."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._parts: dict[str, _Part] = {}
        self.did = store._did
        self.log: list[tuple[str, Row | None, Row | None, int]] = []
        """Collection, before, after, sequence number."""

    def delete(self, name: str, row: Row) -> None:
        part = self._part(name)
        part.check_current(row)
        part.rows[row.id_key] = None
        part.move(row.did, row.document, None)
        self.log.append((name, row, None, self._next_seq()))

    def put(self, name: str, put: Put) -> None:
        part = self._part(name)
        body = encode_body(put.document, self._store._limits.document_bytes_max)
        key = id_key(put.document["_id"])
        before = put.before
        if before is None:
            if part.current(key) is not None:
                raise duplicate_key(name, "_id_", put.document["_id"])
            self.did += 1
            did = self.did
        else:
            part.check_current(before)
            did = before.did
        row = Row(did, key, self._next_seq(), len(body.encode()), decode_body(body))
        part.move(did, before.document if before else None, row.document)
        part.rows[key] = row
        self.log.append((name, before, row, row.rev))

    def apply(self) -> None:
        """Make it so; nothing can fail any more."""
        catalog = dict(self._store._catalog)
        for name, part in self._parts.items():
            part.apply()
            catalog[name] = replace(catalog[name], indexes=part.indexes)
        if self._parts:
            self._store._catalog = catalog

    def _part(self, name: str) -> _Part:
        part = self._parts.get(name)
        if part is None:
            info = find_collection(self._store._catalog, name)
            part = self._parts[name] = _Part(self._store._collections[info.number], info)
        return part

    def _next_seq(self) -> int:
        return self._store._seq + len(self.log) + 1


class _Part:
    """The part of staged changes that concerns one collection."""

    def __init__(self, stored: _Collection, info: CollectionInfo) -> None:
        self._stored = stored
        self._name = info.name
        self.indexes = info.indexes
        self.rows: dict[bytes, Row | None] = {}
        self._added: dict[int, set[tuple[bytes, int]]] = {index.number: set() for index in info.indexes}
        self._removed: dict[int, set[tuple[bytes, int]]] = {index.number: set() for index in info.indexes}

    def current(self, key: bytes) -> Row | None:
        return self.rows.get(key, self._stored.rows.get(key))

    def check_current(self, row: Row) -> None:
        known = self.current(row.id_key)
        if known is None or known.rev != row.rev:
            raise RevisionConflict(f"document {row.document['_id']!r} was changed in the meantime")

    def move(self, did: int, before: Document | None, after: Document | None) -> None:
        kept = []
        for index in self.indexes:
            try:
                old = NOTHING if before is None else entries_of(before, index)
                new = NOTHING if after is None else entries_of(after, index)
            except InvalidDocument:
                if not index.automatic:
                    raise
                kept.append(replace(index, ready=False))
                continue
            added, removed = self._added[index.number], self._removed[index.number]
            for key in old.keys - new.keys:
                added.discard((key, did))
                removed.add((key, did))
            for key in new.keys - old.keys:
                if index.unique:
                    self._check_unique(index, key, did)
                removed.discard((key, did))
                added.add((key, did))
            kept.append(flagged(index, new))
        self.indexes = tuple(kept)

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
        for key, row in self.rows.items():
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


def _change(collection: str, before: Row | None, after: Row | None, seq: int, at_ms: int) -> Change:
    operation = Operation.INSERT if before is None else Operation.UPDATE if after else Operation.DELETE
    last = after or before
    document_id = None if last is None else last.document["_id"]
    documents = (before.document if before else None, after.document if after else None)
    return Change(seq, collection, document_id, seq, operation, *documents, at_ms)


def _copied_change(change: Change) -> Change:
    return replace(change, before=deepcopy(change.before), after=deepcopy(change.after))


def _copied(row: Row) -> Row:
    """What a caller may change without changing the store."""
    return Row(row.did, row.id_key, row.rev, row.size, deepcopy(row.document))


def _in_ranges(stored: _Collection, source: Ranges) -> Generator[Row, None, None]:
    entries = stored.entries[source.index.number] if source.index.number else stored.ids
    seen: set[int] = set()
    for low, high in reversed(source.ranges) if source.reverse else source.ranges:
        found = entries[bisect_left(entries, (low, 0)) : bisect_left(entries, (high, 0))]
        for _, did in reversed(found) if source.reverse else found:
            if did not in seen:
                seen.add(did)
                yield stored.by_did[did]
