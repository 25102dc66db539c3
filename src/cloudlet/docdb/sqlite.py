"""The document store on SQLite: one file per environment, one writing thread, reads at once on the event
loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import apsw

from cloudlet.docdb import sqlite_file
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
    Want,
    find_collection,
    missing_collection,
)
from cloudlet.docdb.body import decode_body
from cloudlet.docdb.bytekeys import lossless_key
from cloudlet.docdb.execute import check_reaches, explained, index_name, only, pieces, select, too_large
from cloudlet.docdb.indexes.plans import Plans
from cloudlet.docdb.limits import DEFAULT_LIMITS, DocdbLimits, Overrun
from cloudlet.docdb.metrics import DocumentMetrics
from cloudlet.docdb.pipeline.execute import Aggregated, Aggregation, run_here
from cloudlet.docdb.pipeline.jobs import answer_aggregated, make_pipeline_job
from cloudlet.docdb.pipeline.reader import Examined
from cloudlet.docdb.pipeline.sqlite_reader import SqliteReader
from cloudlet.docdb.planner import Ids, Plan, Ranges, Scan
from cloudlet.docdb.sqlite_backup import back_up
from cloudlet.docdb.sqlite_file import engine_errors, statement
from cloudlet.docdb.sqlite_writer import SqliteWriter
from cloudlet.docdb.workerproto import make_job
from cloudlet.docdb.workers import WorkerPool
from cloudlet.model.errors import PlatformError, QueryTooCostly, ShuttingDown, StoreUnavailable

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
        self._plans = Plans()
        self._closed = False

    def catalog(self) -> Mapping[str, CollectionInfo]:
        return MappingProxyType(self._writer.catalog)

    async def define(self, change: SchemaChange) -> None:
        await self._writer.submit(change)

    async def commit(self, turn: Turn[T]) -> T:
        result: T = await self._writer.submit(turn)
        return result

    async def read(self, read: Read) -> Found:
        found = self._read_here(read)
        return await self._read_aside(read) if found is None else found

    def _read_here(self, read: Read) -> Found | None:
        """Answer on this thread; None if a worker has to. Raises Overrun if there is none."""
        self._check_open()
        if read.where.costly:
            return None
        try:
            for _ in range(_PLANS_TRIED):
                version = self._writer.version
                found = self._run(find_collection(self._writer.catalog, read.collection), read)
                # An index that met its first array meanwhile may have been read too narrowly.
                if self._writer.version == version:
                    return found
        except Overrun:
            if self._workers is None:
                raise
        return None

    async def _read_aside(self, read: Read) -> Found:
        if self._workers is None:
            raise QueryTooCostly("this query needs a worker process, and there is none")
        find_collection(self._writer.catalog, read.collection)
        return await self._workers.run(make_job(read, self._limits, path=str(self._path)))

    async def aggregate(self, work: Aggregation) -> Aggregated:
        self._check_open()
        find_collection(self._writer.catalog, work.collection)
        if not work.pipeline.costly:
            try:
                for _ in range(_PLANS_TRIED):
                    version = self._writer.version
                    made = self._aggregate_here(work)
                    # An index that met its first array meanwhile may have been read too narrowly.
                    if self._writer.version == version:
                        return made
            except Overrun:
                if self._workers is None:
                    raise
        if self._workers is None:
            raise QueryTooCostly("this pipeline needs a worker process, and there is none")
        job = make_pipeline_job(work, self._limits, path=str(self._path))
        return answer_aggregated(await self._workers.answer(job))

    def _aggregate_here(self, work: Aggregation) -> Aggregated:
        """Run a pipeline on this thread. Raises Overrun."""
        catalog = self._writer.catalog
        info = find_collection(catalog, work.collection)
        examined = Examined(self._limits.examined_inline_max)
        with self._engine(info), sqlite_file.one_state(self._reader):
            reader = SqliteReader(self._reader, catalog, examined)
            try:
                documents = run_here(work, reader, self._limits)
            finally:
                reader.close()
        return Aggregated(documents, examined.count)

    async def get_many(self, collection: str, ids: Sequence[bytes]) -> list[Row]:
        self._check_open()
        info = find_collection(self._writer.catalog, collection)
        if len(ids) > 1:
            with self._engine(info), sqlite_file.one_state(self._reader):
                return list(sqlite_file.by_ids(self._reader, info, ids))
        try:
            rows = [sqlite_file.by_id(self._reader, info, key) for key in ids]
        except apsw.Error as exc:
            raise _failure(info, exc) from exc
        return [row for row in rows if row is not None]

    async def commit_batch(self, batch: Batch) -> int:
        seq: int = await self._writer.submit(batch)
        return seq

    async def last_seq(self) -> int:
        self._check_open()
        with engine_errors():
            return sqlite_file.last_seq(self._reader)

    async def changes(self, after_seq: int, limit: int, collection: str | None = None) -> list[Change]:
        self._check_open()
        with sqlite_file.snapshot(self._reader):
            check_reaches(after_seq, self._reader.execute(statement("first_seq")).get)
            if collection is None:
                rows = self._reader.execute(statement("changes"), (after_seq, limit)).fetchall()
            else:
                rows = self._reader.execute(
                    statement("changes_of"), (collection, after_seq, limit)
                ).fetchall()
        return [_change(row) for row in rows]

    def listen(self, listener: Listener) -> Callable[[], None]:
        return self._writer.listen(listener)

    async def scan(self, collection: str, after_did: int, limit: int) -> list[Row]:
        self._check_open()
        info = find_collection(self._writer.catalog, collection)
        with self._engine(info):
            return sqlite_file.scan(self._reader, info, after_did, limit)

    async def explain(self, read: Read) -> Explained:
        began = time.perf_counter()
        info = find_collection(self._writer.catalog, read.collection)
        here = self._read_here(read)
        found = await self._read_aside(read) if here is None else here
        ms = (time.perf_counter() - began) * 1000
        with self._engine(info):
            return explained(self._plan(info, read), found, here is None, ms)

    async def stats(self, collection: str) -> CollectionStats:
        self._check_open()
        info = find_collection(self._writer.catalog, collection)
        with self._engine(info):
            return await self._aside(lambda connection: _measured(connection, info))

    async def backup(self, target: Path) -> int:
        self._check_open()
        return await self._aside(lambda connection: back_up(self._path, target, connection))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._reader.close()
        await asyncio.to_thread(self._writer.close)

    async def _aside(self, work: Callable[[apsw.Connection], R]) -> R:
        """Run something long on its own connection and thread; it is interrupted if the caller goes."""
        with sqlite_file.engine_errors():
            connection = await asyncio.to_thread(sqlite_file.open_plain, self._path)
        running = asyncio.ensure_future(asyncio.to_thread(work, connection))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            connection.interrupt()
            await asyncio.gather(running, return_exceptions=True)
            raise
        finally:
            connection.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ShuttingDown("the document store is closed")

    def _plan(self, info: CollectionInfo, read: Read) -> Plan:
        return self._plans.plan(
            info.number,
            read.where.node,
            read.sort,
            info.indexes,
            read.wanted,
            lambda source, most: sqlite_file.entries(self._reader, info, source, most),
        )

    def _run(self, info: CollectionInfo, read: Read) -> Found:
        """One answer by the catalog of this moment. Raises Overrun."""
        try:
            if (text := read.where.only_id) is not None and read.want is Want.ROWS:
                return only(sqlite_file.by_id(self._reader, info, lossless_key(text)), read, self._limits)
            chosen = self._plan(info, read)
            if pieces(chosen.source) <= 1:
                return self._answer(info, chosen, read)
            with sqlite_file.one_state(self._reader):
                return self._answer(info, chosen, read)
        except apsw.Error as exc:
            raise _failure(info, exc) from exc

    def _answer(self, info: CollectionInfo, chosen: Plan, read: Read) -> Found:
        source = chosen.source
        if read.want is Want.COUNT:
            counted = self._count(info, chosen, read)
            if counted is not None:
                return counted
        examined_max = self._limits.examined_max(read.where.patterned)
        if isinstance(source, Ids) and len(source.keys) == 1:
            return only(sqlite_file.by_id(self._reader, info, source.keys[0]), read, self._limits)
        known = chosen.ordered and chosen.exact and read.want is Want.ROWS and read.limit is not None
        if known and type(source) is Ranges and len(source.ranges) == 1:
            return self._first(info, source, read, examined_max)
        if isinstance(source, Scan) and self._surely_too_many(info, read):
            raise Overrun("a scan of a large collection")
        rows = sqlite_file.candidates(self._reader, info, source)
        try:
            return select(rows, read, chosen.ordered, examined_max, self._limits, source)
        finally:
            rows.close()

    def _first(self, info: CollectionInfo, source: Ranges, read: Read, examined_max: int) -> Found:
        """The first documents of a range, all of which match: what ``select`` finds, without looking."""
        text, bytes_max = sqlite_file.range_statement(info, source), self._limits.result_bytes_max
        to_skip, limit = read.skip, read.limit
        rows: list[Row] = []
        if limit == 0:
            return Found()
        examined = size = 0
        cursor = self._reader.execute(text, source.ranges[0])
        try:
            for did, id_key, rev, body in cursor:
                if examined >= examined_max:
                    raise Overrun(f"the query would look at more than {examined_max} documents")
                examined += 1
                if examined <= to_skip:
                    continue
                rows.append(Row(did, id_key, rev, len(body), decode_body(body)))
                size += len(body)
                if size > bytes_max:
                    raise too_large(bytes_max)
                if len(rows) == limit:
                    break
        finally:
            cursor.close()
        return Found(rows, examined=examined, index=source.index.name)

    def _count(self, info: CollectionInfo, chosen: Plan, read: Read) -> Found | None:
        """The answer to a count if it can be given without a look at documents."""
        most = self._limits.counted_inline_max
        if read.counts_all:
            if self._newest_did(info) > most:
                raise Overrun("a count of a large collection")
            return Found(count=sqlite_file.count_all(self._reader, info))
        source = read.counted(chosen)
        if source is None:
            return None
        count = sqlite_file.entries(self._reader, info, source, most)
        if count >= most:
            raise Overrun(f"the query would count more than {most} index entries")
        return Found(count=count, index=index_name(source))

    def _surely_too_many(self, info: CollectionInfo, read: Read) -> bool:
        """A scan that cannot stop early, of a collection far beyond the limit."""
        if read.limit is not None and not read.sort:
            return False
        return self._newest_did(info) > 4 * self._limits.examined_inline_max

    def _newest_did(self, info: CollectionInfo) -> int:
        """About how many documents the collection has; known without counting."""
        return int(self._reader.execute(statement("newest_document", info.number)).get)

    @contextmanager
    def _engine(self, info: CollectionInfo) -> Iterator[None]:
        """Turns the engine's errors about a collection into ours."""
        try:
            yield
        except apsw.Error as exc:
            raise _failure(info, exc) from exc


def _failure(info: CollectionInfo, error: apsw.Error) -> PlatformError:
    if isinstance(error, apsw.SQLError):
        # The collection's table may be gone before the catalog says so.
        return missing_collection(info.name)
    return sqlite_file.translated(error)


def _measured(connection: apsw.Connection, info: CollectionInfo) -> CollectionStats:
    with sqlite_file.one_state(connection):
        ((documents, size),) = connection.execute(statement("measure_documents", info.number))
        entries = {
            index.name: int(connection.execute(statement("count_entries", x=index.number)).get)
            for index in info.indexes
        }
    return CollectionStats(documents, size, {"_id_": documents, **entries})


def _change(row: tuple[Any, ...]) -> Change:
    seq, collection, op, before, after, at_ms = row
    old = None if before is None else decode_body(before)
    new = None if after is None else decode_body(after)
    document_id = (new or old or {}).get("_id")
    return Change(seq, collection, document_id, seq, Operation(op), old, new, at_ms)
