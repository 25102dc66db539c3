"""What documents hold: points, lines and areas on the sphere, and how they lie to each other.

Everything is closed: a boundary belongs to its area, an end to its line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias

from cloudlet.docdb.geo.sphere import (
    NEAR,
    Vector,
    angle,
    arc_distance,
    arc_touches,
    arcs_cross,
    arcs_meet,
    crossing,
    middle,
    opposite,
    turned,
    vector,
)

Point: TypeAlias = tuple[float, float]
"""Longitude and latitude in degrees, or x and y on the plane."""
_GAP: Final = 1e-9
"""Pieces of a line shorter than this are not looked at: their ends are."""


class Line:
    """Points joined by short arcs."""

    __slots__ = ("points", "vectors")

    def __init__(self, points: Iterable[Point]) -> None:
        self.points = tuple(points)
        self.vectors = tuple(vector(*point) for point in self.points)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Line) and other.points == self.points

    def __hash__(self) -> int:
        return hash(self.points)

    def edges(self) -> Iterator[tuple[Vector, Vector]]:
        """The arcs one after the other."""
        return pairwise(self.vectors)

    def distance(self, p: Vector) -> float:
        """The distance of a point from the nearest arc."""
        return min(arc_distance(p, a, b) for a, b in self.edges())


class Ring(Line):
    """A closed line; its inside is the smaller side, or the one to its left if ``strict``.

    A point is inside if the meridian from it to the north pole crosses the ring an odd number of times, or an
    even number and the pole is inside. ``points`` has no repetition at the end.
    """

    __slots__ = ("_lons", "_tans", "north", "strict")

    def __init__(self, points: Iterable[Point], strict: bool = False) -> None:
        super().__init__(points)
        self.strict = strict
        # The two names of the antimeridian must be one number, or a crossing there would count twice.
        self._lons = tuple(_longitude(lon) for lon, _ in self.points)
        self._tans = tuple(math.tan(math.radians(lat)) for _, lat in self.points)
        self.north = self._north_is_inside()

    def edges(self) -> Iterator[tuple[Vector, Vector]]:
        yield from pairwise(self.vectors)
        yield self.vectors[-1], self.vectors[0]

    def encloses(self, point: Point) -> bool:
        """Whether a point is inside; on the ring itself the answer is either."""
        lon, tan = _longitude(point[0]), math.tan(math.radians(point[1]))
        lons, tans = self._lons, self._tans
        inside = self.north
        for at in range(len(lons)):
            west, east, low, high = lons[at - 1], lons[at], tans[at - 1], tans[at]
            span = east - west
            around = abs(span) > math.pi or span == -math.pi  # The short way crosses the antimeridian.
            if (span < 0) != around:
                west, east, low, high, span = east, west, high, low, -span
            # Compared as they are: differences may round two longitudes into one.
            if not (lon >= west or lon < east if around else west <= lon < east):
                continue
            span, offset = span % (2 * math.pi), (lon - west) % (2 * math.pi)
            if low * math.sin(span - offset) + high * math.sin(offset) > tan * math.sin(span):
                inside = not inside
        return inside

    def _north_is_inside(self) -> bool:
        """From the turns around the axis and the area, which is an integral of the sine of the latitude."""
        turns = lift = 0.0
        for (lon_a, lat_a), (lon_b, lat_b) in pairwise((*self.points, self.points[0])):
            span = turned(_longitude(lon_b) - _longitude(lon_a))
            product = math.tan(math.radians(90 - lat_a) / 2) * math.tan(math.radians(90 - lat_b) / 2)
            excess = 2 * math.atan2(product * math.sin(span), 1 + product * math.cos(span))
            turns += span
            lift += span - excess
        if abs(turns) < math.pi:  # The poles are on the same side, which the area tells.
            return lift > 0 if self.strict else abs(lift) > 2 * math.pi
        if self.strict:
            return turns > 0
        return lift >= 0 if turns > 0 else lift <= 0


@dataclass(frozen=True, slots=True)
class Area:
    """The inside of the first ring without the insides of the others."""

    rings: tuple[Ring, ...]

    def edges(self) -> Iterator[tuple[Vector, Vector]]:
        """The arcs of all rings."""
        for ring in self.rings:
            yield from ring.edges()

    def has(self, point: Point) -> bool:
        """Whether a point is in the area or on its edge."""
        outer, *holes = self.rings
        if outer.encloses(point) and not any(hole.encloses(point) for hole in holes):
            return True
        return self._edge_distance(vector(*point)) <= NEAR

    def distance(self, point: Point) -> float:
        """0 inside, else the distance from the edge."""
        return 0.0 if self.has(point) else self._edge_distance(vector(*point))

    def has_line(self, line: Line) -> bool:
        """Whether all of a line is in the area: no part of it between two meetings with the edge is out."""
        if not all(map(self.has, line.points)):
            return False
        edges = tuple(self.edges())
        return all(self.has(point) for a, b in line.edges() for point in _between(a, b, edges))

    def has_area(self, other: Area) -> bool:
        """Whether all of another area is in this one."""
        if not self.has_line(other.rings[0]):
            return False
        outer, *holes = self.rings
        if outer.strict:
            holes.append(Ring(outer.points[::-1], strict=True))
        gaps = [_inner_point(hole) for hole in holes]
        return not any(other._surely_has(point) for point in gaps)

    def meets_line(self, line: Line) -> bool:
        """Whether a line has a point in common with the area."""
        return self.has(line.points[0]) or _edges_meet(line.edges(), tuple(self.edges()))

    def meets_area(self, other: Area) -> bool:
        """Whether another area has a point in common with this one."""
        if self.has(other.rings[0].points[0]) or other.has(self.rings[0].points[0]):
            return True
        return _edges_meet(other.edges(), tuple(self.edges()))

    def _surely_has(self, point: Point) -> bool:
        return self.has(point) and self._edge_distance(vector(*point)) > NEAR

    def _edge_distance(self, p: Vector) -> float:
        return min(ring.distance(p) for ring in self.rings)


@dataclass(frozen=True, slots=True)
class Place:
    """One stored (or asked for) geometry, taken apart."""

    points: tuple[Point, ...] = ()
    lines: tuple[Line, ...] = ()
    areas: tuple[Area, ...] = ()
    flat: Point | None = None
    """The point, if it is one: a legacy pair or a GeoJSON Point. All that planar shapes look at."""
    spherical: bool = True
    """Its coordinates are on the sphere (a legacy pair may lie outside)."""

    @property
    def size(self) -> int:
        """Number of its points: what work with it costs."""
        lines = sum(len(line.points) for line in self.lines)
        return len(self.points) + lines + sum(len(ring.points) for area in self.areas for ring in area.rings)

    def distance(self, point: Point) -> float:
        """The distance of a point from the nearest part, in radians."""
        p = vector(*point)
        found = [angle(p, vector(*other)) for other in self.points]
        found += [line.distance(p) for line in self.lines]
        found += [area.distance(point) for area in self.areas]
        return min(found)

    def meets(self, other: Place) -> bool:
        """Whether two places have a point in common."""
        return (
            any(_point_meets(point, other) for point in self.points)
            or any(_line_meets(line, other) for line in self.lines)
            or any(_area_meets(area, other) for area in self.areas)
        )


def degrees_of(v: Vector) -> Point:
    """Longitude and latitude of a vector."""
    return (
        math.degrees(math.atan2(v[1], v[0])),
        math.degrees(math.atan2(v[2], math.hypot(v[0], v[1]))),
    )


def self_crossing(ring: Ring) -> tuple[int, int] | None:
    """The numbers of two edges that cross, if any."""
    edges = tuple(ring.edges())
    for at, (a, b) in enumerate(edges):
        for other in range(at + 1, len(edges)):
            if arcs_cross(a, b, *edges[other]):
                return at, other
    return None


def _longitude(degrees: float) -> float:
    return math.pi if degrees <= -180 else math.radians(degrees)


def _between(a: Vector, b: Vector, edges: tuple[tuple[Vector, Vector], ...]) -> Iterator[Point]:
    """One point of each part into which edges cut an arc."""
    cuts = [a, b]
    for c, d in edges:
        if arcs_cross(a, b, c, d):
            cuts.append(crossing(a, b, c, d))
        else:
            cuts += [p for p in arc_touches(a, b, c, d) if arc_distance(p, a, b) <= NEAR]
    cuts.sort(key=lambda p: angle(a, p))
    for one, other in pairwise(cuts):
        if angle(one, other) > _GAP:
            yield degrees_of(middle(one, other))


def _inner_point(ring: Ring) -> Point:
    """A point inside a ring: the middle of a cut from edge to edge that is inside it."""
    points = ring.vectors
    edges = tuple(ring.edges())
    for at in range(len(points)):
        for other in range(at + 2, len(points)):
            for point in _between(points[at], points[other], edges):
                p = vector(*point)
                if ring.encloses(point) and ring.distance(p) > NEAR:
                    return point
    # A triangle has no cut between its corners.
    found = degrees_of(middle(middle(points[0], points[1]), points[2]))
    return found if ring.encloses(found) else degrees_of(opposite(vector(*found)))


def _edges_meet(edges: Iterable[tuple[Vector, Vector]], others: tuple[tuple[Vector, Vector], ...]) -> bool:
    return any(arcs_meet(a, b, c, d) for a, b in edges for c, d in others)


def _point_meets(point: Point, other: Place) -> bool:
    p = vector(*point)
    return (
        any(angle(p, vector(*one)) <= NEAR for one in other.points)
        or any(line.distance(p) <= NEAR for line in other.lines)
        or any(area.has(point) for area in other.areas)
    )


def _line_meets(line: Line, other: Place) -> bool:
    return (
        any(line.distance(vector(*point)) <= NEAR for point in other.points)
        or any(_edges_meet(line.edges(), tuple(one.edges())) for one in other.lines)
        or any(area.meets_line(line) for area in other.areas)
    )


def _area_meets(area: Area, other: Place) -> bool:
    return (
        any(area.has(point) for point in other.points)
        or any(area.meets_line(line) for line in other.lines)
        or any(area.meets_area(one) for one in other.areas)
    )
