"""One watch: the events of one client's query."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from cloudlet.docdb.limits import WatchLimits
from cloudlet.docdb.metrics import DocumentMetrics
from cloudlet.docdb.permissions import Reading
from cloudlet.docdb.sort import sort_documents
from cloudlet.docdb.values import Document, identical
from cloudlet.docdb.watch.events import DataType, DocChange, QueueType, WatchEvent, difference
from cloudlet.docdb.watch.images import Held
from cloudlet.docdb.watch.live import Live
from cloudlet.docdb.watch.pending import Entry, Move, Pending
from cloudlet.docdb.watch.snapshot import too_many
from cloudlet.docdb.watch.token import Token
from cloudlet.model.access import Access
from cloudlet.model.errors import LimitExceeded, PlatformError, StoreUnavailable

_TOGETHER: Final = 200
"""Changes that are worked out before others get their turn."""


class Keeper(Protocol):
    """What a watch needs of those who keep it."""

    limits: WatchLimits
    metrics: DocumentMetrics
    held: Held

    def position(self, live: Live) -> int:
        """The change up to which the watches of this query have been told to."""
        ...

    def waits(self, watch: Watch) -> None:
        """It has something to tell that nobody has asked for yet."""
        ...

    def told(self, watch: Watch) -> None:
        """It has nothing to tell for now."""
        ...

    def left(self, watch: Watch, error: PlatformError | None) -> None:
        """It has ended."""
        ...


@dataclass(slots=True)
class Asked:
    """Who watches what, as it was asked (the filter prepared, not narrowed yet)."""

    access: Access
    filter: Document
    paths: Sequence[str]
    connection: str = ""


@dataclass(slots=True)
class Start:
    """Where a watch begins: from nothing, or after the last event of an earlier one."""

    seq: int
    documents: int
    moves: list[Move] = field(default_factory=list)
    token: Token | None = None


class Watch(AsyncIterator[WatchEvent]):
    """``async for event in watch``, by one reader; then ``await watch.close()``.

    The first event of a watch that begins anew is ``initial``. What changes while nobody asks is merged. The
    iteration raises the PlatformError that ended the watch, and stops after ``close``: LimitExceeded and
    ResultTooLarge (too slow, too much), PermissionDenied, CollectionNotFound, Conflict and Unavailable (begin
    anew).
    """

    def __init__(self, keeper: Keeper, live: Live, asked: Asked, reading: Reading, start: Start) -> None:
        self.live = live
        self.asked = asked
        self.resumed: Final = start.token is not None
        self._keeper = keeper
        self._reading = reading
        self._seq = start.seq
        self._documents = start.documents
        self._event = -1 if start.token is None else start.token.event
        self._begun = self.resumed
        self._pending = Pending(keeper.held)
        self._wake = asyncio.Event()
        self._paused = False
        self._ended = False
        self._error: PlatformError | None = None
        self._telling = False
        self._token = start.token
        for move in start.moves:
            self._pending.add(move)
        if start.moves:
            keeper.waits(self)
            self._check_size()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> WatchEvent:
        while not self._ended:
            if self._deliverable():
                event = await self._tell()
                if event is not None:
                    return event
            else:
                self._wake.clear()
                await self._wake.wait()
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def close(self) -> None:
        """End it. Repeating it does nothing."""
        self._end(None)

    @property
    def ended(self) -> bool:
        """Whether nothing more will be told."""
        return self._ended

    @property
    def token(self) -> str:
        """What a later watch goes on with that saw every event up to now; empty before the first one."""
        waits = self._pending.entries or self._telling or self._paused or self.live.loading
        if self._token is not None and not waits:
            self._token = self._current_token()
        return "" if self._token is None else self._token.text()

    # For the keeper.

    def apply(self, seq: int, moves: Sequence[Move]) -> None:
        """The result changed by the change ``seq``."""
        if self._ended or (seq <= self._seq and self.live.limit is None):
            return
        pending = self._pending
        waited = bool(pending.entries)
        for move in moves:
            self._documents += (move.new is not None) - (move.old is not None)
            if pending.add(move):
                self._keeper.metrics.watch_merged.inc()
        if not waited:
            self._keeper.waits(self)
        self._check_size()
        self._wake.set()

    def fail(self, error: PlatformError) -> None:
        """End it with this error."""
        self._end(error)

    def pause(self) -> None:
        """Tell nothing until ``go_on``."""
        self._paused = True

    def go_on(self, reading: Reading | None = None) -> None:
        """Tell again, from now on what this reading shows."""
        self._paused = False
        if reading is not None:
            self._reading = reading
        self._wake.set()

    def wake(self) -> None:
        """Something that was waited for has happened."""
        self._wake.set()

    @property
    def reading(self) -> Reading:
        """How documents are shown."""
        return self._reading

    # Telling.

    def _deliverable(self) -> bool:
        return not (self._paused or self.live.loading) and (not self._begun or bool(self._pending.entries))

    async def _tell(self) -> WatchEvent | None:
        """The next event; None if there is nothing to be seen in what waited, or it has to be asked again."""
        token, reading = self._current_token(), self._reading
        taken = self._pending.take()
        self._telling = True
        try:
            changes = await self._changes(taken, reading)
        except PlatformError as exc:
            self._put_back(taken)
            self._end(exc)
            return None
        except BaseException:
            self._put_back(taken)
            raise
        finally:
            self._telling = False
        if self._ended or self._paused or self._reading is not reading:
            self._put_back(taken)
            return None
        self._pending.told(taken)
        if not self._pending.entries:
            self._keeper.told(self)
        initial, self._begun = not self._begun, True
        if changes or initial:
            self._event += 1
            self._keeper.metrics.watch_events.inc()
        self._token = Token(token.seq, self._event, token.documents, token.digest)
        return WatchEvent(self._event, initial, changes, self._token.text()) if changes or initial else None

    def _put_back(self, taken: dict[bytes, Entry]) -> None:
        if self._ended:
            self._pending.told(taken)
        else:
            self._pending.put_back(taken)

    async def _changes(self, taken: dict[bytes, Entry], reading: Reading) -> list[DocChange]:
        gone: list[DocChange] = []
        changed: list[DocChange] = []
        come: list[DocChange] = []
        for number, entry in enumerate(taken.values(), 1):
            if number % _TOGETHER == 0:
                await asyncio.sleep(0)
            if reading.checks and entry.now is not None:
                await reading.check(entry.now.document)
            change = _hidden_change(entry, reading) if reading.hides else _change(entry)
            if change is None:
                continue
            if not self._begun:
                change.queue_type, change.data_type = QueueType.INIT, DataType.INIT
            if entry.now is None:
                gone.append(change)
            else:
                (changed if change.queue_type is QueueType.UPDATE else come).append(change)
        if len(come) > 1:
            sort_documents(come, self.live.order, lambda item: item.document)
        return gone + changed + come

    def _current_token(self) -> Token:
        seq = max(self._seq, self._keeper.position(self.live))
        return Token(seq, self._event, self._documents, self.live.digest)

    def _check_size(self) -> None:
        limits, pending = self._keeper.limits, self._pending
        if self._documents > limits.documents_max:
            self._end(too_many(limits.documents_max))
        elif len(pending.entries) > 2 * limits.documents_max or pending.bytes > limits.bytes_max:
            self._end(slow(f"{len(pending.entries)} changes, {pending.bytes} bytes"))

    def _end(self, error: PlatformError | None) -> None:
        if self._ended:
            return
        self._ended, self._error = True, error
        self._pending.clear()
        self._keeper.told(self)
        self._keeper.left(self, error)
        self._wake.set()


def slow(what: str) -> LimitExceeded:
    """The error of a watch whose client does not keep up."""
    return LimitExceeded(f"the client reads too slowly, too much waits for it ({what}); watch again")


def unfinished() -> StoreUnavailable:
    """The error of watches whose environment cannot tell what changed."""
    return StoreUnavailable("changes of the documents cannot be followed; nothing was changed, watch again")


def _change(entry: Entry) -> DocChange | None:
    """What is told of an entry; None if its client has it already. Those who tell the same move share it."""
    if entry.base is None or entry.now is None:
        return _passing(entry, _same)
    move = entry.move
    if move is not None and move.told is not None:
        return move.told
    change = _update(entry.base.document, entry.now.document)
    if move is not None:
        move.told = change
    return change


def _hidden_change(entry: Entry, reading: Reading) -> DocChange | None:
    if entry.base is None or entry.now is None:
        return _passing(entry, reading.show)
    return _update(reading.show(entry.base.document), reading.show(entry.now.document))


def _passing(entry: Entry, show: Callable[[Document], Document]) -> DocChange | None:
    """A document that comes or goes."""
    image = entry.now or entry.base
    if image is None:
        return None
    document = show(image.document)
    queue = QueueType.DEQUEUE if entry.now is None else QueueType.ENQUEUE
    return DocChange(queue, entry.reason, document["_id"], document)


def _update(before: Document, after: Document) -> DocChange | None:
    if identical(before, after):
        return None
    fields = difference(before, after)
    if fields is None:
        return DocChange(QueueType.UPDATE, DataType.REPLACE, after["_id"], after)
    return DocChange(QueueType.UPDATE, DataType.UPDATE, after["_id"], after, *fields)


def _same(document: Document) -> Document:
    return document
