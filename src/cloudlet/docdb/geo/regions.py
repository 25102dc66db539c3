"""What ``$geoWithin`` asks for: shapes that a stored place lies in or not, and where to look for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from cloudlet.docdb.geo import rects
from cloudlet.docdb.geo.places import Area, Line, Place, Point
from cloudlet.docdb.geo.rects import Rect
from cloudlet.docdb.geo.sphere import NEAR, Vector, angle, arc_distance, opposite, vector


class Region(Protocol):
    """A shape that is asked for."""

    @property
    def size(self) -> int:
        """Number of its points: what one test costs."""
        ...

    def has(self, place: Place) -> bool:
        """Whether all of a place is in the region, its edge included."""
        ...

    def rects(self) -> tuple[Rect, ...]:
        """Where all places in the region are."""
        ...


@dataclass(frozen=True, slots=True)
class AreaRegion:
    """``$geometry``: areas on the sphere, one of which has to hold each part of a place."""

    place: Place

    @property
    def size(self) -> int:
        return self.place.size

    def has(self, place: Place) -> bool:
        areas = self.place.areas
        return place.spherical and (
            all(any(area.has(point) for area in areas) for point in place.points)
            and all(any(area.has_line(line) for area in areas) for line in place.lines)
            and all(any(area.has_area(one) for area in areas) for one in place.areas)
        )

    def rects(self) -> tuple[Rect, ...]:
        return rects.of_place(Place(areas=self.place.areas))


@dataclass(frozen=True, slots=True)
class CapRegion:
    """``$centerSphere``: everything within a distance (radians) on the sphere."""

    centre: Point
    radius: float
    size: int = 1

    def has(self, place: Place) -> bool:
        if not place.spherical:
            return False
        if self.radius >= math.pi:
            return True
        centre = vector(*self.centre)
        return (
            all(angle(centre, vector(*point)) <= self.radius for point in place.points)
            and all(self._has_line(centre, line) for line in place.lines)
            and all(self._has_area(centre, area) for area in place.areas)
        )

    def rects(self) -> tuple[Rect, ...]:
        return rects.of_disc(self.centre, min(self.radius, math.pi))

    def _has_line(self, centre: Vector, line: Line) -> bool:
        # What is farthest from the centre is nearest to the point opposite to it.
        far = opposite(centre)
        return all(math.pi - arc_distance(far, a, b) <= self.radius + NEAR for a, b in line.edges())

    def _has_area(self, centre: Vector, area: Area) -> bool:
        lon, lat = self.centre
        far = (lon + 180 if lon <= 0 else lon - 180, -lat)
        return self._has_line(centre, area.rings[0]) and not area.has(far)


@dataclass(frozen=True, slots=True)
class BoxRegion:
    """``$box``: a rectangle on the plane."""

    rect: Rect
    size: int = 1

    def has(self, place: Place) -> bool:
        if place.flat is None:
            return False
        x, y = place.flat
        return self.rect.x0 <= x <= self.rect.x1 and self.rect.y0 <= y <= self.rect.y1

    def rects(self) -> tuple[Rect, ...]:
        return (self.rect,)


@dataclass(frozen=True, slots=True)
class DiscRegion:
    """``$center``: a circle on the plane."""

    centre: Point
    radius: float
    size: int = 1

    def has(self, place: Place) -> bool:
        return place.flat is not None and math.dist(self.centre, place.flat) <= self.radius

    def rects(self) -> tuple[Rect, ...]:
        x, y = self.centre
        pad = self.radius * 1e-12 + 1e-9
        reach = self.radius + pad
        return (Rect(x - reach, y - reach, x + reach, y + reach),)


@dataclass(frozen=True, slots=True)
class PolygonRegion:
    """``$polygon``: the inside of a closed line on the plane (of overlapping parts every second)."""

    points: tuple[Point, ...]

    @property
    def size(self) -> int:
        return len(self.points)

    def has(self, place: Place) -> bool:
        if place.flat is None:
            return False
        x, y = place.flat
        inside = False
        for (ax, ay), (bx, by) in pairwise((*self.points, self.points[0])):
            side = (bx - ax) * (y - ay) - (x - ax) * (by - ay)
            if side == 0 and min(ax, bx) <= x <= max(ax, bx) and min(ay, by) <= y <= max(ay, by):
                return True
            if (ay > y) != (by > y) and (side > 0) == (by > ay):
                inside = not inside
        return inside

    def rects(self) -> tuple[Rect, ...]:
        xs, ys = zip(*self.points, strict=True)
        return (Rect(min(xs), min(ys), max(xs), max(ys)),)
