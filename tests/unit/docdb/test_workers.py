"""Scanning processes: what they answer, and how they end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cloudlet.docdb.base import Read, Want
from cloudlet.docdb.body import encode_body
from cloudlet.docdb.filter import where
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.sort import parse_sort
from cloudlet.docdb.sqlite_file import open_writer
from cloudlet.docdb.workerproto import Job, StoredRow, make_job
from cloudlet.docdb.workers import WorkerPool
from cloudlet.model.errors import (
    CollectionNotFound,
    ConcurrencyExceeded,
    QueryTooCostly,
    ResultTooLarge,
    ShuttingDown,
    StoreUnavailable,
)

pytestmark = pytest.mark.anyio

LIMITS = DocdbLimits(workers_max=1, scans_waiting_max=1, scan_time_s=20.0)
HOPELESS = {"t": {"$regex": "^(a+)+$"}}
"""With a text of a's that ends otherwise this takes longer than anyone waits."""


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    made = WorkerPool(LIMITS)
    yield made
    await made.close()
    assert made.pids == []


def job(condition: dict[str, Any], *documents: dict[str, Any], limits: DocdbLimits = LIMITS) -> Job:
    rows = [
        StoredRow(at, bytes([at]), 1, encode_body({"_id": at, **document}, 10**6))
        for at, document in enumerate(documents)
    ]
    return make_job(Read("c", where(condition), parse_sort({"n": -1}), limit=2), limits, rows=rows)


def hopeless(seconds: float) -> Job:
    return job(HOPELESS, {"t": "a" * 60 + "!"}, limits=DocdbLimits(scan_time_s=seconds))


async def test_a_job_is_answered(pool: WorkerPool) -> None:
    found = await pool.run(job({"n": {"$gt": 1}}, {"n": 1}, {"n": 2}, {"n": 4}, {"n": 3}))
    assert [row.document["n"] for row in found.rows] == [4, 3]
    assert found.examined == 4


async def test_a_process_is_used_again(pool: WorkerPool) -> None:
    await pool.run(job({}, {"n": 1}))
    first = pool.pids
    await pool.run(job({}, {"n": 1}))
    assert pool.pids == first
    assert len(first) == 1


async def test_a_hopeless_pattern_is_killed_and_the_next_job_works(pool: WorkerPool) -> None:
    await pool.run(job({}, {"n": 1}))
    (pid,) = pool.pids
    with pytest.raises(QueryTooCostly, match=r"longer than 0\.05 s"):
        await pool.run(hopeless(0.05))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert len((await pool.run(job({}, {"n": 1}))).rows) == 1


async def test_a_cancelled_caller_costs_the_process(pool: WorkerPool) -> None:
    await pool.run(job({}, {"n": 1}))
    (pid,) = pool.pids
    task = asyncio.create_task(pool.run(hopeless(20)))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len((await pool.run(job({}, {"n": 1}))).rows) == 1
    assert pid not in pool.pids


async def test_a_process_that_dies_is_replaced(pool: WorkerPool) -> None:
    await pool.run(job({}, {"n": 1}))
    (pid,) = pool.pids
    task = asyncio.create_task(pool.run(hopeless(20)))
    for _ in range(3):
        await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(StoreUnavailable):
        await task
    assert len((await pool.run(job({}, {"n": 1}))).rows) == 1


async def test_errors_come_back_as_what_they_are(pool: WorkerPool) -> None:
    with pytest.raises(ResultTooLarge):
        await pool.run(job({}, {"t": "x" * 500}, limits=DocdbLimits(result_bytes_max=100)))
    with pytest.raises(StoreUnavailable):
        await pool.run(make_job(Read("c", where({}), want=Want.COUNT), LIMITS, path="/nonexistent/e.db"))


async def test_a_missing_collection_is_said_so(pool: WorkerPool, tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    open_writer(path).close()
    with pytest.raises(CollectionNotFound):
        await pool.run(make_job(Read("c", where({})), LIMITS, path=str(path)))


async def test_too_many_waiting_jobs_are_refused_at_once(pool: WorkerPool) -> None:
    await pool.run(job({}, {"n": 1}))
    tasks = [asyncio.create_task(pool.run(hopeless(20))) for _ in range(2)]
    for _ in range(3):
        await asyncio.sleep(0)
    with pytest.raises(ConcurrencyExceeded):
        await pool.run(job({}, {"n": 1}))
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(error, asyncio.CancelledError)
        for error in await asyncio.gather(*tasks, return_exceptions=True)
    )


async def test_a_closed_pool_refuses() -> None:
    pool = WorkerPool(LIMITS)
    await pool.run(job({}, {"n": 1}))
    await pool.close()
    with pytest.raises(ShuttingDown):
        await pool.run(job({}))
