"""The scanning process: reads jobs from its standard input, answers on its standard output, one at a time.

It opens document files read-only and ends when its input ends. Each job arms an alarm that ends the process
even if its parent is gone, because a regular expression cannot be interrupted in any other way.
"""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import apsw

from cloudlet.docdb.base import CollectionInfo, Found, Read, Row, find_collection
from cloudlet.docdb.execute import index_name, select
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.pipeline.jobs import run_job
from cloudlet.docdb.planner import Scan, plan
from cloudlet.docdb.sqlite_file import (
    candidates,
    count_all,
    entries,
    load_catalog,
    open_reader,
    sieved,
    snapshot,
)
from cloudlet.docdb.workerproto import (
    HEADER,
    Answer,
    Job,
    PipelineJob,
    frame,
    job_decoder,
    job_read,
    row,
    stored_row,
)
from cloudlet.model.errors import PlatformError, QueryTooCostly

MEMORY_BYTES_MAX = 2 * 1024**3
_GRACE_S = 1.0


def main() -> None:
    """Answer jobs until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _limit_memory()
    for body in _frames(sys.stdin.buffer):
        job = job_decoder.decode(body)
        signal.setitimer(signal.ITIMER_REAL, job.seconds + _GRACE_S)
        answer = frame(_answer(job))
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()


def _limit_memory() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = MEMORY_BYTES_MAX if hard == resource.RLIM_INFINITY else min(hard, MEMORY_BYTES_MAX)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


def _frames(stream: BinaryIO) -> Iterator[bytes]:
    while len(header := stream.read(HEADER.size)) == HEADER.size:
        (length,) = HEADER.unpack(header)
        body = stream.read(length)
        if len(body) < length:
            return
        yield body


def _answer(job: Job | PipelineJob) -> Answer:
    try:
        if isinstance(job, PipelineJob):
            return run_job(job)
        found = _run(job_read(job), job)
        return Answer(
            rows=[stored_row(found_row) for found_row in found.rows],
            keys=list(found.keys),
            count=found.count,
            examined=found.examined,
            index=found.index,
        )
    except PlatformError as exc:
        return Answer(error=type(exc).__name__, message=exc.message)
    except MemoryError:
        return Answer(error=QueryTooCostly.__name__, message="the query needs too much memory")


def _run(read: Read, job: Job) -> Found:
    limits = DocdbLimits(result_bytes_max=job.result_bytes_max)
    if job.postgres is not None:
        # Installations without PostgreSQL have no driver for it.
        from cloudlet.docdb.postgres.worker import run_on_postgres

        return run_on_postgres(read, limits, *job.postgres, job.seconds)
    if job.path is None:
        return select(_sent_rows(job), read, not read.sort, None, limits)
    with closing(open_reader(Path(job.path))) as connection, snapshot(connection):
        info = find_collection(load_catalog(connection), read.collection)
        if read.counts_all:
            return Found(count=count_all(connection, info))
        chosen = plan(
            read.where.node,
            read.sort,
            info.indexes,
            read.wanted,
            lambda source, most: entries(connection, info, source, most),
            unions=True,
        )
        counted = read.counted(chosen)
        if counted is not None:
            return Found(count=entries(connection, info, counted, sys.maxsize), index=index_name(counted))
        scans = isinstance(chosen.source, Scan)
        rows = sieved(connection, info, read.where) if scans else candidates(connection, info, chosen.source)
        with closing(rows):
            found = select(rows, read, chosen.ordered, None, limits, chosen.source)
        # What SQLite threw away was looked at, too.
        return replace(found, examined=_passed(connection, info, read, found)) if scans else found


def _passed(connection: apsw.Connection, info: CollectionInfo, read: Read, found: Found) -> int:
    """About how many documents a scan has passed."""
    if not read.sort and found.rows and len(found.rows) == read.limit:
        return max(found.examined, found.rows[-1].did)
    return count_all(connection, info)


def _sent_rows(job: Job) -> Iterator[Row]:
    for stored in job.rows or ():
        yield row(stored)


if __name__ == "__main__":
    main()
