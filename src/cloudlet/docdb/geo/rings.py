"""The search for what is nearest: ever wider discs, of each only the cells that are new."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from cloudlet.docdb.geo.cells import MapKind, Span, cover, key_of, spans, together, without
from cloudlet.docdb.geo.places import Point
from cloudlet.docdb.geo.rects import Rect, distance_from, of_disc

if TYPE_CHECKING:
    from cloudlet.docdb.planner import IndexInfo, Ranges
    from cloudlet.docdb.values import Document

RING_CELLS_MAX: Final = 16
START: Final = 8e-5
"""Radius of the first disc, about 500 m."""
START_DEGREES: Final = 0.005
PROBES_MAX: Final = 16
WANTED: Final = 100
"""Documents that are expected to be taken if nobody says how many."""
_LEAST: Final = 2
_MOST: Final = 6
"""The first disc should lead to so many times the wanted entries: its cells reach beyond it."""
_WIDE: Final = 0.1
"""From this radius (radians) on a disc differs so much from its rectangle that single cells are measured."""
_STEP: Final = 8.0


class Ring(NamedTuple):
    """Key ranges; when they have been read everything within ``reach`` has been."""

    reach: float
    ranges: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for: the places nearest to a point, in radians on the sphere or degrees on the plane."""

    centre: Point
    spherical: bool
    low: float
    high: float
    """Least and greatest distance (infinity: any)."""
    distance: Callable[[Document], float | None]
    """How far a document is; None: it has no place."""

    @property
    def farthest(self) -> float:
        """A distance that holds everything that is looked for."""
        if self.spherical:
            return min(self.high, math.pi)
        x, y = self.centre
        return min(self.high, math.hypot(abs(x) + 180, abs(y) + 180))

    def rects(self, radius: float) -> tuple[Rect, ...]:
        """Where everything within a distance is."""
        if self.spherical:
            return of_disc(self.centre, radius)
        x, y = self.centre
        reach = radius * (1 + 1e-12) + 1e-9
        return (Rect(x - reach, y - reach, x + reach, y + reach),)


@dataclass(frozen=True, slots=True)
class Rings:
    """Read documents in order of distance, ring by ring (a source of a plan)."""

    index: IndexInfo
    kind: MapKind
    prefixes: tuple[bytes, ...]
    """What the fields before the place are pinned to."""
    search: Search
    wanted: int = WANTED
    start: float = 0.0
    """Radius of the first disc; 0: the usual one."""
    known: dict[float, list[Span]] = field(default_factory=dict, repr=False, compare=False)
    """The cells of discs that were asked for already."""

    def walk(self) -> Walk:
        """A new search from the beginning."""
        return Walk(self)

    def disc(self, radius: float) -> tuple[tuple[bytes, bytes], ...]:
        """The key ranges of everything within a distance."""
        return self.ranges(self.spans(radius))

    def spans(self, radius: float) -> list[Span]:
        """The cells of everything within a distance; of all that hold them only if there are any."""
        found = self.known.get(radius)
        if found is not None:
            return found
        search = self.search
        near = _touching(search.centre, radius) if search.spherical and radius > _WIDE else None
        cells = cover(search.rects(radius), self.kind, RING_CELLS_MAX, near)
        found = self.known[radius] = spans(cells, with_larger=self.index.multikey)
        return found

    def first_radius(self, probe: Callable[[Ranges, int], int], ranges: Callable[[float], Ranges]) -> float:
        """The radius to begin with: that of a disc with somewhat more entries than are wanted.

        ``probe`` counts entries up to a limit; it is asked a bounded number of times.
        """
        radius, few, many = self.usual_start, 0.0, 0.0
        farthest = self.search.farthest
        for _ in range(PROBES_MAX):
            count = probe(ranges(radius), _MOST * self.wanted)
            if count >= _MOST * self.wanted:
                many = radius
                radius = math.sqrt(few * many) if few else radius / _STEP
            elif count < _LEAST * self.wanted and radius < farthest:
                few = radius
                radius = math.sqrt(few * many) if many else min(farthest, radius * _STEP)
            else:
                break
        return max(radius, self.search.low)

    @property
    def usual_start(self) -> float:
        return START if self.search.spherical else START_DEGREES

    def ranges(self, found: list[Span]) -> tuple[tuple[bytes, bytes], ...]:
        """The key ranges of cells, behind each prefix."""
        keys = [(key_of(low), key_of(end)) for low, end in found]
        return tuple((prefix + low, prefix + end) for prefix in self.prefixes for low, end in keys)


class Walk:
    """One search: each ring's width follows from what the ones before have brought."""

    def __init__(self, rings: Rings) -> None:
        self._rings = rings
        self._known: list[Span] = []
        self._radius: float | None = None
        self._end = rings.search.farthest

    def next(self, found: int) -> Ring | None:
        """The next ring after ``found`` documents so far; None when everything has been read."""
        rings, radius = self._rings, self._radius
        if radius is None:
            radius = rings.start or max(rings.usual_start, rings.search.low)
        elif radius < self._end:
            radius *= _growth(found, rings.wanted)
        else:
            return None
        self._radius = radius = min(radius, self._end)
        covered = rings.spans(radius)
        new = without(covered, self._known)
        self._known = together(self._known, covered)
        return Ring(radius, rings.ranges(new))


def _touching(centre: Point, radius: float) -> Callable[[Rect], bool]:
    """Whether a rectangle has a point within a distance on the sphere."""
    return lambda rect: distance_from(rect, centre) <= radius + 1e-8


def _growth(found: int, wanted: int) -> float:
    """So many times wider the next disc is, that it should hold what is still wanted."""
    if found >= wanted:
        return 1.5
    return min(_STEP, max(1.5, math.sqrt(1.5 * wanted / found))) if found else _STEP
