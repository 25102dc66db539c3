"""One group of writes: a transaction with the environment's lock, in which turn follows turn in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from cloudlet.docdb.base import (
    Batch,
    CollectionInfo,
    Decision,
    Keys,
    Read,
    Row,
    Select,
    Turn,
    find_collection,
)
from cloudlet.docdb.batches import batch_steps, check_revision
from cloudlet.docdb.execute import select
from cloudlet.docdb.limits import DocdbLimits, Overrun
from cloudlet.docdb.planner import Ids, plan
from cloudlet.docdb.postgres.candidates import Table, answer
from cloudlet.docdb.postgres.catalog import Catalog
from cloudlet.docdb.postgres.faults import ENGINE_ERRORS
from cloudlet.docdb.postgres.flush import flush
from cloudlet.docdb.postgres.sql import Names, statement
from cloudlet.docdb.postgres.stage import Stage, Write, held, put, removal

T = TypeVar("T")

ASIDE_DOCUMENTS: Final = 100
"""Documents of one turn that are made ready in a thread, so that the event loop goes on."""
STAGED_BYTES_MAX: Final = 32 * 1024 * 1024
"""Staged bodies that are written before the group goes on."""
_SLICE_S: Final = 0.005
"""The event loop gets its turn after this time."""


@dataclass(slots=True)
class Work:
    """A turn or a batch on its way through a group, with what is found out about it."""

    work: Turn[Any] | Batch
    result: Any = None
    error: BaseException | None = None
    early: Decision[Any] | None = None
    """The decision of a turn that looks at nothing, taken before the lock."""
    info: CollectionInfo | None = None
    writes: list[Write] = field(default_factory=list)
    """Its writes, made ready for a collection with these indexes."""


class Group:
    """Runs on one connection, inside the transaction that somebody else began and ends.

    What an engine statement raises reaches the caller, who has to roll back; what a turn raises stays in its
    ``Work`` and undoes that turn alone.
    """

    def __init__(self, connection: Any, at: Names, catalog: Catalog, seq: int, limits: DocdbLimits) -> None:
        self._connection = connection
        self._at = at
        self._limits = limits
        self._stored = catalog
        self._logged = 0
        self._slice = time.perf_counter()
        self._bytes = 0
        self.stage = Stage(catalog, seq)

    async def run(self, works: Sequence[Work]) -> None:
        """Do all works in their order and write what they changed."""
        await self._look_ahead(works)
        for work in works:
            if work.error is None:
                await self._run(work)
            if time.perf_counter() - self._slice > _SLICE_S:
                await asyncio.sleep(0)
                self._slice = time.perf_counter()
        await self._flush()

    async def _run(self, work: Work) -> None:
        try:
            item = work.work
            work.result = await (self._turn(item, work) if isinstance(item, Turn) else self._batch(item))
        except ENGINE_ERRORS:
            raise
        except Exception as exc:
            work.error = exc

    async def _look_ahead(self, works: Sequence[Work]) -> None:
        """Look all ids up that are known to be needed, with one statement for each collection."""
        wanted: dict[str, list[bytes]] = {}
        for work in works:
            if work.error is not None:
                continue
            item = work.work
            if isinstance(item, Batch):
                for expected in item.expected:
                    wanted.setdefault(expected.collection, []).append(expected.id_key)
            elif item.collection in self._stored.collections:
                keys = self._keys(self._stored.collections[item.collection], item)
                keys = [*keys, *(write.key for write in work.writes if write.key)]
                wanted.setdefault(item.collection, []).extend(keys)
        for name, keys in wanted.items():
            info = self._stored.collections.get(name)
            if info is not None:
                await self._learn(info, keys)

    def _keys(self, info: CollectionInfo, turn: Turn[Any]) -> Sequence[bytes]:
        if isinstance(turn.target, Keys):
            return turn.target.ids
        if isinstance(turn.target, Select) and not (turn.target.where.costly or turn.target.where.order):
            source = plan(turn.target.where.node, (), info.indexes, unions=True).source
            if isinstance(source, Ids) and len(source.keys) <= self._limits.examined_inline_max:
                return source.keys
        return ()

    async def _turn(self, turn: Turn[T], work: Work) -> T:
        info = find_collection(self.stage.catalog.collections, turn.collection)
        decision: Decision[T] | None = work.early
        if decision is None:
            decision = turn.decide(await self._target(info, turn.target))
        writes = work.writes if _same(work.info, info) else await self._ready(info, decision)
        if writes:
            await self._check(info, writes)
            self.stage.apply(writes, turn.at_ms)
            await self._relieve(writes)
        return decision.result

    async def _ready(self, info: CollectionInfo, decision: Decision[Any]) -> list[Write]:
        """Encode documents and compute their keys; many of them in a thread."""
        if len(decision.puts) + len(decision.deletes) > ASIDE_DOCUMENTS:
            return await asyncio.to_thread(_writes, info, decision, self._limits)
        return _writes(info, decision, self._limits)

    async def _check(self, info: CollectionInfo, writes: Sequence[Write]) -> None:
        """Look up what decides whether the writes may be."""
        await self._learn(info, [write.key for write in writes if write.key])
        for index in info.indexes:
            if index.unique and (keys := self.stage.unknown_owners(index, writes)):
                text = statement("owners", self._at, x=index.number)
                found = [(bytes(k), did) for k, did in await self._connection.fetch(text, keys)]
                self.stage.learn_owners(index, keys, found)

    async def _target(self, info: CollectionInfo, target: Select | Keys | None) -> Sequence[Row]:
        if target is None:
            return ()
        if isinstance(target, Keys):
            await self._learn(info, target.ids)
            return self.stage.rows(info, target.ids)
        if target.where.costly:
            raise Overrun("the filter is too costly for the writer")
        chosen = plan(target.where.node, (), info.indexes, unions=True)
        read = Read(info.name, target.where, limit=target.limit)
        keys = chosen.source.keys if isinstance(chosen.source, Ids) else None
        if keys is None or len(keys) > self._limits.examined_inline_max:
            if self.stage.dirty:
                await self._flush()
            table = Table(self._at, info, self._stored.version)
            found = await answer(self._connection, table, chosen, read, self._limits)
            keys = tuple(row.id_key for row in found.rows)
            await self._learn(info, keys)
            return self.stage.rows(info, keys)
        await self._learn(info, keys)
        examined_max = self._limits.examined_max(target.where.patterned)
        return select(self.stage.rows(info, keys), read, True, examined_max, self._limits).rows

    async def _learn(self, info: CollectionInfo, keys: Sequence[bytes]) -> None:
        unknown = self.stage.unknown(info, keys)
        if unknown:
            text = statement("get_many", self._at, info.number)
            found = await self._connection.fetch(text, unknown)
            self.stage.learn(info, unknown, [held(stored) for stored in found])

    async def _batch(self, batch: Batch) -> int:
        writes: list[Write] = []
        for step in batch_steps(batch):
            info = find_collection(self.stage.catalog.collections, step.expected.collection)
            await self._learn(info, [step.expected.id_key])
            now = self.stage.held(info, step.expected.id_key)
            row = now.row if now is not None else None
            check_revision(step.expected, row.rev if row is not None else None)
            if step.document is not None:
                writes.append(put(info, step.document, row, self._limits.document_bytes_max))
            elif step.writes and row is not None:
                writes.append(removal(info, row))
        for info in {write.info.number: write.info for write in writes}.values():
            await self._check(info, [write for write in writes if write.info.number == info.number])
        self.stage.apply(writes, batch.at_ms)
        await self._relieve(writes)
        return self.stage.seq

    async def _relieve(self, writes: Sequence[Write]) -> None:
        """Keep what is staged within bounds."""
        self._bytes += sum(write.after.row.size for write in writes if write.after is not None)
        if self._bytes > STAGED_BYTES_MAX:
            await self._flush()

    async def _flush(self) -> None:
        self._stored = await flush(self._connection, self._at, self.stage, self._stored, self._logged)
        self._logged = len(self.stage.log)
        self._bytes = 0

    @property
    def catalog(self) -> Catalog:
        """The catalog as the transaction leaves it."""
        return self._stored


def _same(early: CollectionInfo | None, now: CollectionInfo) -> bool:
    """Whether what was made ready then is what would be made ready now."""
    if early is None or early.number != now.number:
        return False
    return [index.number for index in early.indexes] == [index.number for index in now.indexes]


def prepared(item: Turn[Any] | Batch, catalog: Catalog, limits: DocdbLimits) -> Work:
    """Work for a group. A turn that looks at nothing is decided, and its documents are made ready, before
    anybody waits for the lock.
    """
    work = Work(item)
    if not isinstance(item, Turn) or item.target is not None:
        return work
    try:
        work.early = item.decide(())
    except Exception as exc:
        work.error = exc
        return work
    info = catalog.collections.get(item.collection)
    if info is not None and len(work.early.puts) <= ASIDE_DOCUMENTS:
        work.info, work.writes = info, _writes(info, work.early, limits)
    return work


def _writes(info: CollectionInfo, decision: Decision[Any], limits: DocdbLimits) -> list[Write]:
    size = limits.document_bytes_max
    return [
        *(removal(info, row) for row in decision.deletes),
        *(put(info, item.document, item.before, size) for item in decision.puts),
    ]
