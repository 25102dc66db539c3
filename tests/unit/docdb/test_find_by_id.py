"""A query of one id goes a shorter way than others: both have to lead to the same answer."""

from __future__ import annotations

from typing import Any

import pytest

from cloudlet.docdb.base import Preset
from cloudlet.docdb.service import DocumentService, Query
from cloudlet.docdb.values import Regex
from cloudlet.model.access import Access
from cloudlet.model.errors import PlatformError

pytestmark = pytest.mark.anyio

ADMIN = Access("e", admin=True)
CALLERS = [
    ADMIN,
    Access("e", openid="ann"),
    Access("e", uid="ben"),
    Access("e", openid="ann", uid="ben", login_type="WECHAT"),
    Access("e"),
]
DOCUMENTS: list[dict[str, Any]] = [
    {"_id": "anns", "_openid": "ann", "n": 1, "open": True},
    {"_id": "bens", "_openid": "ben", "n": 2, "open": False},
    {"_id": "both", "_openid": ["ann", "ben"], "n": 3},
    {"_id": "nobodys", "n": 4, "open": True},
    {"_id": "ann", "_openid": "cid"},
    {"_id": "grün", "_openid": "ann"},
    {"_id": 7, "_openid": "ann"},
]
IDS: list[Any] = [
    *(document["_id"] for document in DOCUMENTS),
    "none",
    "{openid}",
    "{uid}",
    "half \ud800",
    "x" * 2_000,
    "a\0b",
    None,
    {"$in": ["anns"]},
    {"$gt": 1},
    {"$unknown": 1},
    Regex("^a"),
]
RULES = [
    None,
    '{"read": true}',
    '{"read": false}',
    '{"write": true}',
    '{"read": "doc._openid == auth.openid"}',
    '{"read": "doc.open == true || doc._openid == auth.uid"}',
    '{"read": "auth != null && doc.n > 1"}',
    '{"read": "doc._id == \'anns\'"}',
    '{"read": "doc.n < now"}',
    '{"read": "get(`database.private.${doc._id}`).n == 1"}',
    '{"read": true, "fields": {"n": {"read": "doc._openid == auth.openid"}}}',
]


async def answer(service: DocumentService, access: Access, query: Query) -> Any:
    try:
        return await service.find(access, "dishes", query)
    except PlatformError as error:
        return type(error), error.message


@pytest.mark.parametrize("preset", Preset)
async def test_presets(service: DocumentService, preset: Preset) -> None:
    await service.create_collection("e", "dishes", preset)
    await service.insert(ADMIN, "dishes", DOCUMENTS)
    await both_ways_agree(service)


@pytest.mark.parametrize("rule", RULES)
async def test_rules(service: DocumentService, rule: str | None) -> None:
    await service.create_collection("e", "dishes")
    await service.insert(ADMIN, "dishes", DOCUMENTS)
    await service.insert(ADMIN, "private", [{"_id": "anns", "n": 1}])
    await service.set_rule("e", "dishes", rule)
    await both_ways_agree(service)


async def both_ways_agree(service: DocumentService) -> None:
    for access in CALLERS:
        for wanted in IDS:
            # An empty projection says nothing, and keeps a query from the shorter way.
            longer = Query({"_id": wanted}, projection={})
            assert await answer(service, access, Query({"_id": wanted})) == await answer(
                service, access, longer
            ), (access, wanted)


async def test_limits_and_skips_count(service: DocumentService) -> None:
    await service.create_collection("e", "dishes")
    await service.insert(ADMIN, "dishes", DOCUMENTS)
    for query in (
        Query({"_id": "anns"}, skip=1),
        Query({"_id": "anns"}, limit=5),
        Query({"_id": "anns"}, limit=0, limit_default=7),
        Query({"_id": "anns"}, limit_max=0),
    ):
        found = await service.find(ADMIN, "dishes", query)
        assert found.skip == query.skip
        assert len(found.documents) == (0 if query.skip or query.limit_max == 0 else 1)


async def test_a_transaction_sees_its_own_state(service: DocumentService) -> None:
    await service.create_collection("e", "dishes")
    await service.insert(ADMIN, "dishes", DOCUMENTS)
    inside = Access("e", admin=True, transaction=await service.start_transaction(ADMIN))
    await service.update(inside, "dishes", {"_id": "anns"}, {"$set": {"n": 50}})
    (seen,) = (await service.find(inside, "dishes", Query({"_id": "anns"}))).documents
    (outside,) = (await service.find(ADMIN, "dishes", Query({"_id": "anns"}))).documents
    assert (seen["n"], outside["n"]) == (50, 1)
    await service.abort_transaction(ADMIN, inside.transaction)
