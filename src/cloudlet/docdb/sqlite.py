"""The document store on SQLite: one file per environment, one writing thread, reads at once on the event
loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import apsw

from cloudlet.docdb import sqlite_file
from cloudlet.docdb.base import (
    Change,
    CollectionInfo,
    Found,
    Operation,
    Read,
    Row,
    SchemaChange,
    Turn,
    find_collection,
)
from cloudlet.docdb.body import decode_body
from cloudlet.docdb.execute import select
from cloudlet.docdb.limits import DEFAULT_LIMITS, DocdbLimits, Overrun
from cloudlet.docdb.metrics import DocumentMetrics
from cloudlet.docdb.planner import Ids, Ranges, Scan, plan
from cloudlet.docdb.sqlite_file import engine_errors, statement
from cloudlet.docdb.sqlite_writer import SqliteWriter
from cloudlet.docdb.workerproto import make_job
from cloudlet.docdb.workers import WorkerPool
from cloudlet.model.errors import QueryTooCostly, ShuttingDown, StoreUnavailable

T = TypeVar("T")
R = TypeVar("R")

_PLANS_TRIED = 3


class SqliteStore:
    """A Store in one SQLite file, which is made if it does not exist.

    The constructor blocks for the time of opening (and of migrating an older file); it raises what
    ``sqlite_file.open_writer`` raises. Reads must come from one thread, the one the store was made for.
    """

    def __init__(
        self,
        path: Path,
        limits: DocdbLimits = DEFAULT_LIMITS,
        workers: WorkerPool | None = None,
        metrics: DocumentMetrics | None = None,
    ) -> None:
        self._path = path
        self._limits = limits
        self._workers = workers
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StoreUnavailable(f"the document directory cannot be made: {exc}") from exc
        self._writer = SqliteWriter(path, limits, metrics or DocumentMetrics())
        try:
            self._reader = sqlite_file.open_reader(path)
        except BaseException:
            self._writer.close()
            raise
        self._closed = False

    def catalog(self) -> Mapping[str, CollectionInfo]:
        return MappingProxyType(self._writer.catalog)

    async def define(self, change: SchemaChange) -> None:
        await self._writer.submit(change)

    async def commit(self, turn: Turn[T]) -> T:
        result: T = await self._writer.submit(turn)
        return result

    async def read(self, read: Read) -> Found:
        if not read.where.costly:
            try:
                found = self._read_here(read)
            except Overrun:
                if self._workers is None:
                    raise
            else:
                if found is not None:
                    return found
        self._check_open()
        if self._workers is None:
            raise QueryTooCostly("this query needs a worker process, and there is none")
        find_collection(self._writer.catalog, read.collection)
        return await self._workers.run(make_job(read, self._limits, path=str(self._path)))

    async def get_many(self, collection: str, ids: Sequence[bytes]) -> list[Row]:
        self._check_open()
        info = find_collection(self._writer.catalog, collection)
        return self._guarded(info, lambda: list(sqlite_file.by_ids(self._reader, info, ids)), len(ids) > 1)

    async def changes(self, after_seq: int, limit: int) -> list[Change]:
        self._check_open()
        with engine_errors():
            rows = self._reader.execute(statement("changes"), (after_seq, limit)).fetchall()
        return [_change(row) for row in rows]

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._reader.close()
        await asyncio.to_thread(self._writer.close)

    def _check_open(self) -> None:
        if self._closed:
            raise ShuttingDown("the document store is closed")

    def _read_here(self, read: Read) -> Found | None:
        """Answer on this thread, or None if the catalog kept changing under the plan. Raises Overrun."""
        self._check_open()
        for _ in range(_PLANS_TRIED):
            version = self._writer.version
            info = find_collection(self._writer.catalog, read.collection)
            chosen = plan(read.where.node, read.sort, info.indexes)
            found = self._run(info, chosen.source, read, chosen.ordered)
            # An index that met its first array meanwhile may have been read too narrowly.
            if self._writer.version == version:
                return found
        return None

    def _run(self, info: CollectionInfo, source: Ids | Ranges | Scan, read: Read, ordered: bool) -> Found:
        if isinstance(source, Scan) and self._surely_too_many(info, read):
            raise Overrun("a scan of a large collection")

        def work() -> Found:
            if read.counts_all:
                return Found(count=sqlite_file.count_all(self._reader, info))
            with closing(sqlite_file.candidates(self._reader, info, source)) as rows:
                return select(
                    rows, read, ordered, self._limits.examined_max(read.where.patterned), self._limits
                )

        return self._guarded(info, work, _statements(source) > 1)

    def _surely_too_many(self, info: CollectionInfo, read: Read) -> bool:
        """A scan that cannot stop early, of a collection far beyond the limit."""
        if read.counts_all:
            return self._newest_did(info) > self._limits.counted_inline_max
        if read.limit is not None and not read.sort:
            return False
        return self._newest_did(info) > 4 * self._limits.examined_inline_max

    def _newest_did(self, info: CollectionInfo) -> int:
        """About how many documents the collection has; known without counting."""
        text = statement("newest_document", info.number)
        return self._guarded(info, lambda: int(self._reader.execute(text).get), False)

    def _guarded(self, info: CollectionInfo, work: Callable[[], R], several: bool) -> R:
        """Run reading statements, in one snapshot if there are several."""
        try:
            if several:
                with sqlite_file.snapshot(self._reader):
                    return work()
            with engine_errors():
                return work()
        except Exception as exc:
            if isinstance(exc.__cause__, apsw.SQLError):
                # The collection's table may be gone before the catalog says so.
                find_collection({}, info.name)
            raise


def _statements(source: Ids | Ranges | Scan) -> int:
    if isinstance(source, Ids):
        return len(source.keys)
    return len(source.ranges) if isinstance(source, Ranges) else 1


def _change(row: tuple[Any, ...]) -> Change:
    seq, collection, rev, op, before, after, at_ms = row
    old = None if before is None else decode_body(before)
    new = None if after is None else decode_body(after)
    document_id = (new or old or {}).get("_id")
    return Change(seq, collection, document_id, rev, Operation(op), old, new, at_ms)
