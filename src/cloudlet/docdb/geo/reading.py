"""From values to places: GeoJSON objects and legacy coordinate pairs, by MongoDB's rules.

Manual: "GeoJSON Objects", "Legacy Coordinate Pairs".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Final

from cloudlet.docdb.geo.places import Area, Line, Place, Point, Ring, self_crossing
from cloudlet.docdb.numeric import is_number
from cloudlet.docdb.values import Document, Value

POINTS_MAX: Final = 10_000
"""Points of one geometry in a query or in an index."""
CHECKED_POINTS_MAX: Final = 100
"""Rings of more points are not looked through for edges that cross."""
MEMBERS_MAX: Final = 1_000
"""Geometries of one GeometryCollection."""
STRICT_WINDING: Final = "urn:x-mongodb:crs:strictwinding:EPSG:4326"
_COLLECTION: Final = "GeometryCollection"
_USUAL: Final = frozenset({"EPSG:4326", "urn:ogc:def:crs:OGC:1.3:CRS84"})


class NotAPlace(ValueError):
    """The value is no geometry; the message says why in MongoDB's words."""


def stored_place(value: Value) -> Place | None:
    """The geometry that a document holds here; None if it is none. Edges that cross are not looked for."""
    if type(value) is not dict and type(value) is not list:
        return None
    try:
        return read_stored(value)
    except NotAPlace:
        return None


def read_stored(value: Value) -> Place:
    """The geometry in a document: GeoJSON, or a legacy pair with whatever follows it. Raises NotAPlace."""
    if is_geojson(value):
        return _Reader(checked=False).geojson(value)
    return legacy_place(read_pair(value, exact=False))


def read_indexed(value: Value) -> Place:
    """The same, checked as before it is indexed. Raises NotAPlace."""
    if is_geojson(value):
        return _Reader(checked=True).geojson(value)
    place = legacy_place(read_pair(value, exact=False))
    if not place.spherical:
        raise _out_of_bounds(*place.points[0])
    return place


def read_geojson(value: Value) -> Place:
    """The geometry of a query's ``$geometry``. Raises NotAPlace."""
    if type(value) is not dict:
        raise NotAPlace("$geometry must be an object")
    if not is_geojson(value):
        raise NotAPlace(f"unknown GeoJSON type: {value!r:.80}")
    return _Reader(checked=True).geojson(value)


def is_geojson(value: Value) -> bool:
    """Whether an object calls itself one of the GeoJSON geometries."""
    return (
        type(value) is dict
        and type(value.get("type")) is str
        and (value["type"] in _SHAPES or value["type"] == _COLLECTION)
    )


def legacy_place(point: Point) -> Place:
    """A legacy pair: a point of the plane, and of the sphere if it lies on it."""
    lon, lat = point
    return Place(points=(point,), flat=point, spherical=-180 <= lon <= 180 and -90 <= lat <= 90)


def read_pair(value: Value, exact: bool = True) -> Point:
    """A legacy coordinate pair: an array or object whose first two values are numbers (``exact``: and the
    only ones). Raises NotAPlace.
    """
    if type(value) is dict:
        items = list(value.values())
    elif type(value) is list:
        items = value
    else:
        raise NotAPlace("Point must be an array or object")
    if len(items) < 2 or (exact and len(items) > 2):
        raise NotAPlace("Point must only contain two numeric elements")
    return number(items[0]), number(items[1])


def number(value: Value) -> float:
    """A coordinate or distance. Raises NotAPlace for what is not a finite number."""
    if not is_number(value):
        raise NotAPlace("Point must only contain numeric elements")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise NotAPlace("coordinates must be finite numbers")
    return found


