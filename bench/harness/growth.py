"""What more documents cost: the same operations on 10,000, 100,000 and 1,000,000 of them; and, at 100,000,
counting, grouping and memory. Through the document service, as a server-side caller, in one process.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import uvloop

from bench.idle import pss_mb
from cloudlet.docdb.service import DocumentService, Query
from cloudlet.docdb.stores import Stores
from cloudlet.model.access import Access

from . import notes
from .engine import CLIENTS, ENVIRONMENT, created, grown, per_second
from .errors import BenchmarkFailed
from .results import REPOSITORY, Row
from .stats import median

SIZES = (10_000, 100_000, 1_000_000)
WHOLE = 100_000
"""Documents that are counted and grouped."""
CALLS = 2_000
REPEATS = 5
CHILD_S_MAX = 120
_ACCESS = Access(ENVIRONMENT, admin=True)


def growth_rows(work: Path, most: int, progress: Callable[[str], None]) -> list[Row]:
    """Sizes up to `most`."""
    return uvloop.run(_grow(work / "growth", [size for size in SIZES if size <= most], progress))


async def _grow(folder: Path, sizes: Sequence[int], progress: Callable[[str], None]) -> list[Row]:
    rows: list[Row] = []
    stores = Stores.in_directory(folder)
    service = DocumentService(stores)
    try:
        await created(service)
        loaded = 0
        for size in sizes:
            started = time.perf_counter()
            await grown(service, loaded, size)
            per_document_us = (time.perf_counter() - started) / (size - loaded) * 1e6
            rows += await _size_rows(service, size)
            rows.append(Row(f"documents-{size}", "load_us", round(per_document_us, 1), "µs per document"))
            if size == WHOLE:
                rows += await _whole_rows(service)
                rows.append(await asyncio.to_thread(_memory_row, folder))
            loaded = size
            progress(f"growth: {size:,} documents")
    finally:
        await stores.close()
    return rows


async def _size_rows(service: DocumentService, size: int) -> list[Row]:
    """µs per operation."""
    chosen, inserted = random.Random(size), iter(range(SIZES[-1] + size, SIZES[-1] + 2 * size))

    def newest(number: int) -> Awaitable[object]:
        query = Query({"_openid": notes.owner(number)}, {"at": -1}, limit=20)
        return service.find(_ACCESS, "notes", query)

    def span(number: int) -> Awaitable[object]:
        first = chosen.randrange(0, notes.OWNERS * 100, notes.OWNERS) + number % notes.OWNERS
        since, until = (notes.stored(n)["at"] for n in (first, first + notes.OWNERS * 50))
        condition = {"_openid": notes.owner(number), "at": {"$gte": since, "$lt": until}}
        return service.count(_ACCESS, "notes", condition)

    operations: dict[str, tuple[int, Callable[[int], Awaitable[object]]]] = {
        "get": (1, lambda n: service.find(_ACCESS, "notes", Query({"_id": notes.note_id(n)}, limit=1))),
        "list20": (1, newest),
        "count50": (1, span),
        "insert": (CLIENTS, lambda _n: service.insert(_ACCESS, "fresh", [notes.stored(next(inserted))])),
        "inc": (
            CLIENTS,
            lambda n: service.update(_ACCESS, "notes", {"_id": notes.note_id(n)}, {"$inc": {"count": 1}}),
        ),
    }
    rows = []
    for name, (clients, call) in operations.items():
        rates = []
        for _ in range(REPEATS):
            numbers = [chosen.randrange(size) for _ in range(CALLS // REPEATS)]
            rates.append(await per_second([call(number) for number in numbers], clients))
        rows.append(Row(f"documents-{size}", f"{name}_us", round(1e6 / median(rates), 1), "µs"))
    return rows


async def _whole_rows(service: DocumentService) -> list[Row]:
    """ms of questions about all documents, the workers' processes already running."""
    group = [{"$group": {"_id": "$_openid", "sum": {"$sum": "$price"}, "count": {"$sum": 1}}}]
    questions: dict[str, Callable[[], Awaitable[object]]] = {
        "count": lambda: service.count(_ACCESS, "notes"),
        "count-indexed": lambda: service.count(_ACCESS, "notes", {"_openid": notes.owner(7)}),
        "count-scan": lambda: service.count(_ACCESS, "notes", {"price": {"$gte": 100.0}}),
        "group-by": lambda: service.aggregate(_ACCESS, "notes", group),
    }
    rows = []
    for name, ask in questions.items():
        await ask()
        times = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            await ask()
            times.append((time.perf_counter() - started) * 1000)
        rows.append(Row(f"{name}-{WHOLE}", "median_ms", round(median(times), 3), "ms"))
    return rows


def _memory_row(folder: Path) -> Row:
    """Of a process of its own that has the documents open and has read 100,000 of them."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.harness.growth", str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=CHILD_S_MAX,
        check=False,
    )
    if done.returncode != 0:
        raise BenchmarkFailed(f"the reading process failed: {done.stderr.strip()[-500:]}")
    return Row(f"memory-{WHOLE}", "memory_mb", round(json.loads(done.stdout)["memory_mb"], 1), "MB")


async def _read_many(folder: Path) -> None:
    stores = Stores.in_directory(folder)
    service, chosen = DocumentService(stores), random.Random(1)
    try:
        for _ in range(WHOLE):
            query = Query({"_id": notes.note_id(chosen.randrange(WHOLE))}, limit=1)
            await service.find(_ACCESS, "notes", query)
        print(json.dumps({"memory_mb": pss_mb(Path("/proc/self/smaps_rollup").read_text())}))
    finally:
        await stores.close()


if __name__ == "__main__":
    uvloop.run(_read_many(Path(sys.argv[1])))
