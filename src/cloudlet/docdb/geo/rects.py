"""Rectangles in degrees that surely hold a shape: from shapes to what a quadtree can cover."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Final, NamedTuple

from cloudlet.docdb.geo.places import Area, Line, Place, Point, Ring, degrees_of
from cloudlet.docdb.geo.sphere import (
    Vector,
    arc_distance,
    beside_arc,
    norm,
    normal_of,
    opposite,
    turned,
    unit,
    vector,
)

PAD: Final = 1e-7
"""Degrees (1 cm) by which every rectangle on the sphere is larger, so that rounding loses nothing."""
MEMBERS_MAX: Final = 4
"""More parts of one place than this share one rectangle."""


class Rect(NamedTuple):
    """Everything from the lower left corner to the upper right one, both included."""

    x0: float
    y0: float
    x1: float
    y1: float


def on_sphere(low: Point, high: Point) -> tuple[Rect, ...]:
    """The rectangle between two corners, the western longitude first; either may lie outside ±180.

    Every point of the sphere that has several names is held under all of them: the antimeridian and the
    poles.
    """
    (west, south), (east, north) = low, high
    west, south, east, north = west - PAD, max(-90.0, south - PAD), east + PAD, min(90.0, north + PAD)
    if east - west >= 360 or south <= -90 or north >= 90:
        return (Rect(-180.0, south, 180.0, north),)
    turns = 360 * math.floor((west + 180) / 360)
    west, east = west - turns, east - turns
    if east < 180:
        return (Rect(west, south, east, north),)
    return (Rect(west, south, 180.0, north), Rect(-180.0, south, east - 360, north))


def of_disc(centre: Point, radius: float) -> tuple[Rect, ...]:
    """All points within ``radius`` (radians)."""
    lon, lat = centre
    reach = math.degrees(radius)
    south, north = lat - reach, lat + reach
    if south <= -90 + PAD or north >= 90 - PAD:
        return on_sphere((-180.0, south), (180.0, north))
    wide = math.degrees(math.asin(min(1.0, math.sin(radius) / math.cos(math.radians(lat)))))
    return on_sphere((lon - wide, south), (lon + wide, north))


def distance_from(rect: Rect, point: Point) -> float:
    """How far a point is from a rectangle on the sphere, at least (radians)."""
    if rect.x1 - rect.x0 >= 180 or rect.y1 > 90 or rect.y0 < -90:
        return 0.0
    lon, lat = point
    if rect.x0 <= lon <= rect.x1 or lat in (90, -90):
        return math.radians(max(0.0, rect.y0 - lat, lat - rect.y1))
    p = vector(lon, lat)
    # The nearest point of a parallel is on the nearest meridian, so that the sides are enough.
    return min(arc_distance(p, vector(x, rect.y0), vector(x, rect.y1)) for x in (rect.x0, rect.x1))


def of_place(place: Place) -> tuple[Rect, ...]:
    """All of a place: a rectangle for each part, or one for all if there are many."""
    if place.flat is not None and not place.spherical:
        x, y = place.flat
        return (Rect(x, y, x, y),)
    found = [rect for point in place.points for rect in on_sphere(point, point)]
    found += [rect for line in place.lines for rect in of_line(line)]
    found += [rect for area in place.areas for rect in of_area(area)]
    return tuple(found) if len(found) <= MEMBERS_MAX else (_around(found),)


def of_line(line: Line) -> tuple[Rect, ...]:
    """All arcs of a line, which may lead farther north or south than its points."""
    west, east = _longitudes(line.points)
    south, north = _latitudes(line)
    return on_sphere((west, south), (east, north))


def of_area(area: Area) -> tuple[Rect, ...]:
    """An area without regard to its holes."""
    outer = area.rings[0]
    north_pole, south_pole = outer.north, outer.encloses((0.0, -90.0))
    south, north = _latitudes(outer)
    west, east = _longitudes((*outer.points, outer.points[0]))
    if north_pole or south_pole:
        west, east = -180.0, 180.0
        south, north = -90.0 if south_pole else south, 90.0 if north_pole else north
    return on_sphere((west, south), (east, north))


def _around(rects: Iterable[Rect]) -> Rect:
    x0, y0, x1, y1 = zip(*rects, strict=True)
    return Rect(min(x0), min(y0), max(x1), max(y1))


def _longitudes(points: tuple[Point, ...]) -> tuple[float, float]:
    """West and east of a way along the points, unrolled: they may lie outside ±180."""
    at = west = east = points[0][0]
    for before, after in pairwise(points):
        at += math.degrees(turned(math.radians(after[0] - before[0])))
        west, east = min(west, at), max(east, at)
    return west, east


def _latitudes(line: Line | Ring) -> tuple[float, float]:
    latitudes = [lat for _, lat in line.points]
    for a, b in line.edges():
        latitudes += _peaks(a, b)
    return min(latitudes), max(latitudes)


def _peaks(a: Vector, b: Vector) -> list[float]:
    """The latitudes of the northernmost and southernmost point of a great circle that are on an arc of it."""
    normal = normal_of(a, b)
    if not norm(normal):
        return []
    x, y, z = unit(normal)
    if math.hypot(x, y) < 1e-12:
        return []  # Along the equator.
    peak = unit((-x * z, -y * z, 1 - z * z))
    return [degrees_of(p)[1] for p in (peak, opposite(peak)) if beside_arc(p, a, b, normal)]
