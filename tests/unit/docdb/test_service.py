"""The document service as the dialects use it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from cloudlet.docdb.base import Preset
from cloudlet.docdb.ejson import decode
from cloudlet.docdb.service import DocumentService, IndexField, Query, UpdateResult
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.values import Regex, ServerDate
from cloudlet.model.access import Access
from cloudlet.model.errors import (
    AlreadyExists,
    CollectionNotFound,
    DuplicateKey,
    InvalidDocument,
    InvalidFilter,
    InvalidName,
    InvalidParameter,
    InvalidUpdate,
    PermissionDenied,
    ShuttingDown,
)
from tests.unit.docdb.conftest import ManualClock

pytestmark = pytest.mark.anyio

ADMIN = Access("e", admin=True)
ANN, BEN = Access("e", openid="ann"), Access("e", uid="ben")
NOBODY = Access("e")


async def ids(
    service: DocumentService, access: Access, collection: str, filter: Any = None, **query: Any
) -> list[Any]:
    found = await service.find(access, collection, Query(filter, **query))
    return [document["_id"] for document in found.documents]


async def test_generated_ids_are_32_hex_digits_that_ascend(
    service: DocumentService, clock: ManualClock
) -> None:
    made = await service.insert(ADMIN, "private", [{"n": number} for number in range(20)])
    clock.seconds -= 60
    made += await service.insert(ADMIN, "private", [{}])
    clock.seconds += 120
    made += await service.insert(ADMIN, "private", [{}])
    assert all(len(made_id) == 32 and set(made_id) <= set("0123456789abcdef") for made_id in made)
    assert made == sorted(made)
    assert len(set(made)) == len(made)


async def test_the_id_comes_first_and_may_be_given(service: DocumentService) -> None:
    assert await service.insert(ADMIN, "private", [{"a": 1, "_id": "x"}, {"_id": 7}]) == ["x", 7]
    found = await service.find(ADMIN, "private", Query({"_id": "x"}))
    assert list(found.documents[0]) == ["_id", "a"]
    with pytest.raises(DuplicateKey, match="E11000 duplicate key error collection: private"):
        await service.insert(ADMIN, "private", [{"new": 1}, {"_id": "x"}])
    assert await service.count(ADMIN, "private") == 2


async def test_find_limits_are_clamped_silently(service: DocumentService) -> None:
    await service.insert(ADMIN, "readonly", [{"_id": number} for number in range(150)])
    sizes = [
        len(await ids(service, access, "readonly", **query))
        for access, query in [
            (ADMIN, {}),
            (ADMIN, {"limit": 5_000}),
            (ADMIN, {"limit": 7}),
            (ADMIN, {"limit": 0}),
            (ANN, {}),
            (ANN, {"limit": 100}),
            (ANN, {"limit_default": 50, "limit_max": 60}),
            (ANN, {"limit": 100, "limit_max": 60}),
        ]
    ]
    assert sizes == [100, 150, 7, 100, 20, 20, 50, 60]
    assert await service.count(ADMIN, "readonly") == 150
    with pytest.raises(InvalidParameter):
        await service.find(ADMIN, "readonly", Query(skip=-1))


async def test_server_dates_are_the_servers_time(service: DocumentService, clock: ManualClock) -> None:
    now = datetime.fromtimestamp(clock.seconds, UTC)
    await service.insert(
        ADMIN, "private", [{"_id": 1, "at": ServerDate(), "in": [{"later": ServerDate(1_000)}]}]
    )
    found = await service.find(ADMIN, "private", Query({"at": {"$lte": ServerDate(1)}}))
    assert found.documents[0]["at"] == now
    assert (found.documents[0]["in"][0]["later"] - now).total_seconds() == 1
    clock.seconds += 5
    await service.update(ADMIN, "private", {"_id": 1}, {"$set": {"at": ServerDate()}})
    assert await ids(service, ADMIN, "private", {"at": {"$gt": now}}) == [1]


async def test_updates_count_what_really_changed(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": 1, "n": 1}, {"_id": 2, "n": 2}])
    update = {"$set": {"n": 2}}
    assert await service.update(ADMIN, "private", {}, update, multi=True) == UpdateResult(2, 1)
    assert await service.update(ADMIN, "private", {}, {"$inc": {"n": 1}}) == UpdateResult(1, 1)
    assert await service.update(ADMIN, "private", {"_id": 9}, update) == UpdateResult(0, 0)
    assert await service.update(ADMIN, "private", {"_id": 9}, update, upsert=True) == UpdateResult(0, 0, 9)


async def test_replace_keeps_owner_and_creates_if_absent(service: DocumentService) -> None:
    await service.insert(ANN, "private", [{"_id": "a", "x": 1}])
    flags = {"replace": True, "upsert": True}
    assert await service.update(ANN, "private", {"_id": "a"}, {"y": 2}, **flags) == UpdateResult(1, 1)
    found = await service.find(ADMIN, "private", Query())
    assert found.documents == [{"_id": "a", "_openid": "ann", "y": 2}]
    assert await service.update(ANN, "private", {"_id": "b"}, {}, **flags) == UpdateResult(0, 0, "b")
    assert await ids(service, ANN, "private") == ["a", "b"]
    with pytest.raises(PermissionDenied):
        await service.update(BEN, "private", {"_id": "a"}, {"stolen": 1}, **flags)
    with pytest.raises(InvalidUpdate):
        await service.update(ADMIN, "private", {"_id": "a"}, {"$set": {"x": 1}}, replace=True)


async def test_an_update_command_in_an_inserted_document_is_kept_as_data(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": 1, "n": {"$inc": -1}, "d": {"$date": "odd", "x": 1}}])
    found = await service.find(ADMIN, "private", Query({"_id": 1}))
    assert found.documents == [{"_id": 1, "n": {"$inc": -1}, "d": {"$date": "odd", "x": 1}}]
    with pytest.raises(InvalidDocument, match="dollar"):
        await service.insert(ADMIN, "private", [{"$inc": {"n": 1}}])


async def test_an_update_command_as_the_sdk_writes_it_is_an_object_like_any_other(
    service: DocumentService,
) -> None:
    """``add({data: {n: _.inc(-1)}})``: the SDK sends the command's own fields (release 1.4.3)."""
    sent = '{"_id":"a","n":{"operator":"inc","operands":[{"$numberInt":"-1"}],"fieldName":{}},"x":1}'
    await service.insert(ADMIN, "private", [decode(sent)])
    stored = {"_id": "a", "n": {"operator": "inc", "operands": [-1], "fieldName": {}}, "x": 1}
    assert (await service.find(ADMIN, "private", Query())).documents == [stored]
    with pytest.raises(InvalidUpdate, match="non-numeric type object"):
        await service.update(ADMIN, "private", {"_id": "a"}, {"$inc": {"n": 1}})
    assert await service.update(ADMIN, "private", {"_id": "a"}, {"$set": {"n": 0}}) == UpdateResult(1, 1)


