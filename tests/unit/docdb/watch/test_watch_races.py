"""Watches that begin, go on and are read while others write, and stores that tell too little or too much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from cloudlet.docdb.base import Change, Found, Listener, Read
from cloudlet.docdb.filter import where
from cloudlet.docdb.limits import DocdbLimits, WatchLimits
from cloudlet.docdb.memory import MemoryStore
from cloudlet.docdb.service import DocumentService
from cloudlet.docdb.sort import parse_sort, sort_documents
from cloudlet.docdb.sqlite import SqliteStore
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.watch.events import QueueType, WatchEvent
from cloudlet.docdb.watch.order import total
from cloudlet.docdb.watch.watch import Watch
from cloudlet.model.access import Access
from cloudlet.model.errors import ChangesPruned, PlatformError, StoreUnavailable
from tests.docdb_postgres import OwnStore, postgres_server, postgres_url  # noqa: F401 - fixtures
from tests.property.test_docdb_watch import Client
from tests.unit.docdb.watch.hearing import hear, said

pytestmark = pytest.mark.anyio

ADMIN = Access("e", admin=True)
LIMITS = DocdbLimits(watches=WatchLimits(reserve_max=2, queue_max=16))
QUERIES: list[tuple[dict[str, Any], dict[str, int] | None, int | None]] = [
    ({"a": 1}, None, None),
    ({}, {"n": -1}, 3),
    ({"n": {"$gte": 3}}, {"n": 1}, 2),
    ({"a": {"$in": [0, 2]}}, {"n": 1}, None),
]


STEPS = count()


class Forward(Client):
    """Notices a document that goes back to what it was before."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[Any, int] = {}

    def hear(self, event: WatchEvent) -> None:
        super().hear(event)
        for change in event.changes:
            if change.queue_type is not QueueType.DEQUEUE:
                step = change.document.get("v", 0)
                assert step >= self.seen.get(change.document_id, 0)
                self.seen[change.document_id] = step


class Waiting(MemoryStore):
    """Lets others work in the middle of every read, and may lose or repeat what listeners hear."""

    def __init__(self, random: Random) -> None:
        super().__init__(LIMITS)
        self.random = random
        self.loses = self.repeats = 0.0
        self.broken: PlatformError | None = None
        self.log_broken: PlatformError | None = None

    async def read(self, read: Read) -> Found:
        await self._others()
        if self.broken is not None:
            raise self.broken
        found = await super().read(read)
        await self._others()
        return found

    async def last_seq(self) -> int:
        await self._others()
        return await super().last_seq()

    async def changes(self, after_seq: int, limit: int, collection: str | None = None) -> list[Change]:
        await self._others()
        if self.log_broken is not None:
            raise self.log_broken
        found = await super().changes(after_seq, min(limit, 7), collection)
        # A page that is not full says that there is nothing more.
        return found if len(found) < 7 else await super().changes(after_seq, limit, collection)

    def listen(self, listener: Listener) -> Callable[[], None]:
        def heard(changes: Sequence[Change]) -> None:
            if self.random.random() >= self.loses:
                listener(changes)
            if self.random.random() < self.repeats:
                listener(changes)

        return super().listen(heard)

    async def _others(self) -> None:
        for _ in range(self.random.randint(0, 3)):
            await asyncio.sleep(0)


async def write(service: DocumentService, random: Random, times: int) -> None:
    for _ in range(times):
        number = random.randint(0, 15)
        try:
            if random.random() < 0.4:
                await service.insert(
                    ADMIN,
                    "c",
                    [{"_id": number, "a": random.randint(0, 2), "n": random.randint(0, 9), "v": next(STEPS)}],
                )
            elif random.random() < 0.7:
                await service.update(
                    ADMIN,
                    "c",
                    {"_id": number},
                    {"$set": {"a": random.randint(0, 2), "v": next(STEPS)}, "$inc": {"n": 1}},
                )
            else:
                await service.delete(ADMIN, "c", {"n": {"$lte": number}}, multi=True)
        except PlatformError:
            continue  # The id exists.
        if random.random() < 0.3:
            await asyncio.sleep(0)


async def follow(service: DocumentService, random: Random, number: int, times: int) -> tuple[Watch, Client]:
    """Watch, read a while, leave and come back; at the end watch on."""
    filter, sort, limit = QUERIES[number % len(QUERIES)]
    watch, client = await service.watch(ADMIN, "c", filter, sort, limit), Forward()
    for _ in range(times):
        while True:
            reading = asyncio.ensure_future(anext(watch))
            for _ in range(random.randint(1, 6)):
                await asyncio.sleep(0)
            if not reading.done():
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                break
            client.hear(reading.result())
            if random.random() < 0.3:
                break
        await watch.close()
        watch = await service.watch(ADMIN, "c", filter, sort, limit, resume=client.token)
        if not watch.resumed:
            client = Forward()
    return watch, client


