"""One SQLite file with one writer: the only place of this package that knows the engine."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import apsw
import structlog

from cloudlet.model.errors import InvalidRequest, OutcomeUnknown, ShuttingDown, StoreUnavailable
from cloudlet.state.files import migrations, queries

WRITES_WAITING_MAX = 1024
GROUP_MAX = 64
"""Writes that share one transaction, and so one disk sync."""
BUSY_TIMEOUT_MS = 5000

T = TypeVar("T")
Row = tuple[Any, ...]
log = structlog.get_logger(__name__)

_STORE_ERRORS = (
    apsw.FullError,
    apsw.ReadOnlyError,
    apsw.IOError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.CantOpenError,
    apsw.PermissionsError,
    apsw.CorruptError,
    apsw.NotADBError,
)


class Database:
    """Named queries on one file. Reads run in the calling thread (the event loop's), writes in a thread of
    their own.

    Opening raises StoreUnavailable when the file cannot be used and InvalidRequest when a newer cloudlet
    made it.
    """

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self._path = path
        self._readonly = readonly
        with _translated(path):
            self._reader = _open(path, readonly)
            try:
                _check_version(self._reader, path)
                if readonly:
                    _require_current(self._reader, path)
                else:
                    _migrate(self._reader)
            except BaseException:
                self._reader.close()
                raise
        self._writer: _Writer | None = None if readonly else _Writer(path)

    def rows(self, query: str, *values: Any) -> list[Row]:
        """All rows of a named query. Raise StoreUnavailable."""
        with _translated(self._path):
            return list(self._reader.execute(queries()[query], values))

    @contextlib.contextmanager
    def one_moment(self) -> Iterator[None]:
        """Every read inside sees the same committed state."""
        with _translated(self._path), self._reader:
            yield

    def prepare(self, job: Callable[[Transaction], Any]) -> None:
        """Run `job` at once, in the calling thread: for what must be there before anybody is served."""
        with _translated(self._path), self._reader:
            transaction = Transaction(self._reader)
            job(transaction)
            transaction.run("bump_sequence")

    async def write(self, job: Callable[[Transaction], T]) -> T:
        """Run `job` in a transaction; durable when this returns. An error of the job undoes what it did and
        is raised.

        Raise StoreUnavailable when too many writes wait or nothing can be written, OutcomeUnknown when the
        disk failed in the middle, ShuttingDown after `close`. A caller that is cancelled does not know
        whether the job ran.
        """
        if self._writer is None:
            raise StoreUnavailable("the control records are open for reading only here")
        return await self._writer.submit(job)

    def close(self) -> None:
        """Finish queued writes and release the file. May be repeated."""
        if self._writer is not None:
            self._writer.close()
        self._reader.close()


@dataclass(frozen=True, slots=True)
class Transaction:
    """What a job may do."""

    connection: apsw.Connection

    def rows(self, query: str, *values: Any) -> list[Row]:
        return list(self.connection.execute(queries()[query], values))

    def run(self, query: str, *values: Any) -> int:
        """Return how many rows changed."""
        self.connection.execute(queries()[query], values)
        return int(self.connection.changes())


@dataclass(slots=True)
class _Job:
    run: Callable[[Transaction], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        # The loop may be closed by now: then nobody waits for the answer.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class _Writer:
    """The writer thread: takes what waits, up to GROUP_MAX jobs a transaction, one savepoint each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: queue.Queue[_Job | None] = queue.Queue(WRITES_WAITING_MAX)
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="state-writer", daemon=True)
        self._connection = _open(path, readonly=False)
        self._thread.start()

    async def submit(self, run: Callable[[Transaction], T]) -> T:
        if self._closed:
            raise ShuttingDown
        loop = asyncio.get_running_loop()
        job = _Job(run, loop, loop.create_future())
        try:
            self._waiting.put_nowait(job)
        except queue.Full as error:
            raise StoreUnavailable("too many changes are waiting to be written; try again") from error
        result: T = await job.future
        return result

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
            self._thread.join()
            self._connection.close()

    def _serve(self) -> None:
        while (group := self._take()) is not None:
            self._commit(group)
            for job in group:
                job.settle()

    def _take(self) -> list[_Job] | None:
        first = self._waiting.get()
        if first is None:
            return None
        group = [first]
        while len(group) < GROUP_MAX:
            try:
                job = self._waiting.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._waiting.put_nowait(None)
                break
            group.append(job)
        return group

    def _commit(self, group: list[_Job]) -> None:
        try:
            with _translated(self._path), self._connection:
                for job in group:
                    self._run(job)
        except Exception as error:
            # Whatever it was: nobody of the group may wait for ever, and the thread must live.
            log.error("records_commit_failed", error=str(error), writes=len(group))
            failure: Exception = error
            if isinstance(error.__cause__, apsw.IOError):
                # The commit record may have reached the disk before the error did us.
                failure = OutcomeUnknown(f"the disk failed while the control records were written: {error}")
                failure.__cause__ = error
            for job in group:
                job.error = job.error or failure

    def _run(self, job: _Job) -> None:
        try:
            with self._connection:
                transaction = Transaction(self._connection)
                before = self._connection.total_changes()
                job.result = job.run(transaction)
                if self._connection.total_changes() != before:
                    transaction.run("bump_sequence")
        except _STORE_ERRORS:
            # The outer transaction may be gone with it: everybody in the group is told.
            raise
        except Exception as error:
            job.error = error


def _open(path: Path, readonly: bool) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    connection = apsw.Connection(str(path), flags=flags)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        if not readonly:
            connection.execute("PRAGMA journal_mode = WAL")
            path.chmod(0o600)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: apsw.Connection) -> int:
    return int(connection.pragma("user_version"))


def _check_version(connection: apsw.Connection, path: Path) -> None:
    found = _version(connection)
    if found > len(migrations()):
        raise InvalidRequest(
            f"{path} was made by a newer cloudlet (schema {found}, this one knows {len(migrations())}): "
            "upgrade cloudlet"
        )


def _require_current(connection: apsw.Connection, path: Path) -> None:
    if _version(connection) < len(migrations()):
        raise StoreUnavailable(f"{path} is not ready yet: its writer has not migrated it")


def _migrate(connection: apsw.Connection) -> None:
    """Run what is missing, each migration in a transaction of its own together with its number."""
    for migration in migrations()[_version(connection) :]:
        with connection:
            connection.execute(migration.sql)
            connection.pragma("user_version", migration.number)
        log.info("records_migrated", migration=migration.name)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (*_STORE_ERRORS, OSError) as error:
        raise StoreUnavailable(
            f"cannot use the control records {path} ({error}): look at free space and permissions"
        ) from error
