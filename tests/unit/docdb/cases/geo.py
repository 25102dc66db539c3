"""Geographic operators. ``$near`` may only stand at the top, so its tables are apart."""

from __future__ import annotations

from typing import Any

from cloudlet.docdb.values import Decimal128, Long
from tests.unit.docdb.cases.table import MISSING, Table, no, table, whole, yes

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[4, 4], [6, 4], [6, 6], [4, 6], [4, 4]]
FAR = [[40, 40], [50, 40], [50, 50], [40, 50], [40, 40]]
DATELINE = [[170, -10], [-170, -10], [-170, 10], [170, 10], [170, -10]]
ARCTIC = [[0, 70], [90, 70], [180, 70], [-90, 70], [0, 70]]
TRIANGLE = [[0, 0], [10, 0], [0, 10]]
BIG = {"type": "name", "properties": {"name": "urn:x-mongodb:crs:strictwinding:EPSG:4326"}}


def geo(kind: str, coordinates: Any, **more: Any) -> dict[str, Any]:
    return {"type": kind, "coordinates": coordinates, **more}


def point(lon: Any, lat: Any) -> dict[str, Any]:
    return geo("Point", [lon, lat])


def line(*points: list[float]) -> dict[str, Any]:
    return geo("LineString", list(points))


def polygon(*rings: Any, **more: Any) -> dict[str, Any]:
    return geo("Polygon", list(rings), **more)


def collection(*members: Any) -> dict[str, Any]:
    return {"type": "GeometryCollection", "geometries": list(members)}


def within(shape: str, value: Any, name: str = "$geoWithin") -> dict[str, Any]:
    return {"a": {name: {shape: value}}}


def inside(*rings: Any, **more: Any) -> dict[str, Any]:
    return within("$geometry", polygon(*rings, **more))


def meets(value: Any) -> dict[str, Any]:
    return {"a": {"$geoIntersects": {"$geometry": value}}}


NO_PLACES: tuple[Any, ...] = (
    MISSING,
    None,
    [],
    {},
    5,
    "5,5",
    [5],
    ["5", "5"],
    {"x": 5},
    True,
    [None, 5],
    point(5, 95),
    point("5", 5),
    geo("Circle", [5, 5]),
    geo("Polygon", [[[1, 1], [2, 2], [1, 1]]]),
    {"type": "Point"},
)

GEO_WITHIN = table(
    "$geoWithin",
    "reference/operator/query/geoWithin/",
    yes(
        inside(SQUARE),
        point(5, 5),
        [5, 5],
        {"lng": 5, "lat": 5},
        {"x": 5, "y": 5, "name": "here"},
        [5, 5, "more"],
        [Long(5), Decimal128("5.5")],
        [[50, 50], [5, 5]],
        [point(50, 50), point(5, 5)],
        point(0, 0),
        point(5, 0),
        line([1, 1], [9, 9]),
        geo("MultiPoint", [[1, 1], [2, 2]]),
        geo("MultiLineString", [[[1, 1], [2, 2]], [[3, 3], [4, 4]]]),
        polygon([[1, 1], [2, 1], [2, 2], [1, 1]]),
        polygon(SQUARE),
        polygon(SQUARE, HOLE),
        geo("MultiPolygon", [[[[1, 1], [2, 1], [2, 2], [1, 1]]], [HOLE]]),
        collection(point(1, 1), line([2, 2], [3, 3])),
    ),
    no(
        inside(SQUARE),
        *NO_PLACES,
        point(50, 50),
        [200, 5],
        point(-1e-5, 5),
        line([1, 1], [50, 5]),
        geo("MultiPoint", [[1, 1], [20, 20]]),
        polygon(FAR),
        polygon([[-5, -5], [20, -5], [20, 20], [-5, 20], [-5, -5]]),
        collection(point(1, 1), point(50, 50)),
    ),
    yes(inside(SQUARE, HOLE), point(2, 2), point(4, 5), polygon(SQUARE, HOLE)),
    no(inside(SQUARE, HOLE), point(5, 5), line([1, 5], [9, 5]), polygon(SQUARE), polygon(HOLE)),
    yes(inside(DATELINE), point(175, 0), point(-175, 0), point(180, 5), point(-180, 5), [-180, 0]),
    no(inside(DATELINE), point(0, 0), point(160, 0), point(-160, 0)),
    yes(inside(ARCTIC), point(0, 90), point(77, 90), point(45, 80), line([45, 85], [-135, 85])),
    no(inside(ARCTIC), point(0, 60), point(0, -90), point(45, -80)),
    # Edges are great circles: the northern one of a wide polygon bends north.
    yes(inside([[-60, 0], [60, 0], [60, 40], [-60, 40], [-60, 0]]), point(0, 50), point(0, 41)),
    no(inside([[-60, 0], [60, 0], [60, 40], [-60, 40], [-60, 0]]), point(0, 65), point(0, -1)),
    yes(within("$geometry", geo("MultiPolygon", [[SQUARE], [FAR]])), point(45, 45), [1, 1]),
    no(within("$geometry", geo("MultiPolygon", [[SQUARE], [FAR]])), point(20, 20), line([5, 5], [45, 45])),
    yes(within("$geometry", collection(point(1, 1), polygon(FAR))), point(45, 45)),
    no(within("$geometry", collection(point(1, 1), polygon(FAR))), point(1, 1)),
    # With strict winding the inside is to the left, however large that is.
    yes(inside(SQUARE, crs=BIG), point(5, 5)),
    no(inside(SQUARE, crs=BIG), point(50, 50)),
    yes(inside(SQUARE[::-1], crs=BIG), point(50, 50), point(0, -90), line([20, 20], [30, 30])),
    no(inside(SQUARE[::-1], crs=BIG), point(5, 5), line([-5, 5], [15, 5]), polygon(SQUARE)),
    whole({"a.b": {"$geoWithin": {"$geometry": polygon(SQUARE)}}}, {"a": {"b": [5, 5]}}, True),
    whole(
        {"a.b": {"$geoWithin": {"$geometry": polygon(SQUARE)}}},
        {"a": [{"b": point(50, 50)}, {"b": point(5, 5)}]},
        True,
    ),
    whole({"a": {"$not": {"$geoWithin": {"$geometry": polygon(SQUARE)}}}}, {"a": None}, True),
    whole({"a": {"$not": {"$geoWithin": {"$geometry": polygon(SQUARE)}}}}, {"a": [5, 5]}, False),
    whole({"a": {"$elemMatch": {"$geoWithin": {"$geometry": polygon(SQUARE)}}}}, {"a": [[5, 5]]}, True),
    whole({"a": {"$elemMatch": {"$geoWithin": {"$geometry": polygon(SQUARE)}}}}, {"a": [5, 5]}, False),
)