class _Reader:
    """Reads one geometry. ``checked``: with the limits and checks of an index or a query."""

    def __init__(self, checked: bool) -> None:
        self._checked = checked
        self._points = 0

    def geojson(self, value: Document) -> Place:
        strict = self._strict(value)
        name = value["type"]
        if name == _COLLECTION:
            return self._collection(value)
        coordinates = value.get("coordinates")
        if type(coordinates) is not list:
            raise NotAPlace("GeoJSON coordinates must be an array")
        return _SHAPES[name](self, coordinates, strict)

    def _point(self, value: Value) -> Point:
        if type(value) is not list:
            raise NotAPlace("GeoJSON coordinates must be an array of coordinates")
        self._points += 1
        if self._checked and self._points > POINTS_MAX:
            raise NotAPlace(f"a geometry may have {POINTS_MAX} points")
        lon, lat = read_pair(value, exact=False)
        if not (-180 <= lon <= 180 and -90 <= lat <= 90):
            raise _out_of_bounds(lon, lat)
        return lon, lat

    def one_point(self, value: list[Value], _strict: bool) -> Place:
        point = self._point(value)
        return Place(points=(point,), flat=point)

    def several_points(self, value: list[Value], _strict: bool) -> Place:
        points = tuple(map(self._point, value))
        if not points:
            raise NotAPlace("MultiPoint coordinates must have at least 1 element")
        return Place(points=points)

    def line(self, value: list[Value], _strict: bool) -> Place:
        return Place(lines=(self._line(value),))

    def lines(self, value: list[Value], _strict: bool) -> Place:
        if not value:
            raise NotAPlace("MultiLineString coordinates must have at least 1 element")
        return Place(lines=tuple(map(self._line, value)))

    def area(self, value: list[Value], strict: bool) -> Place:
        return Place(areas=(self._area(value, strict),))

    def areas(self, value: list[Value], _strict: bool) -> Place:
        if not value:
            raise NotAPlace("MultiPolygon coordinates must have at least 1 element")
        return Place(areas=tuple(self._area(item, False) for item in value))

    def _collection(self, value: Document) -> Place:
        members = value.get("geometries")
        if type(members) is not list or not members or len(members) > MEMBERS_MAX:
            raise NotAPlace(f"GeometryCollection geometries must be a non-empty array of up to {MEMBERS_MAX}")
        for member in members:
            if not is_geojson(member) or member["type"] == _COLLECTION:
                raise NotAPlace(f"GeometryCollections cannot be nested and hold GeoJSON only: {member!r:.80}")
        places = [self.geojson(member) for member in members]
        return Place(
            tuple(point for place in places for point in place.points),
            tuple(line for place in places for line in place.lines),
            tuple(area for place in places for area in place.areas),
        )

    def _strict(self, value: Document) -> bool:
        """Whether the insides of rings are to their left. Raises NotAPlace for an unknown system."""
        crs = value.get("crs")
        if crs is None:
            return False
        properties = crs.get("properties") if type(crs) is dict and crs.get("type") == "name" else None
        name = properties.get("name") if type(properties) is dict else None
        if name == STRICT_WINDING and value["type"] == "Polygon":
            return True
        if name not in _USUAL:
            raise NotAPlace(f"Unknown CRS name: {str(name)[:80]}")
        return False

    def _line(self, value: Value) -> Line:
        points = _without_repetition(self._vertices(value))
        if len(points) < 2:
            raise NotAPlace("GeoJSON LineString must have at least 2 vertices")
        self._check_arcs(points)
        return Line(points)

    def _area(self, value: Value, strict: bool) -> Area:
        if type(value) is not list or not value:
            raise NotAPlace("Polygon has no loops")
        if strict and len(value) > 1:
            raise NotAPlace("Only one simple loop is allowed in a big polygon")
        rings = tuple(self._ring(item, strict) for item in value)
        for hole in rings[1:]:
            if self._checked and not all(Area(rings[:1]).has(point) for point in hole.points):
                raise NotAPlace("Secondary loops not contained by first exterior loop")
        return Area(rings)

    def _ring(self, value: Value, strict: bool) -> Ring:
        points = self._vertices(value)
        if len(points) < 4:
            raise NotAPlace("Loop must have at least 3 different vertices")
        if points[0] != points[-1]:
            raise NotAPlace(f"Loop is not closed, first vertex does not equal last vertex: {value!r:.80}")
        points = _without_repetition(points)[:-1]
        if len(set(points)) < 3:
            raise NotAPlace("Loop must have at least 3 different vertices")
        if self._checked and len(set(points)) < len(points):
            raise NotAPlace("Loop is not valid: it has duplicate vertices")
        self._check_arcs([*points, points[0]])
        ring = Ring(points, strict)
        crossed = self_crossing(ring) if self._checked and len(points) <= CHECKED_POINTS_MAX else None
        if crossed is not None:
            raise NotAPlace(f"Loop is not valid: Edges {crossed[0]} and {crossed[1]} cross")
        return ring

    def _vertices(self, value: Value) -> list[Point]:
        if type(value) is not list:
            raise NotAPlace("GeoJSON coordinates must be an array of coordinates")
        return [self._point(item) for item in value]

    def _check_arcs(self, points: list[Point]) -> None:
        for (lon_a, lat_a), (lon_b, lat_b) in pairwise(points):
            if lat_a == -lat_b and (abs(lon_a - lon_b) == 180 or abs(lat_a) == 90):
                raise NotAPlace("an edge cannot join two opposite points of the globe")


def _without_repetition(points: list[Point]) -> list[Point]:
    return [point for at, point in enumerate(points) if not at or point != points[at - 1]]


def _out_of_bounds(lon: float, lat: float) -> NotAPlace:
    return NotAPlace(f"longitude/latitude is out of bounds, lng: {lon:g} lat: {lat:g}")


_SHAPES: Final[dict[str, Callable[[_Reader, list[Value], bool], Place]]] = {
    "Point": _Reader.one_point,
    "MultiPoint": _Reader.several_points,
    "LineString": _Reader.line,
    "MultiLineString": _Reader.lines,
    "Polygon": _Reader.area,
    "MultiPolygon": _Reader.areas,
}