async def test_delete(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": number, "g": number % 2} for number in range(6)])
    assert await service.delete(ADMIN, "private", {"g": 1}) == 1
    assert await service.delete(ADMIN, "private", {"g": 1}, multi=True) == 2
    assert await service.delete(ADMIN, "private", {"g": 1}, multi=True) == 0
    assert await ids(service, ADMIN, "private") == [0, 2, 4]


async def test_a_write_to_many_documents_takes_several_turns_and_touches_each_once(
    service: DocumentService,
) -> None:
    await service.insert(ADMIN, "private", [{"_id": number, "n": 0} for number in range(130)])
    assert await service.update(ADMIN, "private", {"n": 0}, {"$inc": {"n": 1}}, multi=True) == UpdateResult(
        130, 130
    )
    assert await service.count(ADMIN, "private", {"n": 1}) == 130
    costly = {"n": 1, "t": {"$not": Regex("^(a+)+$")}}
    assert await service.update(ADMIN, "private", costly, {"$inc": {"n": 1}}, multi=True) == UpdateResult(
        130, 130
    )
    assert await service.update(ADMIN, "private", costly, {"$inc": {"n": 1}}, upsert=False) == UpdateResult(
        0, 0
    )
    assert await service.delete(ADMIN, "private", {"n": 2}, multi=True) == 130


@pytest.mark.parametrize("filter", [{"k": 1}, {"k": 1, "t": {"$not": Regex("^(a+)+$")}}])
@pytest.mark.parametrize("multi", [False, True])
async def test_an_upsert_inserts_once_and_then_updates(
    service: DocumentService, filter: Any, multi: bool
) -> None:
    update = {"$inc": {"n": 1}, "$setOnInsert": {"born": True}}
    first = await service.update(ADMIN, "private", filter, update, multi=multi, upsert=True)
    second = await service.update(ADMIN, "private", filter, update, multi=multi, upsert=True)
    assert (first.matched, first.updated, second) == (0, 0, UpdateResult(1, 1))
    found = await service.find(ADMIN, "private", Query())
    assert found.documents == [{"_id": first.upserted_id, "k": 1, "n": 2, "born": True}]


async def test_fifty_parallel_orders_take_exact_stock(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": "dish", "stock": 30}])
    condition, take = {"_id": "dish", "stock": {"$gte": 1}}, {"$inc": {"stock": -1}}
    results = await asyncio.gather(*(service.update(ADMIN, "private", condition, take) for _ in range(50)))
    assert sum(result.updated for result in results) == 30
    assert (await service.find(ADMIN, "private", Query({"_id": "dish"}))).documents[0]["stock"] == 0


async def test_parallel_costly_updates_lose_nothing(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": "a", "t": "aaa", "n": 0}])
    update = {"$inc": {"n": 1}}
    results = await asyncio.gather(
        *(service.update(ADMIN, "private", {"t": Regex("^(a+)+$")}, update) for _ in range(3))
    )
    assert [result.updated for result in results] == [1, 1, 1]
    assert await ids(service, ADMIN, "private", {"n": 3}) == ["a"]


PERMISSIONS: list[tuple[str, Access, list[str] | None, int | None]] = [
    # Collection, caller, ids it reads, documents its update of everything changes (None: refused).
    ("readonly", ANN, ["ann", "ben", "server"], 1),
    ("private", ANN, ["ann"], 1),
    ("adminwrite", ANN, ["ann", "ben", "server"], None),
    ("adminonly", ANN, None, None),
    ("private", BEN, ["ben"], 1),
    ("readonly", NOBODY, ["ann", "ben", "server"], None),
    ("private", NOBODY, [], None),
    ("adminonly", ADMIN, ["ann", "ben", "server"], 3),
]


@pytest.mark.parametrize(("collection", "access", "readable", "changed"), PERMISSIONS)
async def test_presets(
    service: DocumentService, collection: str, access: Access, readable: list[str] | None, changed: int | None
) -> None:
    documents = [{"_id": "ann", "_openid": "ann"}, {"_id": "ben", "_openid": "ben"}, {"_id": "server"}]
    await service.insert(ADMIN, collection, documents)
    if readable is None:
        for attempt in (ids(service, access, collection), service.count(access, collection)):
            with pytest.raises(PermissionDenied):
                await attempt
    else:
        assert sorted(await ids(service, access, collection)) == readable
        assert await service.count(access, collection, {"$or": [{}, {"_openid": "ben"}]}) == len(readable)
    update = {"$set": {"x": 1}}
    if changed is None:
        for write in (
            service.update(access, collection, {}, update, multi=True),
            service.delete(access, collection, {}, multi=True),
            service.insert(access, collection, [{}]),
        ):
            with pytest.raises(PermissionDenied):
                await write
    else:
        assert (await service.update(access, collection, {}, update, multi=True)).updated == changed
        assert await service.delete(access, collection, {}, multi=True) == changed


async def test_a_clients_documents_carry_its_openid_and_it_cannot_say_otherwise(
    service: DocumentService,
) -> None:
    await service.insert(ANN, "private", [{"_id": 1}])
    await service.insert(BEN, "private", [{"_id": 2}])
    found = await service.find(ADMIN, "private", Query())
    assert [document["_openid"] for document in found.documents] == ["ann", "ben"]
    await service.insert(ADMIN, "private", [{"_id": 3}])
    assert await ids(service, ADMIN, "private", {"_openid": None}) == [3]
    for attempt in (
        service.insert(ANN, "private", [{"_openid": "ann"}]),
        service.update(ANN, "private", {}, {"$set": {"_openid": "x"}}),
        service.update(ANN, "private", {}, {"$unset": {"_openid": ""}}),
        service.update(ANN, "private", {}, {"$rename": {"a": "_openid"}}),
        service.update(ANN, "private", {"_id": 1}, {"_openid": "x"}, replace=True),
    ):
        with pytest.raises(PermissionDenied):
            await attempt
    assert (await service.update(ADMIN, "private", {"_id": 1}, {"$set": {"_openid": "ben"}})).updated == 1


async def test_a_clients_upsert_may_name_the_client_in_its_filter(service: DocumentService) -> None:
    update = {"$inc": {"n": 1}}
    await service.update(ANN, "private", {"_openid": "ann", "k": 1}, update, upsert=True)
    found = await service.find(ADMIN, "private", Query({"k": 1}))
    assert [(document["_openid"], document["n"]) for document in found.documents] == [("ann", 1)]
    with pytest.raises(PermissionDenied):
        await service.update(ANN, "private", {"_openid": "ben", "k": 1}, update, upsert=True)


async def test_a_pattern_on_a_long_text_is_searched_elsewhere(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": 1, "t": "x" * 5_000 + "needle"}, {"_id": 2, "t": "x"}])
    assert await ids(service, ADMIN, "private", {"t": Regex("NEEDLE", "i")}) == [1]
    assert (await service.update(ADMIN, "private", {"t": Regex("needle")}, {"$set": {"n": 1}})).updated == 1


async def test_a_preset_change_holds_at_once(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": 1}])
    await service.set_preset("e", "private", Preset.READONLY)
    assert await ids(service, ANN, "private") == [1]
    assert (await service.collection_info("e", "private")).preset is Preset.READONLY


async def test_collections(service: DocumentService) -> None:
    assert [info.name for info in await service.list_collections("e")] == sorted(
        p.value.lower() for p in Preset
    )
    with pytest.raises(AlreadyExists):
        await service.create_collection("e", "private")
    for name in ("", "../x", "a b", "x" * 65, "__proto__"):
        with pytest.raises(InvalidName):
            await service.create_collection("e", name)
    await service.drop_collection("e", "private")
    for attempt in (
        service.find(ADMIN, "private", Query()),
        service.insert(ADMIN, "private", [{}]),
        service.update(ADMIN, "private", {}, {"$set": {"a": 1}}),
        service.delete(ADMIN, "private", {}),
        service.drop_collection("e", "private"),
        service.set_preset("e", "private", Preset.READONLY),
    ):
        with pytest.raises(CollectionNotFound, match="Db or Table not exist"):
            await attempt


async def test_environments_are_apart(service: DocumentService) -> None:
    await service.create_collection("other", "private", Preset.PRIVATE)
    await service.insert(Access("other", admin=True), "private", [{"_id": 1}])
    assert await service.count(ADMIN, "private") == 0


async def test_declared_indexes(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": number, "n": -number} for number in range(120)])
    await service.create_index("e", "private", "n", [IndexField("n", descending=True)])
    assert await ids(service, ADMIN, "private", {"n": {"$lt": -117}}, sort={"n": 1}) == [119, 118]
    with pytest.raises(DuplicateKey):
        await service.create_index("e", "private", "u", [IndexField("missing")], unique=True)
    await service.drop_index("e", "private", "n")
    for name, fields in (
        ("", [IndexField("a")]),
        ("x", []),
        ("x", [IndexField("a")] * 2),
        ("x", [IndexField("$a")]),
    ):
        with pytest.raises(InvalidParameter):
            await service.create_index("e", "private", name, fields)


async def test_bad_input_is_refused(service: DocumentService) -> None:
    deep: Any = 1
    for _ in range(120):
        deep = [deep]
    refused: list[list[Any]] = [[5], [{"a": deep}], [{"_id": []}], [{"_id": None}]]
    for documents in refused:
        with pytest.raises(InvalidDocument):
            await service.insert(ADMIN, "private", documents)
    filters: list[Any] = [5, [], {"a": {"$foo": 1}}, {"a": deep}]
    for filter in filters:
        with pytest.raises(InvalidFilter):
            await service.find(ADMIN, "private", Query(filter))
    refused = [[], [{}] * 301]
    for documents in refused:
        with pytest.raises(InvalidParameter):
            await service.insert(ADMIN, "private", documents)
    with pytest.raises(InvalidUpdate):
        await service.update(ADMIN, "private", {}, {})
    assert await service.count(ADMIN, "private") == 0


async def test_repeated_deepening_is_stopped(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": 1, "a": {}}])
    with pytest.raises(InvalidDocument, match="nested"):
        for at in range(10):
            there, back = ("a", "b." + "x." * 80 + "y") if at % 2 == 0 else ("b", "a." + "x." * 80 + "y")
            await service.update(ADMIN, "private", {"_id": 1}, {"$rename": {there: back}})
    assert await service.count(ADMIN, "private") == 1


async def test_after_closing_everything_is_refused(service: DocumentService, stores: Stores) -> None:
    await stores.close()
    with pytest.raises(ShuttingDown):
        await service.find(ADMIN, "private", Query())
