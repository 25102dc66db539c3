"""The geographic operators: their readers, their tests, and where ``$near`` may stand.

Manual: "Geospatial Query Operators". ``$near`` is a condition on whole documents: of several places in one
document the nearest counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from cloudlet.docdb.filter.ast import And, GeoIntersects, GeoWithin, Near, Node, Path
from cloudlet.docdb.filter.reader import FieldReader, Parser, shown
from cloudlet.docdb.geo.places import Place, Point
from cloudlet.docdb.geo.reading import (
    POINTS_MAX,
    NotAPlace,
    is_geojson,
    legacy_place,
    number,
    read_geojson,
    read_pair,
    stored_place,
)
from cloudlet.docdb.geo.rects import Rect
from cloudlet.docdb.geo.regions import (
    AreaRegion,
    BoxRegion,
    CapRegion,
    DiscRegion,
    PolygonRegion,
    Region,
)
from cloudlet.docdb.geo.rings import Search
from cloudlet.docdb.geo.sphere import EARTH_RADIUS_M, angle, vector
from cloudlet.docdb.limits import Overrun
from cloudlet.docdb.paths import Segments, Test, leaves
from cloudlet.docdb.values import Document, Value
from cloudlet.model.errors import InvalidFilter

STEPS_MAX: Final = 20_000
"""Pairs of points that one test may compare in the server's own process: some 10 ms."""
NO_INDEX: Final = "error processing query: unable to find index for $geoNear query"

_SPHERE: Final = ("2dsphere", "2d")
_NAMES: Final = frozenset({"$near", "$nearSphere"})


def refused(code: int, message: str) -> InvalidFilter:
    """The error with MongoDB's numeric code."""
    return InvalidFilter(f"{message} (code {code})")


# Tests.


def within_test(node: GeoWithin, bounded: bool) -> Test:
    """Whether a value is a place in the region. If ``bounded``, Overrun is raised for very large shapes."""
    region = node.region

    def test(value: Value) -> bool:
        place = stored_place(value)
        if place is None:
            return False
        _check_steps(place, region.size, bounded)
        return region.has(place)

    return test


def intersects_test(node: GeoIntersects, bounded: bool) -> Test:
    """Whether a value is a place that meets the other one. If ``bounded``, Overrun for very large shapes."""
    other = node.place

    def test(value: Value) -> bool:
        place = stored_place(value)
        if place is None or not place.spherical:
            return False
        _check_steps(place, other.size, bounded)
        return place.meets(other)

    return test


def near_test(node: Near) -> Callable[[Document], bool]:
    """Whether a document is as far away as is asked for."""
    search = node.search
    low, high, distance = search.low, search.high, search.distance

    def test(document: Document) -> bool:
        far = distance(document)
        return far is not None and low <= far <= high

    return test


def near_of(node: Node) -> Near | None:
    """The ``$near`` of a tree in which it stands where it may."""
    return next(_nears(node), None)


def check_nears(node: Node, count: int | None = None) -> None:
    """Raises InvalidFilter for more than one ``$near``, and if fewer than ``count`` stand where they may: at
    the top or in an ``$and``.
    """
    found = sum(1 for _ in _nears(node))
    if count is not None and found < count:
        raise refused(2, "geo $near must be top-level expr")
    if found > 1:
        raise refused(2, "Too many geoNear expressions")


def _nears(node: Node) -> Iterator[Near]:
    if isinstance(node, Near):
        yield node
    elif isinstance(node, And):
        for child in node.children:
            if isinstance(child, Near | And):
                yield from _nears(child)


def measure(value: Value, centre: Point, spherical: bool) -> list[tuple[float, Value]]:
    """The distances of the places in what stands at a path (an array may hold several), with the places."""
    found = []
    for item in [value, *value] if type(value) is list else [value]:
        place = stored_place(item)
        if place is None:
            continue
        if not spherical and place.flat is not None:
            found.append((math.dist(centre, place.flat), item))
        elif spherical and place.spherical:
            if place.flat is not None:
                found.append((angle(vector(*centre), vector(*place.flat)), item))
            else:
                found.append((place.distance(centre), item))
    return found


# Readers.


def near_node(path: Path, centre: Place | Point, spherical: bool, low: float, high: float) -> Near:
    """The condition to be near a GeoJSON point (a ``Place``; distances in metres, always on the sphere) or a
    legacy pair (distances in radians, or on the plane in degrees). Raises InvalidFilter.
    """
    unit = 1.0
    kinds: tuple[str, ...]
    if isinstance(centre, Place):
        if centre.flat is None:
            raise refused(2, "invalid point in geo near query: $geometry has to be a Point")
        unit, point, spherical, kinds = EARTH_RADIUS_M, centre.flat, True, ("2dsphere",)
    elif spherical:
        point, kinds = centre, _SPHERE
        if not legacy_place(point).spherical:
            raise refused(2, f"invalid point provided for geo near query: {point}")
    else:
        point, kinds = centre, ("2d",)
    distance = _distance(path.segments, point, spherical)
    return Near(path, Search(point, spherical, low / unit, high / unit, distance), kinds)


def read_distance(name: str, value: Value) -> float:
    """``$minDistance`` or ``$maxDistance``. Raises InvalidFilter."""
    try:
        found = number(value)
    except NotAPlace as exc:
        raise refused(2, f"{name} must be a number, not {shown(value)}") from exc
    if found < 0:
        raise refused(2, f"{name} must be non-negative")
    return found


