"""Who runs which call: gives each call to a free instance of its version, or lets it wait in line.

Invariants, checked here and by the simulation:

* a call holds at most one lease at a time, and an instance at most `concurrency` leases;
* nothing is leased on an instance that is not in service (not ready, suspended, gone);
* each waiting call is answered by its deadline: with a lease, or with an error;
* a lease ends exactly once.

Not thread-safe: everything happens on one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from cloudlet.model.clock import Clock
from cloudlet.model.errors import ConcurrencyExceeded, Internal, PlatformError
from cloudlet.model.function import VersionKey
from cloudlet.model.sandbox import StartTiming

from .queue import CallQueue, Ticket, Waiter

REFUSAL_PAUSE_S = 0.02
"""After a refusal the instance gets no call for this long: it refuses what cannot start within the same
time."""


class Outcome(StrEnum):
    """How a lease ended."""

    DONE = "done"
    """The instance answered and is free again."""
    REFUSED = "refused"
    """It was busy (the edge uses it, too): nothing was started, the call may be given to another."""
    BROKEN = "broken"
    """It must not get another call: unreachable, timed out, ended or about to end."""


@dataclass(frozen=True, slots=True)
class ColdStart:
    """What a waiting call learns about the start it waited for. Times are monotonic seconds."""

    issued_at: float
    ready_at: float
    timing: StartTiming


@dataclass(frozen=True, slots=True)
class LeaseCounts:
    """One version at this moment."""

    running: int = 0
    running_peak: int = 0
    running_since: float = 0.0
    """When the oldest running lease was granted."""
    waiting: int = 0
    waiting_since: float = 0.0
    refusing: int = 0
    """Instances that get no call for a moment because they refused one."""


@dataclass(eq=False, slots=True)
class Lease:
    """The right to send one call to one instance. Call `finish` exactly once."""

    instance_id: str
    socket_path: str
    version: VersionKey
    ticket: Ticket
    granted_at: float
    cold: ColdStart | None
    """Set when the call waited for this instance to start."""
    _finish: Callable[[Lease, Outcome], None]
    _finished: bool = False

    def finish(self, outcome: Outcome) -> None:
        """Give the instance back. Raise Internal when that was done before."""
        if self._finished:
            raise Internal("a lease was finished twice")
        self._finished = True
        self._finish(self, outcome)


@dataclass(eq=False, slots=True)
class _Slot:
    """An instance in service, or leaving it with calls still running."""

    instance_id: str
    socket_path: str
    concurrency: int
    cold: ColdStart | None
    idle_since: float
    running: int = 0
    suspended: bool = False
    broken: bool = False
    pause: asyncio.TimerHandle | None = None

    @property
    def free(self) -> bool:
        usable = not self.suspended and not self.broken and self.pause is None
        return usable and self.running < self.concurrency


@dataclass(eq=False, slots=True)
class _Lane:
    """One version: its queue and its instances. `free` is ordered by last use: the most recently used
    instance is taken first, so that the others become idle and can be ended."""

    key: VersionKey
    queue: CallQueue[Lease] = field(default_factory=CallQueue)
    slots: dict[str, _Slot] = field(default_factory=dict)
    free: dict[str, _Slot] = field(default_factory=dict)
    granted: dict[int, float] = field(default_factory=dict)
    """When each running lease was granted, by its call's place in line; the oldest first."""
    peak: int = 0

    @property
    def running(self) -> int:
        return len(self.granted)


