"""Places: against independent formulas, against sampling, and every index against a look at everything."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Generator
from itertools import pairwise
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudlet.docdb.base import CreateIndex, Row
from cloudlet.docdb.catalog import flagged, key_part, new_index
from cloudlet.docdb.filter import where
from cloudlet.docdb.geo.cells import cell_number, cover, point_cell, spans, together, without
from cloudlet.docdb.geo.nearest import Nearest
from cloudlet.docdb.geo.places import Area, Line, Place, Point, Ring, degrees_of
from cloudlet.docdb.geo.rects import Rect, of_area, of_disc, of_line
from cloudlet.docdb.geo.rings import Rings
from cloudlet.docdb.geo.sphere import Vector, angle, arc_distance, cross, dot, unit, vector
from cloudlet.docdb.indexes.entries import entries_of
from cloudlet.docdb.planner import IndexInfo, Ranges, Scan, plan
from cloudlet.docdb.sort import parse_sort, sort_documents
from cloudlet.docdb.values import Document
from cloudlet.model.errors import InvalidDocument

EXAMPLES = settings(max_examples=60, deadline=None)
CENTRES: list[Point] = [
    (0, 0),
    (179.9, 10),
    (-180, 0),
    (180, -40),
    (0, 90),
    (33, -90),
    (10, 89.5),
    (-100, -88),
    (113.3, 23.1),
    (90, 60),
]


def placed(centre: Point, azimuth: float, distance: float) -> Point:
    """The point so far away in a direction."""
    c = vector(*centre)
    axis = unit(cross(c, (0.3, 0.5, 0.8)))
    other = cross(c, axis)
    side = [math.cos(azimuth) * axis[i] + math.sin(azimuth) * other[i] for i in range(3)]
    x, y, z = (math.cos(distance) * c[i] + math.sin(distance) * side[i] for i in range(3))
    return degrees_of((x, y, z))


def points(spread: float = math.pi) -> st.SearchStrategy[Point]:
    """Points, many of them close to each other, to a pole or to the antimeridian."""
    near = st.builds(
        placed,
        st.sampled_from(CENTRES),
        st.floats(0, 6.28),
        st.one_of(st.floats(0, 1e-4), st.floats(0, 0.05), st.floats(0, spread)),
    )
    return st.one_of(st.sampled_from(CENTRES), near)


@st.composite
def stars(draw: st.DrawFn, least: float = 0.001, most: float = 0.7) -> tuple[Point, list[Point]]:
    """A centre, and the corners of a simple polygon around it, in one of the two directions."""
    centre = draw(st.sampled_from(CENTRES))
    count = draw(st.integers(3, 9))
    scale = draw(st.floats(least, most))
    radii = draw(st.lists(st.floats(0.3, 1), min_size=count, max_size=count))
    corners = [placed(centre, 6.2831 * at / count, scale * radius) for at, radius in enumerate(radii)]
    return centre, corners if draw(st.booleans()) else corners[::-1]


def haversine(one: Point, other: Point) -> float:
    (lon, lat), (lon2, lat2) = ([math.radians(x) for x in point] for point in (one, other))
    half = math.sin((lat2 - lat) / 2) ** 2
    half += math.cos(lat) * math.cos(lat2) * math.sin((lon2 - lon) / 2) ** 2
    return 2 * math.asin(math.sqrt(min(1.0, half)))


@EXAMPLES
@given(points(), points())
def test_distances_are_those_of_the_haversine_formula(one: Point, other: Point) -> None:
    # Near the antipode the formula itself loses half of its digits.
    tolerance = 1e-9 if haversine(one, other) < 3.1 else 1e-6
    assert math.isclose(angle(vector(*one), vector(*other)), haversine(one, other), abs_tol=tolerance)


@EXAMPLES
@given(points(), points(0.8), points(0.8))
def test_the_distance_from_an_arc_is_that_of_its_nearest_point(p: Point, a: Point, b: Point) -> None:
    if angle(vector(*a), vector(*b)) > 3:
        return
    found = arc_distance(vector(*p), vector(*a), vector(*b))
    sampled = min(angle(vector(*p), one) for one in along(vector(*a), vector(*b), 400))
    assert found <= sampled + 1e-9
    assert sampled <= found + angle(vector(*a), vector(*b)) / 400 + 1e-9


def along(a: Vector, b: Vector, count: int) -> list[Vector]:
    """Points of an arc at equal distances, its ends included."""
    whole = angle(a, b)
    if whole < 1e-12:
        return [a, b]
    shares = [(math.sin(whole * (1 - at / count)), math.sin(whole * at / count)) for at in range(count + 1)]
    return [unit((a[0] * p + b[0] * q, a[1] * p + b[1] * q, a[2] * p + b[2] * q)) for p, q in shares]


def flat(centre: Point, v: Vector) -> Point | None:
    """The gnomonic projection, in which great circles are straight; None on the far side."""
    c = vector(*centre)
    east = unit(cross(c, (0.3, 0.5, 0.8)))
    north = cross(c, east)
    depth = dot(c, v)
    return (dot(east, v) / depth, dot(north, v) / depth) if depth > 1e-3 else None


def flat_inside(corners: list[Point], point: Point) -> bool:
    x, y = point
    inside = False
    for at, (bx, by) in enumerate(corners):
        ax, ay = corners[at - 1]
        if (ay > y) != (by > y) and x < (bx - ax) * (y - ay) / (by - ay) + ax:
            inside = not inside
    return inside


@EXAMPLES
@given(stars(), st.lists(points(0.9), min_size=20, max_size=20), st.integers(0, 2**32))
def test_a_point_is_inside_as_in_the_projection_with_straight_edges(
    star: tuple[Point, list[Point]], others: list[Point], seed: int
) -> None:
    centre, corners = star
    area = Area((Ring(corners),))
    projected = [flat(centre, vector(*corner)) for corner in corners]
    straight = [point for point in projected if point is not None]
    random = Random(seed)
    close = [placed(centre, random.uniform(0, 6.3), random.uniform(0, 1)) for _ in range(40)]
    for point in [*others, *close]:
        here = flat(centre, vector(*point))
        if area.rings[0].distance(vector(*point)) > 1e-9:
            assert area.has(point) == (here is not None and flat_inside(straight, here))
    assert all(area.has(corner) for corner in corners)
    left, right = Ring(corners, strict=True), Ring(corners[::-1], strict=True)
    assert left.encloses(centre) != right.encloses(centre)


@EXAMPLES
@given(stars(0.01), stars(0.01), st.lists(points(), min_size=2, max_size=4))
def test_lines_and_areas_lie_in_areas_and_meet_them_as_their_points_do(
    one: tuple[Point, list[Point]], other: tuple[Point, list[Point]], loose: list[Point]
) -> None:
    area = Area((Ring(one[1]),))
    lines = [Line(other[1]), Line(one[1][:2])]
    if all(angle(vector(*a), vector(*b)) < 3 for a, b in pairwise(loose)):
        lines.append(Line(loose))
    for line in lines:
        samples = [degrees_of(p) for a, b in line.edges() for p in along(a, b, 30)]
        step = max(angle(a, b) for a, b in line.edges()) / 30
        edge = [area.rings[0].distance(vector(*sample)) for sample in samples]
        hits = [area.has(sample) for sample in samples]
        if area.has_line(line):
            assert all(hits)
        elif all(hits):
            assert min(edge) <= step
        if any(hits):
            assert area.meets_line(line)
        elif area.meets_line(line):
            assert min(edge) <= step
    second = Area((Ring(other[1]),))
    assert area.meets_area(second) == second.meets_area(area)
    if area.has_area(second):
        assert area.meets_area(second)
        assert area.has(other[0])
        assert area.has_line(Line(other[1]))
    smaller = [degrees_of(along(vector(*one[0]), vector(*corner), 2)[1]) for corner in one[1]]
    assert area.has_area(Area((Ring(smaller),)))
    assert not Area((Ring(smaller),)).has_area(area)
    assert not Area((Ring(one[1]), Ring(smaller))).has_area(area)


@EXAMPLES
@given(stars(most=1.2), points(), st.floats(0, 3.2), st.lists(points(), min_size=1, max_size=30))
def test_rectangles_hold_their_shapes(
    star: tuple[Point, list[Point]], centre: Point, radius: float, others: list[Point]
) -> None:
    ring = Ring(star[1])
    area = Area((ring,))
    edge = [degrees_of(p) for a, b in ring.edges() for p in along(a, b, 30)]
    inside = [point for point in [*others, star[0]] if area.has(point)]
    assert all(held(of_area(area), point) for point in [*edge, *inside])
    line = Line(star[1])
    assert all(held(of_line(line), degrees_of(p)) for a, b in line.edges() for p in along(a, b, 30))
    disc = of_disc(centre, radius)
    rim = [placed(centre, at / 5, radius * 0.999999) for at in range(32)] if radius < math.pi else []
    close = [point for point in others if angle(vector(*point), vector(*centre)) <= radius]
    assert all(held(disc, point) for point in [*rim, *close])


def held(rects: tuple[Rect, ...], point: Point) -> bool:
    """Under whatever name of its longitude."""
    x, y = point
    return all(
        any(rect.x0 <= name <= rect.x1 and rect.y0 <= y <= rect.y1 for rect in rects)
        for name in ((180.0, -180.0) if abs(x) == 180 else (x,))
    )


COORDINATES = st.one_of(st.floats(-200, 200), st.sampled_from([-180.0, 180.0, 0.0, 90.0, -90.0]))


@EXAMPLES
@given(
    st.lists(st.tuples(COORDINATES, COORDINATES, COORDINATES, COORDINATES), min_size=1, max_size=3),
    st.sampled_from(["2d", "2dsphere"]),
    st.integers(1, 30),
    st.lists(st.tuples(COORDINATES, COORDINATES), max_size=20),
)
def test_cells_cover_what_they_should_and_are_few(
    corners: list[tuple[float, ...]], kind: Any, most: int, others: list[Point]
) -> None:
    rects = [Rect(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]
    cells = cover(rects, kind, most)
    assert len(cells) <= max(most, len(rects))
    numbers = spans(cells, with_larger=False)
    assert numbers == sorted(numbers)
    half = 180 if kind == "2d" else 90
    for x, y in [*others, *((rect.x0, rect.y1) for rect in rects)]:
        if abs(x) <= 180 and abs(y) <= half and any(held((rect,), (x, y)) for rect in rects if abs(x) < 180):
            number = cell_number(point_cell(x, y, kind))
            assert any(low <= number < end for low, end in numbers)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=6), st.data())
def test_spans_are_sets(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    more = data.draw(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=6))
    one = together([(low, low + size) for low, size in pairs], [])
    other = together([(low, low + size) for low, size in more], [])
    left, right = ({n for low, end in found for n in range(low, end)} for found in (one, other))
    assert {n for low, end in without(one, other) for n in range(low, end)} == left - right
    assert {n for low, end in together(one, other) for n in range(low, end)} == left | right


# Indexes.


def geojson(kind: str, coordinates: Any) -> Document:
    return {"type": kind, "coordinates": coordinates}


def closed(corners: list[Point]) -> list[list[float]]:
    return [list(corner) for corner in [*corners, corners[0]]]


def pair(point: Point) -> list[float]:
    return list(point)


POINTS = points().map(lambda point: geojson("Point", pair(point)))
POLYGONS = stars(most=0.4).map(lambda star: geojson("Polygon", [closed(star[1])]))
LINES = (
    st.lists(points(0.5), min_size=2, max_size=4)
    .filter(lambda found: all(0 < angle(vector(*a), vector(*b)) < 3 for a, b in pairwise(found)))
    .map(lambda found: geojson("LineString", [pair(point) for point in found]))
)
PLACES: st.SearchStrategy[Any] = st.one_of(
    POINTS,
    points().map(pair),
    points().map(lambda point: {"lng": point[0], "lat": point[1]}),
    POLYGONS,
    LINES,
    st.lists(points(), min_size=1, max_size=3).map(
        lambda found: geojson("MultiPoint", [pair(point) for point in found])
    ),
    st.tuples(POINTS, POLYGONS).map(lambda both: {"type": "GeometryCollection", "geometries": list(both)}),
    st.sampled_from([None, []]),
)
FLAT: st.SearchStrategy[Any] = st.one_of(
    points().map(pair),
    st.tuples(st.floats(-180, 180), st.floats(-180, 180)).map(lambda found: {"x": found[0], "y": found[1]}),
    st.lists(points().map(pair), min_size=1, max_size=3),
    st.none(),
)
SPHERE_SHAPES = st.one_of(
    POLYGONS.map(lambda shape: {"$geoWithin": {"$geometry": shape}}),
    st.one_of(POLYGONS, POINTS, LINES).map(lambda shape: {"$geoIntersects": {"$geometry": shape}}),
    st.tuples(points().map(pair), st.floats(0, 3.3)).map(
        lambda found: {"$geoWithin": {"$centerSphere": list(found)}}
    ),
)
FLAT_SHAPES = st.one_of(
    st.tuples(points().map(pair), points().map(pair)).map(
        lambda found: {"$geoWithin": {"$box": list(found)}}
    ),
    st.tuples(points().map(pair), st.floats(0, 90)).map(
        lambda found: {"$geoWithin": {"$center": list(found)}}
    ),
    st.lists(points().map(pair), min_size=3, max_size=5).map(
        lambda found: {"$geoWithin": {"$polygon": found}}
    ),
)


class Stored:
    """Documents, and their entries in one index."""

    def __init__(self, places: list[Any], kind: Any, fields: tuple[str, ...]) -> None:
        parts = tuple(key_part(path, kind=kind if path == "place" else "value") for path in fields)
        self.index: IndexInfo = new_index(CreateIndex("c", "i", parts), 1)
        self.rows: list[Row] = []
        self.entries: list[tuple[bytes, int]] = []
        for place in places:
            did = len(self.rows)
            document = {"_id": did, "place": place, "n": did % 3}
            try:
                made = entries_of(document, self.index)
            except InvalidDocument:
                continue  # Such as a line to the opposite point: what an index refuses is not stored.
            self.rows.append(Row(did, b"", 1, 1, document))
            self.entries += [(key, did) for key in made.keys]
            self.index = flagged(self.index, made)
        self.entries.sort()

    def read(self, ranges: tuple[tuple[bytes, bytes], ...]) -> Generator[Row, None, None]:
        for low, end in ranges:
            found = self.entries[bisect_left(self.entries, (low, 0)) : bisect_left(self.entries, (end, 0))]
            for _, did in found:
                yield self.rows[did]

    def probe(self, source: Ranges, most: int) -> int:
        return min(most, len(list(self.read(source.ranges))))


INDEXES = [("place",), ("n", "place"), ("place", "n")]


def check_index(places: list[Any], kind: Any, fields: tuple[str, ...], filter: Document) -> None:
    stored = Stored(places, kind, fields)
    wanted = where(filter)
    source = plan(wanted.node, (), [stored.index]).source
    matches = [row.did for row in stored.rows if wanted.match(row.document)]
    if isinstance(source, Scan):
        assert fields[0] == "n"
        assert "n" not in filter
        return
    assert isinstance(source, Ranges)
    led = dict.fromkeys(row.did for row in stored.read(source.ranges))
    assert sorted(did for did in led if wanted.match(stored.rows[did].document)) == matches


@EXAMPLES
@given(
    st.lists(PLACES, max_size=25),
    st.sampled_from(INDEXES),
    st.one_of(SPHERE_SHAPES, FLAT_SHAPES),
    st.booleans(),
)
def test_an_index_of_the_sphere_finds_what_matches(
    places: list[Any], fields: tuple[str, ...], condition: Document, pinned: bool
) -> None:
    check_index(places, "2dsphere", fields, {"place": condition, **({"n": 1} if pinned else {})})


@EXAMPLES
@given(st.lists(FLAT, max_size=25), st.one_of(SPHERE_SHAPES, FLAT_SHAPES), st.booleans())
def test_an_index_of_the_plane_finds_what_matches(
    places: list[Any], condition: Document, pinned: bool
) -> None:
    check_index(places, "2d", ("place", "n"), {"place": condition, **({"n": 1} if pinned else {})})


def check_order(stored: Stored, filter: Document, limit: int | None, probed: bool) -> None:
    """Rings bring the nearest first, exactly as sorting everything does."""
    wanted = where(filter)
    chosen = plan(wanted.node, (), [stored.index], limit, stored.probe if probed else None)
    assert chosen.ordered
    assert isinstance(chosen.source, Rings)
    search = chosen.source.search
    found = [row for row in Nearest(chosen.source, stored.read) if wanted.match(row.document)][:limit]
    matching = [row for row in stored.rows if wanted.match(row.document)]
    sort_documents(matching, wanted.order, lambda row: row.document)
    assert [row.did for row in found] == [row.did for row in matching[:limit]]
    distances = [search.distance(row.document) for row in found]
    assert all(far is not None and search.low <= far <= search.high for far in distances)
    unordered = plan(wanted.node, parse_sort({"n": 1}), [stored.index], limit)
    assert isinstance(unordered.source, Ranges)
    assert not unordered.ordered
    assert {row.did for row in matching} <= {row.did for row in stored.read(unordered.source.ranges)}


LIMITS: st.SearchStrategy[dict[str, float]] = st.fixed_dictionaries(
    {}, optional={"$minDistance": st.floats(0, 1), "$maxDistance": st.floats(0, 3.5)}
)


@EXAMPLES
@given(
    st.lists(PLACES, max_size=40),
    st.sampled_from(INDEXES),
    points().map(pair),
    LIMITS,
    st.one_of(st.none(), st.integers(1, 8)),
    st.booleans(),
    st.booleans(),
)
def test_the_nearest_on_the_sphere_come_first(
    places: list[Any],
    fields: tuple[str, ...],
    centre: list[float],
    limits: dict[str, float],
    limit: int | None,
    probed: bool,
    geo: bool,
) -> None:
    if geo:
        metres = {name: distance * 6_378_100 for name, distance in limits.items()}
        condition: Document = {"$near": {"$geometry": geojson("Point", centre), **metres}}
    else:
        condition = {"$nearSphere": centre, **limits}
    filter = {"place": condition, "n": {"$in": [0, 2]}} if fields[0] == "n" else {"place": condition}
    check_order(Stored(places, "2dsphere", fields), filter, limit, probed)


@EXAMPLES
@given(
    st.lists(FLAT, max_size=40),
    st.sampled_from(["$near", "$nearSphere"]),
    points().map(pair),
    LIMITS,
    st.one_of(st.none(), st.integers(1, 8)),
    st.booleans(),
)
def test_the_nearest_on_the_plane_come_first(
    places: list[Any],
    name: str,
    centre: list[float],
    limits: dict[str, float],
    limit: int | None,
    probed: bool,
) -> None:
    scaled = {key: distance * 100 for key, distance in limits.items()} if name == "$near" else limits
    check_order(Stored(places, "2d", ("place",)), {"place": {name: centre, **scaled}}, limit, probed)


@EXAMPLES
@given(stars(), points())
def test_the_distance_of_an_area_is_nothing_inside_and_that_of_its_edge_outside(
    star: tuple[Point, list[Point]], point: Point
) -> None:
    area = Area((Ring(star[1]),))
    far = Place(areas=(area,)).distance(point)
    if area.has(point):
        assert far == 0
    else:
        samples = [p for a, b in area.edges() for p in along(a, b, 200)]
        nearest = min(angle(vector(*point), sample) for sample in samples)
        assert far <= nearest + 1e-9
        assert nearest <= far + 2.5 / 200
