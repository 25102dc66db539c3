"""Blank cells kept waiting per runtime, and their refilling off the call path."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from cloudlet.model.errors import PlatformError
from cloudlet.model.function import FunctionConfig, Runtime

from .cells import Blank, CellKind, CellMaker, kind_of, watched_blank
from .watch import Watched

POOL_SIZE_MAX = 64
REFILL_QUIET_S = 0.05
"""A refill competes with calls for the same processors, so it waits until nothing has started for this
long."""
BACK_OFF_S_MAX = 30.0
log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Pools:
    """Cells waiting. One refill at a time, and none while an instance is being started."""

    def __init__(self, maker: CellMaker) -> None:
        self._maker = maker
        self._pools = {kind.runtime: _Pool(kind, kind) for kind in map(_default_kind, Runtime)}
        self._starts = 0
        self._wake = asyncio.Event()
        self._refilling: _Refill | None = None

    def sizes(self) -> Mapping[Runtime, int]:
        """Cells waiting, for each runtime that has or should have some."""
        return {key: len(pool.waiting) for key, pool in self._pools.items() if pool.waiting or pool.target}

    def targets(self) -> Mapping[Runtime, int]:
        """Cells that should wait, for each runtime that should have some."""
        return {key: pool.target for key, pool in self._pools.items() if pool.target}

    def set_size(self, runtime: Runtime, size: int) -> None:
        """Keep `size` cells waiting (at most POOL_SIZE_MAX); superfluous ones end soon."""
        self._pools[runtime].target = max(0, min(size, POOL_SIZE_MAX))
        self._wake.set()

    def watched(self) -> list[Watched]:
        """What the watch looks at: a cell that was stopped would make a call wait for nothing."""
        waiting = [each.watched for pool in self._pools.values() for each in pool.waiting]
        return [*waiting, *self._maker.booting]

    async def take(self, kind: CellKind) -> tuple[Blank, bool]:
        """A cell, and whether it came from the pool. One that is being refilled right now is taken over,
        because it is further than a new one. Raise Unavailable."""
        pool = self._pools[kind.runtime]
        with self._starting():
            pool.ask(kind)
            waiting = pool.pop(kind)
            if waiting is not None:
                return waiting, True
            refill = self._refilling
            if refill is not None and refill.kind == kind and not refill.claimed:
                refill.claimed = True
                return await _handed_over(refill), False
            return await self._maker.make(kind), False

    async def run(self) -> None:
        """Refill until cancelled; then every waiting cell is ended."""
        try:
            failures = 0
            while True:
                await self._quiet()
                failures = 0 if await self._refill() else failures + 1
                if failures:
                    await asyncio.sleep(min(2.0 ** (failures - 1), BACK_OFF_S_MAX))
        finally:
            await self._discard_all()

    @contextmanager
    def _starting(self) -> Iterator[None]:
        self._starts += 1
        try:
            yield
        finally:
            self._starts -= 1
            self._wake.set()

    async def _quiet(self) -> None:
        """Return when some pool is not as it should be and nothing has started for a moment."""
        while True:
            self._wake.clear()
            if self._starts == 0 and any(pool.unsettled for pool in self._pools.values()):
                try:
                    async with asyncio.timeout(REFILL_QUIET_S):
                        await self._wake.wait()
                except TimeoutError:
                    return
            else:
                await self._wake.wait()

    async def _refill(self) -> bool:
        """One step: end a superfluous cell or make a missing one. False when that failed."""
        pool = next((pool for pool in self._pools.values() if pool.unsettled), None)
        if pool is None:
            return True
        superfluous = pool.pop_superfluous()
        if superfluous is not None:
            await superfluous.discard()
            return True
        refill = self._refilling = _Refill(pool.kind, asyncio.create_task(self._maker.make(pool.kind)))
        try:
            await asyncio.wait((refill.task,))
        except asyncio.CancelledError:
            if not refill.claimed:
                refill.task.cancel()
                await asyncio.wait((refill.task,))
                self._store_or_report(refill)
            raise
        finally:
            self._refilling = None
        return refill.claimed or self._store_or_report(refill)

    def _store_or_report(self, refill: _Refill) -> bool:
        if refill.task.cancelled():
            return False
        failure = refill.task.exception()
        if failure is not None:
            if not isinstance(failure, PlatformError):
                raise failure
            log.warning("pool_refill_failed", runtime=refill.kind.runtime, reason=failure.message)
            return False
        blank = refill.task.result()
        watcher = asyncio.create_task(self._lose(blank))
        self._pools[refill.kind.runtime].waiting.append(
            _Waiting(blank, watcher, watched_blank(blank.kind, blank.cell))
        )
        return True

    async def _lose(self, blank: Blank) -> None:
        """A waiting cell that ends by itself is replaced."""
        exit_ = await blank.cell.wait()
        pool = self._pools[blank.kind.runtime]
        pool.waiting = [each for each in pool.waiting if each.blank is not blank]
        log.warning("pool_cell_ended", runtime=blank.kind.runtime, exit=str(exit_))
        await blank.discard()
        self._wake.set()

    async def _discard_all(self) -> None:
        for pool in self._pools.values():
            while pool.waiting:
                await pool.remove(pool.waiting[0]).discard()


def _default_kind(runtime: Runtime) -> CellKind:
    return kind_of(FunctionConfig(runtime=runtime))


async def _handed_over(refill: _Refill) -> Blank:
    """The cell of a refill that was claimed. Whoever claimed it also ends it when nobody wants it any
    more."""
    try:
        return await asyncio.shield(refill.task)
    except asyncio.CancelledError:
        refill.task.cancel()
        await asyncio.wait((refill.task,))
        if not refill.task.cancelled() and refill.task.exception() is None:
            await refill.task.result().discard()
        raise


@dataclass(frozen=True, slots=True)
class _Waiting:
    blank: Blank
    watcher: asyncio.Task[None]
    watched: Watched


@dataclass(slots=True)
class _Pool:
    """The waiting cells of one runtime. They are made for one kind of function: the default at first, then
    the kind that was asked for twice in a row (functions of one installation mostly have the same size)."""

    kind: CellKind
    asked: CellKind
    target: int = 0
    waiting: list[_Waiting] = field(default_factory=list)

    @property
    def unsettled(self) -> bool:
        """Whether a cell has to be made or ended."""
        return len(self.waiting) != self.target or any(each.blank.kind != self.kind for each in self.waiting)

    def ask(self, kind: CellKind) -> None:
        """Note what was asked for."""
        if kind == self.asked:
            self.kind = kind
        self.asked = kind

    def pop(self, kind: CellKind) -> Blank | None:
        """The cell of this kind that has waited longest."""
        found = next((each for each in self.waiting if each.blank.kind == kind), None)
        return self.remove(found) if found else None

    def pop_superfluous(self) -> Blank | None:
        """A cell of another kind, or one too many."""
        others = [each for each in self.waiting if each.blank.kind != self.kind]
        if others:
            return self.remove(others[0])
        return self.remove(self.waiting[-1]) if len(self.waiting) > self.target else None

    def remove(self, waiting: _Waiting) -> Blank:
        self.waiting.remove(waiting)
        waiting.watcher.cancel()
        return waiting.blank


@dataclass(slots=True)
class _Refill:
    kind: CellKind
    task: asyncio.Task[Blank]
    claimed: bool = False