BOX = within("$box", [[0, 0], [10, 10]])
BOXES = table(
    "$box",
    "reference/operator/query/box/",
    yes(
        BOX, [5, 5], [0, 0], [10, 10], [0, 10], {"x": 3, "y": 4}, point(5, 5), [[50, 50], [1, 1]], [5, 5, 99]
    ),
    no(BOX, *NO_PLACES, [-1e-9, 5], [5, 10.001], line([1, 1], [2, 2]), geo("MultiPoint", [[1, 1]])),
    yes(within("$box", [[10, 10], [0, 0]]), [5, 5]),
    yes(within("$box", {"low": [0, 0], "high": {"x": 10, "y": 10}}), [5, 5]),
    yes(within("$box", [[-500, -500], [500, 500]]), [400, 400]),
    no(within("$box", [[-500, -500], [500, 500]]), [600, 0]),
)

CENTER = within("$center", [[0, 0], 5])
CENTERS = table(
    "$center",
    "reference/operator/query/center/",
    yes(CENTER, [0, 0], [5, 0], [3, 4], [-3, -4], {"x": 1, "y": 1}, point(0, -5), [[9, 9], [1, 1]]),
    no(CENTER, *NO_PLACES, [5.001, 0], [4, 4], line([1, 1], [2, 2]), polygon(HOLE)),
    yes(within("$center", [{"x": 300, "y": 300}, 0]), [300, 300]),
    no(within("$center", [{"x": 300, "y": 300}, 0]), [300, 301]),
    # The plane has no antimeridian.
    no(within("$center", [[179, 0], 5]), [-179, 0]),
)

