"""The watches of one environment: hears every commit once and hands it to those it concerns.

Changes are handed on in the order of ``seq``, each one once. What was not heard (a gap, or too much at once)
is read from the change log. All methods belong to one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import structlog

from cloudlet.docdb.base import Change, Store
from cloudlet.docdb.limits import WatchLimits
from cloudlet.docdb.metrics import DocumentMetrics
from cloudlet.docdb.watch.images import Changed, Held
from cloudlet.docdb.watch.live import Live
from cloudlet.docdb.watch.pending import Move
from cloudlet.docdb.watch.snapshot import PAGE, Source, read_window
from cloudlet.docdb.watch.terms import TermIndex
from cloudlet.docdb.watch.watch import Watch, slow, unfinished
from cloudlet.docdb.watch.window import Window, moves_between
from cloudlet.model.errors import ChangesPruned, Internal, LimitExceeded, PlatformError

log = structlog.get_logger(__name__)


class Hub:
    """Listens to the store while somebody watches.

    ``before_change`` hears of every change before it is handed on, ``left`` of every watch that has ended.
    """

    def __init__(
        self,
        store: Store,
        limits: WatchLimits,
        metrics: DocumentMetrics,
        before_change: Callable[[Change], None],
        left: Callable[[Watch], None],
    ) -> None:
        self.store = store
        self.limits = limits
        self.metrics = metrics
        self.held = Held()
        self._before_change = before_change
        self._left = left
        self._lives: dict[tuple[int, str], Live] = {}
        self._indexes: dict[str, TermIndex[Live]] = {}
        self._loads: dict[Live, asyncio.Task[None]] = {}
        self._waiting: dict[Watch, None] = {}
        self._users = 0
        self._window_bytes = 0
        self._unlisten: Callable[[], None] | None = None
        self._starting = asyncio.Lock()
        self._queue: deque[Change] = deque()
        self._cursor: int | None = None
        self._newest = 0
        self._pumping: asyncio.Task[None] | None = None

    # Coming and going.

    async def enter(self) -> None:
        """Hear of commits from now on; to be followed by ``leave``."""
        self._users += 1
        try:
            async with self._starting:
                if self._unlisten is None:
                    self._unlisten = self.store.listen(self._heard)
                if self._cursor is None:
                    self._cursor = await self.store.last_seq()
                    self._pump_soon()
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """The last one to leave ends the listening."""
        self._users -= 1
        if not self._users:
            self._stop()

    @property
    def cursor(self) -> int:
        """The last change that was handed on."""
        return self._cursor or 0

    def position(self, live: Live) -> int:
        """The change up to which the watches of this query have been told to."""
        return self.cursor if live.limit is None else max(self.cursor, live.seq)

    def watches(self, collection: str | None = None) -> list[Watch]:
        """The open watches, of one collection or of all."""
        return [
            watch
            for live in self._lives.values()
            if collection is None or live.info.name == collection
            for watch in live.watches
        ]

    @contextmanager
    def opening(self, wanted: Live) -> Iterator[Live]:
        """The record of the query, the one others watch already if there is one: it stays in the block, and
        longer if it then has a watch. Raises LimitExceeded.
        """
        live = self._lives.get((wanted.info.number, wanted.digest))
        if live is None:
            live = wanted
            self._enlist(live)
        live.openers += 1
        try:
            yield live
        finally:
            live.openers -= 1
            self._release(live)

    def source(self, live: Live) -> Source:
        """Where the query is asked."""
        return Source(self.store, live.info.name, live.where, self.limits, lambda: self.position(live))

    def check(self) -> None:
        """Raises StoreUnavailable if the changes cannot be followed any more since ``enter``."""
        if self._cursor is None:
            raise unfinished()

    def attach(self, watch: Watch) -> None:
        """The watch hears of every change after this call."""
        watch.live.watches[watch] = None
        self.metrics.watches.inc()
        if self.held.bytes > self.limits.held_bytes_max:
            self._shed()

    def _enlist(self, live: Live) -> None:
        index = self._indexes.get(live.info.name)
        if index is None:
            index = self._indexes[live.info.name] = TermIndex(self.limits)
        live.term = index.add(live, live.where.node)
        self._lives[(live.info.number, live.digest)] = live

    def _release(self, live: Live) -> None:
        """Forget a query nobody watches."""
        if live.watches or live.openers or self._lives.get((live.info.number, live.digest)) is not live:
            return
        del self._lives[(live.info.number, live.digest)]
        index = self._indexes[live.info.name]
        index.remove(live, live.term)
        if index.empty:
            del self._indexes[live.info.name]
        load = self._loads.pop(live, None)
        if load is not None:
            load.cancel()
        self._set_window(live, None)

    # What watches tell their keeper.

    def waits(self, watch: Watch) -> None:
        self._waiting.setdefault(watch)

    def told(self, watch: Watch) -> None:
        self._waiting.pop(watch, None)

    def left(self, watch: Watch, error: PlatformError | None) -> None:
        watch.live.watches.pop(watch, None)
        self._release(watch.live)
        self.metrics.watches.dec()
        self.metrics.watches_ended.labels("closed" if error is None else error.code).inc()
        self._left(watch)
        self.leave()

    # Windows.

    async def loaded(self, live: Live) -> None:
        """Wait until the window of a query with a limit is complete. Raises what reading raises."""
        while live.window is None or live.loading:
            task = self._loads.get(live) or self._load_soon(live)
            await asyncio.shield(task)

    def _load_soon(self, live: Live) -> asyncio.Task[None]:
        live.loading = True
        task = asyncio.get_running_loop().create_task(self._load(live, self.position(live)))
        task.add_done_callback(_seen)
        self._loads[live] = task
        return task

    async def _load(self, live: Live, since: int) -> None:
        """Read the window, and tell what is different now from what it was at ``since``, when it began to
        stand still. Its watches end if that cannot be done.
        """
        try:
            assert live.limit is not None
            window, tail = await read_window(self.source(live), live.sort, live.limit, since)
            before = {} if live.window is None else live.window.shown()
            self._set_window(live, window)
            live.seq, live.loading = tail.seq, False
            self._tell(live, tail.seq, moves_between(before, window.shown(), tail.touched()))
            for watch in list(live.watches):
                watch.wake()
        except PlatformError as exc:
            self._fail(live, exc)
            raise
        except Exception as exc:
            log.exception("watch_window_failed")
            self._fail(live, Internal("the watch failed; watch again"))
            raise Internal from exc
        finally:
            self._loads.pop(live, None)
            live.loading = False

    def _set_window(self, live: Live, window: Window | None) -> None:
        if live.window is not None:
            self._window_bytes -= live.window.bytes
        live.window = window
        if window is not None:
            self._window_bytes += window.bytes
            if self._window_bytes > self.limits.window_bytes_max:
                raise LimitExceeded("watches with a limit hold too many documents in this environment")

    # Changes.

    def _heard(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        self._newest = max(self._newest, changes[-1].seq)
        if len(self._queue) + len(changes) <= self.limits.queue_max:
            self._queue.extend(changes)
        if self._cursor is not None:
            self._pump_soon()

    def _pump_soon(self) -> None:
        if self._pumping is None:
            self._pumping = asyncio.get_running_loop().create_task(self._pump())

    async def _pump(self) -> None:
        """Hand on what was heard until there is nothing more."""
        try:
            while self._has_more():
                if self._queue:
                    self._hand_on_slice()
                    await asyncio.sleep(0)
                else:
                    await self._read_on()
        except PlatformError as exc:
            log.warning("watches_interrupted", error=exc.message)
            self.fail_all(exc)
        except Exception:
            log.exception("watches_failed")
            self.fail_all(Internal("the watches of this environment failed; watch again"))
        finally:
            if self._pumping is asyncio.current_task():
                self._pumping = None

    def _has_more(self) -> bool:
        """Whether there is something to hand on; then the queue begins with it, or has to be read."""
        while self._queue and self._queue[0].seq <= self.cursor:
            self._queue.popleft()
        if self._queue and self._queue[0].seq != self.cursor + 1:
            self._queue.clear()
        return bool(self._queue) or self._newest > self.cursor

    def _hand_on_slice(self) -> None:
        """Hand on changes for a moment."""
        until = time.perf_counter() + self.limits.slice_s
        while self._queue and self._queue[0].seq == self.cursor + 1 and time.perf_counter() < until:
            self._hand_on(self._queue.popleft())

    async def _read_on(self) -> None:
        """Close a gap with one page of the change log."""
        page = await self.store.changes(self.cursor, PAGE)
        if not page or page[0].seq > self.cursor + 1:
            raise ChangesPruned("changes are missing in the log; watch again from the beginning")
        for change in page:
            if change.seq == self.cursor + 1:
                self._hand_on(change)

    def _hand_on(self, change: Change) -> None:
        began = time.perf_counter()
        self._cursor = change.seq
        self._before_change(change)
        index = self._indexes.get(change.collection)
        if index is not None:
            changed = Changed(change)
            for live in index.concerned(change.before, change.after):
                self._change(live, changed)
            if self.held.bytes > self.limits.held_bytes_max:
                self._shed()
            self.metrics.watch_dispatch.observe(time.perf_counter() - began)

    def _change(self, live: Live, changed: Changed) -> None:
        window = live.window
        size = 0 if window is None else window.bytes
        try:
            moves = live.moves(changed)
            if window is not None:
                self._window_bytes += window.bytes - size
                if self._window_bytes > self.limits.window_bytes_max:
                    raise LimitExceeded("watches with a limit hold too many documents in this environment")
        except PlatformError as exc:
            self._fail(live, exc)
            return
        if moves:
            self._tell(live, changed.seq, moves)
        if window is not None and window.short and not live.loading:
            self._load_soon(live)

    def _tell(self, live: Live, seq: int, moves: Sequence[Move]) -> None:
        if moves:
            for watch in list(live.watches):
                watch.apply(seq, moves)

    def _shed(self) -> None:
        """End the watches whose clients have let most time pass, until what waits fits again."""
        while self.held.bytes > self.limits.held_bytes_max and self._waiting:
            oldest = next(iter(self._waiting))
            oldest.fail(slow("in the whole environment"))

    # Ends.

    def fail_all(self, error: PlatformError) -> None:
        """End every watch; those that are about to begin find out by ``check``."""
        for watch in self.watches():
            watch.fail(error)
        self._cursor = None

    def _fail(self, live: Live, error: PlatformError) -> None:
        for watch in list(live.watches):
            watch.fail(error)

    def _stop(self) -> None:
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None
        if self._pumping is not None:
            self._pumping.cancel()
            self._pumping = None
        self._queue.clear()
        self._cursor, self._newest = None, 0


def _seen(task: asyncio.Task[None]) -> None:
    """What went wrong was told to the watches; nobody else waits for this task."""
    if not task.cancelled():
        task.exception()
