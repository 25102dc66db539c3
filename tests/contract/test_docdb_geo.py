"""What every document store does with places: indexes on them, and the nearest first."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from cloudlet.docdb.base import CreateIndex, Decision, Put, Read, Row, Select, Store, Turn, Want
from cloudlet.docdb.bytekeys import KeyPart
from cloudlet.docdb.catalog import key_part
from cloudlet.docdb.filter import where
from cloudlet.docdb.pipeline.execute import make_aggregation
from cloudlet.docdb.sort import parse_sort, sort_documents
from cloudlet.docdb.values import Document, prepare
from cloudlet.model.errors import InvalidDocument, InvalidFilter, InvalidParameter
from tests.contract.docdb_steps import change, find, put, remove

pytestmark = pytest.mark.anyio

TOWER = [113.3, 23.1]
SQUARE = [[113, 23], [114, 23], [114, 24], [113, 24], [113, 23]]


def point(lon: float, lat: float) -> Document:
    return {"type": "Point", "coordinates": [lon, lat]}


def on_sphere(path: str = "at") -> KeyPart:
    return key_part(path, kind="2dsphere")


def index(*parts: KeyPart, name: str = "places", **options: Any) -> CreateIndex:
    return CreateIndex("dishes", name, parts, **options)


def near(centre: list[float] = TOWER, **limits: float) -> Document:
    limited = {f"${name}": metres for name, metres in limits.items()}
    return {"at": {"$near": {"$geometry": point(*centre), **limited}}}


def scattered(count: int) -> list[Document]:
    """Places around a tower, the farther the rarer, and some that are none."""
    random = Random(7)
    places = [
        point(TOWER[0] + random.gauss(0, 1) ** 3, TOWER[1] + random.gauss(0, 1) ** 3) for _ in range(count)
    ]
    made: list[Document] = [{"_id": at, "at": place, "n": at % 4} for at, place in enumerate(places)]
    return [*made, {"_id": -1}, {"_id": -2, "at": None}, {"_id": -3, "at": []}]


def meets(place: Document) -> Document:
    return {"at": {"$geoIntersects": {"$geometry": place}}}


async def by_sorting(store: Store, condition: Document, count: int | None = None) -> list[Any]:
    """The same query, answered from all documents."""
    wanted = where(condition)
    rows = [row for row in await store.scan("dishes", 0, 1_000) if wanted.match(row.document)]
    sort_documents(rows, wanted.order, lambda row: row.document)
    return [row.document["_id"] for row in rows][:count]


async def test_the_nearest_come_first_and_few_are_looked_at(scanning_store: Store) -> None:
    store = scanning_store
    await put(store, *scattered(200))
    await store.define(index(on_sphere()))
    assert (await store.stats("dishes")).entries["places"] == 200
    assert await find(store, near(), limit=5) == await by_sorting(store, near(), 5)
    assert await find(store, near(), skip=3, limit=4) == (await by_sorting(store, near()))[3:7]
    told = await store.explain(Read("dishes", where(near()), limit=5))
    assert (told.index, told.ordered, told.returned) == ("places", True, 5)
    assert told.examined < 50
    narrow = near(maxDistance=30_000, minDistance=5_000)
    assert 0 < len(await by_sorting(store, narrow)) < 40
    assert await find(store, narrow) == await by_sorting(store, narrow)
    assert await find(store, {**near(), "n": 2}, limit=3) == await by_sorting(store, {**near(), "n": 2}, 3)


async def test_all_of_a_large_collection_in_order_of_distance_is_work_for_a_worker(
    scanning_store: Store,
) -> None:
    store = scanning_store
    await put(store, *scattered(100))
    await store.define(index(on_sphere()))
    assert await find(store, near()) == await by_sorting(store, near())
    assert (await store.explain(Read("dishes", where(near())))).worker
    found = await store.read(Read("dishes", where(near()), want=Want.COUNT))
    assert found.count == 100


async def test_another_order_counts_more_than_the_distance(store: Store) -> None:
    await put(store, *scattered(40))
    await store.define(index(on_sphere()))
    condition = near(maxDistance=50_000)
    close = sorted(await by_sorting(store, condition), reverse=True)
    assert await find(store, condition, {"_id": -1}) == close
    read = Read("dishes", where(condition), parse_sort({"_id": -1}), limit=3)
    assert (await store.explain(read)).index == "places"


async def test_without_an_index_nothing_is_near_but_regions_are_searched(store: Store) -> None:
    await put(store, *scattered(30))
    inside = {"at": {"$geoWithin": {"$geometry": {"type": "Polygon", "coordinates": [SQUARE]}}}}
    before = await find(store, inside)
    assert before
    for order in (None, {"n": 1}):
        with pytest.raises(InvalidFilter, match="unable to find index for \\$geoNear query"):
            await find(store, near(), order)
    decide = lambda rows: Decision(len(rows))  # noqa: E731 - small
    with pytest.raises(InvalidFilter, match="unable to find index"):
        await store.commit(Turn("dishes", 5, decide, Select(where(near()), 1)))
    # An index on values, and one of the plane, are of no help to a search on the sphere.
    await store.define(index(key_part("at")))
    with pytest.raises(InvalidFilter, match="unable to find index"):
        await find(store, near())
    await store.define(index(on_sphere(), name="sphere"))
    assert sorted(await find(store, inside)) == sorted(before)
    assert (await store.explain(Read("dishes", where(inside)))).index == "sphere"
    crossing = {"at": {"$geoIntersects": {"$geometry": {"type": "LineString", "coordinates": SQUARE[:2]}}}}
    assert await find(store, crossing) == []


async def test_lines_and_areas_are_found_by_what_meets_them(store: Store) -> None:
    await store.define(index(on_sphere()))
    await put(
        store,
        {"_id": "area", "at": {"type": "Polygon", "coordinates": [SQUARE]}},
        {"_id": "line", "at": {"type": "LineString", "coordinates": [[100, 23.5], [120, 23.5]]}},
        {"_id": "date line", "at": {"type": "LineString", "coordinates": [[170, 0], [-170, 0]]}},
        {"_id": "point", "at": [113.5, 23.6]},
        {"_id": "far", "at": point(0, 0)},
    )
    assert await find(store, meets(point(113.2, 23.2))) == ["area"]
    assert sorted(await find(store, meets({"type": "Polygon", "coordinates": [SQUARE]}))) == [
        "area",
        "line",
        "point",
    ]
    assert await find(store, meets(point(-180, 0))) == ["date line"]
    assert await find(store, near([113.5, 23.6]), limit=3) == ["area", "point", "line"]
    assert await find(store, near([180, 1])) == ["date line", "line", "area", "point", "far"]


async def test_changes_move_the_entries(store: Store) -> None:
    await store.define(index(on_sphere()))
    await put(store, {"_id": 1, "at": point(1, 1)}, {"_id": 2, "at": point(2, 2)})
    await change(store, {"_id": 1}, lambda document: {**document, "at": point(-60, 60)})
    assert await find(store, near([0, 0])) == [2, 1]
    assert await find(store, near([-60, 61])) == [1, 2]
    await remove(store, {"_id": 2})
    assert await find(store, near([0, 0])) == [1]
    await change(store, {"_id": 1}, lambda document: {"_id": 1})
    assert await find(store, near([0, 0])) == []
    assert (await store.stats("dishes")).entries["places"] == 0


async def test_a_write_takes_the_nearest(store: Store) -> None:
    await store.define(index(on_sphere()))
    await put(store, {"_id": 1, "at": point(9, 9)}, {"_id": 2, "at": point(1, 1)}, {"_id": 3, "at": [5, 5]})

    def decide(rows: Any) -> Decision[list[Any]]:
        return Decision([row.document["_id"] for row in rows], [Put({**rows[0].document, "x": 1}, rows[0])])

    taken = await store.commit(Turn("dishes", 5, decide, Select(where(near([0, 0])), 1)))
    assert taken == [2]
    assert await find(store, {"x": 1}) == [2]


@pytest.mark.parametrize(
    ("parts", "options", "told"),
    [
        ((key_part("n"), key_part("at", kind="2d")), {}, "2d has to be first"),
        ((on_sphere(),), {"unique": True}, "neither be unique"),
        ((on_sphere(),), {"expire_after_s": 5}, "nor let documents expire"),
        ((key_part("at", True, "2dsphere"),), {}, "no direction"),
    ],
)
async def test_options_that_do_not_go_with_places(
    store: Store, parts: tuple[KeyPart, ...], options: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidParameter, match=told):
        await store.define(index(*parts, **options))


async def test_what_is_no_place_cannot_be_entered(store: Store) -> None:
    await put(store, {"_id": 1, "at": "here"})
    with pytest.raises(InvalidDocument, match=r"Can't extract geo keys.*16755"):
        await store.define(index(on_sphere()))
    await remove(store, {"_id": 1})
    await store.define(index(on_sphere()))
    for wrong, told in (
        (point(200, 0), "out of bounds, lng: 200 lat: 0"),
        ([[1, 1], [2, 2]], "numeric"),
        ({"type": "Polygon", "coordinates": [SQUARE[:-1]]}, "not closed"),
        (
            {"type": "Polygon", "coordinates": [[[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]]},
            "Edges 0 and 2 cross",
        ),
    ):
        with pytest.raises(InvalidDocument, match=told):
            await put(store, {"_id": 1, "at": wrong})
    assert await find(store, {}) == []


async def test_places_behind_and_before_other_fields(store: Store) -> None:
    await put(store, *scattered(60), {"_id": "tags", "n": [1, 9], "at": point(113, 23)})
    await store.define(index(key_part("n"), on_sphere()))
    condition = {**near(), "n": 1}
    assert await find(store, condition, limit=6) == await by_sorting(store, condition, 6)
    either = {**near(), "n": {"$in": [0, 9]}}
    assert await find(store, either, limit=6) == await by_sorting(store, either, 6)
    inside: Document = {"at": {"$geoWithin": {"$centerSphere": [TOWER, 0.005]}}, "n": 1}
    read = Read("dishes", where(inside))
    assert (await store.explain(read)).index == "places"
    assert sorted(map(str, await find(store, inside))) == sorted(
        str(row.document["_id"])
        for row in await store.scan("dishes", 0, 100)
        if where(inside).match(row.document)
    )
    # The first field is not pinned, so that there is no way to the places.
    with pytest.raises(InvalidFilter, match="unable to find index"):
        await find(store, near())
    await store.define(index(on_sphere(), key_part("n", True), name="before"))
    assert await find(store, near(), limit=4) == await by_sorting(store, near(), 4)


async def test_legacy_pairs_on_the_plane(store: Store) -> None:
    await store.define(index(key_part("at", kind="2d")))
    await put(
        store,
        {"_id": 1, "at": [10, 10]},
        {"_id": 2, "at": {"x": 0, "y": 170}},
        {"_id": 3, "at": [[50, 50], [-3, 0]]},
        {"_id": 4},
        {"_id": 5, "at": [-180, 0]},
    )
    assert await find(store, {"at": {"$near": [0, 0]}}) == [3, 1, 2, 5]
    assert await find(store, {"at": {"$near": [180, 0], "$maxDistance": 175}}) == [3, 1]
    assert await find(store, {"at": {"$near": [180, 0], "$minDistance": 180}}) == [2, 5]
    assert await find(store, {"at": {"$nearSphere": [179, 0], "$maxDistance": 0.1}}) == [5]
    assert sorted(await find(store, {"at": {"$geoWithin": {"$box": [[-5, -5], [12, 12]]}}})) == [1, 3]
    assert (
        await store.explain(Read("dishes", where({"at": {"$geoWithin": {"$center": [[0, 0], 5]}}})))
    ).index
    with pytest.raises(InvalidFilter, match="unable to find index"):
        await find(store, near())
    with pytest.raises(InvalidDocument, match="not in interval"):
        await put(store, {"_id": 9, "at": [181, 0]})
    with pytest.raises(InvalidDocument, match="legacy coordinate pairs"):
        await put(store, {"_id": 9, "at": point(1, 1)})


async def test_the_stage_finds_the_nearest(scanning_store: Store) -> None:
    store = scanning_store
    await put(store, *scattered(60))
    stage: dict[str, Any] = {"near": point(*TOWER), "distanceField": "far.m", "spherical": True}

    async def run(more: dict[str, Any], *stages: Any) -> list[Document]:
        work = prepare([{"$geoNear": {**stage, **more}}, *stages], 0)
        return (await store.aggregate(make_aggregation("dishes", work, 0))).documents

    for more in ({}, {"key": "at"}):
        with pytest.raises(InvalidFilter, match="index"):
            await run(more)
    await store.define(index(on_sphere()))
    nearest = await by_sorting(store, near(), 3)
    assert [document["_id"] for document in await run({}, {"$limit": 3})] == nearest
    found = await run({"limit": 3, "includeLocs": "there", "distanceMultiplier": 0.001})
    assert [document["_id"] for document in found] == nearest
    distances = [document["far"]["m"] for document in found]
    assert distances == sorted(distances)
    assert 0 < distances[0] < 30
    assert found[0]["there"] == found[0]["at"]
    some = await run({"query": {"n": 1}, "maxDistance": 20_000}, {"$project": {"n": 1}})
    assert [document["_id"] for document in some] == await by_sorting(
        store, {**near(maxDistance=20_000), "n": 1}
    )


async def test_rows_of_one_distance_come_in_the_order_of_their_insertion(store: Store) -> None:
    await put(store, *({"_id": at, "at": point(1, 1 if at % 2 else -1)} for at in range(30)))
    await store.define(index(on_sphere()))
    assert await find(store, near([0, 0]), limit=10) == list(range(10))
    rows: list[Row] = list((await store.read(Read("dishes", where(near([0, 1])), limit=20))).rows)
    assert [row.document["_id"] for row in rows] == [*range(1, 30, 2), *range(0, 10, 2)]