CAP = within("$centerSphere", [[0, 0], 0.1])
CENTER_SPHERES = table(
    "$centerSphere",
    "reference/operator/query/centerSphere/",
    yes(
        CAP,
        [0, 0],
        point(5.7, 0),
        point(0, -5.7),
        {"lng": 1, "lat": 1},
        line([0, 0], [3, 3]),
        polygon([[0, 0], [3, 0], [3, 3], [0, 0]]),
        geo("MultiPoint", [[1, 1], [-1, -1]]),
        [[90, 0], [1, 1]],
        collection(point(0, 0), line([1, 1], [2, 2])),
    ),
    no(CAP, *NO_PLACES, point(5.8, 0), [200, 0], line([0, 0], [9, 0]), polygon(SQUARE)),
    yes(within("$centerSphere", [[180, 0], 0.1]), [-179, 0], [179, 0], [180, 1], [-180, 1]),
    yes(within("$centerSphere", [[10, 89], 0.1]), [-170, 88], [0, 90], point(100, 86)),
    no(within("$centerSphere", [[10, 89], 0.1]), [10, 80], [-170, 84]),
    yes(within("$centerSphere", [[0, 0], 3.2]), [180, 0], polygon(DATELINE)),
    # More than half of the globe: a line between two points in it may lead out.
    yes(within("$centerSphere", [[0, 0], 2]), [110, 0], line([100, 0], [100, 30])),
    no(within("$centerSphere", [[0, 0], 2]), [120, 0], line([100, 0], [-100, 0]), polygon(DATELINE)),
)

TRIANGLES = within("$polygon", TRIANGLE)
POLYGONS = table(
    "$polygon",
    "reference/operator/query/polygon/",
    yes(TRIANGLES, [1, 1], [0, 0], [5, 5], [5, 0], [0, 5], {"x": 2, "y": 2}, point(3, 3), [[9, 9], [1, 1]]),
    no(TRIANGLES, *NO_PLACES, [5.01, 5], [-1, 0], [11, 0], line([1, 1], [2, 2]), polygon(HOLE)),
    yes(within("$polygon", {"a": [0, 0], "b": [10, 0], "c": {"x": 0, "y": 10}}), [1, 1]),
    # Straight edges, unlike those of $geometry.
    no(within("$polygon", [[-60, 0], [60, 0], [60, 40], [-60, 40]]), [0, 41]),
    yes(within("$polygon", [[0, 0], [10, 10], [10, 0], [0, 10]]), [1, 2], [9, 8]),
    no(within("$polygon", [[0, 0], [10, 10], [10, 0], [0, 10]]), [5, 1], [5, 9]),
)

WITHIN = table(
    "$within",
    "reference/operator/query/geoWithin/",
    yes(
        within("$box", [[0, 0], [10, 10]], "$within"),
        [5, 5],
        point(1, 1),
        {"x": 1, "y": 1},
        [[50, 50], [5, 5]],
    ),
    no(within("$box", [[0, 0], [10, 10]], "$within"), [50, 5], None, MISSING, "x", line([1, 1], [2, 2])),
    yes(within("$geometry", polygon(SQUARE), "$within"), [5, 5], line([1, 1], [2, 2])),
    no(within("$geometry", polygon(SQUARE), "$within"), [50, 5], None, MISSING),
)

GEO_INTERSECTS = table(
    "$geoIntersects",
    "reference/operator/query/geoIntersects/",
    yes(
        meets(polygon(SQUARE)),
        point(5, 5),
        [5, 5],
        {"lng": 5, "lat": 5},
        point(0, 0),
        [[50, 50], [5, 5]],
        line([-5, 5], [15, 5]),
        line([5, 5], [50, 50]),
        line([10, 5], [50, 5]),
        geo("MultiPoint", [[50, 50], [5, 5]]),
        geo("MultiLineString", [[[50, 50], [60, 60]], [[-5, 5], [5, 5]]]),
        polygon(HOLE),
        polygon([[-5, -5], [20, -5], [20, 20], [-5, 20], [-5, -5]]),
        polygon([[10, 10], [20, 10], [20, 20], [10, 10]]),
        geo("MultiPolygon", [[FAR], [HOLE]]),
        collection(point(50, 50), line([-5, 5], [5, 5])),
    ),
    no(
        meets(polygon(SQUARE)),
        *NO_PLACES,
        point(50, 50),
        [200, 5],
        line([-5, 5], [-1, 5]),
        polygon(FAR),
        collection(point(50, 50), polygon(FAR)),
    ),
    yes(meets(polygon(SQUARE, HOLE)), point(2, 2), line([5, 5], [5, 9]), polygon(SQUARE)),
    no(meets(polygon(SQUARE, HOLE)), point(5, 5), line([4.5, 5], [5.5, 5])),
    yes(meets(point(5, 5)), [5, 5], point(5, 5), polygon(SQUARE), geo("MultiPoint", [[1, 1], [5, 5]])),
    no(meets(point(5, 5)), [5, 5.001], polygon(SQUARE, HOLE), line([0, 0], [10, 0]), None, MISSING),
    yes(meets(point(5, 0)), line([0, 0], [10, 0])),
    yes(meets(point(180, 0)), [-180, 0], line([179, 0], [-179, 0]), polygon(DATELINE)),
    yes(meets(line([0, 0], [10, 10])), line([0, 10], [10, 0]), line([10, 10], [20, 10]), [0, 0]),
    no(meets(line([0, 0], [10, 10])), line([0, 1], [9, 10]), line([11, 0], [20, 10]), [3, 8]),
    yes(meets(geo("MultiPoint", [[1, 1], [45, 45]])), polygon(FAR), [1, 1]),
    yes(meets(collection(point(1, 1), polygon(FAR))), point(45, 45), point(1, 1)),
    no(meets(collection(point(1, 1), polygon(FAR))), point(2, 2)),
    yes(meets(geo("MultiPolygon", [[SQUARE], [FAR]])), point(45, 45), line([20, 45], [60, 45])),
)