def read_centre(name: str, value: Value) -> Place | Point:
    """The point of a search: a GeoJSON Point, or a legacy pair. Raises InvalidFilter."""
    try:
        return read_geojson(value) if is_geojson(value) else read_pair(value)
    except NotAPlace as exc:
        raise refused(2, f"invalid point in {name}: {exc}") from exc


def _near(parser: Parser, path: Path, name: str, operators: Document, _depth: int) -> Node:
    parser.nears += 1
    given = operators[name]
    limits = {key: operators[key] for key in ("$minDistance", "$maxDistance") if key in operators}
    centre: Place | Point
    if type(given) is dict and "$geometry" in given:
        limits |= {key: value for key, value in given.items() if key in ("$minDistance", "$maxDistance")}
        for key in given:
            if key not in ("$geometry", "$minDistance", "$maxDistance"):
                raise refused(2, f"invalid argument in geo near query: {key[:80]}")
        centre = _geojson_point(name, given["$geometry"])
    else:
        if type(given) is list and len(given) == 3:
            limits.setdefault("$maxDistance", given[2])
            given = given[:2]
        centre = read_centre(name, given)
    low = read_distance("$minDistance", limits.get("$minDistance", 0))
    high = read_distance("$maxDistance", limits["$maxDistance"]) if "$maxDistance" in limits else math.inf
    return near_node(path, centre, name == "$nearSphere", low, high)


def _geojson_point(name: str, value: Value) -> Place:
    try:
        return read_geojson(value)
    except NotAPlace as exc:
        raise refused(2, f"invalid point in {name} $geometry: {exc}") from exc


def _within(_parser: Parser, path: Path, name: str, operators: Document, _depth: int) -> Node:
    shape, value = _shape(name, operators[name])
    reader = _REGIONS.get(shape)
    if reader is None:
        raise refused(2, f"unknown geo specifier: {shape[:80]}")
    try:
        return GeoWithin(path, reader(value))
    except NotAPlace as exc:
        raise refused(2, f"{name} {shape}: {exc}") from exc


def _intersects(_parser: Parser, path: Path, name: str, operators: Document, _depth: int) -> Node:
    shape, value = _shape(name, operators[name])
    if shape != "$geometry":
        raise refused(2, f"$geoIntersect not supported with provided geometry: {shape[:80]}")
    try:
        place = read_geojson(value)
    except NotAPlace as exc:
        raise refused(2, f"{name} {shape}: {exc}") from exc
    return GeoIntersects(path, place)


def _shape(name: str, value: Value) -> tuple[str, Value]:
    if type(value) is not dict:
        raise refused(2, f"{name} must be an object")
    shapes = [(key, item) for key, item in value.items() if key != "$uniqueDocs"]
    if len(shapes) != 1:
        raise refused(2, f"{name} needs exactly one shape, such as $geometry or $centerSphere")
    return shapes[0]


def _geometry(value: Value) -> Region:
    place = read_geojson(value)
    if not place.areas:
        raise NotAPlace(f"$geoWithin not supported with provided geometry: {value!r:.80}")
    return AreaRegion(place)


def _pairs(value: Value, least: int, most: int) -> tuple[Point, ...]:
    items = list(value.values()) if type(value) is dict else value
    if type(items) is not list or not least <= len(items) <= most:
        raise NotAPlace(f"it must be an array of {least if least == most else f'{least} or more'} points")
    return tuple(map(read_pair, items))


def _circle(value: Value) -> tuple[Point, float]:
    items = list(value.values()) if type(value) is dict else value
    if type(items) is not list or len(items) != 2:
        raise NotAPlace("it must be an array of a point and a radius")
    radius = number(items[1])
    if radius < 0:
        raise NotAPlace("radius must be a non-negative number")
    return read_pair(items[0]), radius


def _box(value: Value) -> Region:
    (ax, ay), (bx, by) = _pairs(value, 2, 2)
    return BoxRegion(Rect(min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)))


def _cap(value: Value) -> Region:
    centre, radius = _circle(value)
    if not legacy_place(centre).spherical:
        raise NotAPlace(f"the center {centre} is no point of the sphere")
    return CapRegion(centre, radius)


_REGIONS: Final[Mapping[str, Callable[[Value], Region]]] = {
    "$geometry": _geometry,
    "$box": _box,
    "$polygon": lambda value: PolygonRegion(_pairs(value, 3, POINTS_MAX)),
    "$center": lambda value: DiscRegion(*_circle(value)),
    "$centerSphere": _cap,
}

GEO_OPERATORS: Final[Mapping[str, FieldReader]] = {
    "$near": _near,
    "$nearSphere": _near,
    "$geoWithin": _within,
    "$within": _within,
    "$geoIntersects": _intersects,
}
"""Every geographic operator that may stand below a path."""

GEO_COMPANIONS: Final[Mapping[str, frozenset[str]]] = {"$maxDistance": _NAMES, "$minDistance": _NAMES}


def _distance(segments: Segments, centre: Point, spherical: bool) -> Callable[[Document], float | None]:
    def distance(document: Document) -> float | None:
        found = [far for leaf in leaves(document, segments) for far, _ in measure(leaf, centre, spherical)]
        return min(found) if found else None

    return distance


def _check_steps(place: Place, size: int, bounded: bool) -> None:
    if bounded and place.size * size > STEPS_MAX:
        raise Overrun(f"a geographic test would compare more than {STEPS_MAX} pairs of points")
