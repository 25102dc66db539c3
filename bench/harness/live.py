"""Watches: one query that many look at, and many different queries of which a change concerns one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from cloudlet.docdb.base import Preset
from cloudlet.docdb.service import DocumentService
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.watch.watch import Watch
from cloudlet.model.access import Access

from .engine import CLIENTS, ENVIRONMENT, per_second
from .results import Row
from .stats import median, percentile

SAME, OWN = 1_000, 10_000
"""Watches of one query, and watches of as many different ones: the most that an environment may have."""
CHANGES = 50
WRITES = 2_000
TOLD_S_MAX = 30.0
_COLLECTION = "rooms"
_ADMIN = Access(ENVIRONMENT, admin=True)


def watch_rows(work: Path, progress: Callable[[str], None]) -> list[Row]:
    """``watch-*`` cases."""
    return uvloop.run(_measured(work / "watch", progress))


class Audience:
    """Watches, each with a reader of its own."""

    def __init__(self) -> None:
        self.told = 0
        self._wanted = 0
        self._reached = asyncio.Event()
        self._watches: list[Watch] = []
        self._readers: list[asyncio.Task[None]] = []

    async def enter(self, watch: Watch) -> None:
        """Read its first result, then what follows."""
        await anext(watch)
        self._watches.append(watch)
        self._readers.append(asyncio.create_task(self._read(watch)))

    async def hear(self, more: int) -> None:
        """Wait until so many events more have been told, counted from the last time."""
        self._wanted += more
        self._reached.clear()
        if self.told < self._wanted:
            await asyncio.wait_for(self._reached.wait(), TOLD_S_MAX)

    async def leave(self) -> None:
        for watch in self._watches:
            await watch.close()
        await asyncio.gather(*self._readers)

    async def _read(self, watch: Watch) -> None:
        async for event in watch:
            self.told += len(event.changes)
            if self.told >= self._wanted:
                self._reached.set()


async def _measured(folder: Path, progress: Callable[[str], None]) -> list[Row]:
    stores = Stores.in_directory(folder)
    try:
        service = DocumentService(stores)
        await service.create_collection(ENVIRONMENT, _COLLECTION, Preset.READONLY)
        rows = await _same(service)
        progress(f"watch: {SAME:,} of one query")
        rows += await _own(service)
        progress(f"watch: {OWN:,} different queries")
    finally:
        await stores.close()
    return rows


async def _same(service: DocumentService) -> list[Row]:
    """ms from sending a change until everybody was told."""
    await service.insert(_ADMIN, _COLLECTION, [{"_id": "lobby", "room": "lobby", "count": 0}])
    audience, times = Audience(), []
    for number in range(SAME):
        access = Access(ENVIRONMENT, openid=f"w{number}")
        await audience.enter(await service.watch(access, _COLLECTION, {"room": "lobby"}))
    for _ in range(CHANGES):
        started = time.perf_counter()
        await service.update(_ADMIN, _COLLECTION, {"_id": "lobby"}, {"$inc": {"count": 1}})
        await audience.hear(SAME)
        times.append((time.perf_counter() - started) * 1000)
    await audience.leave()
    return _times(f"watch-same-{SAME}", times)


async def _own(service: DocumentService) -> list[Row]:
    """Writes per second while nobody watches, and while everybody watches what is theirs."""

    async def write(number: int) -> None:
        note = {"owner": f"w{number % OWN}", "text": "a line of talk"}
        await service.insert(_ADMIN, _COLLECTION, [note])

    unwatched = await per_second([write(number) for number in range(WRITES)], CLIENTS)
    await service.delete(_ADMIN, _COLLECTION, {}, multi=True)
    audience = Audience()
    for number in range(OWN):
        access = Access(ENVIRONMENT, openid=f"w{number}")
        await audience.enter(await service.watch(access, _COLLECTION, {"owner": f"w{number}"}))
    watched = await per_second([write(number) for number in range(WRITES)], CLIENTS)
    await audience.hear(WRITES)
    await audience.leave()
    case = f"watch-own-{OWN}"
    return [
        Row(case, "writes_per_s", round(watched, 1), "writes/s"),
        Row(case, "unwatched_writes_per_s", round(unwatched, 1), "writes/s"),
    ]


def _times(case: str, times: Sequence[float]) -> list[Row]:
    return [
        Row(case, "p50_ms", round(median(times), 3), "ms"),
        Row(case, "p99_ms", round(percentile(times, 0.99), 3), "ms"),
    ]
