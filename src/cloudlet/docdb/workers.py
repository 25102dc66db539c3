"""A small pool of processes that scan, so that a long scan neither holds the server nor outlives its time
limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import PIPE, Process

import msgspec
import structlog

from cloudlet.docdb.base import Found
from cloudlet.docdb.limits import DEFAULT_LIMITS, DocdbLimits
from cloudlet.docdb.metrics import DocumentMetrics
from cloudlet.docdb.workerproto import (
    FRAME_BYTES_MAX,
    HEADER,
    Answer,
    Job,
    PipelineJob,
    answer_decoder,
    answer_found,
    frame,
)
from cloudlet.model.errors import ConcurrencyExceeded, QueryTooCostly, ShuttingDown, StoreUnavailable

log = structlog.get_logger(__name__)

_START_S = 10.0
"""What a new process may take until it reads its first job."""
_DYING_S = 1.0


class WorkerPool:
    """Runs jobs in at most ``workers_max`` processes, started when they are needed.

    A job that is not answered within its time, or whose caller is cancelled, costs its process: it is killed,
    and a new one is started for the next job.
    """

    def __init__(self, limits: DocdbLimits = DEFAULT_LIMITS, metrics: DocumentMetrics | None = None) -> None:
        self._limits = limits
        self._metrics = metrics or DocumentMetrics()
        self._slots = asyncio.Semaphore(limits.workers_max)
        self._waiting = 0
        self._idle: list[Process] = []
        self._all: set[Process] = set()
        self._closed = False

    @property
    def pids(self) -> list[int]:
        """The processes that live, for status displays."""
        return [process.pid for process in self._all if process.returncode is None]

    @property
    def waiting(self) -> int:
        """Jobs that wait for a process."""
        return self._waiting

    async def run(self, job: Job) -> Found:
        """The answer to a job; raises what ``answer`` raises, and whatever the query itself raises."""
        return answer_found(await self.answer(job))

    async def answer(self, job: Job | PipelineJob) -> Answer:
        """What a process answers, which may be an error of the query.

        Raises QueryTooCostly at the time limit, ConcurrencyExceeded if too many jobs wait, StoreUnavailable
        if the process died for another reason.
        """
        if self._closed:
            raise ShuttingDown()
        if self._waiting >= self._limits.scans_waiting_max:
            raise ConcurrencyExceeded("too many slow queries are waiting")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._run(job)
        finally:
            self._slots.release()

    async def close(self) -> None:
        """End all processes and wait until they are gone."""
        self._closed = True
        for process in list(self._all):
            _kill(process)
        for process in list(self._all):
            await _reap(process)
        self._all.clear()
        self._idle.clear()

    async def _run(self, job: Job | PipelineJob) -> Answer:
        process, started = await self._take()
        try:
            async with asyncio.timeout(job.seconds + (_START_S if started else 0)):
                answer = await _exchange(process, job)
        except TimeoutError as exc:
            self._metrics.killed.inc()
            await self._end(process)
            log.warning("scan_killed", collection=job.collection, seconds=job.seconds)
            raise _too_long(job) from exc
        except (OSError, EOFError, msgspec.MsgspecError) as exc:
            self._metrics.killed.inc()
            await _seen_ending(process)
            await self._end(process)
            if process.returncode == -signal.SIGALRM:
                raise _too_long(job) from exc
            log.warning("scan_worker_died", collection=job.collection, status=process.returncode)
            raise StoreUnavailable("the process of the query ended before it answered") from exc
        except BaseException:
            _kill(process)
            raise
        self._idle.append(process)
        return answer

    async def _take(self) -> tuple[Process, bool]:
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process, False
            self._all.discard(process)
        for process in [item for item in self._all if item.returncode is not None]:
            self._all.discard(process)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "cloudlet.docdb.worker", stdin=PIPE, stdout=PIPE
        )
        self._all.add(process)
        return process, True

    async def _end(self, process: Process) -> None:
        _kill(process)
        await _reap(process)
        self._all.discard(process)


async def _exchange(process: Process, job: Job | PipelineJob) -> Answer:
    if process.stdin is None or process.stdout is None:
        raise EOFError
    process.stdin.write(frame(job))
    await process.stdin.drain()
    (length,) = HEADER.unpack(await process.stdout.readexactly(HEADER.size))
    if length > FRAME_BYTES_MAX:
        raise EOFError
    return answer_decoder.decode(await process.stdout.readexactly(length))


async def _seen_ending(process: Process) -> None:
    """Wait a moment for a process that seems to be dying: a signal sent meanwhile would hide its status."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DYING_S):
            await process.wait()


def _kill(process: Process) -> None:
    if process.returncode is None:
        process.kill()


async def _reap(process: Process) -> None:
    """Wait for the process and read what is left in its pipe, so that the loop closes both."""
    if process.stdin is not None:
        process.stdin.close()
    if process.stdout is not None:
        while await process.stdout.read(65536):
            pass
    await process.wait()


def _too_long(job: Job | PipelineJob) -> QueryTooCostly:
    return QueryTooCostly(f"the query took longer than {job.seconds:g} s and was stopped; an index may help")
