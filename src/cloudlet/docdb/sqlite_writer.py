"""The one thread that writes a document file: requests share transactions, each inside its own savepoint."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import apsw
import msgspec
import structlog

from cloudlet.docdb import sqlite_file
from cloudlet.docdb.base import Batch, Change, CollectionInfo, Listener, SchemaChange, Turn
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.listeners import announce
from cloudlet.docdb.metrics import DocumentMetrics
from cloudlet.docdb.sqlite_schema import SqliteSchema
from cloudlet.docdb.sqlite_tables import SqliteTables, Written
from cloudlet.model.errors import OutcomeUnknown, ShuttingDown, StoreUnavailable

log = structlog.get_logger(__name__)

_Work: TypeAlias = Turn[Any] | Batch | SchemaChange
_WRITES: Final = (Turn, Batch)
_Outcome: TypeAlias = tuple["_Task", Any, BaseException | None]


class _Task(msgspec.Struct, eq=False):
    work: _Work
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True, eq=False)
class _Listening:
    loop: asyncio.AbstractEventLoop
    listener: Listener


class SqliteWriter:
    """Owns the writing connection; all methods that are not public run on its thread."""

    def __init__(self, path: Path, limits: DocdbLimits, metrics: DocumentMetrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._connection = sqlite_file.open_writer(path)
        self._tables = SqliteTables(self._connection, limits)
        self._schema: SqliteSchema[_Task] = SqliteSchema(self._tables, limits)
        try:
            with sqlite_file.engine_errors():
                self._schema.drop_unfinished_indexes()
                self._tables.load()
        except BaseException:
            self._connection.close()
            raise
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._running: list[_Task] = []
        self._listening: tuple[_Listening, ...] = ()
        self._closing = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"documents-{path.stem}", daemon=True)
        self._thread.start()

    @property
    def catalog(self) -> dict[str, CollectionInfo]:
        """The collections; replaced with every change, never changed."""
        return self._tables.catalog

    @property
    def version(self) -> int:
        """Grows with every change of the catalog, and before a document becomes visible that contradicts an
        older one.
        """
        return self._tables.version

    def submit(self, work: _Work) -> asyncio.Future[Any]:
        """Queue work for the thread. Raises ShuttingDown when closed, StoreUnavailable when the queue is
        full.
        """
        loop = asyncio.get_running_loop()
        task = _Task(work, loop, loop.create_future())
        with self._lock:
            if self._closing:
                raise ShuttingDown("the document store is closed")
            if self._tasks.qsize() >= self._limits.writes_waiting_max:
                raise StoreUnavailable("too many writes are waiting")
            self._tasks.put(task)
        return task.future

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` on the running loop with every commit from now on; returns what ends it."""
        listening = _Listening(asyncio.get_running_loop(), listener)
        with self._lock:
            self._listening = (*self._listening, listening)

        def end() -> None:
            with self._lock:
                self._listening = tuple(item for item in self._listening if item is not listening)

        return end

    def close(self) -> None:
        """Finish what is queued and end the thread. Blocks; repeating it only waits."""
        with self._lock:
            first, self._closing = not self._closing, True
        if first:
            self._tasks.put(None)
        self._thread.join()

    # On the thread from here on.

    def _run(self) -> None:
        try:
            while self._round():
                pass
        except BaseException as exc:
            log.exception("document_writer_died")
            self._refuse_all(exc)
        finally:
            self._close_connection()

    def _close_connection(self) -> None:
        """Closing writes the log back into the file; if that fails, the next opening does it."""
        try:
            self._connection.close()
        except apsw.Error as exc:
            log.error("document_close_failed", error=str(exc))

    def _refuse_all(self, cause: BaseException) -> None:
        """Nobody may wait for a thread that is gone."""
        with self._lock:
            self._closing = True
        failure = OutcomeUnknown(f"the document writer ended: {cause}")
        while True:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                break
            if task is not None:
                self._settle([(task, None, failure)])
        self._settle([(task, None, failure) for task in self._running])
        self._settle([(backfill.owner, None, failure) for backfill in self._schema.backfills])

    def _round(self) -> bool:
        """One group of writes and one piece of a backfill; False when there is nothing more to come."""
        group, last, schema = self._next_group()
        self._running = group if schema is None else [*group, schema]
        if group:
            self._metrics.group.observe(len(group))
            with self._metrics.commit.time():
                outcomes, written = self._commit_group(group)
            self._settle(outcomes, written)
        if schema is not None:
            self._change_schema(schema)
        self._running = []
        if self._schema.backfills:
            self._fill()
        if last:
            while self._schema.backfills:
                self._fill()
        return not last

    def _next_group(self) -> tuple[list[_Task], bool, _Task | None]:
        """Requests that are waiting, up to the first schema change, which gets a transaction of its own."""
        group: list[_Task] = []
        while len(group) < self._limits.group_max:
            try:
                task = self._tasks.get(block=not group and not self._schema.backfills)
            except queue.Empty:
                break
            if task is None:
                return group, True, None
            if not isinstance(task.work, _WRITES):
                return group, False, task
            group.append(task)
        return group, False, None

    def _commit_group(self, group: list[_Task]) -> tuple[list[_Outcome], Sequence[Written]]:
        """The outcome of each request, and what was written: nothing of it is told before it is durable."""
        tables = self._tables
        mark = tables.mark()
        try:
            tables.begin()
            outcomes = self._run_together(group)
            if outcomes is None:
                self._roll_back()
                tables.restore(mark)
                tables.begin()
                outcomes = [self._in_savepoint(task) for task in group]
            tables.prune()
        except Exception as exc:
            tables.restore(mark)
            return self._failed(group, exc), ()
        try:
            self._connection.execute("COMMIT")
        except apsw.Error as exc:
            tables.restore(mark)
            if isinstance(exc, apsw.IOError):
                # The commit record may have reached the disk before the error did us.
                failure = OutcomeUnknown(f"the disk failed while writing: {exc}")
                self._roll_back()
                return [(task, None, failure) for task in group], ()
            return self._failed(group, exc), ()
        return outcomes, tables.written()

    def _run_together(self, group: list[_Task]) -> list[_Outcome] | None:
        """Do the requests without savepoints, which are a quarter of the cost of a small write.

        None if one failed after it had changed something: then all of it has to be done again with them
        (``decide`` is pure, and nothing has been told).
        """
        outcomes: list[_Outcome] = []
        tables = self._tables
        for task in group:
            try:
                result = tables.run(task.work)  # type: ignore[arg-type]
            except Exception as exc:
                if tables.touched or not self._connection.in_transaction:
                    return None
                outcomes.append((task, None, _failure(exc)))
            else:
                outcomes.append((task, result, None))
        return outcomes

    def _failed(self, group: list[_Task], error: Exception) -> list[_Outcome]:
        """Nothing of the group was written."""
        log.error("document_commit_failed", error=str(error), requests=len(group))
        self._roll_back()
        failure = sqlite_file.translated(error) if isinstance(error, apsw.Error) else error
        return [(task, None, failure) for task in group]

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except apsw.Error as exc:
                log.error("document_rollback_failed", error=str(exc))

    def _in_savepoint(self, task: _Task) -> _Outcome:
        """Do one request; its failure undoes only itself. Raises if the whole transaction is lost."""
        connection = self._connection
        mark = self._tables.mark()
        connection.execute("SAVEPOINT request")
        try:
            result = self._tables.run(task.work)  # type: ignore[arg-type]
        except Exception as exc:
            if not connection.in_transaction:
                raise  # Errors such as a full disk may roll back everything at once.
            connection.execute("ROLLBACK TO request")
            connection.execute("RELEASE request")
            self._tables.restore(mark)
            return task, None, sqlite_file.translated(exc) if isinstance(exc, apsw.Error) else exc
        connection.execute("RELEASE request")
        return task, result, None

    def _change_schema(self, task: _Task) -> None:
        try:
            done = self._schema.change(task.work, task)  # type: ignore[arg-type]
        except Exception as exc:
            self._settle([(task, None, _failure(exc))])
            return
        if done:
            self._settle([(task, None, None)])

    def _fill(self) -> None:
        """One piece of the oldest backfill; its owner hears when it is done or cannot be done."""
        owner = self._schema.backfills[0].owner
        try:
            done = self._schema.fill()
        except Exception as exc:
            self._settle([(owner, None, _failure(exc))])
            return
        if done is not None:
            self._settle([(owner, None, None)])

    def _settle(self, outcomes: Sequence[_Outcome], written: Sequence[Written] = ()) -> None:
        """Tell the listeners, then hand results to the loops they belong to: one call per loop.

        Who listens is asked after the commit: whoever comes later finds the commit in the file.
        """
        by_loop: dict[asyncio.AbstractEventLoop, tuple[list[Listener], list[_Outcome]]] = {}
        for outcome in outcomes:
            loop = outcome[0].loop
            if loop not in by_loop:
                by_loop[loop] = ([], [])
            by_loop[loop][1].append(outcome)
        changes: list[Change] = []
        if written and self._listening:
            for listening in self._listening:
                heard = self._still_heard(listening)
                by_loop.setdefault(listening.loop, ([], []))[0].append(heard)
            changes = [item.change() for item in written]
        for loop, (listeners, mine) in by_loop.items():
            try:
                loop.call_soon_threadsafe(_hand_over, listeners, changes, mine)
            except RuntimeError:
                log.warning("document_caller_gone", requests=len(mine))

    def _still_heard(self, listening: _Listening) -> Listener:
        def heard(changes: Sequence[Change]) -> None:
            if listening in self._listening:
                listening.listener(changes)

        return heard


def _failure(error: Exception) -> Exception:
    return sqlite_file.translated(error) if isinstance(error, apsw.Error) else error


def _hand_over(
    listeners: Sequence[Listener], changes: Sequence[Change], outcomes: Sequence[_Outcome]
) -> None:
    """On the loop: tell those who listen, then answer those who still wait."""
    announce(listeners, changes)
    for task, result, error in outcomes:
        if task.future.done():
            continue
        if error is None:
            task.future.set_result(result)
        else:
            task.future.set_exception(error)
