"""What is counted, remembered and cleaned up."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from cloudlet.docdb.base import CreateCollection, Preset
from cloudlet.docdb.limits import DocdbLimits, TransactionLimits
from cloudlet.docdb.memory import MemoryStore
from cloudlet.docdb.metrics import DocumentMetrics
from cloudlet.docdb.service import DocumentService, Query
from cloudlet.docdb.stores import Stores
from cloudlet.model.access import Access
from cloudlet.model.errors import QueryTooCostly, RevisionConflict, StoreUnavailable, TransactionNotFound

pytestmark = pytest.mark.anyio

ADMIN = Access("e", admin=True)
LIMITS = DocdbLimits(transactions=TransactionLimits(outcomes_kept_max=3, lifetime_s=0.02, sweep_s=0.005))


class FullStore(MemoryStore):
    """A store whose disk is full for its first batch."""

    full = True

    async def commit_batch(self, batch: object) -> int:
        if self.full:
            self.full = False
            raise StoreUnavailable()
        return await super().commit_batch(batch)  # type: ignore[arg-type]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def stores(registry: CollectorRegistry) -> AsyncIterator[Stores]:
    made = Stores(lambda _: MemoryStore(), metrics=DocumentMetrics(registry))
    yield made
    await made.close()


def ended(registry: CollectorRegistry, outcome: str) -> float:
    name = "cloudlet_documents_transactions_total"
    return registry.get_sample_value(name, {"outcome": outcome}) or 0.0


async def test_transactions_are_counted_by_how_they_end(stores: Stores, registry: CollectorRegistry) -> None:
    service = DocumentService(stores)
    await service.create_collection("e", "c")
    await service.insert(ADMIN, "c", [{"_id": 1, "n": 1}])
    names = [await service.start_transaction(ADMIN) for _ in range(5)]
    assert registry.get_sample_value("cloudlet_documents_open_transactions") == 5
    inside = [replace(ADMIN, transaction=name) for name in names]
    await service.update(inside[0], "c", {"_id": 1}, {"$inc": {"n": 1}})
    with pytest.raises(RevisionConflict):
        await service.update(inside[1], "c", {"_id": 1}, {"$inc": {"n": 1}})
    with pytest.raises(Exception, match="E11000"):
        await service.insert(inside[2], "c", [{"_id": 1}])
    await service.abort_transaction(ADMIN, names[3])
    await service.commit_transaction(ADMIN, names[0])
    outcomes = {name: ended(registry, name) for name in ("committed", "conflict", "failed", "aborted")}
    assert outcomes == {"committed": 1, "conflict": 1, "failed": 1, "aborted": 1}
    assert registry.get_sample_value("cloudlet_documents_open_transactions") == 1


async def test_time_is_up_without_anybody_asking(stores: Stores, registry: CollectorRegistry) -> None:
    service = DocumentService(stores, limits=LIMITS)
    await service.create_collection("e", "c")
    inside = replace(ADMIN, transaction=await service.start_transaction(ADMIN))
    await service.insert(inside, "c", [{"_id": 1, "from": "inside"}])
    async with asyncio.timeout(30):
        await service.insert(ADMIN, "c", [{"_id": 1, "from": "outside"}])
    assert ended(registry, "expired") == 1
    assert registry.get_sample_value("cloudlet_documents_open_transactions") == 0


async def test_old_outcomes_are_forgotten(stores: Stores) -> None:
    service = DocumentService(stores, limits=LIMITS)
    names = [await service.start_transaction(ADMIN) for _ in range(4)]
    for name in names:
        await service.commit_transaction(ADMIN, name)
    for name in names[1:]:
        await service.commit_transaction(ADMIN, name)
    with pytest.raises(TransactionNotFound):
        await service.commit_transaction(ADMIN, names[0])


async def test_a_closed_store_takes_its_transactions_along() -> None:
    made: list[weakref.ref[MemoryStore]] = []

    def open_store(_name: str) -> MemoryStore:
        store = MemoryStore()
        made.append(weakref.ref(store))
        return store

    stores = Stores(open_store)
    service = DocumentService(stores)
    name = await service.start_transaction(ADMIN)
    await stores.remove("e")
    with pytest.raises(TransactionNotFound):
        await service.commit_transaction(ADMIN, name)
    assert len(made) == 2
    again = await service.start_transaction(ADMIN)
    await service.commit_transaction(ADMIN, again)
    await stores.remove("e")
    gc.collect()
    assert made[1]() is None
    await stores.close()


async def test_a_commit_may_be_tried_again_while_nothing_can_be_written() -> None:
    store = FullStore()
    stores = Stores(lambda _: store)
    service = DocumentService(stores)
    await store.define(CreateCollection("c", Preset.PRIVATE))
    name = await service.start_transaction(ADMIN)
    await service.insert(replace(ADMIN, transaction=name), "c", [{"_id": 1}])
    with pytest.raises(StoreUnavailable):
        await service.commit_transaction(ADMIN, name)
    await service.commit_transaction(ADMIN, name)
    assert await service.count(ADMIN, "c") == 1
    await stores.close()


async def test_a_costly_expression_is_refused_where_it_would_have_to_run_here(stores: Stores) -> None:
    service = DocumentService(stores)
    await service.create_collection("e", "c")
    inside = replace(ADMIN, transaction=await service.start_transaction(ADMIN))
    await service.insert(inside, "c", [{"_id": 1, "text": "a" * 40}])
    with pytest.raises(QueryTooCostly):
        await service.find(inside, "c", Query({"text": {"$regex": "^(a+)+$"}}))
    assert (await service.find(inside, "c", Query({"text": {"$regex": "^aaa"}}))).documents != []