async def race(store: Any, random: Random, times: int) -> None:
    service = DocumentService(Stores(lambda _: store), limits=LIMITS)
    await service.create_collection("e", "c")
    writing = [asyncio.ensure_future(write(service, Random(random.random()), times)) for _ in range(2)]
    following = [
        asyncio.ensure_future(follow(service, Random(random.random()), number, times // 6))
        for number in range(2 * len(QUERIES))
    ]
    followed = await asyncio.gather(*following)
    await asyncio.gather(*writing)
    if isinstance(store, Waiting):
        store.loses = store.repeats = 0.0
    for number, (watch, client) in enumerate(followed):
        # The last write makes sure that what was lost before is noticed, and is the sign to stop.
        await service.insert(ADMIN, "c", [{"_id": f"end{number}", "a": 0, "n": -1}])
        await service.update(ADMIN, "c", {"_id": f"end{number}"}, {"$set": {"a": 1, "n": 1_000}})
        filter, sort, limit = QUERIES[number % len(QUERIES)]
        order = total(parse_sort(sort))
        while True:
            rows = (await store.read(Read("c", where(filter)))).rows
            expected = [row.document for row in rows]
            sort_documents(expected, order, lambda item: item)
            told = list(client.documents.values())
            sort_documents(told, order, lambda item: item)
            if told == expected[:limit] and client.event >= 0:
                break
            client.hear(await hear(watch))
        await watch.close()
    hub = service.watches._rooms["e"].hub
    assert (hub.held.bytes, hub._window_bytes, hub._users, hub._lives) == (0, 0, 0, {})


@pytest.mark.parametrize("seed", range(12))
async def test_watches_that_begin_and_go_on_while_others_write(seed: int) -> None:
    await race(Waiting(Random(seed)), Random(seed), 60)


@pytest.mark.parametrize("seed", range(8))
async def test_changes_that_are_not_heard_or_heard_twice(seed: int) -> None:
    store = Waiting(Random(seed))
    store.loses, store.repeats = 0.3, 0.3
    await race(store, Random(seed), 60)


@pytest.mark.parametrize("seed", range(3))
async def test_watches_on_disk_while_others_write(seed: int, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "e.db", LIMITS)
    await race(store, Random(seed), 40)
    await store.close()


@pytest.fixture
def postgres_store(request: pytest.FixtureRequest) -> OwnStore:
    return OwnStore(request.getfixturevalue("postgres_url"), LIMITS)


@pytest.mark.parametrize("seed", range(2))
async def test_watches_on_postgres_while_others_write(seed: int, postgres_store: OwnStore) -> None:
    await postgres_store.start()
    await race(postgres_store, Random(seed), 40)
    await postgres_store.close()


async def made(store: MemoryStore) -> DocumentService:
    service = DocumentService(Stores(lambda _: store), limits=LIMITS)
    await service.create_collection("e", "c")
    await service.insert(ADMIN, "c", [{"_id": number, "n": number} for number in range(20)])
    return service


async def test_a_log_that_cannot_close_a_gap_ends_the_watches_which_can_begin_anew() -> None:
    store = Waiting(Random(1))
    service = await made(store)
    watch = await service.watch(ADMIN, "c", {"n": 50})
    await hear(watch)
    store.loses = 1.0
    await service.insert(ADMIN, "c", [{"_id": 50, "n": 50}])
    store.loses, store.log_broken = 0.0, ChangesPruned()
    await service.insert(ADMIN, "c", [{"_id": 51, "n": 50}])
    with pytest.raises(ChangesPruned):
        await hear(watch)
    store.log_broken = None
    again = await service.watch(ADMIN, "c", {"n": 50})
    assert len((await hear(again)).changes) == 2
    await service.delete(ADMIN, "c", {"_id": 50})
    assert said(await hear(again)) == [("dequeue", "remove", 50)]
    await again.close()


async def test_a_window_that_cannot_be_read_ends_its_watches_and_no_others() -> None:
    store = Waiting(Random(1))
    service = await made(store)
    watch, other = (
        await service.watch(ADMIN, "c", {}, {"n": 1}, 2),
        await service.watch(ADMIN, "c", {"n": 19}),
    )
    await hear(watch)
    await hear(other)
    store.broken = StoreUnavailable()
    await service.delete(ADMIN, "c", {"_id": {"$in": list(range(10))}}, multi=True)
    with pytest.raises(StoreUnavailable):
        await hear(watch)
    with pytest.raises(StoreUnavailable):
        await service.watch(ADMIN, "c", {}, {"n": 1}, 2)
    store.broken = None
    again = await service.watch(ADMIN, "c", {}, {"n": 1}, 2)
    assert said(await hear(again)) == [("init", "init", 10), ("init", "init", 11)]
    await service.delete(ADMIN, "c", {"_id": 19})
    assert said(await hear(other)) == [("dequeue", "remove", 19)]
    await again.close()
    await other.close()


async def test_one_who_gives_up_beginning_leaves_the_window_to_others() -> None:
    service = await made(Waiting(Random(1)))
    first, second = [asyncio.ensure_future(service.watch(ADMIN, "c", {}, {"n": 1}, 2)) for _ in range(2)]
    hub = service.watches
    while "e" not in hub._rooms or not hub._rooms["e"].hub._loads:  # noqa: ASYNC110 - a test may look
        await asyncio.sleep(0)
    first.cancel()
    watch = await second
    assert said(await hear(watch)) == [("init", "init", 0), ("init", "init", 1)]
    await asyncio.gather(first, return_exceptions=True)
    await watch.close()
    room = hub._rooms["e"]
    assert (room.hub._users, room.seats.taken, room.hub._lives) == (0, 0, {})
