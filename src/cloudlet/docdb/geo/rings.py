"""The search for what is nearest: ever wider discs, of each only the cells that are new."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from cloudlet.docdb.geo.cells import MapKind, Span, cover, key_of, spans, together, without
from cloudlet.docdb.geo.places import Point
from cloudlet.docdb.geo.rects import Rect, of_disc

if TYPE_CHECKING:
    from cloudlet.docdb.planner import IndexInfo, Ranges
    from cloudlet.docdb.values import Document

RING_CELLS_MAX: Final = 16
START: Final = 8e-5
"""Radius of the first disc, about 500 m."""
START_DEGREES: Final = 0.005
SHRINK: Final = 4.0
SHRUNK_MAX: Final = 8
WANTED: Final = 100
"""Documents that are expected to be taken if nobody says how many."""
_CROWD: Final = 4
"""A first disc with so many times the wanted entries is too wide."""


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

    def walk(self) -> Walk:
        """A new search from the beginning."""
        return Walk(self)

    def disc(self, radius: float) -> tuple[tuple[bytes, bytes], ...]:
        """The key ranges of everything within a distance."""
        return self._ranges(self.spans(radius))

    def spans(self, radius: float) -> list[Span]:
        """The cells of everything within a distance; of all that hold them only if there are any."""
        cells = cover(self.search.rects(radius), self.kind, RING_CELLS_MAX)
        return spans(cells, with_larger=self.index.multikey)

    def first_radius(self, probe: Callable[[Ranges, int], int], ranges: Callable[[float], Ranges]) -> float:
        """The radius to begin with: smaller where very many documents are."""
        radius = self.usual_start
        for _ in range(SHRUNK_MAX):
            if probe(ranges(radius), _CROWD * self.wanted) < _CROWD * self.wanted:
                break
            radius /= SHRINK
        return max(radius, self.search.low)

    @property
    def usual_start(self) -> float:
        return START if self.search.spherical else START_DEGREES

    def _ranges(self, found: list[Span]) -> tuple[tuple[bytes, bytes], ...]:
        keys = [(key_of(low), key_of(end)) for low, end in found]
        return tuple((prefix + low, prefix + end) for prefix in self.prefixes for low, end in keys)


class Walk:
    """One search: each ring's width follows from what the ones before have brought."""

    def __init__(self, rings: Rings) -> None:
        self._rings = rings
        self._known: list[Span] = []
        self._radius = 0.0
        self._end = rings.search.farthest

    def next(self, found: int) -> Ring | None:
        """The next ring after ``found`` documents so far; None when everything has been read."""
        if self._radius >= self._end:
            return None
        rings = self._rings
        if not self._radius:
            self._radius = rings.start or max(rings.usual_start, rings.search.low)
        else:
            self._radius *= _growth(found, rings.wanted)
        if self._radius * 2 >= self._end:
            self._radius = self._end
        covered = rings.spans(self._radius)
        new = without(covered, self._known)
        self._known = together(self._known, covered)
        return Ring(self._radius, rings._ranges(new))


def _growth(found: int, wanted: int) -> float:
    """So many times wider the next disc is, that it should hold what is still wanted."""
    if found >= wanted:
        return 2.0
    return min(8.0, max(1.5, math.sqrt(1.5 * wanted / found))) if found else 8.0