def near(name: str, value: Any, **limits: float) -> dict[str, Any]:
    return {"a": {name: value, **{f"${key}": limit for key, limit in limits.items()}}}


def around(name: str, lon: float, lat: float, **limits: float) -> dict[str, Any]:
    """Near a GeoJSON point, distances in metres."""
    more = {f"${key}": limit for key, limit in limits.items()}
    return {"a": {name: {"$geometry": point(lon, lat), **more}}}


DEGREE_M = 111_317.0
"""One degree of a great circle is a little longer."""
CLOSE = {"maxDistance": DEGREE_M * 1.01}
NEARS = (
    yes(around("$near", 0, 0), [0, 0], [170, 80], point(1, 1), {"lng": 1, "lat": 1}, polygon(SQUARE)),
    no(around("$near", 0, 0), *NO_PLACES, [200, 0]),
    yes(around("$near", 0, 0, **CLOSE), point(1, 0), [0, -1], [[90, 0], [1, 0]], polygon(SQUARE)),
    yes(around("$near", 0, 0, **CLOSE), line([1, -5], [1, 5]), geo("MultiPoint", [[90, 0], [0, 1]])),
    no(around("$near", 0, 0, **CLOSE), point(1, 1), [90, 0], line([2, -5], [2, 5]), None, MISSING),
    yes(around("$near", 180, 0, **CLOSE), point(-179, 0), point(-180, 1)),
    yes(around("$near", 0, 90, **CLOSE), point(123, 89), [-50, 89.5]),
    yes(around("$near", 0, 0, minDistance=DEGREE_M), point(1, 0), point(90, 0)),
    # Of several places the nearest counts.
    no(around("$near", 0, 0, minDistance=DEGREE_M), point(0.9, 0), [[0, 0], [90, 0]], polygon(SQUARE)),
)
NEAR = table(
    "$near",
    "reference/operator/query/near/",
    *NEARS,
    yes(
        near("$near", [0, 0], maxDistance=5), [3, 4], [5, 0], point(0, 5), {"x": 1, "y": 1}, [[9, 9], [1, 1]]
    ),
    no(near("$near", [0, 0], maxDistance=5), *NO_PLACES, [4, 4], line([1, 1], [2, 2])),
    yes(near("$near", [0, 0, 5]), [3, 4]),
    no(near("$near", [0, 0, 5]), [4, 4]),
    yes(near("$near", {"x": 0, "y": 0}, minDistance=5), [3, 4], [300, 400]),
    no(near("$near", {"x": 0, "y": 0}, minDistance=5), [3, 3]),
    yes({"$and": [near("$near", [0, 0], maxDistance=5), {"b": None}]}, [1, 1]),
)
NEAR_SPHERE = table(
    "$nearSphere",
    "reference/operator/query/nearSphere/",
    *NEARS,
    yes(near("$nearSphere", point(0, 0)), [0, 0], point(90, 0)),
    yes(near("$nearSphere", [0, 0], maxDistance=0.1), [5.7, 0], point(0, -5.7), {"x": 1, "y": 1}),
    yes(near("$nearSphere", [0, 0], maxDistance=0.1), line([1, -50], [1, 50])),
    no(near("$nearSphere", [0, 0], maxDistance=0.1), *NO_PLACES, [5.8, 0], [200, 0]),
    yes(near("$nearSphere", [179, 0], maxDistance=0.1), [-179, 0]),
    no(near("$nearSphere", [0, 0], minDistance=0.1), [5.7, 0], [0, 0]),
    yes(near("$nearSphere", [0, 0], minDistance=0.1), [5.8, 0]),
)

TABLES: list[Table] = [GEO_WITHIN, BOXES, CENTERS, CENTER_SPHERES, POLYGONS, WITHIN, GEO_INTERSECTS]
TOP_TABLES: list[Table] = [NEAR, NEAR_SPHERE]
"""Of operators that may only stand at the top or in an ``$and``."""
