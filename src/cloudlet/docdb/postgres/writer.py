"""The one task of a process that writes an environment: requests share transactions, turn after turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import structlog

from cloudlet.docdb.base import Batch, CreateIndex, SchemaChange, Turn
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.metrics import DocumentMetrics
from cloudlet.docdb.planner import IndexInfo
from cloudlet.docdb.postgres.catalog import EMPTY, Catalog, read_catalog
from cloudlet.docdb.postgres.faults import ENGINE_ERRORS, is_lost, translated
from cloudlet.docdb.postgres.group import Group, Work, prepared
from cloudlet.docdb.postgres.pool import Pool
from cloudlet.docdb.postgres.schema import abandon_index, change_schema, fill_piece
from cloudlet.docdb.postgres.sql import Names, statement
from cloudlet.docdb.postgres.stage import Logged
from cloudlet.model.errors import OutcomeUnknown, PlatformError, ShuttingDown, StoreUnavailable

log = structlog.get_logger(__name__)

Future: TypeAlias = "asyncio.Future[Any]"
OUTCOME_ATTEMPTS: Final = 8
OUTCOME_PAUSE_S: Final = 0.15
"""After a lost answer the server is asked for about four seconds, with growing pauses."""
_PRUNED_TOGETHER: Final = 256
"""Changes beyond the limit that are forgotten at once, so that not every transaction has to."""


@dataclass(slots=True)
class _Task:
    work: Work | SchemaChange
    future: Future


@dataclass(slots=True)
class _Backfill:
    """An index that is being filled on a connection that shows others so."""

    future: Future
    collection: str
    index: IndexInfo
    connection: Any
    after_did: int = 0


@dataclass(slots=True)
class _Queue:
    """What waits for the writing task."""

    tasks: deque[_Task] = field(default_factory=deque)
    backfills: deque[_Backfill] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    closing: bool = False


class _CommitFailed(Exception):
    """The connection was lost in the transaction's last statement, and what became of it is not known."""


