"""The store an environment's users hold: behind it the engine may be changed while they work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from cloudlet.docdb.base import (
    Batch,
    Change,
    CollectionInfo,
    CollectionStats,
    CreateIndex,
    DropCollection,
    DropIndex,
    Explained,
    Found,
    Listener,
    Read,
    Row,
    SchemaChange,
    Store,
    Turn,
)
from cloudlet.docdb.listeners import announce
from cloudlet.docdb.pipeline.execute import Aggregated, Aggregation
from cloudlet.model.errors import Conflict, StoreUnavailable

T = TypeVar("T")

WAIT_S: Final = 5.0
"""How long a write waits for a pause to end before it is refused."""
WAITING_MAX: Final = 4_096


class SwitchStore:
    """A Store that hands everything to another one.

    While writes are *paused* new ones wait, and the pause begins when those under way have been answered.
    While *moving* nothing may be removed from the schema and no index made, because a copy is following.
    Listeners stay when the engine changes: they hear every change once, in order.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writing = 0
        self._waiting = 0
        self._idle = asyncio.Event()
        self._resumed: asyncio.Event | None = None
        self._listeners: list[Listener] = []
        self._unlisten: Callable[[], None] | None = None
        self._heard = 0
        self.moving = False
        self.brake_s = 0.0
        """How long each write is held back, so that a copy can follow."""

    @property
    def engine(self) -> Store:
        """The store that works now."""
        return self._store

    # Writes.

    async def commit(self, turn: Turn[T]) -> T:
        if self._resumed is not None or self.brake_s:
            await self._admitted()
        self._writing += 1
        try:
            return await self._store.commit(turn)
        finally:
            self._left()

    async def commit_batch(self, batch: Batch) -> int:
        if self._resumed is not None or self.brake_s:
            await self._admitted()
        self._writing += 1
        try:
            return await self._store.commit_batch(batch)
        finally:
            self._left()

    async def define(self, change: SchemaChange) -> None:
        if self.moving and isinstance(change, DropCollection | CreateIndex | DropIndex):
            raise Conflict(
                "the environment is being moved to another database: collections are not dropped and "
                "indexes not changed until that is done"
            )
        if self._resumed is not None:
            await self._admitted()
        self._writing += 1
        try:
            await self._store.define(change)
        finally:
            self._left()

    # Everything else goes straight through.

    def catalog(self) -> Mapping[str, CollectionInfo]:
        return self._store.catalog()

    def read(self, read: Read) -> Coroutine[Any, Any, Found]:
        return self._store.read(read)

    def aggregate(self, work: Aggregation) -> Coroutine[Any, Any, Aggregated]:
        return self._store.aggregate(work)

    def get_many(self, collection: str, ids: Sequence[bytes]) -> Coroutine[Any, Any, list[Row]]:
        return self._store.get_many(collection, ids)

    def last_seq(self) -> Coroutine[Any, Any, int]:
        return self._store.last_seq()

    def changes(
        self, after_seq: int, limit: int, collection: str | None = None
    ) -> Coroutine[Any, Any, list[Change]]:
        return self._store.changes(after_seq, limit, collection)

    def scan(self, collection: str, after_did: int, limit: int) -> Coroutine[Any, Any, list[Row]]:
        return self._store.scan(collection, after_did, limit)

    def explain(self, read: Read) -> Coroutine[Any, Any, Explained]:
        return self._store.explain(read)

    def stats(self, collection: str) -> Coroutine[Any, Any, CollectionStats]:
        return self._store.stats(collection)

    def backup(self, target: Path) -> Coroutine[Any, Any, int]:
        return self._store.backup(target)

    def listen(self, listener: Listener) -> Callable[[], None]:
        own: Listener = lambda changes: listener(changes)  # noqa: E731 - one listener may listen twice
        self._listeners.append(own)
        if self._unlisten is None:
            self._unlisten = self._store.listen(self._forward)

        def end() -> None:
            if own in self._listeners:
                self._listeners.remove(own)
            if not self._listeners and self._unlisten is not None:
                self._unlisten()
                self._unlisten = None

        return end

    async def close(self) -> None:
        await self._store.close()

    # Changing the engine.

    @asynccontextmanager
    async def paused(self, seconds: float) -> AsyncIterator[None]:
        """No write is under way in the block. Raises TimeoutError if that cannot be had in time."""
        if self._resumed is not None:
            raise Conflict("writes are paused already")
        resumed = self._resumed = asyncio.Event()
        self._idle.clear()
        try:
            async with asyncio.timeout(seconds):
                while self._writing:
                    await self._idle.wait()
                    self._idle.clear()
            yield
        finally:
            self._resumed = None
            resumed.set()

    def replace(self, store: Store) -> Store:
        """Put another engine in place, which has everything; returns the one before. Only while paused."""
        if self._resumed is None or self._writing:
            raise Conflict("the engine is only changed while writes are paused")
        former, self._store = self._store, store
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = store.listen(self._forward)
        return former

    async def _admitted(self) -> None:
        if self._waiting >= WAITING_MAX:
            raise StoreUnavailable("too many writes are waiting")
        self._waiting += 1
        deadline = time.monotonic() + WAIT_S
        try:
            if self.brake_s:
                await asyncio.sleep(self.brake_s)
            while (resumed := self._resumed) is not None:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await resumed.wait()
        except TimeoutError as exc:
            raise StoreUnavailable("the environment is being moved to another database") from exc
        finally:
            self._waiting -= 1

    def _left(self) -> None:
        self._writing -= 1
        if not self._writing:
            self._idle.set()

    def _forward(self, changes: Sequence[Change]) -> None:
        new = [change for change in changes if change.seq > self._heard]
        if new:
            self._heard = new[-1].seq
            announce(tuple(self._listeners), new)
