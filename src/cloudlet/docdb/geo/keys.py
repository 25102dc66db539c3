"""What one field of a document puts into a geographic index."""

from __future__ import annotations

from collections.abc import Iterator

from cloudlet.docdb.geo.cells import MapKind, cell_number, cover, key_of, on_map, point_cell
from cloudlet.docdb.geo.places import Place, Point
from cloudlet.docdb.geo.reading import NotAPlace, is_geojson, read_indexed, read_pair
from cloudlet.docdb.geo.rects import of_place
from cloudlet.docdb.paths import Segments, leaves
from cloudlet.docdb.values import MISSING, Document, Value
from cloudlet.model.errors import InvalidDocument


def geo_keys(document: Document, segments: Segments, kind: MapKind) -> tuple[set[bytes], bool]:
    """The keys of the places at a path, and whether they are more than one point; none for null, missing
    and empty. Raises InvalidDocument, with MongoDB's code, for what such an index cannot hold.

    Of an index that has only met single points no larger cell has to be looked up.
    """
    found = leaves(document, segments)
    keys: set[bytes] = set()
    if kind == "2d":
        points = [point for leaf in found for point in _flat_points(leaf)]
        for x, y in points:
            if not on_map(x, y, kind):
                raise InvalidDocument("point not in interval of [ -180, 180 ] (code 13027)")
            keys.add(_point_key((x, y), kind))
        return keys, len(points) > 1
    places = [_place(leaf) for leaf in found if leaf is not MISSING and leaf is not None and leaf != []]
    for place in places:
        if place.flat is not None:
            keys.add(_point_key(place.flat, kind))
        else:
            keys.update(key_of(cell_number(cell)) for cell in cover(of_place(place), kind))
    return keys, len(places) > 1 or any(place.flat is None for place in places)


def _place(value: Value) -> Place:
    try:
        if type(value) is not dict and type(value) is not list:
            raise NotAPlace("geo element must be an array or object")
        return read_indexed(value)
    except NotAPlace as exc:
        raise InvalidDocument(f"Can't extract geo keys: {value!r:.200} {exc} (code 16755)") from exc


def _point_key(point: Point, kind: MapKind) -> bytes:
    return key_of(cell_number(point_cell(*point, kind)))


def _flat_points(value: Value) -> Iterator[Point]:
    """The points of a legacy pair or of an array of them; what is no container is passed over."""
    if (type(value) is not dict and type(value) is not list) or not value:
        return
    several = type(value) is list and type(value[0]) in (dict, list)
    try:
        for item in value if several else [value]:
            if is_geojson(item):
                raise NotAPlace("a 2d index has no GeoJSON; index its coordinates or use a 2dsphere index")
            yield read_pair(item, exact=False)
    except NotAPlace as exc:
        raise InvalidDocument(
            f"geo values must be 'legacy coordinate pairs' for 2d indexes: {value!r:.200} {exc} (code 13026)"
        ) from exc
