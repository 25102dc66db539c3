"""Pipelines through the document service: permissions, rows, workers, writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloudlet.docdb.base import Preset
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.pipeline.serving import Rows, first_match, with_limit
from cloudlet.docdb.service import DocumentService, IndexField
from cloudlet.docdb.sqlite import SqliteStore
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.workers import WorkerPool
from cloudlet.model.access import Access
from cloudlet.model.errors import (
    CollectionNotFound,
    DuplicateKey,
    InvalidFilter,
    InvalidParameter,
    PermissionDenied,
    QueryTooCostly,
)

pytestmark = pytest.mark.anyio

ADMIN, ANN, BEN = Access("e", admin=True), Access("e", openid="ann"), Access("e", openid="ben")
NOBODY = Access("e")


async def fill(service: DocumentService, collection: str, count: int, access: Access = ADMIN) -> None:
    """Documents with numbers from 0, in ids and in ``n``."""
    name = access.openid or "s"
    for start in range(0, count, 200):
        await service.insert(
            access,
            collection,
            [{"_id": f"{name}{i:05}", "n": i, "g": i % 3} for i in range(start, min(count, start + 200))],
        )


async def total(service: DocumentService, access: Access, collection: str, *stages: dict[str, Any]) -> int:
    found = await service.aggregate(access, collection, [*stages, {"$count": "c"}])
    return int(found[0]["c"]) if found else 0


async def test_a_small_pipeline_and_one_for_a_worker(service: DocumentService) -> None:
    await fill(service, "readonly", 120)
    by_group = [{"$group": {"_id": "$g", "s": {"$sum": "$n"}}}, {"$sort": {"_id": 1}}]
    found = await service.aggregate(ADMIN, "readonly", by_group)
    assert found == [{"_id": 0, "s": 2340}, {"_id": 1, "s": 2380}, {"_id": 2, "s": 2420}]
    few = await service.aggregate(ADMIN, "readonly", [{"$match": {"_id": {"$lt": "s00003"}}}, *by_group])
    assert few == [{"_id": 0, "s": 0}, {"_id": 1, "s": 1}, {"_id": 2, "s": 2}]


async def test_a_missing_collection(service: DocumentService) -> None:
    with pytest.raises(CollectionNotFound):
        await service.aggregate(ADMIN, "nowhere", [])


async def test_dates_of_the_server_are_resolved(service: DocumentService) -> None:
    await fill(service, "private", 1)
    found = await service.aggregate(ADMIN, "private", [{"$project": {"_id": 0, "y": {"$year": "$$NOW"}}}])
    assert found == [{"y": 2027}]


async def test_a_pipeline_is_not_part_of_a_transaction(service: DocumentService) -> None:
    with pytest.raises(InvalidParameter, match="inside a transaction"):
        await service.aggregate(Access("e", admin=True, transaction="t"), "private", [])


async def test_errors_of_a_worker_come_back(service: DocumentService) -> None:
    await fill(service, "private", 120)
    with pytest.raises(InvalidFilter, match=r"can't \$divide by zero"):
        await service.aggregate(ADMIN, "private", [{"$project": {"x": {"$divide": [1, "$n"]}}}])


async def test_a_hopeless_pipeline_is_killed(tmp_path: Path) -> None:
    limits = DocdbLimits(scan_time_s=0.2)
    pool = WorkerPool(limits)
    stores = Stores(lambda name: SqliteStore(tmp_path / f"{name}.db", limits, pool), pool)
    service = DocumentService(stores)
    try:
        await service.create_collection("e", "private")
        await fill(service, "private", 1)
        search = {"$regexMatch": {"input": "$t", "regex": "^(a+)+$"}}
        stages = [{"$set": {"t": "$_id"}}, {"$match": {"$expr": search}}]
        assert await service.aggregate(ADMIN, "private", stages) == []
        stages[0] = {"$set": {"t": "a" * 60 + "!"}}
        with pytest.raises(QueryTooCostly, match=r"longer than 0\.2 s"):
            await service.aggregate(ADMIN, "private", stages)
    finally:
        await stores.close()


# Who sees what.


@pytest.mark.parametrize("count", [4, 90], ids=["inline", "worker"])
async def test_presets_and_owners(service: DocumentService, count: int) -> None:
    for collection in ("private", "readonly"):
        for access in (ANN, BEN):
            await fill(service, collection, count, access)
    assert await total(service, ANN, "private") == count
    assert await total(service, ADMIN, "private") == 2 * count
    assert await total(service, ANN, "readonly") == 2 * count
    assert await total(service, NOBODY, "private") == 0
    assert await total(service, ANN, "private", {"$match": {"n": 0}}) == 1
    assert await total(service, ANN, "private", {"$match": {"_openid": "{openid}"}}) == count
    assert await total(service, ANN, "private", {"$match": {"_openid": "ben"}}) == 0
    assert await total(service, ANN, "private", {"$limit": 2}, {"$match": {"_openid": "ben"}}) == 0
    with pytest.raises(PermissionDenied):
        await total(service, ANN, "adminonly")


@pytest.mark.parametrize("count", [4, 90], ids=["inline", "worker"])
async def test_other_collections_are_narrowed_too(service: DocumentService, count: int) -> None:
    await fill(service, "readonly", count, ANN)
    for access in (ANN, BEN):
        await fill(service, "private", count, access)
    join = {"$lookup": {"from": "private", "localField": "n", "foreignField": "n", "as": "j"}}
    pipeline = {"$lookup": {"from": "private", "pipeline": [{"$match": {"n": 1}}], "as": "j"}}
    union = {"$unionWith": "private"}
    graph = {"from": "private", "startWith": 1, "connectFromField": "x", "connectToField": "n", "as": "j"}
    for stage in (join, pipeline, {"$graphLookup": graph}):
        stages = [{"$match": {"n": 1}}, stage, {"$unwind": "$j"}]
        assert await total(service, ANN, "readonly", *stages) == 1, stage
        assert await total(service, ADMIN, "readonly", *stages) == 2, stage
        assert await total(service, ANN, "readonly", {"$facet": {"a": stages}}, {"$unwind": "$a"}) == 1
    assert await total(service, BEN, "readonly", union) == 2 * count
    same = {"$lookup": {"from": "private", "pipeline": [], "as": "j"}}
    assert await total(service, BEN, "private", {"$match": {"n": 1}}, same, {"$unwind": "$j"}) == count


async def test_lookups_need_permission(service: DocumentService) -> None:
    await fill(service, "readonly", 2)
    await fill(service, "adminonly", 2)
    stage = {"$lookup": {"from": "adminonly", "pipeline": [], "as": "j"}}
    for stages in ([stage], [{"$facet": {"a": [stage]}}], [{"$unionWith": "adminonly"}]):
        with pytest.raises(PermissionDenied):
            await service.aggregate(ANN, "readonly", stages)
    missing = {"$lookup": {"from": "nowhere", "pipeline": [], "as": "j"}}
    assert await total(service, ANN, "readonly", missing, {"$unwind": "$j"}) == 0


async def test_statistics_tell_a_client_of_its_own_documents(service: DocumentService) -> None:
    await fill(service, "private", 3, ANN)
    await fill(service, "private", 4, BEN)
    found = await service.aggregate(ANN, "private", [{"$collStats": {"count": {}}}])
    assert [item["count"] for item in found] == [3]
    found = await service.aggregate(ADMIN, "private", [{"$collStats": {"count": {}, "storageStats": {}}}])
    assert (found[0]["count"], found[0]["storageStats"]["nindexes"]) == (7, 2)


async def test_index_statistics(service: DocumentService) -> None:
    await service.create_index("e", "private", "by_n", [IndexField("n", descending=True)], unique=True)
    found = await service.aggregate(
        ADMIN, "private", [{"$indexStats": {}}, {"$project": {"name": 1, "key": 1}}]
    )
    assert found[0] == {"name": "_id_", "key": {"_id": 1}}
    assert found[-1] == {"name": "by_n", "key": {"n": -1}}


async def test_custom_rules_judge_the_first_match(service: DocumentService) -> None:
    await fill(service, "private", 5)
    await service.set_rule("e", "private", '{"read": "doc.n > 2"}')
    assert await total(service, ANN, "private", {"$match": {"n": {"$gt": 3}}}) == 1
    for stages in ([], [{"$match": {"n": {"$gt": 1}}}], [{"$limit": 1}, {"$match": {"n": {"$gt": 3}}}]):
        with pytest.raises(PermissionDenied):
            await service.aggregate(ANN, "private", stages)
    await fill(service, "readonly", 1)
    with pytest.raises(PermissionDenied):
        await service.aggregate(
            ANN, "readonly", [{"$lookup": {"from": "private", "pipeline": [], "as": "j"}}]
        )


async def test_hidden_fields_hide_a_collection_from_pipelines(service: DocumentService) -> None:
    await fill(service, "private", 1)
    rule = '{"read": true, "fields": {"n": {"read": "auth.openid == \'ben\'"}}}'
    await service.set_rule("e", "private", rule)
    with pytest.raises(PermissionDenied):
        await service.aggregate(ANN, "private", [])


# How many rows.


@pytest.mark.parametrize(
    ("stages", "rows", "expected"),
    [
        ([], Rows(), []),
        ([], Rows(20, 100), [{"$limit": 20}]),
        ([{"$sort": {"a": 1}}], Rows(20), [{"$sort": {"a": 1}}, {"$limit": 20}]),
        ([{"$limit": 50}], Rows(20), [{"$limit": 50}]),
        ([{"$limit": 50}], Rows(20, 10), [{"$limit": 50}, {"$limit": 10}]),
        ([{"$limit": 50}, {"$group": {}}], Rows(20, 10), [{"$limit": 50}, {"$group": {}}, {"$limit": 10}]),
        ([{"$out": "x"}], Rows(20, 10), [{"$out": "x"}]),
        ("no", Rows(20), "no"),
    ],
)
async def test_a_dialects_limits(stages: Any, rows: Rows, expected: Any) -> None:
    assert with_limit(stages, rows) == expected


async def test_the_first_match() -> None:
    assert first_match([{"$match": {"a": 1}}, {"$match": {"b": 1}}]) == {"a": 1}
    assert first_match([{"$sort": {"a": 1}}, {"$match": {"b": 1}}]) == {}
    assert first_match([]) == first_match("x") == {}


# Writing the result.


async def everything(service: DocumentService, collection: str) -> list[dict[str, Any]]:
    return await service.aggregate(ADMIN, collection, [{"$sort": {"_id": 1}}])


@pytest.mark.parametrize("count", [10, 70], ids=["one turn", "many turns"])
async def test_out_replaces_everything(service: DocumentService, count: int) -> None:
    await fill(service, "private", count)
    old = [{"_id": f"old{i}"} for i in range(count)] + [{"_id": "s00001", "old": True}]
    await service.create_collection("e", "target")
    await service.insert(ADMIN, "target", old)
    stages = [{"$project": {"n": 1}}, {"$out": "target"}]
    assert await service.aggregate(ADMIN, "private", stages) == []
    assert await everything(service, "target") == [{"_id": f"s{i:05}", "n": i} for i in range(count)]


async def test_out_makes_a_collection_and_ids(service: DocumentService) -> None:
    await fill(service, "private", 3)
    await service.aggregate(ADMIN, "private", [{"$project": {"_id": 0, "n": 1}}, {"$out": "fresh"}])
    found = await everything(service, "fresh")
    assert sorted(item["n"] for item in found) == [0, 1, 2]
    assert (await service.collection_info("e", "fresh")).preset is Preset.PRIVATE


async def test_out_with_one_id_twice_changes_nothing(service: DocumentService) -> None:
    await fill(service, "private", 3)
    await service.insert(ADMIN, "readonly", [{"_id": "kept"}])
    with pytest.raises(DuplicateKey):
        await service.aggregate(ADMIN, "private", [{"$set": {"_id": 1}}, {"$out": "readonly"}])
    assert await everything(service, "readonly") == [{"_id": "kept"}]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [{"_id": 1, "old": True, "n": 1}, {"_id": 2, "n": 2}, {"_id": 3, "old": True}]),
        ({"whenMatched": "replace"}, [{"_id": 1, "n": 1}, {"_id": 2, "n": 2}, {"_id": 3, "old": True}]),
        (
            {"whenMatched": "keepExisting"},
            [{"_id": 1, "old": True}, {"_id": 2, "n": 2}, {"_id": 3, "old": True}],
        ),
        ({"whenNotMatched": "discard"}, [{"_id": 1, "old": True, "n": 1}, {"_id": 3, "old": True}]),
        ({"whenMatched": "fail"}, DuplicateKey),
        ({"whenNotMatched": "fail"}, InvalidFilter),
        ({"whenMatched": []}, InvalidFilter),
        ({"on": "n"}, InvalidFilter),
    ],
)
async def test_merge(service: DocumentService, options: dict[str, Any], expected: Any) -> None:
    await service.insert(ADMIN, "private", [{"_id": 1, "n": 1}, {"_id": 2, "n": 2}])
    await service.insert(ADMIN, "readonly", [{"_id": 1, "old": True}, {"_id": 3, "old": True}])
    stages = [{"$merge": {"into": "readonly", **options}}]
    if isinstance(expected, type):
        with pytest.raises(expected):
            await service.aggregate(ADMIN, "private", stages)
        expected = [{"_id": 1, "old": True}, {"_id": 3, "old": True}]
    else:
        await service.aggregate(ADMIN, "private", stages)
    assert await everything(service, "readonly") == expected


async def test_merge_by_another_unique_field(service: DocumentService) -> None:
    await service.create_index("e", "readonly", "by_k", [IndexField("k")], unique=True)
    await service.insert(ADMIN, "readonly", [{"_id": "x", "k": 1, "old": True}])
    await service.insert(ADMIN, "private", [{"_id": 1, "k": 1}, {"_id": 2, "k": 2}])
    await service.aggregate(ADMIN, "private", [{"$merge": {"into": "readonly", "on": "k"}}])
    found = await service.aggregate(ADMIN, "readonly", [{"$sort": {"k": 1}}])
    assert found == [{"_id": "x", "k": 1, "old": True}, {"_id": 2, "k": 2}]


async def test_clients_do_not_write(service: DocumentService) -> None:
    for stage in ({"$out": "readonly"}, {"$merge": "readonly"}):
        with pytest.raises(PermissionDenied, match="only the server"):
            await service.aggregate(ANN, "private", [stage])


async def test_now_in_a_filter(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": 1, "y": 2027}, {"_id": 2, "y": 2000}])
    this_year = {"$expr": {"$eq": ["$y", {"$year": "$$NOW"}]}}
    for filter in (
        this_year,
        {"$and": [this_year]},
        {"$nor": [{"$expr": {"$lt": ["$y", {"$year": "$$NOW"}]}}]},
    ):
        assert await service.count(ADMIN, "private", filter) == 1
    assert await service.count(ADMIN, "private", {"$expr": {"$eq": [{"$literal": "$$NOW"}, "$$NOW"]}}) == 0
