"""Telling listeners of every commit, this process's at once and other processes' when they are noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from cloudlet.docdb.base import Change, Listener
from cloudlet.docdb.listeners import announce
from cloudlet.docdb.postgres.stage import Logged
from cloudlet.model.errors import ChangesPruned, PlatformError

log = structlog.get_logger(__name__)

PAGE: Final = 500


class Feed:
    """Delivers changes in the order of ``seq``, each one once.

    A commit that does not follow what was delivered last means that another process wrote in between; then
    everything is read from the change log until the gap is closed. Reads that fail leave the gap to the next
    call: listeners never hear of a later change first.
    """

    def __init__(
        self,
        changes: Callable[[int, int], Awaitable[list[Change]]],
        first_seq: Callable[[], Awaitable[int]],
    ) -> None:
        """``changes`` is the store's; ``first_seq`` the number of the oldest change that is kept."""
        self._changes = changes
        self._first_seq = first_seq
        self._listeners: list[Listener] = []
        self._cursor: int | None = None
        self._reading: asyncio.Task[None] | None = None
        self._again = False

    @property
    def heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; returns the call that ends it."""
        own: Listener = lambda changes: listener(changes)  # noqa: E731 - one listener may listen twice
        self._listeners.append(own)

        def end() -> None:
            if own in self._listeners:
                self._listeners.remove(own)

        return end

    def begin(self, seq: int) -> None:
        """Everything up to here was committed before anybody could listen."""
        if self._cursor is None:
            self._cursor = seq

    def committed(self, logged: Sequence[Logged]) -> None:
        """This process has committed these."""
        if not logged:
            return
        if not self._listeners:
            if not self._reading:
                self._cursor = max(self._cursor or 0, logged[-1].seq)
            return
        if self._cursor is not None and logged[0].seq == self._cursor + 1:
            self._deliver([item.change() for item in logged])
        else:
            self.poke()

    def poke(self, seq: int = 0) -> None:
        """There may be changes that were not delivered yet; at least those up to ``seq`` are committed."""
        if not self._listeners and self._reading is None:
            self._cursor = max(self._cursor or 0, seq)
        if not self._listeners or self._cursor is None:
            return
        self._again = True
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._catch_up())

    async def close(self) -> None:
        """Deliver nothing more."""
        self._listeners.clear()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _catch_up(self) -> None:
        try:
            while self._again and self._listeners:
                self._again = False
                await self._read_on()
        except PlatformError as exc:
            log.warning("change_feed_interrupted", error=exc.message)
        finally:
            self._reading = None

    async def _read_on(self) -> None:
        while True:
            after = self._cursor or 0
            try:
                found = await self._changes(after, PAGE)
            except ChangesPruned:
                # What is gone cannot be told; listeners notice the gap in the numbers.
                log.warning("change_feed_gap", after=after)
                found = await self._changes(await self._first_seq() - 1, PAGE)
            if not found:
                return
            # Commits of this process may have been told while the log was read.
            if news := [change for change in found if change.seq > (self._cursor or 0)]:
                self._deliver(news)

    def _deliver(self, changes: Sequence[Change]) -> None:
        self._cursor = changes[-1].seq
        announce(tuple(self._listeners), changes)
