"""Places through the document service: callers, writes, transactions and pipelines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudlet.docdb.service import DocumentService, IndexField, Modify, Query
from cloudlet.docdb.values import Document
from cloudlet.model.access import Access
from cloudlet.model.errors import InvalidFilter
from tests.unit.docdb.cases.geo import SQUARE, around, line, point, polygon, within

pytestmark = pytest.mark.anyio

ADMIN, ANN, BEN = Access("e", admin=True), Access("e", openid="ann"), Access("e", openid="ben")
NEAR = around("$nearSphere", 0, 0)


@pytest.fixture
async def places(service: DocumentService) -> DocumentService:
    """Forty places of two owners, ever farther from the origin, with an index."""
    for access in (ANN, BEN):
        name = access.openid or ""
        await service.insert(
            access,
            "private",
            [{"_id": f"{name}{at}", "a": point(at + (name == "ben") / 2, 0)} for at in range(20)],
        )
    await service.create_index("e", "private", "geo", [IndexField("a", kind="2dsphere")])
    return service


async def ids(service: DocumentService, access: Access, filter: Any, **query: Any) -> list[Any]:
    found = await service.find(access, "private", Query(filter, **query))
    return [document["_id"] for document in found.documents]


async def test_everybody_finds_the_nearest_of_what_they_may_see(places: DocumentService) -> None:
    assert await ids(places, ADMIN, NEAR, limit=4) == ["ann0", "ben0", "ann1", "ben1"]
    assert await ids(places, BEN, NEAR, limit=3) == ["ben0", "ben1", "ben2"]
    assert await ids(places, BEN, {"$and": [NEAR, {"_id": {"$ne": "ben0"}}]}, skip=1, limit=2) == [
        "ben2",
        "ben3",
    ]
    assert await places.count(ANN, "private", around("$near", 0, 0, maxDistance=250_000)) == 3
    told = await places.explain(ADMIN, "private", Query(NEAR, limit=2))
    assert (told.index, told.ordered, told.worker) == ("geo", True, False)
    everything = await ids(places, ADMIN, NEAR, limit=100)
    assert everything == [f"{name}{at}" for at in range(20) for name in ("ann", "ben")]


async def test_what_a_worker_finds_is_in_order_too(places: DocumentService) -> None:
    await places.insert(
        ADMIN, "private", [{"_id": f"x{at}", "a": point(-30 - at / 10, 0)} for at in range(60)]
    )
    found = await ids(places, ADMIN, NEAR, limit=200)
    assert found[:2] == ["ann0", "ben0"]
    assert found[-2:] == ["x58", "x59"]
    assert len(found) == 100


async def test_the_nearest_is_changed_and_taken(places: DocumentService) -> None:
    updated = await places.update(ADMIN, "private", {**NEAR, "seen": None}, {"$set": {"seen": True}})
    assert updated.updated == 1
    assert await ids(places, ADMIN, {"seen": True}) == ["ann0"]
    modify = Modify(remove=True)
    for name in ("ben0", "ben1"):
        taken = await places.find_and_modify(BEN, "private", NEAR, modify)
        assert taken.document is not None
        assert taken.document["_id"] == name
    assert await ids(places, ADMIN, NEAR, limit=3) == ["ann0", "ann1", "ann2"]
    assert await places.delete(ADMIN, "private", around("$near", 0, 0, maxDistance=1_000_000), multi=True) > 8


async def test_a_transaction_sees_its_own_places_in_order(places: DocumentService) -> None:
    inside = replace(ADMIN, transaction=await places.start_transaction(ADMIN))
    assert (await ids(places, inside, NEAR, limit=2)) == ["ann0", "ben0"]
    await places.insert(inside, "private", [{"_id": "new", "a": point(0.2, 0)}])
    await places.update(inside, "private", {"_id": "ann0"}, {"$set": {"a": point(9.2, 0)}})
    assert (await ids(places, inside, NEAR, limit=3)) == ["new", "ben0", "ann1"]
    assert (await ids(places, ADMIN, NEAR, limit=3)) == ["ann0", "ben0", "ann1"]
    await places.commit_transaction(ADMIN, inside.transaction or "")
    assert (await ids(places, ADMIN, NEAR, limit=3)) == ["new", "ben0", "ann1"]


async def test_near_needs_an_index_and_says_so(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": 1, "a": point(0, 0)}])
    told = r"unable to find index for \$geoNear query \(code 291\)"
    with pytest.raises(InvalidFilter, match=told):
        await ids(service, ADMIN, NEAR)
    with pytest.raises(InvalidFilter, match=told):
        await service.update(ADMIN, "private", NEAR, {"$set": {"x": 1}}, multi=True)
    with pytest.raises(InvalidFilter, match=told):
        await service.delete(ADMIN, "private", NEAR)
    assert await ids(service, ADMIN, within("$geometry", polygon(SQUARE))) == [1]
    assert await ids(service, ADMIN, {"a": {"$geoIntersects": {"$geometry": line([-1, 0], [1, 0])}}}) == [1]


async def stage(service: DocumentService, access: Access, spec: Document, *more: Document) -> list[Document]:
    return await service.aggregate(access, "private", [{"$geoNear": spec}, *more])


async def test_the_stage_shows_everybody_their_own(places: DocumentService) -> None:
    spec: Document = {"near": point(0, 0), "spherical": True, "distanceField": "d"}
    found = await stage(places, BEN, spec, {"$limit": 2}, {"$project": {"d": 1}})
    assert [document["_id"] for document in found] == ["ben0", "ben1"]
    assert found[0]["d"] == pytest.approx(55_659, abs=1)
    far = await stage(places, ADMIN, {**spec, "minDistance": 2_000_000, "limit": 1, "key": "a"})
    assert [document["_id"] for document in far] == ["ann18"]
    legacy = {"near": [0, 0], "spherical": True, "distanceField": "d.e", "distanceMultiplier": 2, "limit": 2}
    found = await stage(places, ADMIN, {**legacy, "includeLocs": "d.place"})
    assert found[1]["d"]["e"] == pytest.approx(0.0174533 * 0.5 * 2, abs=1e-6)
    assert found[1]["d"]["place"] == point(0.5, 0)
    # Without ``spherical`` the kind of the index decides.
    assert [each["_id"] for each in await stage(places, ADMIN, {**legacy, "spherical": False})] == [
        "ann0",
        "ben0",
    ]
    assert (await places.aggregate(ADMIN, "private", [{"$indexStats": {}}]))[-1]["key"] == {"a": "2dsphere"}


SPEC: Document = {"near": point(0, 0), "distanceField": "d"}
WRONG: list[tuple[Any, str]] = [
    (5, "must be an object"),
    ({}, "requires a 'near'"),
    ({"near": point(0, 0)}, "distanceField"),
    ({**SPEC, "distanceField": "$d"}, "field path"),
    ({**SPEC, "near": line([0, 0], [1, 1])}, "geojson point"),
    ({**SPEC, "near": [0]}, "invalid point"),
    ({**SPEC, "maxDistance": "far"}, "must be a number"),
    ({**SPEC, "minDistance": -1}, "non-negative"),
    ({**SPEC, "distanceMultiplier": -1}, "nonnegative"),
    ({**SPEC, "distanceMultiplier": "2"}, "a number"),
    ({**SPEC, "query": 5}, "must be an object"),
    ({**SPEC, "query": NEAR}, "cannot hold"),
    ({**SPEC, "query": {"$what": 1}}, "unknown"),
    ({**SPEC, "includeLocs": 5}, "includeLocs"),
    ({**SPEC, "key": ""}, "'key'"),
    ({**SPEC, "limit": 0}, "positive"),
    ({**SPEC, "colour": "red"}, "colour"),
]


@pytest.mark.parametrize(("spec", "told"), WRONG)
async def test_a_stage_that_is_wrong(places: DocumentService, spec: Any, told: str) -> None:
    with pytest.raises(InvalidFilter, match=told):
        await stage(places, ADMIN, spec)


async def test_which_index_a_stage_means(places: DocumentService) -> None:
    with pytest.raises(InvalidFilter, match=r"unable to find index"):
        await stage(places, ADMIN, {**SPEC, "key": "b"})
    await places.create_index("e", "private", "b", [IndexField("b", kind="2dsphere")])
    with pytest.raises(InvalidFilter, match=r"more than one 2dsphere index.*\(code 27\)"):
        await stage(places, ADMIN, SPEC)
    assert await stage(places, ADMIN, {**SPEC, "key": "b"}) == []
    await places.drop_index("e", "private", "b")
    await places.drop_index("e", "private", "geo")
    with pytest.raises(InvalidFilter, match=r"none were found \(code 27\)"):
        await stage(places, ADMIN, SPEC)


async def test_near_has_its_own_stage(places: DocumentService) -> None:
    with pytest.raises(InvalidFilter, match="not allowed in this context"):
        await places.aggregate(ADMIN, "private", [{"$match": NEAR}])
    inside = [{"$match": within("$centerSphere", [[0, 0], 0.01])}, {"$project": {"_id": 1}}]
    assert await places.aggregate(ADMIN, "private", inside) == [{"_id": "ann0"}, {"_id": "ben0"}]


async def test_a_regular_expression_beside_a_place_goes_to_a_worker(places: DocumentService) -> None:
    assert await ids(places, ADMIN, {**NEAR, "_id": {"$regex": "^(a+n+)+1"}}, limit=2) == ["ann1", "ann10"]
