"""Import jobs: uploaded files that become documents, one after the other, whatever happens in between."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections import deque
from collections.abc import AsyncIterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Final

import msgspec
import structlog

from cloudlet.docdb.aside import in_thread
from cloudlet.docdb.base import Store, find_collection
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.transfer.reading import Format, RecordReader, Records
from cloudlet.docdb.transfer.record import PROBLEMS_MAX, Import, Problem, State, read_import, write_import
from cloudlet.docdb.transfer.writing import Mode, Writing, Written, write_records
from cloudlet.model.clock import Clock
from cloudlet.model.errors import (
    BodyTooLarge,
    Conflict,
    Internal,
    InvalidParameter,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    PlatformError,
    StoreUnavailable,
    Unavailable,
)

log = structlog.get_logger(__name__)

FILE_BYTES_MAX: Final = 64 * 1024**3
WAITING_MAX: Final = 16
"""Imports of one environment that have not ended."""
AT_WORK: Final = 2
"""Imports that are worked on at once, each of another environment."""
KEPT_MAX: Final = 100
"""Records of imports that have ended."""
FILE_KEPT_S: Final = 86_400.0
"""How long an import that failed or was cancelled can go on; then its file is removed."""
TRIES_S: Final = (0.2, 1.0, 5.0, 15.0)
"""Waits before a batch that the store could not take is tried again."""
_WRITE_AT: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an import is asked to do."""

    environment: str
    collection: str
    format: Format
    mode: Mode = "insert"
    stop_on_error: bool = False