class PostgresWriter:
    """Owns this process's idea of the catalog and its writing task.

    Several processes may write one environment: a lock in the database makes their groups take turns, and a
    group starts with the catalog and the sequence number the others left behind. ``committed`` is called
    after each commit with what was logged.
    """

    def __init__(
        self,
        pool: Pool,
        at: Names,
        limits: DocdbLimits,
        metrics: DocumentMetrics,
        committed: Callable[[Sequence[Logged]], None],
    ) -> None:
        self._pool = pool
        self._at = at
        self._limits = limits
        self._metrics = metrics
        self._committed = committed
        self._queue = _Queue()
        self._task: asyncio.Task[None] | None = None
        self._pruned = 0
        self.catalog: Catalog = EMPTY

    def submit(self, work: Turn[Any] | Batch | SchemaChange) -> Future:
        """Queue work. Raises ShuttingDown when closed, StoreUnavailable when the queue is full."""
        if self._queue.closing:
            raise ShuttingDown("the document store is closed")
        if len(self._queue.tasks) >= self._limits.writes_waiting_max:
            raise StoreUnavailable("too many writes are waiting")
        loop = asyncio.get_running_loop()
        # What can be decided now is done while the group before waits for the database.
        early = prepared(work, self.catalog, self._limits) if isinstance(work, Turn | Batch) else work
        task = _Task(early, loop.create_future())
        self._queue.tasks.append(task)
        self._queue.wake.set()
        if self._task is None:
            self._task = loop.create_task(self._run(), name=f"documents-{self._at.schema}")
        return task.future

    async def close(self) -> None:
        """Finish what is queued and end the task. Repeating it only waits."""
        self._queue.closing = True
        self._queue.wake.set()
        if self._task is not None:
            await asyncio.gather(asyncio.shield(self._task), return_exceptions=True)

    def adopt(self, catalog: Catalog) -> None:
        """Take over a newer catalog that was read elsewhere."""
        if catalog.version > self.catalog.version:
            self.catalog = catalog

    async def _run(self) -> None:
        queue = self._queue
        try:
            while True:
                if not queue.tasks and not queue.backfills:
                    if queue.closing:
                        return
                    queue.wake.clear()
                    await queue.wake.wait()
                    # Requests of the same round of the loop come along in the same group.
                    await asyncio.sleep(0)
                await self._round()
        except BaseException as exc:
            if not isinstance(exc, asyncio.CancelledError):
                log.exception("document_writer_died")
            self._refuse_all(exc)
            raise

    async def _round(self) -> None:
        group, schema = self._next_group()
        try:
            if group:
                self._metrics.group.observe(len(group))
                with self._metrics.commit.time():
                    await self._commit_group(group)
            if schema is not None:
                await self._change_schema(schema)
            if self._queue.backfills:
                await self._backfill_piece(self._queue.backfills[0])
        except BaseException as exc:
            failure = OutcomeUnknown(f"the document writer ended: {exc}")
            for task in [*group, *([schema] if schema else [])]:
                _settle(task.future, None, failure)
            raise

    def _refuse_all(self, cause: BaseException) -> None:
        """Nobody may wait for a task that is gone."""
        self._queue.closing = True
        failure = OutcomeUnknown(f"the document writer ended: {cause}")
        for task in self._queue.tasks:
            _settle(task.future, None, failure)
        for backfill in self._queue.backfills:
            _settle(backfill.future, None, failure)
            self._pool.give(backfill.connection)
        self._queue.tasks.clear()
        self._queue.backfills.clear()

    def _next_group(self) -> tuple[list[_Task], _Task | None]:
        """Turns and batches that wait, up to the first schema change, which gets its own transaction."""
        group: list[_Task] = []
        tasks = self._queue.tasks
        while tasks and len(group) < self._limits.group_max:
            task = tasks.popleft()
            if not isinstance(task.work, Work):
                return group, task
            group.append(task)
        return group, None

    # One group.

    async def _commit_group(self, group: list[_Task]) -> None:
        works = [task.work for task in group if isinstance(task.work, Work)]
        try:
            logged = await self._transaction(works)
        except _CommitFailed as exc:
            log.error("document_commit_unknown", error=str(exc.__cause__), requests=len(group))
            failure = OutcomeUnknown("the connection to the document database was lost while it committed")
            for task in group:
                _settle(task.future, None, failure)
            return
        except Exception as exc:
            await self._failed(group, exc)
            return
        self._committed(logged)
        for task, work in zip(group, works, strict=True):
            _settle(task.future, work.result, work.error)

    async def _transaction(self, works: Sequence[Work]) -> Sequence[Logged]:
        if all(work.error is not None for work in works):
            return ()
        connection = await self._pool.take()
        try:
            seq, mark = await self._begin(connection)
            group = Group(connection, self._at, self.catalog, seq, self._limits)
            await group.run(works)
            if not group.stage.log:
                await connection.execute("ROLLBACK")
                return ()
            await self._prune(connection, group.stage.seq)
            await self._commit(connection, mark)
            self.adopt(group.catalog)
            return group.stage.log
        finally:
            await _rolled_back(connection)
            self._pool.give(connection)

    async def _begin(self, connection: Any) -> tuple[int, str]:
        """Get the lock and the catalog as it is now; returns the last sequence number, and what ``_commit``
        needs.
        """
        await connection.execute(statement("begin", self._at))
        row = await connection.fetchrow(statement("begun", self._at))
        if row is None:
            raise StoreUnavailable("the environment's tables are gone")
        seq, version, mark = row
        if version != self.catalog.version:
            self.catalog = await read_catalog(connection, self._at)
        return int(seq), mark

    async def _commit(self, connection: Any, mark: str) -> None:
        """End the transaction. If its answer is lost, the server is asked what became of it.

        Raises StoreUnavailable if nothing was written, _CommitFailed if that cannot be found out.
        """
        try:
            await connection.execute("COMMIT")
        except ENGINE_ERRORS as exc:
            if not is_lost(exc):
                raise
            outcome = await self._outcome(mark)
            log.warning("document_commit_lost", outcome=outcome or "unknown", error=str(exc)[:200])
            if outcome == "aborted":
                raise StoreUnavailable("the connection to the document database was lost") from exc
            if outcome != "committed":
                raise _CommitFailed from exc

    async def _outcome(self, mark: str) -> str | None:
        """What became of a transaction, if the server can tell soon."""
        for attempt in range(OUTCOME_ATTEMPTS):
            await asyncio.sleep(OUTCOME_PAUSE_S * attempt)
            with contextlib.suppress(*ENGINE_ERRORS, PlatformError):
                async with self._pool.connection() as connection:
                    outcome: str | None = await connection.fetchval(statement("outcome", self._at), mark)
                if outcome != "in progress":
                    return outcome
        return None

    async def _failed(self, group: list[_Task], error: Exception) -> None:
        """Nothing of the group was written. A turn that upset the database fails alone."""
        log.error("document_commit_failed", error=str(error)[:200], requests=len(group))
        if len(group) > 1 and isinstance(error, ENGINE_ERRORS) and not is_lost(error):
            for task in group:
                if isinstance(task.work, Work):
                    task.work = prepared(task.work.work, self.catalog, self._limits)
                await self._commit_group([task])
            return
        failure = translated(error)
        for task in group:
            _settle(task.future, None, failure)

    async def _prune(self, connection: Any, seq: int) -> None:
        """Forget old changes; the newest is always kept, because it tells the sequence number."""
        kept = max(1, self._limits.changes_kept_max)
        if seq - self._pruned >= kept + min(_PRUNED_TOGETHER, kept // 64):
            await connection.execute(statement("prune_changes", self._at), seq - kept)
            self._pruned = seq - kept

    # The schema.

    async def _change_schema(self, task: _Task) -> None:
        change = task.work
        if isinstance(change, Work):
            return
        try:
            connection = await self._pool.take()
            kept = False
            try:
                _seq, mark = await self._begin(connection)
                catalog = await change_schema(connection, self._at, self.catalog, change, self._limits)
                if isinstance(change, CreateIndex):
                    index = catalog.collections[change.collection].indexes[-1]
                    await connection.fetchval(statement("hold_index", self._at), index.number)
                    backfill = _Backfill(task.future, change.collection, index, connection)
                await self._commit(connection, mark)
                self.adopt(catalog)
                if isinstance(change, CreateIndex):
                    self._queue.backfills.append(backfill)
                    kept = True
            finally:
                if not kept:
                    await _rolled_back(connection)
                    self._pool.give(connection)
        except _CommitFailed as exc:
            failure = OutcomeUnknown("the connection to the document database was lost while it committed")
            failure.__cause__ = exc.__cause__
            _settle(task.future, None, failure)
        except Exception as exc:
            _settle(task.future, None, _own(exc))
        else:
            self._committed(())
            if not isinstance(change, CreateIndex):
                _settle(task.future, None, None)

    async def _backfill_piece(self, backfill: _Backfill) -> None:
        """Enter the next documents; publish the index after the last, remove it if it cannot be made."""
        connection = backfill.connection
        error: Exception | None = None
        try:
            _seq, mark = await self._begin(connection)
            catalog, last = await fill_piece(
                connection, self._at, self.catalog, backfill.collection, backfill.index, backfill.after_did
            )
            await self._commit(connection, mark)
            self.adopt(catalog)
            if last is not None:
                backfill.after_did = last
                return
        except Exception as exc:
            error = exc.__cause__ if isinstance(exc, _CommitFailed) and exc.__cause__ else exc  # type: ignore[assignment]
            await self._abandon(backfill)
        self._queue.backfills.popleft()
        self._committed(())
        await self._release(backfill)
        _settle(backfill.future, None, _own(error) if error is not None else None)

    async def _abandon(self, backfill: _Backfill) -> None:
        connection = backfill.connection
        try:
            await _rolled_back(connection)
            _seq, mark = await self._begin(connection)
            index = backfill.index
            catalog = await abandon_index(connection, self._at, self.catalog, backfill.collection, index)
            await self._commit(connection, mark)
            self.adopt(catalog)
        except (*ENGINE_ERRORS, PlatformError, _CommitFailed) as exc:
            log.error("index_not_removed", index=backfill.index.name, error=str(exc)[:200])

    async def _release(self, backfill: _Backfill) -> None:
        with contextlib.suppress(*ENGINE_ERRORS):
            await backfill.connection.fetchval(statement("release_index", self._at), backfill.index.number)
        self._pool.give(backfill.connection)


async def _rolled_back(connection: Any) -> None:
    """Leave a transaction; a connection that cannot is thrown away by the pool."""
    with contextlib.suppress(*ENGINE_ERRORS):
        if not connection.is_closed() and connection.is_in_transaction():
            await connection.execute("ROLLBACK")


def _own(error: Exception) -> Exception:
    """An error for a caller: ours as it is, the engine's translated."""
    return translated(error) if isinstance(error, ENGINE_ERRORS) else error


def _settle(future: Future, result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(_own(error) if isinstance(error, Exception) else error)
