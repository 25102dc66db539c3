"""Reading what a query returns at one exact moment, while others write.

A read may see more than its caller knows of. So the change log is read up to a later moment, and every
document it mentions is set to its state at that moment; all others are as the read saw them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cloudlet.docdb.base import Change, Read, Row, Store
from cloudlet.docdb.filter import Where
from cloudlet.docdb.limits import WatchLimits
from cloudlet.docdb.sort import Sort, sort_keys
from cloudlet.docdb.watch.images import Image, Touched, touched_by
from cloudlet.docdb.watch.order import place_of, total
from cloudlet.docdb.watch.window import Window
from cloudlet.model.errors import LimitExceeded, ResultTooLarge, StoreUnavailable

PAGE: Final = 500
_ATTEMPTS: Final = 10
_RESERVE_MIN: Final = 10


@dataclass(frozen=True, slots=True)
class Source:
    """Where a query is asked, and how far its environment's changes have been handed to watches."""

    store: Store
    collection: str
    where: Where
    limits: WatchLimits
    position: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Tail:
    """What was changed in a collection after some moment and up to ``seq``, in order."""

    changes: Sequence[Change]
    seq: int

    def touched(self, upto: int | None = None) -> dict[bytes, Touched]:
        """The documents that were changed, up to a moment before the end if one is given."""
        return touched_by(change for change in self.changes if upto is None or change.seq <= upto)


async def read_tail(source: Source, after: int, most: int) -> Tail:
    """The changes after ``after``, up to a moment that is not before ``position`` when this returns.

    Raises ChangesPruned, LimitExceeded beyond ``most`` changes, StoreUnavailable.
    """
    changes: list[Change] = []
    for _ in range(_ATTEMPTS):
        upto = await source.store.last_seq()
        await _read_changes(source, after, upto, most, changes)
        after = max(after, upto)
        if after >= source.position():
            return Tail(changes, after)
    raise StoreUnavailable("documents change faster than a watch can begin; nothing was changed")


async def read_all(source: Source) -> tuple[dict[bytes, Image], int]:
    """Everything that matches, and at which moment. Also raises ResultTooLarge."""
    most = source.limits.documents_max
    begun = source.position()
    found = await source.store.read(Read(source.collection, source.where, limit=most + 1))
    if len(found.rows) > most:
        raise too_many(most)
    _check_bytes(found.rows, source.limits)
    images = _images(found.rows)
    tail = await read_tail(source, begun, source.limits.behind_max)
    for key, touched in tail.touched().items():
        images.pop(key, None)
        if touched.after is not None and source.where.match(touched.after.document):
            images[key] = touched.after
    if len(images) > most:
        raise too_many(most)
    return images, tail.seq


async def read_window(source: Source, sort: Sort, limit: int, after: int) -> tuple[Window, Tail]:
    """The first documents of an ordered query, at the moment the returned tail ends; it begins at ``after``.

    Also raises ResultTooLarge.
    """
    for _ in range(_ATTEMPTS):
        window = await _read_first(source, sort, limit)
        tail = await read_tail(source, after, source.limits.behind_max)
        for key, touched in tail.touched().items():
            image = touched.after
            matches = image is not None and source.where.match(image.document)
            window.settle(key, image if matches else None)
        if not window.short:
            return window, tail
    raise StoreUnavailable("documents change faster than a watch can begin; nothing was changed")


def too_many(most: int) -> ResultTooLarge:
    """The error of a result that outgrows a watch."""
    return ResultTooLarge(f"a watch may hold {most} documents; narrow its query or give it a limit")


async def _read_changes(source: Source, after: int, upto: int, most: int, changes: list[Change]) -> None:
    while after < upto:
        page = await source.store.changes(after, PAGE, source.collection)
        changes += (change for change in page if change.seq <= upto)
        if len(changes) > most:
            raise LimitExceeded(f"a watch would have to catch up with more than {most} changes; watch again")
        if len(page) < PAGE:
            return
        after = page[-1].seq
        await asyncio.sleep(0)  # The log is read and decoded on this thread.


async def _read_first(source: Source, sort: Sort, limit: int) -> Window:
    """The window and its reserve as a read sees them.

    The store's order leaves open which of equal documents come first. Those at the end, of which some may
    have been left out, are dropped, or else the store is asked for the total order, which no index has.
    """
    order, reserve = total(sort), min(max(limit, _RESERVE_MIN), source.limits.reserve_max)
    wanted = limit + reserve
    rows = await _first_rows(source, sort or order, wanted + 1)
    if len(rows) > wanted and sort and sort != order:
        last = sort_keys(rows[-1].document, sort)
        kept = [row for row in rows if sort_keys(row.document, sort) != last]
        if len(kept) >= limit:
            return _window(kept, order, limit, reserve, complete=False)
        rows = await _first_rows(source, order, wanted + 1)
    return _window(rows[:wanted], order, limit, reserve, complete=len(rows) <= wanted)


def _window(rows: Sequence[Row], order: Sort, limit: int, reserve: int, *, complete: bool) -> Window:
    boundary = None if complete else max(place_of(row.document, order) for row in rows)
    return Window.of(_images(rows), order, limit, reserve, boundary)


async def _first_rows(source: Source, sort: Sort, count: int) -> Sequence[Row]:
    found = await source.store.read(Read(source.collection, source.where, sort, limit=count))
    _check_bytes(found.rows, source.limits)
    return found.rows


def _images(rows: Iterable[Row]) -> dict[bytes, Image]:
    return {row.id_key: Image(row.document, row.size) for row in rows}


def _check_bytes(rows: Iterable[Row], limits: WatchLimits) -> None:
    if sum(row.size for row in rows) > limits.bytes_max:
        raise ResultTooLarge(
            f"a watch may hold documents of {limits.bytes_max} bytes; narrow its query or give it a limit"
        )
