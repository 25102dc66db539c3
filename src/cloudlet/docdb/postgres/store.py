"""The document store on PostgreSQL: one schema per environment of one database."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import asyncpg

from cloudlet.docdb.base import (
    Batch,
    Change,
    CollectionInfo,
    CollectionStats,
    Explained,
    Found,
    Listener,
    Operation,
    Read,
    Row,
    SchemaChange,
    Turn,
    find_collection,
)
from cloudlet.docdb.body import decode_body
from cloudlet.docdb.execute import check_reaches, explained
from cloudlet.docdb.geo.rings import Rings
from cloudlet.docdb.limits import DEFAULT_LIMITS, DocdbLimits, Overrun
from cloudlet.docdb.metrics import DocumentMetrics
from cloudlet.docdb.pipeline.execute import Aggregated, Aggregation, finish_here, head_read
from cloudlet.docdb.pipeline.jobs import answer_aggregated, make_pipeline_job
from cloudlet.docdb.planner import Plan, Scan
from cloudlet.docdb.postgres.backup import back_up
from cloudlet.docdb.postgres.candidates import Table, answer, choose, make_row, parts
from cloudlet.docdb.postgres.catalog import load_catalog
from cloudlet.docdb.postgres.database import Database
from cloudlet.docdb.postgres.faults import ENGINE_ERRORS, CatalogChanged, translated
from cloudlet.docdb.postgres.feed import Feed
from cloudlet.docdb.postgres.schema import check_schema, drop_unfinished_indexes, has_schema, make_schema
from cloudlet.docdb.postgres.sql import names, statement
from cloudlet.docdb.postgres.stage import Logged
from cloudlet.docdb.postgres.writer import PostgresWriter
from cloudlet.docdb.workerproto import make_job
from cloudlet.docdb.workers import WorkerPool
from cloudlet.model.errors import Internal, QueryTooCostly, ResultTooLarge, ShuttingDown

T = TypeVar("T")
R = TypeVar("R")

_PLANS_TRIED = 5


class PostgresStore:
    """A Store in one schema of a database, which is made if it does not exist.

    The first call connects (``start`` does so at once); until then the catalog is empty. Several processes
    may have the same environment open: each write sees what the others committed, reads never trust an
    index that changed meanwhile, and listeners hear of other processes' commits within a moment. A preset
    or rule changed by another process holds here once this process has noticed, at the latest with its next
    write or notification.
    """

    def __init__(
        self,
        database: Database,
        environment: str,
        limits: DocdbLimits = DEFAULT_LIMITS,
        workers: WorkerPool | None = None,
        metrics: DocumentMetrics | None = None,
    ) -> None:
        self._database = database
        self._environment = environment
        self._at = names(environment)
        self._limits = limits
        self._workers = workers
        self._feed = Feed(self.changes, self._first_seq)
        self._writer = PostgresWriter(
            database.pool, self._at, limits, metrics or DocumentMetrics(), self._committed
        )
        self._large: set[int] = set()
        """Numbers of collections that were too large to scan here."""
        self._starting = asyncio.Lock()
        self._started = False
        self._closed = False

    async def start(self) -> None:
        """Make what is missing and read the catalog. Raises StoreUnavailable, Conflict."""
        async with self._starting:
            if self._started:
                return
            self._check_open()
            await self._guarded(self._prepare)
            self._database.attach(self._at.schema, self._noticed)
            self._started = True

    def catalog(self) -> Mapping[str, CollectionInfo]:
        return MappingProxyType(self._writer.catalog.collections)

    async def define(self, change: SchemaChange) -> None:
        await self._ready()
        await self._writer.submit(change)

    async def commit(self, turn: Turn[T]) -> T:
        await self._ready()
        result: T = await self._writer.submit(turn)
        return result

    async def commit_batch(self, batch: Batch) -> int:
        await self._ready()
        seq: int = await self._writer.submit(batch)
        return seq

    async def read(self, read: Read) -> Found:
        return (await self._read(read))[0]

    async def aggregate(self, work: Aggregation) -> Aggregated:
        await self._ready()
        find_collection(self._writer.catalog.collections, work.collection)
        head = None if work.pipeline.costly else head_read(work)
        if head is not None and not head.where.costly:
            try:
                found = await self._current(lambda connection: self._read_here(connection, head))
                documents = [row.document for row in found.rows]
                return Aggregated(finish_here(work, documents, self._limits), found.examined)
            except (Overrun, ResultTooLarge):
                # What is read first need not be what is returned: that is for the worker to find out.
                if self._workers is None:
                    raise
        if self._workers is None:
            raise QueryTooCostly("this pipeline needs a worker process, and there is none")
        job = make_pipeline_job(work, self._limits, postgres=self._place)
        return answer_aggregated(await self._workers.answer(job))

    async def get_many(self, collection: str, ids: Sequence[bytes]) -> list[Row]:
        await self._ready()

        async def work(connection: Any) -> list[Row]:
            info = find_collection(self._writer.catalog.collections, collection)
            if len(ids) == 1:
                stored = await connection.fetch(statement("get", self._at, info.number), ids[0])
            else:
                stored = await connection.fetch(statement("get_many", self._at, info.number), list(ids))
            found = {row.id_key: row for row in map(make_row, stored)}
            return [found[key] for key in ids if key in found]

        return await self._current(work)

    async def last_seq(self) -> int:
        await self._ready()

        async def work(connection: Any) -> int:
            return int(await connection.fetchval(statement("position", self._at)))

        return await self._guarded(work)

    async def changes(self, after_seq: int, limit: int, collection: str | None = None) -> list[Change]:
        await self._ready()

        async def work(connection: Any) -> list[Change]:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                check_reaches(after_seq, await connection.fetchval(statement("first_seq", self._at)))
                if collection is None:
                    rows = await connection.fetch(statement("changes", self._at), after_seq, limit)
                else:
                    text = statement("changes_of", self._at)
                    rows = await connection.fetch(text, after_seq, limit, collection)
            return [_change(row) for row in rows]

        return await self._guarded(work)

    def listen(self, listener: Listener) -> Callable[[], None]:
        return self._feed.listen(listener)

    async def scan(self, collection: str, after_did: int, limit: int) -> list[Row]:
        await self._ready()

        async def work(connection: Any) -> list[Row]:
            info = find_collection(self._writer.catalog.collections, collection)
            text = statement("scan_after", self._at, info.number)
            return [make_row(stored) for stored in await connection.fetch(text, after_did, limit)]

        return await self._current(work)

    async def explain(self, read: Read) -> Explained:
        began = time.perf_counter()
        await self._ready()
        found, worker = await self._read(read)
        ms = (time.perf_counter() - began) * 1000
        return explained(
            await self._current(lambda connection: self._chosen(connection, read)), found, worker, ms
        )

    async def stats(self, collection: str) -> CollectionStats:
        await self._ready()

        async def work(connection: Any) -> CollectionStats:
            info = find_collection(self._writer.catalog.collections, collection)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                documents, size = await connection.fetchrow(
                    statement("document_sizes", self._at, info.number)
                )
                entries = {
                    index.name: await connection.fetchval(
                        statement("count_entries", self._at, x=index.number)
                    )
                    for index in info.indexes
                }
            return CollectionStats(documents, int(size), {"_id_": documents, **entries})

        return await self._current(work)

    async def backup(self, target: Path) -> int:
        self._check_open()
        stop = threading.Event()
        running = asyncio.ensure_future(
            asyncio.to_thread(back_up, self._database.address, self._environment, target, stop)
        )
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.gather(running, return_exceptions=True)
            raise

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._database.detach(self._at.schema, self._noticed)
        await self._writer.close()
        await self._feed.close()

    # Reading.

    @property
    def _place(self) -> tuple[str, str]:
        """Where a worker finds the documents."""
        return self._database.address.url, self._environment

    async def _read(self, read: Read) -> tuple[Found, bool]:
        """The answer, and whether a worker gave it."""
        await self._ready()
        if not read.where.costly:
            try:
                return await self._current(lambda connection: self._read_here(connection, read)), False
            except Overrun:
                if self._workers is None:
                    raise
        if self._workers is None:
            raise QueryTooCostly("this query needs a worker process, and there is none")
        info = find_collection(self._writer.catalog.collections, read.collection)
        found = await self._workers.run(make_job(read, self._limits, postgres=self._place))
        if found.examined <= self._limits.examined_inline_max:
            self._large.discard(info.number)
        return found, True

    async def _chosen(self, connection: Any, read: Read) -> Plan:
        catalog = self._writer.catalog
        info = find_collection(catalog.collections, read.collection)
        return await choose(connection, Table(self._at, info, catalog.version), read)

    async def _read_here(self, connection: Any, read: Read) -> Found:
        catalog = self._writer.catalog
        info = find_collection(catalog.collections, read.collection)
        if read.counts_all:
            return await self._count_all(connection, info)
        table = Table(self._at, info, catalog.version)
        chosen = await choose(connection, table, read)
        whole = isinstance(chosen.source, Scan) and (read.limit is None or bool(read.sort))
        if whole and info.number in self._large:
            raise Overrun("a scan of a large collection")
        try:
            if len(parts(chosen.source)) == 1 and not isinstance(chosen.source, Rings):
                return await answer(connection, table, chosen, read, self._limits)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await answer(connection, table, chosen, read, self._limits)
        except Overrun:
            if whole and len(self._large) < self._limits.collections_max:
                self._large.add(info.number)
            raise

    async def _count_all(self, connection: Any, info: CollectionInfo) -> Found:
        most = self._limits.counted_inline_max
        count = await connection.fetchval(statement("count_documents", self._at, info.number), most + 1)
        if count > most:
            raise Overrun("a count of a large collection")
        return Found(count=count)

    async def _current(self, work: Callable[[Any], Awaitable[R]]) -> R:
        """Run reading statements, again if they were made for an older catalog."""

        async def attempt(connection: Any) -> R:
            for _ in range(_PLANS_TRIED):
                try:
                    return await work(connection)
                except (CatalogChanged, asyncpg.UndefinedTableError):
                    self._writer.adopt(await load_catalog(connection, self._at))
            raise Internal("the catalog changed faster than a query could be planned")

        return await self._guarded(attempt)

    async def _guarded(self, work: Callable[[Any], Awaitable[R]]) -> R:
        """Run statements on a connection of the pool; the engine's errors become ours."""
        self._check_open()
        connection = await self._database.pool.take()
        try:
            return await work(connection)
        except ENGINE_ERRORS as exc:
            raise translated(exc) from exc
        finally:
            self._database.pool.give(connection)

    # Starting, and what other processes do.

    async def _ready(self) -> None:
        self._check_open()
        if not self._started:
            await self.start()

    def _check_open(self) -> None:
        if self._closed:
            raise ShuttingDown("the document store is closed")

    async def _prepare(self, connection: Any) -> None:
        await connection.execute(statement("begin", self._at))
        if not await has_schema(connection, self._at):
            await make_schema(connection, self._at)
        await check_schema(connection, self._at)
        self._writer.adopt(await drop_unfinished_indexes(connection, self._at))
        seq = await connection.fetchval(statement("position", self._at))
        await connection.execute("COMMIT")
        self._feed.begin(seq)

    async def _first_seq(self) -> int:
        async def work(connection: Any) -> int:
            return int(await connection.fetchval(statement("first_seq", self._at)))

        return await self._guarded(work)

    async def _noticed(self, seq: int) -> None:
        """Another process has committed, or may have."""
        if not self._closed and self._started:
            await self._guarded(self._look)
            self._feed.poke(seq)

    async def _look(self, connection: Any) -> None:
        version = await connection.fetchval(statement("version", self._at))
        if version != self._writer.catalog.version:
            self._writer.adopt(await load_catalog(connection, self._at))

    def _committed(self, logged: Sequence[Logged]) -> None:
        self._database.committed(self._at.schema, logged[-1].seq if logged else 0)
        self._feed.committed(logged)


def _change(row: Any) -> Change:
    seq, collection, op, rev, before, after, at_ms = row
    old = None if before is None else decode_body(before)
    new = None if after is None else decode_body(after)
    document_id = (new or old or {}).get("_id")
    return Change(seq, collection, document_id, rev, Operation(op), old, new, at_ms)
