"""Fields that not everybody may see or write."""

from __future__ import annotations

from typing import Any

import pytest

from cloudlet.docdb.service import DocumentService, Modify, Query
from cloudlet.model.access import Access
from cloudlet.model.errors import PermissionDenied
from tests.unit.docdb.rules.test_custom_rules import ADMIN, ANN, OWNER, denied, ruled

pytestmark = pytest.mark.anyio

BEN = Access("e", openid="ben")


@pytest.fixture
async def things(service: DocumentService) -> DocumentService:
    """Two owners; phone is the owner's, list.key nobody's, level is not written by clients."""
    await ruled(
        service,
        {"_id": 1, "_openid": "ann", "phone": "123", "list": [{"key": 1, "x": 1}, 5], "level": 1},
        {"_id": 2, "_openid": "ben", "phone": "456", "list": {"key": 2}, "level": 2},
        read=True,
        write=True,
        fields={
            "phone": {"read": OWNER, "write": OWNER},
            "list.key": {"read": False},
            "level": {"write": False},
        },
    )
    return service


async def found(service: DocumentService, access: Access, filter: Any = None, **more: Any) -> list[Any]:
    return (await service.find(access, "things", Query(filter, **more))).documents


async def test_hidden_fields_are_left_out(things: DocumentService) -> None:
    assert await found(things, ANN) == [
        {"_id": 1, "_openid": "ann", "phone": "123", "list": [{"x": 1}, 5], "level": 1},
        {"_id": 2, "_openid": "ben", "list": {}, "level": 2},
    ]
    assert await found(things, BEN, projection={"phone": 1}) == [{"_id": 1}, {"_id": 2, "phone": "456"}]
    assert await found(things, Access("e"), projection={"phone": 1, "_id": 0}) == [{}, {}]
    assert (await found(things, ADMIN, {"_id": 1}))[0]["list"] == [{"key": 1, "x": 1}, 5]


@pytest.mark.parametrize(
    "filter",
    [
        {"phone": "123"},
        {"phone": {"$gt": "1"}},
        {"$or": [{"_id": 1}, {"phone": {"$exists": True}}]},
        {"$nor": [{"phone": "1"}]},
        {"list.key": 1},
        {"list": {"key": 2}},
        {"list": {"$elemMatch": {"key": 1}}},
        {"list.0.key": 1},
        {"_openid": "ann", "list.key": 1},
        {"$expr": {"$eq": ["$phone", "123"]}},
    ],
)
async def test_a_query_cannot_ask_for_what_it_may_not_see(things: DocumentService, filter: Any) -> None:
    for call in (
        things.find(ANN, "things", Query(filter)),
        things.count(ANN, "things", filter),
        things.update(ANN, "things", filter, {"$set": {"a": 1}}),
        things.delete(ANN, "things", filter),
    ):
        assert "is denied by the rule's fields." in await denied(call)


async def test_orders_and_distinct_values_cannot_tell_it_either(things: DocumentService) -> None:
    await denied(things.find(ANN, "things", Query(sort={"phone": 1})))
    await denied(things.distinct(ANN, "things", "list.key"))
    await denied(things.distinct(ANN, "things", "list"))
    await denied(things.find_and_modify(ANN, "things", {}, Modify({"$set": {"a": 1}}, sort={"phone": 1})))
    mine = {"_openid": "{openid}", "phone": "123"}
    assert [item["_id"] for item in await found(things, ANN, mine, sort={"phone": 1})] == [1]
    assert await things.distinct(ANN, "things", "phone", {"_openid": "{openid}"}) == ["123"]


@pytest.mark.parametrize(
    ("filter", "update"),
    [
        ({"_id": 1}, {"$set": {"level": 9}}),
        ({"_id": 1}, {"$unset": {"level": ""}}),
        ({"_id": 1}, {"$rename": {"a": "level"}}),
        ({"_id": 1}, {"$set": {"level.deep": 9}}),
        ({"_id": 2}, {"$set": {"phone": "9"}}),
        ({}, {"$set": {"phone": "9"}}),
        ({"_id": 1}, {"$rename": {"list": "open"}}),
        ({"_id": 1}, {"$max": {"list.0.key": 5}}),
        ({"_id": 1}, {"$inc": {"list.$[item].x": 1}}),
        ({"_id": 2}, {"$set": {"list.key.deep": 1}}),
        ({"_id": 1}, {"$unset": {"list.0.key.deep": ""}}),
    ],
)
async def test_writes_of_restricted_fields(things: DocumentService, filter: Any, update: Any) -> None:
    array_filters = [{"item.key": 1}] if "$[" in str(update) else None
    before = await found(things, ADMIN)
    await denied(things.update(ANN, "things", filter, update, array_filters=array_filters))
    assert await found(things, ADMIN) == before


async def test_allowed_writes(things: DocumentService) -> None:
    for filter, update in (
        ({"_id": 1}, {"$set": {"phone": "9", "other": 1}}),
        ({"_openid": "{openid}"}, {"$set": {"phone": "8"}}),
        ({"_id": 2}, {"$set": {"list.key": 7}}),
        ({"_id": 2}, {"$inc": {"free": 1}}),
    ):
        assert (await things.update(ANN, "things", filter, update)).updated == 1


async def test_replacing_and_inserting(things: DocumentService) -> None:
    async def put(id_: int, document: dict[str, Any]) -> None:
        await things.update(BEN, "things", {"_id": id_}, document, replace=True, upsert=True)

    await denied(put(2, {"phone": "1"}))  # The stored level would be lost.
    await things.update(ADMIN, "things", {"_id": 2}, {"$unset": {"level": ""}})
    await put(2, {"phone": "1"})
    await denied(put(2, {"level": 1}))
    await denied(put(3, {"level": 1}))
    await put(3, {"phone": "1"})
    await denied(things.insert(BEN, "things", [{"level": 1}]))
    await things.insert(BEN, "things", [{"phone": "1"}])


async def test_find_and_modify_shows_no_hidden_field(things: DocumentService) -> None:
    result = await things.find_and_modify(ANN, "things", {"_id": 2}, Modify({"$set": {"a": 1}}, after=True))
    assert result.document == {"_id": 2, "_openid": "ben", "list": {}, "level": 2, "a": 1}
    removed = await things.find_and_modify(ANN, "things", {"_id": 2}, Modify(remove=True))
    assert removed.document == result.document


async def test_fields_that_everybody_may_see_cost_nothing(service: DocumentService) -> None:
    await ruled(service, {"_id": 1, "a": 1}, read=True, fields={"a": {"read": "auth != null"}})
    assert await found(service, ANN, {"a": 1}) == [{"_id": 1, "a": 1}]
    assert await found(service, Access("e")) == [{"_id": 1}]
    with pytest.raises(PermissionDenied):
        await found(service, Access("e"), {"a": 1})
