"""Rows in order of distance, from rings of candidates that have none."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from cloudlet.docdb.geo.rings import Ring, Rings

if TYPE_CHECKING:
    from cloudlet.docdb.base import Row


class Nearest(Iterator["Row"]):
    """An iterator over the rows a ``Rings`` leads to, each once, the nearest first (of equal ones the
    oldest).

    ``read`` gives the rows of key ranges. Rows are held until no nearer one can come; ``one`` is called for
    each that is read and may raise to end the search.
    """

    def __init__(
        self,
        source: Rings,
        read: Callable[[tuple[tuple[bytes, bytes], ...]], Generator[Row, None, None]],
    ) -> None:
        self._source = source
        self._read = read
        self._rows = self._ordered()
        self.one: Callable[[], None] = _nothing

    def __next__(self) -> Row:
        return next(self._rows)

    def close(self) -> None:
        """Let go of what is being read."""
        self._rows.close()

    def _ordered(self) -> Generator[Row, None, None]:
        walk, distance = self._source.walk(), self._source.search.distance
        waiting: list[tuple[float, int, Row]] = []
        seen: set[int] = set()
        while (ring := walk.next(len(seen))) is not None:
            for row in self._new(ring, seen):
                far = distance(row.document)
                if far is not None:
                    heappush(waiting, (far, row.did, row))
            while waiting and waiting[0][0] <= ring.reach:
                yield heappop(waiting)[2]
        while waiting:
            yield heappop(waiting)[2]

    def _new(self, ring: Ring, seen: set[int]) -> Generator[Row, None, None]:
        if not ring.ranges:
            return
        with closing(self._read(ring.ranges)) as rows:
            for row in rows:
                if row.did not in seen:
                    self.one()
                    seen.add(row.did)
                    yield row


def _nothing() -> None:
    return None
