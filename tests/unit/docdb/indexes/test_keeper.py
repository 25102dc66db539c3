"""The background work on indexes: documents that expire, and automatic indexes from real queries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from cloudlet.docdb.base import Operation, Preset
from cloudlet.docdb.indexes.automatic import AutomaticPolicy
from cloudlet.docdb.indexes.expiry import TURN_DOCUMENTS
from cloudlet.docdb.indexes.keeper import IndexKeeper
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.service import DocumentService, IndexField, Query
from cloudlet.docdb.sqlite import SqliteStore
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.values import date_from_ms
from cloudlet.docdb.workers import WorkerPool
from cloudlet.model.access import Access
from cloudlet.model.errors import NotFound, QueryTooCostly

pytestmark = pytest.mark.anyio

ADMIN = Access("e", admin=True)
LIMITS = DocdbLimits(examined_inline_max=200, workers_max=1)
POLICY = AutomaticPolicy(examined_min=50, ratio_min=10, hits_min=3)


class ManualClock:
    """Wall time that the test moves."""

    seconds = 1_800_000_000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


class Place:
    """A service over one SQLite file, its keeper and its clock."""

    def __init__(self, stores: Stores) -> None:
        self.clock = ManualClock()
        self.service = DocumentService(stores, self.clock, LIMITS)
        self.off: set[tuple[str, str]] = set()
        self.keeper = self.service.indexes = IndexKeeper(
            stores, self.clock, LIMITS, POLICY, lambda environment, name: (environment, name) not in self.off
        )

    async def ids(self, **filter: object) -> list[object]:
        found = await self.service.find(ADMIN, "c", Query(filter or None, limit=1_000))
        return sorted((document["_id"] for document in found.documents), key=str)

    async def indexes(self) -> list[str]:
        return [index.name for index in (await self.service.collection_info("e", "c")).indexes][1:]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    workers = WorkerPool(LIMITS)
    stores = Stores(lambda name: SqliteStore(tmp_path / f"{name}.db", LIMITS, workers), workers)
    made = Place(stores)
    await made.service.create_collection("e", "c", Preset.READONLY)
    yield made
    await stores.close()


async def test_documents_expire_and_the_log_tells(place: Place) -> None:
    now = date_from_ms(1_800_000_000_000)
    await place.service.create_index("e", "c", "ttl", [IndexField("at")], expire_after_s=60)
    documents = [
        {"_id": "old", "at": now - timedelta(seconds=61)},
        {"_id": "just", "at": now - timedelta(seconds=60)},
        {"_id": "young", "at": now - timedelta(seconds=59)},
        {"_id": "never", "at": "2001"},
        {"_id": "number", "at": 0},
        {"_id": "none"},
        {"_id": "earliest", "at": [now, now - timedelta(days=1)]},
        {"_id": "latest", "at": [now, "x"]},
    ]
    await place.service.insert(ADMIN, "c", documents)
    await place.keeper.round()
    assert await place.ids() == ["latest", "never", "none", "number", "young"]
    store = place.service._stores.get("e")
    assert store is not None
    gone = await store.changes(8, 10)
    assert {(item.document_id, item.operation, item.at_ms) for item in gone} == {
        (name, Operation.DELETE, 1_800_000_000_000) for name in ("old", "just", "earliest")
    }
    place.clock.seconds += 2
    await place.keeper.round()
    assert await place.ids() == ["latest", "never", "none", "number"]
    place.clock.seconds += 60
    await place.keeper.round()
    assert await place.ids() == ["never", "none", "number"]


async def test_only_what_a_partial_index_holds_expires(place: Place) -> None:
    long_ago = date_from_ms(0)
    await place.service.create_index(
        "e", "c", "ttl", [IndexField("at")], expire_after_s=0, partial={"draft": True}
    )
    await place.service.insert(
        ADMIN, "c", [{"_id": 1, "at": long_ago, "draft": True}, {"_id": 2, "at": long_ago}]
    )
    await place.keeper.round()
    assert await place.ids() == [2]


async def test_many_expire_in_small_turns(place: Place) -> None:
    await place.service.create_index("e", "c", "ttl", [IndexField("at")], expire_after_s=0)
    many = 2 * TURN_DOCUMENTS + 5
    await place.service.insert(ADMIN, "c", [{"_id": at, "at": date_from_ms(at)} for at in range(many)])
    await place.service.insert(ADMIN, "c", [{"_id": "stays"}])
    await place.keeper.round()
    assert await place.ids() == ["stays"]


async def test_a_dear_query_gets_an_index_and_is_answered_by_it(place: Place) -> None:
    await place.service.insert(ADMIN, "c", [{"_id": at, "n": at, "m": at % 3} for at in range(150)])
    for _ in range(3):
        assert await place.ids(n=7) == [7]
        await place.keeper.round()
    assert await place.indexes() == ["auto_n"]
    info = (await place.service.collection_info("e", "c")).indexes[1]
    assert (info.automatic, info.unique, info.ready) == (True, False, True)
    explained = await place.service.explain(ADMIN, "c", Query({"n": 7}))
    assert (explained.index, explained.examined, explained.returned) == ("auto_n", 1, 1)
    for _ in range(5):
        assert len(await place.ids(m=1)) == 50
    await place.keeper.round()
    assert await place.indexes() == ["auto_n"]


async def test_a_query_that_was_ended_for_its_cost_counts_too(place: Place) -> None:
    store = place.service._stores.get("e")
    assert store is not None
    await place.service.insert(ADMIN, "c", [{"_id": at, "n": at} for at in range(3)])

    async def refuse(_read: object) -> None:
        raise QueryTooCostly("too long")

    real = store.read
    store.read = refuse  # type: ignore[assignment, method-assign]
    for _ in range(3):
        with pytest.raises(QueryTooCostly):
            await place.ids(n=7)
    store.read = real  # type: ignore[method-assign]
    await place.keeper.round()
    assert await place.indexes() == ["auto_n"]


async def test_an_idle_index_goes_and_a_used_one_stays(place: Place) -> None:
    await place.service.insert(ADMIN, "c", [{"_id": at, "n": at, "m": at} for at in range(150)])
    for _ in range(3):
        await place.ids(n=7)
        await place.ids(m=7)
    await place.keeper.round()
    await place.keeper.round()
    assert sorted(await place.indexes()) == ["auto_m", "auto_n"]
    place.clock.seconds += 13 * 86_400
    await place.ids(n=3)
    place.clock.seconds += 2 * 86_400
    await place.keeper.round()
    assert await place.indexes() == ["auto_n"]


async def test_what_somebody_removed_is_not_made_again(place: Place) -> None:
    await place.service.insert(ADMIN, "c", [{"_id": at, "n": at} for at in range(150)])
    for _ in range(2):
        for _ in range(3):
            await place.ids(n=7)
        await place.keeper.round()
        if await place.indexes():
            await place.service.drop_index("e", "c", "auto_n")
    assert await place.indexes() == []
    with pytest.raises(NotFound):
        await place.service.drop_index("e", "c", "auto_n")


async def test_a_collection_without_automatic_indexes_loses_those_it_has(place: Place) -> None:
    await place.service.insert(ADMIN, "c", [{"_id": at, "n": at} for at in range(150)])
    for _ in range(3):
        await place.ids(n=7)
    await place.keeper.round()
    assert await place.indexes() == ["auto_n"]
    place.off.add(("e", "c"))
    await place.keeper.round()
    assert await place.indexes() == []
    for _ in range(3):
        await place.ids(n=7)
    await place.keeper.round()
    assert await place.indexes() == []


async def test_documents_that_an_automatic_index_cannot_hold_cost_it_its_place_for_good(place: Place) -> None:
    await place.service.insert(ADMIN, "c", [{"_id": at, "n": at, "m": at} for at in range(150)])
    for _ in range(3):
        await place.ids(n=7, m=7)
    await place.keeper.round()
    assert await place.indexes() == ["auto_m_n"]
    await place.service.insert(ADMIN, "c", [{"_id": "arrays", "n": [1, 2], "m": [3, 4]}])
    assert await place.ids(n=1, m=3) == ["arrays"]
    await place.keeper.round()
    assert await place.indexes() == []
    for _ in range(3):
        await place.ids(n=7, m=7)
    await place.keeper.round()
    assert await place.indexes() == []
