"""What every store promises about pipelines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from cloudlet.docdb.base import CreateCollection, CreateIndex, Decision, Preset, Put, Store, Turn
from cloudlet.docdb.catalog import key_part
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.memory import MemoryStore
from cloudlet.docdb.pipeline.execute import Aggregated, make_aggregation
from cloudlet.docdb.values import prepare
from cloudlet.docdb.workers import WorkerPool
from cloudlet.model.errors import CollectionNotFound, InvalidFilter, QueryTooCostly, ResultTooLarge
from tests.contract.conftest import StoreMaker

pytestmark = pytest.mark.anyio

NOW_MS = 1_800_000_000_000
DISHES = [{"_id": i, "n": i, "k": "ab"[i % 2], "tags": [i % 3, i % 5]} for i in range(40)]
SHOPS = [{"_id": f"s{i}", "n": i, "open": i % 2 == 0} for i in range(10)]
PIPELINES: list[Any] = [
    [{"$match": {"n": {"$lt": 3}}}, {"$sort": {"n": -1}}],
    [{"$sort": {"k": 1, "n": -1}}, {"$skip": 2}, {"$limit": 3}, {"$project": {"_id": 1}}],
    [{"$match": {"n": 4}}, {"$set": {"y": {"$year": "$$NOW"}}}],
    [{"$group": {"_id": "$k", "s": {"$sum": "$n"}, "m": {"$max": "$n"}}}, {"$sort": {"_id": 1}}],
    [{"$unwind": "$tags"}, {"$group": {"_id": "$tags", "c": {"$sum": 1}}}, {"$sort": {"_id": 1}}],
    [{"$match": {"$expr": {"$eq": ["$n", 7]}}}],
    [{"$match": {"n": {"$gte": 38}}}, {"$unionWith": "shops"}, {"$count": "c"}],
    [
        {"$match": {"n": {"$lt": 4}}},
        {"$sort": {"_id": 1}},
        {"$lookup": {"from": "shops", "localField": "n", "foreignField": "n", "as": "j"}},
    ],
    [
        {"$match": {"n": {"$lt": 3}}},
        {"$sort": {"_id": 1}},
        {
            "$lookup": {
                "from": "shops",
                "let": {"n": "$n"},
                "pipeline": [
                    {"$match": {"open": True, "$expr": {"$eq": ["$n", "$$n"]}}},
                    {"$project": {"n": 1}},
                ],
                "as": "j",
            }
        },
    ],
    [{"$facet": {"a": [{"$count": "c"}], "b": [{"$match": {"n": 1}}, {"$project": {"k": 1}}]}}],
    [{"$collStats": {"count": {}}}, {"$project": {"count": 1, "localTime": 1}}],
    [{"$lookup": {"from": "nowhere", "pipeline": [], "as": "j"}}, {"$match": {"j": {"$ne": []}}}],
    [{"$match": {"n": 99}}, {"$count": "c"}],
]
HERE = DocdbLimits(examined_inline_max=10_000)
AWAY = DocdbLimits(examined_inline_max=2, workers_max=1, scan_time_s=20.0)


async def fill(store: Store) -> None:
    for name, documents in (("dishes", DISHES), ("shops", SHOPS)):
        await store.define(CreateCollection(name, Preset.PRIVATE))
        puts = [Put(dict(document)) for document in documents]
        await store.commit(Turn(name, NOW_MS, lambda _rows, puts=puts: Decision(None, puts)))  # type: ignore[misc]
        await store.define(CreateIndex(name, "by_n", (key_part("n"),)))


@pytest.fixture(params=["here", "away"])
async def kitchen(request: pytest.FixtureRequest, make_store: StoreMaker) -> AsyncIterator[Store]:
    """A store that runs pipelines in this process if it can, or in a worker."""
    limits = HERE if request.param == "here" else AWAY
    workers = WorkerPool(limits)
    store = make_store(limits, workers)
    await fill(store)
    yield store
    await store.close()
    await workers.close()


async def run(store: Store, stages: Any, conditions: Any = None) -> Aggregated:
    return await store.aggregate(make_aggregation("dishes", prepare(stages, NOW_MS), NOW_MS, conditions))


@pytest.fixture
async def plain() -> AsyncIterator[Store]:
    store = MemoryStore(HERE)
    await fill(store)
    yield store
    await store.close()


async def test_pipelines_give_what_they_give_in_memory(kitchen: Store, plain: Store) -> None:
    for stages in PIPELINES:
        assert (await run(kitchen, stages)).documents == (await run(plain, stages)).documents, stages


async def test_what_is_refused_is_refused_everywhere(kitchen: Store) -> None:
    with pytest.raises(InvalidFilter, match=r"can't \$divide by zero"):
        await run(kitchen, [{"$project": {"x": {"$divide": [1, "$n"]}}}])
    with pytest.raises(CollectionNotFound):
        await kitchen.aggregate(make_aggregation("nowhere", [], NOW_MS))


async def test_collections_without_an_entry_are_not_read(kitchen: Store) -> None:
    join = [{"$lookup": {"from": "shops", "pipeline": [], "as": "j"}}, {"$unwind": "$j"}, {"$count": "c"}]
    assert (await run(kitchen, join, {"dishes": ({"n": {"$lt": 2}},)})).documents == []
    both = {"dishes": ({"n": {"$lt": 2}},), "shops": ({"open": True},)}
    assert (await run(kitchen, join, both)).documents == [{"c": 10}]
    assert (await run(kitchen, [{"$count": "c"}], {})).documents == []


async def test_results_belong_to_the_caller(kitchen: Store) -> None:
    (first,) = (await run(kitchen, [{"$match": {"n": 1}}])).documents
    first["tags"].append("changed")
    (second,) = (await run(kitchen, [{"$match": {"n": 1}}])).documents
    assert second["tags"] == [1, 1]


async def test_a_costly_pattern_goes_to_a_worker(make_store: StoreMaker) -> None:
    store = make_store(HERE, None)
    await fill(store)
    try:
        search = {"$regexMatch": {"input": "$k", "regex": "^(a+)+$"}}
        with pytest.raises(QueryTooCostly, match="needs a worker process"):
            await run(store, [{"$match": {"n": 1}}, {"$set": {"r": search}}])
    finally:
        await store.close()


async def test_a_result_has_a_limit(make_store: StoreMaker) -> None:
    store = make_store(DocdbLimits(result_bytes_max=2_000), None)
    await fill(store)
    try:
        with pytest.raises(ResultTooLarge):
            await run(store, [])
    finally:
        await store.close()