class Leases:
    """All versions' calls and instances in service.

    `on_need(version)` is called when a call has to wait, `on_drained(instance)` when the last lease of a
    suspended instance ends, `on_broken(instance)` when an instance turns out to be unusable.
    """

    def __init__(
        self,
        clock: Clock,
        calls_max: int,
        on_need: Callable[[VersionKey], None],
        on_drained: Callable[[str], None],
        on_broken: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self._calls_max = calls_max
        self._on_need = on_need
        self._on_drained = on_drained
        self._on_broken = on_broken
        self._lanes: dict[VersionKey, _Lane] = {}
        self._slots: dict[str, tuple[_Lane, _Slot]] = {}
        self._sequence = 0
        self._closed: PlatformError | None = None

    def ticket(self, deadline: float) -> Ticket:
        """A place at the end of the line. `deadline` in monotonic seconds."""
        self._sequence += 1
        return Ticket(self._sequence, self._clock.monotonic(), deadline)

    def try_acquire(self, key: VersionKey, ticket: Ticket) -> Lease | None:
        """A lease at once, or None when the call would have to wait. Raise ConcurrencyExceeded."""
        if self._closed is not None:
            raise self._closed
        lane = self._lane(key)
        self._check_room(lane)
        if len(lane.queue) or not lane.free:
            return None
        return self._grant(lane, ticket, waited=False)

    async def acquire(self, key: VersionKey, ticket: Ticket, again: bool = False) -> Lease:
        """A lease as soon as it is the call's turn; `again` for a call that an instance refused.

        Raise ConcurrencyExceeded at once when too many calls run or wait, or when the deadline passes, and
        whatever `fail_waiting` was told. A cancelled caller leaves no lease behind.
        """
        if self._closed is not None:
            raise self._closed
        lane = self._lane(key)
        if not again:
            self._check_room(lane)
        waiter: Waiter[Lease] = Waiter(ticket, asyncio.get_running_loop().create_future())
        lane.queue.add(waiter)
        self._dispatch(lane)
        if not waiter.future.done():
            self._on_need(key)
        try:
            async with asyncio.timeout(max(0.0, ticket.deadline - self._clock.monotonic())):
                return await waiter.future
        except BaseException as error:
            _abandon(lane, waiter)
            if isinstance(error, TimeoutError):
                raise ConcurrencyExceeded("the call waited too long for a free instance") from error
            raise

    def serve(
        self, instance_id: str, key: VersionKey, socket_path: str, concurrency: int, cold: ColdStart | None
    ) -> None:
        """The instance is ready: give calls to it."""
        if instance_id in self._slots:
            raise Internal("an instance came into service twice")
        lane = self._lane(key)
        slot = _Slot(instance_id, socket_path, concurrency, cold, idle_since=self._clock.monotonic())
        lane.slots[instance_id] = slot
        lane.free[instance_id] = slot
        self._slots[instance_id] = lane, slot
        self._dispatch(lane)

    def suspend(self, instance_id: str) -> None:
        """Give no new call to the instance; what runs goes on."""
        found = self._slots.get(instance_id)
        if found is not None:
            lane, slot = found
            slot.suspended = True
            lane.free.pop(instance_id, None)

    def forget(self, instance_id: str) -> None:
        """The instance is gone. Its running calls find out by themselves; their leases end without
        effect."""
        found = self._slots.pop(instance_id, None)
        if found is None:
            return
        lane, slot = found
        slot.suspended = True
        _cancel_pause(slot)
        lane.slots.pop(instance_id, None)
        lane.free.pop(instance_id, None)

    def running(self, instance_id: str) -> int:
        """Leases on the instance now."""
        found = self._slots.get(instance_id)
        return found[1].running if found else 0

    def broken(self, instance_id: str) -> bool:
        found = self._slots.get(instance_id)
        return found[1].broken if found else False

    def idle_since(self, instance_id: str) -> float:
        found = self._slots.get(instance_id)
        return found[1].idle_since if found else 0.0

    def look(self, key: VersionKey) -> LeaseCounts:
        """The version at this moment."""
        lane = self._lanes.get(key)
        if lane is None:
            return LeaseCounts()
        peak = max(lane.peak, lane.running)
        refusing = sum(1 for slot in lane.slots.values() if slot.pause is not None)
        since = next(iter(lane.granted.values()), 0.0)
        waiting = len(lane.queue)
        return LeaseCounts(lane.running, peak, since, waiting, lane.queue.oldest() or 0.0, refusing)

    @property
    def any_waiting(self) -> bool:
        """Whether any call of any version waits."""
        return any(len(lane.queue) for lane in self._lanes.values())

    def counts(self, key: VersionKey) -> LeaseCounts:
        """Like `look`, and begins a new search for the peak: for the planner only."""
        counts = self.look(key)
        lane = self._lanes.get(key)
        if lane is not None:
            lane.peak = lane.running
        return counts

    def versions(self) -> set[VersionKey]:
        """Versions that have calls or instances, or had since they were dropped last."""
        return set(self._lanes)

    def fail_waiting(self, key: VersionKey, error: PlatformError) -> None:
        """Answer every waiting call of the version with `error`."""
        lane = self._lanes.get(key)
        for waiter in lane.queue if lane else ():
            if not waiter.future.done():
                waiter.future.set_exception(error)

    def drop(self, key: VersionKey) -> bool:
        """Free the memory of a version nobody uses. False while somebody does."""
        lane = self._lanes.get(key)
        if lane is not None and (lane.slots or len(lane.queue) or lane.running):
            return False
        self._lanes.pop(key, None)
        return True

    def close(self, error: PlatformError) -> None:
        """Answer every waiting call, now and later, with `error`."""
        self._closed = error
        for key in tuple(self._lanes):
            self.fail_waiting(key, error)
        for _, slot in self._slots.values():
            _cancel_pause(slot)

    def _lane(self, key: VersionKey) -> _Lane:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key)
        return lane

    def _check_room(self, lane: _Lane) -> None:
        if lane.running + len(lane.queue) >= self._calls_max:
            raise ConcurrencyExceeded(
                f"function {lane.key.function} has {self._calls_max} calls running or waiting, its limit"
            )

    def _dispatch(self, lane: _Lane) -> None:
        now = self._clock.monotonic()
        while lane.free:
            waiter = lane.queue.pop_live(now)
            if waiter is None:
                return
            waiter.future.set_result(self._grant(lane, waiter.ticket, waited=True))

    def _grant(self, lane: _Lane, ticket: Ticket, waited: bool) -> Lease:
        slot = next(reversed(lane.free.values()))
        if not slot.free:
            raise Internal("an instance that is not free was about to get a call")
        slot.running += 1
        if not slot.free:
            del lane.free[slot.instance_id]
        now = self._clock.monotonic()
        lane.granted[ticket.sequence] = now
        lane.peak = max(lane.peak, lane.running)
        cold, slot.cold = slot.cold, None
        return Lease(
            instance_id=slot.instance_id,
            socket_path=slot.socket_path,
            version=lane.key,
            ticket=ticket,
            granted_at=now,
            cold=cold if waited else None,
            _finish=lambda lease, outcome: self._finish(lane, slot, lease.ticket, outcome),
        )

    def _finish(self, lane: _Lane, slot: _Slot, ticket: Ticket, outcome: Outcome) -> None:
        slot.running -= 1
        del lane.granted[ticket.sequence]
        slot.idle_since = self._clock.monotonic()
        if slot.instance_id not in self._slots:
            return
        if outcome is Outcome.BROKEN and not slot.broken:
            slot.broken = True
            lane.free.pop(slot.instance_id, None)
            self._on_broken(slot.instance_id)
        if outcome is Outcome.REFUSED:
            self._pause(lane, slot)
        if slot.suspended:
            if slot.running == 0:
                self._on_drained(slot.instance_id)
        elif slot.free:
            lane.free.pop(slot.instance_id, None)
            lane.free[slot.instance_id] = slot
            self._dispatch(lane)

    def _pause(self, lane: _Lane, slot: _Slot) -> None:
        lane.free.pop(slot.instance_id, None)
        if slot.pause is None and not slot.suspended:
            loop = asyncio.get_running_loop()
            slot.pause = loop.call_later(REFUSAL_PAUSE_S, self._unpause, lane, slot)

    def _unpause(self, lane: _Lane, slot: _Slot) -> None:
        slot.pause = None
        if slot.free:
            lane.free[slot.instance_id] = slot
            self._dispatch(lane)


def _cancel_pause(slot: _Slot) -> None:
    if slot.pause is not None:
        slot.pause.cancel()
        slot.pause = None


def _abandon(lane: _Lane, waiter: Waiter[Lease]) -> None:
    """Leave the line. The lease may have been granted in the very moment in which its caller gave up:
    nothing was sent then, so it goes back at once."""
    lane.queue.discard(waiter)
    future = waiter.future
    if future.done() and not future.cancelled() and future.exception() is None:
        future.result().finish(Outcome.DONE)
