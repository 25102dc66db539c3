"""Find-and-modify, array filters and upserts through the service. Manual: "db.collection.findAndModify()"."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cloudlet.docdb.base import Preset
from cloudlet.docdb.memory import MemoryStore
from cloudlet.docdb.service import DocumentService, IndexField, Modify, ModifyResult, Query, UpdateResult
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.values import Regex
from cloudlet.docdb.workers import WorkerPool
from cloudlet.model.access import Access
from cloudlet.model.errors import (
    CollectionNotFound,
    DuplicateKey,
    InvalidDocument,
    InvalidFilter,
    InvalidParameter,
    InvalidProjection,
    InvalidSort,
    InvalidUpdate,
    PermissionDenied,
)
from tests.unit.docdb.conftest import LIMITS, ManualClock

pytestmark = pytest.mark.anyio

ADMIN = Access("e", admin=True)
ANN, BEN = Access("e", openid="ann"), Access("e", uid="ben")

DOCUMENTS = [
    {"_id": 1, "k": "a", "n": 3, "tags": ["x", "y"]},
    {"_id": 2, "k": "a", "n": 1, "tags": ["y"]},
    {"_id": 3, "k": "b", "n": 2, "tags": []},
]
INCREASE = {"$inc": {"n": 10}}


@pytest.fixture
async def memory() -> AsyncIterator[DocumentService]:
    """The same service without a file: much faster, for the tables."""
    workers = WorkerPool(LIMITS)
    stores = Stores(lambda name: MemoryStore(LIMITS, workers), workers)
    made = DocumentService(stores, ManualClock(), LIMITS)
    await made.create_collection("e", "private", Preset.PRIVATE)
    yield made
    await stores.close()


CASES: list[tuple[Any, Modify, ModifyResult]] = [
    # Filter, what is done, result.
    ({"_id": 1}, Modify(INCREASE), ModifyResult(1, 1, None, DOCUMENTS[0])),
    ({"_id": 1}, Modify(INCREASE, after=True), ModifyResult(1, 1, None, {**DOCUMENTS[0], "n": 13})),
    ({"_id": 9}, Modify(INCREASE), ModifyResult(0, 0)),
    ({"_id": 9}, Modify(INCREASE, after=True), ModifyResult(0, 0)),
    ({"k": "a"}, Modify(INCREASE, sort={"n": 1}), ModifyResult(1, 1, None, DOCUMENTS[1])),
    ({"k": "a"}, Modify(INCREASE, sort={"n": -1}), ModifyResult(1, 1, None, DOCUMENTS[0])),
    ({}, Modify(INCREASE, sort={"k": -1, "n": 1}), ModifyResult(1, 1, None, DOCUMENTS[2])),
    ({}, Modify(INCREASE, sort={"n": 1}, projection={"n": 1, "_id": 0}), ModifyResult(1, 1, None, {"n": 1})),
    (
        {},
        Modify(INCREASE, sort={"n": 1}, projection={"n": 1}, after=True),
        ModifyResult(1, 1, None, {"_id": 2, "n": 11}),
    ),
    ({"_id": 1}, Modify({"$set": {"n": 3}}, after=True), ModifyResult(1, 0, None, DOCUMENTS[0])),
    ({"_id": 1}, Modify({"z": 1}, replace=True), ModifyResult(1, 1, None, DOCUMENTS[0])),
    ({"_id": 1}, Modify({"z": 1}, replace=True, after=True), ModifyResult(1, 1, None, {"_id": 1, "z": 1})),
    ({"_id": 1}, Modify(remove=True), ModifyResult(1, 1, None, DOCUMENTS[0])),
    ({"_id": 9}, Modify(remove=True), ModifyResult(0, 0)),
    (
        {},
        Modify(remove=True, sort={"n": 1}, projection={"k": 1}),
        ModifyResult(1, 1, None, {"_id": 2, "k": "a"}),
    ),
    ({"_id": 9}, Modify(INCREASE, upsert=True), ModifyResult(0, 0, 9)),
    ({"_id": 9}, Modify(INCREASE, upsert=True, after=True), ModifyResult(0, 0, 9, {"_id": 9, "n": 10})),
    (
        {"_id": 9, "k": "z"},
        Modify(INCREASE, upsert=True, after=True, sort={"n": 1}, projection={"k": 1}),
        ModifyResult(0, 0, 9, {"_id": 9, "k": "z"}),
    ),
    ({"_id": 1}, Modify(INCREASE, upsert=True), ModifyResult(1, 1, None, DOCUMENTS[0])),
    (
        {"tags": "y", "_id": 1},
        Modify({"$set": {"tags.$": "z"}}, after=True, projection={"tags": 1}),
        ModifyResult(1, 1, None, {"_id": 1, "tags": ["x", "z"]}),
    ),
    (
        {"tags": "y", "_id": 1},
        Modify(INCREASE, projection={"tags.$": 1}),
        ModifyResult(1, 1, None, {"_id": 1, "tags": ["y"]}),
    ),
    (
        {"_id": 1},
        Modify({"$set": {"tags.$[t]": "z"}}, after=True, array_filters=[{"t": "x"}]),
        ModifyResult(1, 1, None, {**DOCUMENTS[0], "tags": ["z", "y"]}),
    ),
    ({"k": Regex("^(a+)+$")}, Modify(INCREASE, sort={"n": 1}), ModifyResult(1, 1, None, DOCUMENTS[1])),
    ({"k": Regex("^(z+)+$")}, Modify(INCREASE, sort={"n": 1}), ModifyResult(0, 0)),
]


@pytest.mark.parametrize(("filter", "modify", "expected"), CASES)
async def test_find_and_modify(
    memory: DocumentService, filter: Any, modify: Modify, expected: ModifyResult
) -> None:
    await memory.insert(ADMIN, "private", DOCUMENTS)
    assert await memory.find_and_modify(ADMIN, "private", filter, modify) == expected
    stored = (await memory.find(ADMIN, "private", Query(sort={"_id": 1}))).documents
    changed = [document for document in stored if document not in DOCUMENTS]
    left = len(DOCUMENTS) - (expected.matched if modify.remove else 0) + (expected.upserted_id is not None)
    assert len(stored) == left
    assert len(changed) == (0 if modify.remove else expected.updated + (expected.upserted_id is not None))


@pytest.mark.parametrize(
    ("filter", "modify", "error"),
    [
        ({}, Modify(), InvalidUpdate),
        ({}, Modify({}), InvalidUpdate),
        ({}, Modify([{"$set": {"a": 1}}]), InvalidUpdate),
        ({}, Modify(INCREASE, remove=True), InvalidParameter),
        ({}, Modify(remove=True, upsert=True), InvalidParameter),
        ({}, Modify(remove=True, replace=True), InvalidParameter),
        ({}, Modify({"a": 1}, replace=True, array_filters=[{"x": 1}]), InvalidParameter),
        ({}, Modify({"$inc": {"a": 1}}, replace=True), InvalidUpdate),
        ({}, Modify(INCREASE, array_filters=[{"x": 1}]), InvalidUpdate),
        ({}, Modify(INCREASE, sort={"a": 0}), InvalidSort),
        ({}, Modify(INCREASE, projection={"a": 1, "b": 0}), InvalidProjection),
        ({"k": Regex("^(a+)+$")}, Modify(INCREASE, projection={"k.$": 1}), InvalidProjection),
        ({"a": {"$foo": 1}}, Modify(INCREASE), InvalidFilter),
        ({}, Modify({"$inc": {"k": 1}}), InvalidUpdate),
        ({}, Modify({"$set": {"_id": 7}}), InvalidUpdate),
        ({"_id": 7}, Modify({"$set": {"_id": 8}}, upsert=True), InvalidUpdate),
        ({"a": {"b": 1}, "a.c": 1}, Modify(INCREASE, upsert=True), InvalidUpdate),
        ({"_id": {"$in": [[1]]}}, Modify(INCREASE, upsert=True), InvalidDocument),
    ],
)
async def test_what_is_refused_changes_nothing(
    memory: DocumentService, filter: Any, modify: Modify, error: type[Exception]
) -> None:
    await memory.insert(ADMIN, "private", DOCUMENTS)
    with pytest.raises(error):
        await memory.find_and_modify(ADMIN, "private", filter, modify)
    assert (await memory.find(ADMIN, "private", Query(sort={"_id": 1}))).documents == DOCUMENTS


async def test_fifty_workers_take_fifty_different_jobs_in_order(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": number, "due": -number} for number in range(40)])
    take = Modify({"$set": {"taken": True}}, sort={"due": 1})
    taken = await asyncio.gather(
        *(service.find_and_modify(ADMIN, "private", {"taken": None}, take) for _ in range(50))
    )
    ids = [result.document["_id"] for result in taken if result.document is not None]
    assert sorted(ids) == list(range(40))
    assert sum(result.matched for result in taken) == 40
    remove = Modify(remove=True, sort={"due": -1})
    removed = await asyncio.gather(
        *(service.find_and_modify(ADMIN, "private", {}, remove) for _ in range(10))
    )
    assert sorted(result.document["_id"] for result in removed if result.document) == list(range(10))
    assert await service.count(ADMIN, "private") == 30


async def test_a_client_takes_its_own_documents_only(service: DocumentService) -> None:
    await service.insert(ANN, "private", [{"_id": 1, "n": 1}])
    await service.insert(BEN, "private", [{"_id": 2, "n": 0}])
    found = await service.find_and_modify(ANN, "private", {}, Modify(INCREASE, sort={"n": 1}, after=True))
    assert found.document == {"_id": 1, "_openid": "ann", "n": 11}
    assert await service.find_and_modify(ANN, "private", {"_id": 2}, Modify(remove=True)) == ModifyResult(
        0, 0
    )
    for modify in (Modify({"$set": {"_openid": "x"}}), Modify({"_openid": "x"}, replace=True)):
        with pytest.raises(PermissionDenied):
            await service.find_and_modify(ANN, "private", {}, modify)
    with pytest.raises(PermissionDenied):
        await service.find_and_modify(ANN, "private", {"_id": 2}, Modify(INCREASE, upsert=True))
    with pytest.raises(CollectionNotFound):
        await service.find_and_modify(ADMIN, "nowhere", {}, Modify(INCREASE))


async def test_a_refused_update_of_many_changes_none(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [*DOCUMENTS, {"_id": 4, "n": "text"}])
    with pytest.raises(InvalidUpdate, match=r"\{_id: 4\} has the field 'n' of non-numeric type string"):
        await service.update(ADMIN, "private", {}, INCREASE, multi=True)
    assert await service.count(ADMIN, "private", {"n": {"$gte": 10}}) == 0


async def test_a_unique_index_holds_for_updates_of_many(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", DOCUMENTS)
    await service.create_index("e", "private", "n", [IndexField("n")], unique=True)
    with pytest.raises(DuplicateKey):
        await service.update(ADMIN, "private", {}, {"$set": {"n": 7}}, multi=True)
    assert await service.count(ADMIN, "private", {"n": 7}) == 0
    assert await service.update(ADMIN, "private", {}, INCREASE, multi=True) == UpdateResult(3, 3)


async def test_positions_are_found_for_each_document(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", DOCUMENTS)
    update = {"$set": {"tags.$": "Y"}}
    assert await service.update(ADMIN, "private", {"tags": "y"}, update, multi=True) == UpdateResult(2, 2)
    found = await service.find(ADMIN, "private", Query(sort={"_id": 1}, projection={"tags": 1, "_id": 0}))
    assert found.documents == [{"tags": ["x", "Y"]}, {"tags": ["Y"]}, {"tags": []}]
    found = await service.find(ADMIN, "private", Query({"tags": "Y"}, projection={"tags.$": 1, "_id": 0}))
    assert found.documents == [{"tags": ["Y"]}, {"tags": ["Y"]}]
    costly = {"tags": Regex("^(Y+)+$")}
    with pytest.raises(InvalidUpdate, match="costly regular expression"):
        await service.update(ADMIN, "private", costly, update)


async def test_an_upserted_replacement_ignores_all_of_the_filter_but_the_id(service: DocumentService) -> None:
    flags = {"replace": True, "upsert": True}
    condition = {"_id": 5, "a": {"b": 1}, "a.c": 1}
    assert await service.update(ADMIN, "private", condition, {"z": 1}, **flags) == UpdateResult(0, 0, 5)
    assert (await service.find(ADMIN, "private", Query())).documents == [{"_id": 5, "z": 1}]


async def test_documents_that_grow_too_deep_or_too_large_stay_as_they_were(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": 1, "t": "x" * 16_000_000}])
    with pytest.raises(InvalidDocument, match="the limit is"):
        await service.update(ADMIN, "private", {"_id": 1}, {"$set": {"b": 1}, "$push": {"a": "y" * 900_000}})
    deep: Any = {"x": 1}
    for _ in range(60):
        deep = {"x": deep}
    with pytest.raises(InvalidDocument, match="nested"):
        await service.update(ADMIN, "private", {"_id": 1}, {"$set": {"y." * 60 + "z": deep}})
    found = (await service.find(ADMIN, "private", Query({"_id": 1}))).documents[0]
    assert list(found) == ["_id", "t"]
