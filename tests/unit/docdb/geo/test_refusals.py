"""What is refused, in MongoDB's words, and what a shape may cost."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cloudlet.docdb.filter import where
from cloudlet.docdb.filter.parse import parse_condition, parse_filter
from cloudlet.docdb.geo.reading import NotAPlace, read_geojson, read_indexed, stored_place
from cloudlet.docdb.indexes.partial import partial_filter
from cloudlet.docdb.limits import Overrun
from cloudlet.model.errors import InvalidFilter, InvalidParameter
from tests.unit.docdb.cases.geo import (
    HOLE,
    SQUARE,
    around,
    collection,
    geo,
    line,
    near,
    point,
    polygon,
    within,
)

CROSSED = [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]
GEOMETRIES: list[tuple[Any, str]] = [
    (5, "must be an object"),
    ([5, 5], "must be an object"),
    ({"x": 5, "y": 5}, "unknown GeoJSON type"),
    (geo("Circle", [5, 5]), "unknown GeoJSON type"),
    ({"type": "Point"}, "coordinates must be an array"),
    (point(181, 0), "longitude/latitude is out of bounds, lng: 181 lat: 0"),
    (point(0, -90.5), "longitude/latitude is out of bounds, lng: 0 lat: -90.5"),
    (point("0", 0), "numeric"),
    (point(float("nan"), 0), "finite"),
    (point(float("inf"), 0), "finite"),
    (geo("Point", [1]), "numeric"),
    (geo("Point", [[1, 2]]), "numeric"),
    (geo("MultiPoint", []), "at least 1 element"),
    (geo("MultiPoint", [1, 2]), "array of coordinates"),
    (geo("LineString", [[1, 2]]), "at least 2 vertices"),
    (geo("LineString", [[1, 2], [1, 2]]), "at least 2 vertices"),
    (line([0, 0], [180, 0]), "opposite"),
    (line([5, 90], [7, -90]), "opposite"),
    (geo("MultiLineString", []), "at least 1 element"),
    (geo("Polygon", []), "no loops"),
    (polygon(SQUARE[:-1]), "not closed"),
    (polygon([[0, 0], [1, 1], [0, 0]]), "at least 3 different vertices"),
    (polygon([[0, 0], [1, 1], [1, 1], [0, 0]]), "at least 3 different vertices"),
    (polygon([[0, 0], [5, 5], [5, 0], [5, 5], [0, 5], [0, 0]]), "duplicate vertices"),
    (polygon(CROSSED), "Edges 0 and 2 cross"),
    (polygon(HOLE, SQUARE), "not contained by first exterior loop"),
    (geo("MultiPolygon", []), "at least 1 element"),
    (geo("MultiPolygon", [SQUARE]), "array of coordinates"),
    (
        polygon(SQUARE, crs={"type": "name", "properties": {"name": "EPSG:3857"}}),
        "Unknown CRS name: EPSG:3857",
    ),
    (polygon(SQUARE, crs=7), "Unknown CRS"),
    (collection(), "non-empty array"),
    (collection(collection(point(1, 1))), "cannot be nested"),
    (collection([1, 1]), "GeoJSON only"),
    (collection(point(200, 0)), "out of bounds"),
    (geo("MultiPoint", [[0, 0]] * 10_001), "10000 points"),
]


@pytest.mark.parametrize(("value", "told"), GEOMETRIES)
def test_a_geometry_that_is_none(value: Any, told: str) -> None:
    with pytest.raises(NotAPlace, match=told):
        read_geojson(value)
    for name in ("$geoIntersects", "$geoWithin"):
        with pytest.raises(InvalidFilter, match=r"\(code 2\)"):
            parse_filter({"a": {name: {"$geometry": value}}})
    with pytest.raises(InvalidFilter, match=r"\(code 2\)"):
        parse_filter({"a": {"$near": {"$geometry": value}}})


def test_a_known_system_is_no_hindrance() -> None:
    for name in ("EPSG:4326", "urn:ogc:def:crs:OGC:1.3:CRS84"):
        crs = {"type": "name", "properties": {"name": name}}
        assert read_geojson(polygon(SQUARE, crs=crs)) == read_geojson(polygon(SQUARE))
    both = polygon(SQUARE, HOLE)["coordinates"]
    strict = {"type": "name", "properties": {"name": "urn:x-mongodb:crs:strictwinding:EPSG:4326"}}
    with pytest.raises(NotAPlace, match="Only one simple loop"):
        read_geojson(geo("Polygon", both, crs=strict))
    with pytest.raises(NotAPlace, match="Unknown CRS"):
        read_geojson(geo("Point", [1, 1], crs=strict))


def test_what_is_stored_is_not_checked_as_closely_as_what_is_indexed() -> None:
    assert stored_place(polygon(CROSSED)) is not None
    with pytest.raises(NotAPlace, match="cross"):
        read_indexed(polygon(CROSSED))
    with pytest.raises(NotAPlace, match="out of bounds"):
        read_indexed([200, 0])


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({"a": {"$geoWithin": 5}}, "must be an object"),
    ({"a": {"$geoWithin": {}}}, "exactly one shape"),
    ({"a": {"$geoWithin": {"$box": [[0, 0], [1, 1]], "$center": [[0, 0], 1]}}}, "exactly one shape"),
    (within("$disc", [[0, 0], 1]), "unknown geo specifier: \\$disc"),
    (within("$geometry", point(1, 1)), "not supported with provided geometry"),
    (within("$geometry", line([1, 1], [2, 2])), "not supported with provided geometry"),
    (within("$box", [[0, 0]]), "array of 2 points"),
    (within("$box", [[0, 0], [1, "1"]]), "numeric"),
    (within("$box", [[0, 0], [1, 1, 1]]), "two numeric"),
    (within("$polygon", [[0, 0], [1, 1]]), "3 or more points"),
    (within("$polygon", [[0, 0]] * 10_001), "3 or more points"),
    (within("$center", [[0, 0]]), "a point and a radius"),
    (within("$center", [[0, 0], -1]), "non-negative"),
    (within("$center", [[0, 0], "1"]), "numeric"),
    (within("$centerSphere", [[0, 91], 1]), "no point of the sphere"),
    (within("$centerSphere", [[0, 0], float("nan")]), "finite"),
    ({"a": {"$geoIntersects": {"$box": [[0, 0], [1, 1]]}}}, "not supported with provided geometry"),
    (around("$near", 0, 0, maxDistance=-1), "\\$maxDistance must be non-negative"),
    ({"a": {"$near": {"$geometry": point(0, 0), "$maxDistance": "5"}}}, "\\$maxDistance must be a number"),
    ({"a": {"$near": {"$geometry": point(0, 0), "$most": 5}}}, "invalid argument in geo near query: \\$most"),
    ({"a": {"$near": {"$geometry": line([0, 0], [1, 1])}}}, "has to be a Point"),
    (near("$near", [0]), "invalid point"),
    (near("$near", "here"), "invalid point"),
    (near("$near", [0, 0, 0, 0]), "two numeric"),
    (near("$nearSphere", [0, 95]), "invalid point"),
    ({"a": {"$maxDistance": 5}}, "needs a \\$near or \\$nearSphere"),
    ({"$or": [near("$near", [0, 0]), {"b": 1}]}, "must be top-level expr"),
    ({"$nor": [near("$near", [0, 0])]}, "must be top-level expr"),
    ({"a": {"$not": {"$near": [0, 0]}}}, "must be top-level expr"),
    ({"a": {"$elemMatch": {"$near": [0, 0]}}}, "must be top-level expr"),
    ({"a": {"$elemMatch": near("$near", [0, 0])}}, "must be top-level expr"),
    ({"$and": [near("$near", [0, 0]), {"$or": [near("$near", [0, 0]), {}]}]}, "must be top-level expr"),
    ({"$and": [near("$near", [0, 0]), near("$near", [1, 1])]}, "Too many geoNear expressions"),
]


@pytest.mark.parametrize(("filter", "told"), FILTERS)
def test_a_filter_that_is_wrong(filter: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidFilter, match=told):
        where(filter)


def test_two_filters_may_not_both_be_near() -> None:
    with pytest.raises(InvalidFilter, match="Too many geoNear expressions"):
        where(near("$near", [0, 0]), {"b": {"$near": [1, 1]}})
    with pytest.raises(InvalidFilter, match="cannot be looked for"):
        parse_condition({"$near": [0, 0]})


def test_a_partial_index_cannot_be_about_places() -> None:
    for filter in (near("$near", [0, 0]), within("$box", [[0, 0], [1, 1]])):
        with pytest.raises(InvalidParameter, match="may only hold"):
            partial_filter(filter)


def test_a_large_shape_is_work_for_another_process() -> None:
    turns = [2 * math.pi * at / 2_000 for at in range(2_000)]
    many = [[5 * math.cos(turn), 5 * math.sin(turn)] for turn in turns]
    large, small = polygon([*many, many[0]]), polygon(SQUARE)
    assert where(within("$geometry", large)).costly
    assert not where(within("$geometry", small)).costly
    stored = {"a": polygon([*many[::20], many[0]])}
    with pytest.raises(Overrun):
        where(within("$geometry", large)).match(stored)
    assert where(within("$geometry", large), subject_max=None).match({"a": [0, 0]})
