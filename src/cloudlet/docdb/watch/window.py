"""The first documents of an ordered query, kept up to date change by change.

Behind the window that is shown a reserve is kept, so that a document that leaves is replaced without a read.
``boundary`` is the place up to which everything that matches is known (None: all of it).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

from cloudlet.docdb.sort import Sort
from cloudlet.docdb.watch.events import DataType
from cloudlet.docdb.watch.images import Image, Touched
from cloudlet.docdb.watch.order import Place, place_of
from cloudlet.docdb.watch.pending import Move


class Window:
    """Documents in a total order (``order.total``). Nothing here awaits or reads."""

    def __init__(self, sort: Sort, limit: int, reserve: int) -> None:
        self._sort = sort
        self._limit = limit
        self._reserve = reserve
        self._places: list[Place] = []
        self._keys: list[bytes] = []
        self._place_of: dict[bytes, Place] = {}
        self._images: dict[bytes, Image] = {}
        self._boundary: Place | None = None
        self.bytes = 0
        """Size of all documents in it, the reserve included."""

    @classmethod
    def of(
        cls, images: Mapping[bytes, Image], sort: Sort, limit: int, reserve: int, boundary: Place | None
    ) -> Window:
        """The window of these documents, which are all that match up to the boundary."""
        window = cls(sort, limit, reserve)
        window._boundary = boundary
        rows = sorted((place_of(image.document, sort), key) for key, image in images.items())
        for place, key in rows:
            window._places.append(place)
            window._keys.append(key)
            window._place_of[key] = place
            window._images[key] = images[key]
            window.bytes += images[key].size
        return window

    @property
    def short(self) -> bool:
        """Whether documents may be missing that have to be read."""
        return self._boundary is not None and len(self._keys) < self._limit

    def shown(self) -> dict[bytes, Image]:
        """The documents inside the limit, in order."""
        return {key: self._images[key] for key in self._keys[: self._limit]}

    def change(self, key: bytes, image: Image | None, reason: DataType) -> list[Move]:
        """Put a document in its place (None: it no longer matches); what that does to what is shown.

        ``reason``: why it comes or goes if that is its own doing.
        """
        limit = self._limit
        old, shown, coming = self._images.get(key), False, None
        if old is not None:
            at = self._remove(key, old)
            shown = at < limit
            if shown and len(self._keys) >= limit:
                coming = self._keys[limit - 1]
        shows, going = False, None
        if image is not None:
            at = self._insert(key, image)
            shows = 0 <= at < limit
            if shows and len(self._keys) > limit:
                going = self._keys[limit]
        moves = self._own(key, old if shown else None, image if shows else None, image, reason)
        if coming != going:
            if coming is not None:
                moves.append(Move(coming, None, self._images[coming], DataType.LIMIT))
            if going is not None:
                moves.append(Move(going, self._images[going], None, DataType.LIMIT))
        self._trim()
        return moves

    def settle(self, key: bytes, image: Image | None) -> None:
        """Put a document in its place (None: it no longer matches) before anything is shown."""
        old = self._images.get(key)
        if old is not None:
            self._remove(key, old)
        if image is not None:
            self._insert(key, image)

    def restored(self, touched: Mapping[bytes, Touched], matches: Iterable[bytes]) -> Window | None:
        """The window as it was before some documents were touched; None if that is not known.

        ``matches``: which of them matched before.
        """
        images = {key: image for key, image in self._images.items() if key not in touched}
        for key in matches:
            before = touched[key].before
            if before is not None and self._inside(place_of(before.document, self._sort)):
                images[key] = before
        window = Window.of(images, self._sort, self._limit, self._reserve, self._boundary)
        return None if window.short else window

    def _own(
        self, key: bytes, old: Image | None, new: Image | None, image: Image | None, reason: DataType
    ) -> list[Move]:
        if old is None and new is None:
            return []
        if old is not None and new is None and image is not None:
            reason = DataType.LIMIT
        return [Move(key, old, new, reason)]

    def _inside(self, place: Place) -> bool:
        return self._boundary is None or not self._boundary < place

    def _remove(self, key: bytes, image: Image) -> int:
        at = bisect_left(self._places, self._place_of.pop(key))
        del self._places[at], self._keys[at], self._images[key]
        self.bytes -= image.size
        return at

    def _insert(self, key: bytes, image: Image) -> int:
        """Its position; -1 if it lies behind the boundary and is not kept."""
        place = place_of(image.document, self._sort)
        if not self._inside(place):
            return -1
        at = bisect_left(self._places, place)
        self._places.insert(at, place)
        self._keys.insert(at, key)
        self._place_of[key] = place
        self._images[key] = image
        self.bytes += image.size
        return at

    def _trim(self) -> None:
        """Forget what lies far behind the limit."""
        if len(self._keys) <= self._limit + 2 * self._reserve:
            return
        kept = self._limit + self._reserve
        for key in self._keys[kept:]:
            self.bytes -= self._images.pop(key).size
            del self._place_of[key]
        del self._keys[kept:], self._places[kept:]
        self._boundary = self._places[-1]


def moves_between(
    old: Mapping[bytes, Image], new: Mapping[bytes, Image], touched: Mapping[bytes, Touched]
) -> list[Move]:
    """What leads from one content of a window to another; only touched documents are different inside."""
    moves = [
        Move(key, image, None, _why_gone(touched.get(key))) for key, image in old.items() if key not in new
    ]
    for key, image in new.items():
        if key not in old:
            moves.append(Move(key, None, image, _why_come(touched.get(key))))
        elif key in touched:
            moves.append(Move(key, old[key], image, DataType.UPDATE))
    return moves


def _why_gone(touched: Touched | None) -> DataType:
    if touched is None:
        return DataType.LIMIT
    return DataType.REMOVE if touched.after is None else DataType.UPDATE


def _why_come(touched: Touched | None) -> DataType:
    if touched is None:
        return DataType.LIMIT
    return DataType.ADD if touched.before is None else DataType.UPDATE