class Imports:
    """The jobs of an installation, in a directory that must survive a restart."""

    def __init__(self, stores: Stores, directory: Path, clock: Clock) -> None:
        self._stores = stores
        self._directory = directory
        self._clock = clock
        self._jobs: dict[str, Import] = {}
        self._queue: deque[str] = deque()
        self._wake = asyncio.Event()
        self._busy: set[str] = set()
        self._saving = asyncio.Lock()
        self._receiving = 0
        self._loaded = False

    async def receive(self, wanted: Wanted, chunks: AsyncIterable[bytes]) -> Import:
        """Store a file and queue its import. Nothing stays after an error.

        Raises CollectionNotFound and InvalidDocument (the file is not of the format) before anything is
        queued, BodyTooLarge, LimitExceeded, StoreUnavailable.
        """
        await self._load()
        store = await self._stores.open(wanted.environment)
        find_collection(store.catalog(), wanted.collection)
        waiting = sum(not job.ended for job in self._of(wanted.environment))
        if waiting + self._receiving >= WAITING_MAX:
            raise LimitExceeded(f"{WAITING_MAX} imports are waiting: wait for one, or cancel one")
        job_id = secrets.token_hex(12)
        self._receiving += 1
        try:
            size = await self._store_file(job_id, chunks)
            job = Import(
                id=job_id,
                environment=wanted.environment,
                collection=wanted.collection,
                format=wanted.format,
                mode=wanted.mode,
                stop_on_error=wanted.stop_on_error,
                created_ms=self._now_ms(),
                bytes=size,
            )
            reader = await in_thread(lambda: self._reader(job))
            reader.close()
            await in_thread(lambda: write_import(self._record(job_id), job))
        except BaseException:
            self._file(job_id).unlink(missing_ok=True)
            raise
        finally:
            self._receiving -= 1
        self._jobs[job_id] = job
        self._enqueue(job_id)
        await self._forget_old()
        return job

    async def of(self, environment: str) -> list[Import]:
        """The imports of an environment, the newest first."""
        await self._load()
        return sorted(self._of(environment), key=lambda job: -job.created_ms)

    async def get(self, environment: str, job_id: str) -> Import:
        """Raises NotFound."""
        await self._load()
        job = self._jobs.get(job_id)
        if job is None or job.environment != environment:
            raise NotFound(f"there is no import {job_id[:40]!r} in the environment {environment}")
        return job

    async def cancel(self, environment: str, job_id: str) -> Import:
        """End an import after the batch it is writing; what it wrote stays. Raises NotFound, Conflict."""
        job = await self.get(environment, job_id)
        if job.ended:
            raise Conflict(f"the import has ended already ({job.state})")
        await self._end(job, "cancelled")
        return job

    async def resume(self, environment: str, job_id: str) -> Import:
        """Let an import that failed or was cancelled go on where it was. Raises NotFound, Conflict."""
        job = await self.get(environment, job_id)
        if not job.resumable or not self._file(job_id).exists():
            raise Conflict(f"the import cannot go on: it is {job.state}")
        job.state, job.message, job.finished_ms = "queued", "", None
        await self._save(job)
        self._enqueue(job_id)
        return job

    async def forget(self, environment: str) -> None:
        """The environment is gone: its imports end and are forgotten."""
        await self._load()
        for job in self._of(environment):
            job.state = "cancelled"
            self._remove(job.id)

    async def run(self) -> None:
        """Work until cancelled: on several imports, but on one of an environment. Those that a former process
        left go on where they were.
        """
        await self._load()
        async with asyncio.TaskGroup() as workers:
            for _ in range(AT_WORK):
                workers.create_task(self._serve())

    async def _serve(self) -> None:
        while True:
            while (job := self._take()) is None:
                self._wake.clear()
                await self._wake.wait()
            try:
                await self._work(job)
            finally:
                self._busy.discard(job.environment)
                self._wake.set()

    def _take(self) -> Import | None:
        """The oldest import that may be worked on now."""
        for job_id in list(self._queue):
            job = self._jobs.get(job_id)
            if job is None or job.ended:
                self._queue.remove(job_id)
            elif job.environment not in self._busy:
                self._queue.remove(job_id)
                self._busy.add(job.environment)
                return job
        return None

    # One import.

    async def _work(self, job: Import) -> None:
        try:
            await self._import(job)
        except PlatformError as exc:
            await self._fail(job, exc.message)
        except OSError as exc:
            await self._fail(job, f"the uploaded file cannot be read: {exc.strerror}")
        except Exception:
            log.exception("import_failed", job=job.id)
            await self._fail(job, "a fault of cloudlet; its log says which")

    async def _fail(self, job: Import, message: str) -> None:
        """Tell why; if not even that can be written, the record in memory says it until the next start."""
        log.warning("import_failed", job=job.id, collection=job.collection, message=message)
        if job.ended:
            return
        job.message = message
        try:
            await self._end(job, "failed")
        except StoreUnavailable as exc:
            log.error("import_record_not_written", job=job.id, error=exc.message)

    async def _import(self, job: Import) -> None:
        store = await self._stores.open(job.environment)
        replaying = job.began
        reader = await in_thread(lambda: self._reader(job))
        try:
            while not job.ended:
                if not job.began:
                    job.seq, job.began, job.state = await store.last_seq(), True, "running"
                    await self._save(job)
                batch = await in_thread(reader.next)
                if batch is None:
                    await self._end(job, "done")
                    return
                written = await self._write(store, job, batch, replaying)
                replaying = False
                await self._count(store, job, batch, written)
        finally:
            reader.close()

    async def _write(self, store: Store, job: Import, batch: Records, replaying: bool) -> Written:
        """Write a batch; what the store cannot take right now is tried again."""
        for wait_s in (*TRIES_S, None):
            after = job.seq if replaying else None
            writing = Writing(job.collection, job.mode, job.stop_on_error, job.created_ms, job.id, after)
            try:
                return await write_records(store, writing, batch.records)
            except (Unavailable, OutcomeUnknown):
                if wait_s is None:
                    raise
                # A part of the batch may have been written.
                replaying = True
                await asyncio.sleep(wait_s)
        raise Internal("an import ran out of tries")

    async def _count(self, store: Store, job: Import, batch: Records, written: Written) -> None:
        """Note that a batch is done, before the next one begins."""
        job.inserted += written.inserted
        job.replaced += written.replaced
        job.unchanged += written.unchanged
        job.failed += len(written.failed)
        room = PROBLEMS_MAX - len(job.problems)
        job.problems += [Problem(line, message[:500]) for line, message in written.failed[:room]]
        job.offset, job.line, job.seq = batch.offset, batch.line, await store.last_seq()
        if written.stopped and not job.ended:
            line, message = written.failed[-1]
            job.message = f"stopped at line {line}: {message[:500]}"
            await self._end(job, "failed")
        else:
            await self._save(job)

    async def _end(self, job: Import, state: State) -> None:
        job.state = state
        job.finished_ms = self._now_ms()
        await self._save(job)
        if not job.resumable:
            self._file(job.id).unlink(missing_ok=True)

    # Files.

    def _reader(self, job: Import) -> RecordReader:
        return RecordReader(self._file(job.id), job.format, job.offset, job.line, job.created_ms)

    async def _store_file(self, job_id: str, chunks: AsyncIterable[bytes]) -> int:
        path, size, buffer = self._file(job_id), 0, bytearray()
        try:
            await in_thread(lambda: self._directory.mkdir(0o700, parents=True, exist_ok=True))
            with path.open("xb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > FILE_BYTES_MAX:
                        raise BodyTooLarge(f"the file is larger than {FILE_BYTES_MAX >> 30} GB: split it")
                    buffer += chunk
                    if len(buffer) >= _WRITE_AT:
                        await in_thread(partial(file.write, buffer))
                        buffer.clear()
                await in_thread(partial(_finish, file, buffer))
        except OSError as exc:
            raise StoreUnavailable(f"the file cannot be stored: {exc.strerror}") from exc
        if size == 0:
            raise InvalidParameter("the file is empty")
        return size

    async def _save(self, job: Import) -> None:
        async with self._saving:  # Whoever cancels does so while a worker counts.
            if job.id in self._jobs:
                await in_thread(lambda: write_import(self._record(job.id), job))

    async def _load(self) -> None:
        """Read the records once; what has no record is left over from an upload that broke off."""
        if self._loaded:
            return
        self._loaded = True
        found = _load(self._directory)
        self._jobs = {job.id: job for job in found}
        for job in found:
            if not job.ended:
                self._enqueue(job.id)
        await self._forget_old()

    async def _forget_old(self) -> None:
        ended = sorted((job.finished_ms or 0, job.id) for job in self._jobs.values() if job.ended)
        for _, job_id in ended[: max(0, len(ended) - KEPT_MAX)]:
            self._remove(job_id)
        latest = self._now_ms() - int(FILE_KEPT_S * 1000)
        for job in self._jobs.values():
            if job.ended and (job.finished_ms or 0) < latest:
                self._file(job.id).unlink(missing_ok=True)

    def _remove(self, job_id: str) -> None:
        self._jobs.pop(job_id, None)
        with contextlib.suppress(OSError):
            self._record(job_id).unlink(missing_ok=True)
            self._file(job_id).unlink(missing_ok=True)

    def _enqueue(self, job_id: str) -> None:
        self._queue.append(job_id)
        self._wake.set()

    def _of(self, environment: str) -> list[Import]:
        return [job for job in self._jobs.values() if job.environment == environment]

    def _file(self, job_id: str) -> Path:
        return self._directory / f"{job_id}.data"

    def _record(self, job_id: str) -> Path:
        return self._directory / f"{job_id}.json"

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _load(directory: Path) -> list[Import]:
    found: list[Import] = []
    if not directory.is_dir():
        return found
    for path in sorted(directory.glob("*.json")):
        try:
            found.append(read_import(path))
        except (OSError, msgspec.MsgspecError) as exc:
            log.error("import_record_damaged", record=path.name, error=str(exc))
    wanted = {job.id for job in found if not job.ended or job.resumable}
    for path in directory.glob("*.data"):
        if path.stem not in wanted:
            path.unlink(missing_ok=True)
    return found


def _finish(file: IO[bytes], rest: bytearray) -> None:
    file.write(rest)
    file.flush()
    os.fsync(file.fileno())
