"""A quadtree over longitude and latitude: rectangles become few cells, cells become ranges of index keys.

A cell of level n is one of 4**n equal parts of the map; each is split along both axes into four. Its key is
its path from the root, then a one bit, then zeros: all keys have the same length, those of a cell's
descendants lie on both sides of its own, and those of its ancestors outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import Final, Literal, NamedTuple, TypeAlias

from cloudlet.docdb.geo.rects import Rect

MapKind: TypeAlias = Literal["2d", "2dsphere"]
LEVELS: Final = 27
"""The smallest cells are 0.3 m wide."""
CELLS_MAX: Final = 20
"""Cells that cover one shape."""
FIRST_BYTE: Final = b"\x64"
"""What every key of a cell begins with: unlike any type of value."""
KEY_BYTES: Final = 8
_SIDE: Final = 1 << LEVELS
_HEIGHT: Final[dict[MapKind, float]] = {"2d": 180.0, "2dsphere": 90.0}
"""The map goes from -180 to 180 in one direction, and from minus to plus this in the other."""
_SPREAD: Final = (
    (16, 0x0000FFFF0000FFFF),
    (8, 0x00FF00FF00FF00FF),
    (4, 0x0F0F0F0F0F0F0F0F),
    (2, 0x3333333333333333),
    (1, 0x5555555555555555),
)

Span: TypeAlias = tuple[int, int]
"""Cell numbers from the first up to but without the second."""


class Cell(NamedTuple):
    """A cell by its level and its place among the cells of that level."""

    level: int
    x: int
    y: int


def on_map(x: float, y: float, kind: MapKind) -> bool:
    """Whether a point is on the map."""
    return -180 <= x <= 180 and -_HEIGHT[kind] <= y <= _HEIGHT[kind]


def point_cell(x: float, y: float, kind: MapKind) -> Cell:
    """The smallest cell of a point on the map."""
    return Cell(LEVELS, _index(x, 180.0), _index(y, _HEIGHT[kind]))


def cell_number(cell: Cell) -> int:
    """What orders the cells."""
    level, x, y = cell
    return (_interleaved(x, y) << 1 | 1) << 2 * (LEVELS - level)


def cell_rect(cell: Cell, kind: MapKind) -> Rect:
    """What a cell covers of the map."""
    level, x, y = cell
    width, height = 360 / (1 << level), 2 * _HEIGHT[kind] / (1 << level)
    west, south = x * width - 180, y * height - _HEIGHT[kind]
    return Rect(west, south, west + width, south + height)


def key_of(number: int) -> bytes:
    """The index key of a cell's number (or of an end of a span)."""
    return FIRST_BYTE + number.to_bytes(KEY_BYTES - 1, "big")


def cover(
    rects: Iterable[Rect],
    kind: MapKind,
    cells_max: int = CELLS_MAX,
    wanted: Callable[[Rect], bool] | None = None,
) -> list[Cell]:
    """At most so many cells (one per rectangle at least) that together hold all rectangles.

    What lies outside the map is left out, and cells that are not ``wanted``. Large cells at the edge are
    split first.
    """
    done: list[Cell] = []
    waiting: list[tuple[Cell, _Square]] = []
    for rect in rects:
        square = _square(rect, kind)
        if square is not None:
            heappush(waiting, (_smallest_around(square), square))
    while waiting:
        cell, square = heappop(waiting)
        if cell.level == LEVELS or _is_inside(cell, square):
            done.append(cell)
            continue
        parts = [part for part in _children(cell) if _touches(part, square)]
        if wanted is not None:
            parts = [part for part in parts if wanted(cell_rect(part, kind))]
        if len(parts) > 1 and len(done) + len(waiting) + len(parts) > cells_max:
            done.append(cell)
        else:
            for part in parts:
                heappush(waiting, (part, square))
    return done


def spans(cells: Sequence[Cell], with_larger: bool) -> list[Span]:
    """The numbers of the cells and all smaller ones in them, ``with_larger`` also of all that hold them.

    They ascend and do not touch each other.
    """
    found = []
    for cell in cells:
        level, x, y = cell
        width = 2 * (LEVELS - level)
        first = _interleaved(x, y) << width
        found.append((first << 1, (first + (1 << width)) << 1))
    if with_larger:
        for number in {cell_number(larger) for cell in cells for larger in _larger(cell)}:
            found.append((number, number + 1))
    return _merged(found)


def without(wanted: Sequence[Span], known: Sequence[Span]) -> list[Span]:
    """The parts of ascending spans that are in none of the others, which ascend too."""
    left: list[Span] = []
    others = list(known)
    for first, end in wanted:
        for low, high in others:
            if high <= first:
                continue
            if low >= end:
                break
            if first < low:
                left.append((first, low))
            first = high
            if first >= end:
                break
        if first < end:
            left.append((first, end))
    return left


def together(one: Sequence[Span], other: Sequence[Span]) -> list[Span]:
    """What is in either."""
    return _merged([*one, *other])


class _Square(NamedTuple):
    """A rectangle in numbers of the smallest cells, both ends included."""

    x0: int
    y0: int
    x1: int
    y1: int


def _index(value: float, half: float) -> int:
    return min(_SIDE - 1, max(0, int((value + half) / (2 * half) * _SIDE)))


def _interleaved(x: int, y: int) -> int:
    for shift, mask in _SPREAD:
        x = (x | x << shift) & mask
        y = (y | y << shift) & mask
    return x << 1 | y


def _square(rect: Rect, kind: MapKind) -> _Square | None:
    half = _HEIGHT[kind]
    if rect.x1 < -180 or rect.x0 > 180 or rect.y1 < -half or rect.y0 > half:
        return None
    return _Square(
        _index(rect.x0, 180.0), _index(rect.y0, half), _index(rect.x1, 180.0), _index(rect.y1, half)
    )


def _smallest_around(square: _Square) -> Cell:
    lost = max((square.x0 ^ square.x1).bit_length(), (square.y0 ^ square.y1).bit_length())
    return Cell(LEVELS - lost, square.x0 >> lost, square.y0 >> lost)


def _bounds(cell: Cell) -> _Square:
    level, x, y = cell
    lost = LEVELS - level
    return _Square(x << lost, y << lost, (x + 1 << lost) - 1, (y + 1 << lost) - 1)


def _is_inside(cell: Cell, square: _Square) -> bool:
    mine = _bounds(cell)
    return square.x0 <= mine.x0 and square.y0 <= mine.y0 and mine.x1 <= square.x1 and mine.y1 <= square.y1


def _touches(cell: Cell, square: _Square) -> bool:
    mine = _bounds(cell)
    return mine.x0 <= square.x1 and square.x0 <= mine.x1 and mine.y0 <= square.y1 and square.y0 <= mine.y1


def _children(cell: Cell) -> list[Cell]:
    level, x, y = cell
    return [Cell(level + 1, 2 * x + right, 2 * y + up) for right in (0, 1) for up in (0, 1)]


def _larger(cell: Cell) -> list[Cell]:
    level, x, y = cell
    return [Cell(level - up, x >> up, y >> up) for up in range(1, level + 1)]


def _merged(found: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for first, end in sorted(found):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((first, end))
    return merged
