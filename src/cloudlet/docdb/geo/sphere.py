"""Unit vectors, arcs of great circles and their distances. All angles are in radians."""

from __future__ import annotations

import math
from typing import Final, TypeAlias

EARTH_RADIUS_M: Final = 6_378_100.0
"""MongoDB's number; metres divided by it are radians."""
NEAR: Final = 1e-11
"""What is closer than this (0.06 mm on the ground) touches."""

Vector: TypeAlias = tuple[float, float, float]


def vector(longitude: float, latitude: float) -> Vector:
    """The unit vector of a point given in degrees."""
    lon, lat = math.radians(longitude), math.radians(latitude)
    flat = math.cos(lat)
    return (flat * math.cos(lon), flat * math.sin(lon), math.sin(lat))


def dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Vector, b: Vector) -> Vector:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def normal_of(a: Vector, b: Vector) -> Vector:
    """A vector in the direction of a × b, exact for arcs of any length."""
    return cross(
        (a[0] + b[0], a[1] + b[1], a[2] + b[2]),
        (b[0] - a[0], b[1] - a[1], b[2] - a[2]),
    )


def norm(a: Vector) -> float:
    return math.sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2])


def opposite(a: Vector) -> Vector:
    return (-a[0], -a[1], -a[2])


def unit(a: Vector) -> Vector:
    """The vector of length 1 in this direction; ``a`` is not zero."""
    size = norm(a)
    return (a[0] / size, a[1] / size, a[2] / size)


def angle(a: Vector, b: Vector) -> float:
    """The distance of two points; exact for tiny and for nearly opposite ones too."""
    return math.atan2(norm(cross(a, b)), dot(a, b))


def middle(a: Vector, b: Vector) -> Vector:
    """The point halfway between two that are not opposite."""
    return unit((a[0] + b[0], a[1] + b[1], a[2] + b[2]))


def beside_arc(p: Vector, a: Vector, b: Vector, normal: Vector) -> bool:
    """Whether the nearest point of the whole great circle lies on the arc; ``normal`` as from
    ``normal_of``.
    """
    return dot(cross(normal, a), p) >= 0 and dot(cross(normal, b), p) <= 0


def arc_distance(p: Vector, a: Vector, b: Vector) -> float:
    """The distance of a point from the short arc between two others."""
    normal = normal_of(a, b)
    size = norm(normal)
    if size and beside_arc(p, a, b, normal):
        return math.asin(min(1.0, abs(dot(p, normal)) / size))
    return min(angle(p, a), angle(p, b))


def arcs_cross(a: Vector, b: Vector, c: Vector, d: Vector) -> bool:
    """Whether two arcs cross at a point that is an end of neither."""
    if a in (c, d) or b in (c, d):
        return False  # Rounding would tell otherwise.
    ab = normal_of(a, b)
    left, right = -dot(ab, c), dot(ab, d)
    if left * right <= 0:
        return False
    cd = normal_of(c, d)
    return left * -dot(cd, b) > 0 and left * dot(cd, a) > 0


def arcs_meet(a: Vector, b: Vector, c: Vector, d: Vector) -> bool:
    """Whether two arcs have a point in common."""
    return arcs_cross(a, b, c, d) or bool(arc_touches(a, b, c, d))


def arc_touches(a: Vector, b: Vector, c: Vector, d: Vector) -> list[Vector]:
    """The ends of either arc that lie on the other."""
    found = [p for p in (c, d) if arc_distance(p, a, b) <= NEAR]
    return found + [p for p in (a, b) if arc_distance(p, c, d) <= NEAR]


def crossing(a: Vector, b: Vector, c: Vector, d: Vector) -> Vector:
    """The point at which two arcs cross that do (``arcs_cross``)."""
    found = unit(cross(normal_of(a, b), normal_of(c, d)))
    return found if dot(found, a) + dot(found, b) > 0 else opposite(found)


def turned(radians: float) -> float:
    """A difference of longitudes, the short way: above -π and up to π."""
    if radians > math.pi:
        return radians - 2 * math.pi
    return radians + 2 * math.pi if radians <= -math.pi else radians
