"""Kills what runs past its time, over its memory or not at all any more, from outside, whatever the
function's thread is doing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from cloudlet.model.clock import Clock
from cloudlet.model.sandbox import EndReason
from cloudlet.sandbox.base import Activity, CellMeter

ACTIVITY_PERIOD_S = 0.05
MEMORY_EVERY = 5
"""The memory of an idle instance is read in every fifth round; that of a busy one, which can grow, in
each."""
STATE_EVERY = 5
"""Whether a process has been stopped is looked at in every fifth round. Seen twice in a row it is ended: who
only wanted a glance has continued it by then."""
DEADLINE_GRACE_NS = 150_000_000
"""The caller's clock (edge or activator) answers first, in the caller's words; we come after it."""
OVERHEAD_MB = {"node": 120, "python": 48}
"""What a runtime needs besides the function's own memory. Measured: a blank Node.js 24 cell is resident with
58 MB (43 of them its program text), and V8's young generation, which does not count as heap limit, takes up
to 48 MB more; a blank Python cell is resident with 25 MB, and its allocator keeps freed arenas."""
log: structlog.stdlib.BoundLogger = structlog.get_logger()
_MB = 1024 * 1024
_NOTHING_RUNS = Activity()


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one instance may use."""

    timeout_ns: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """An activity page and the monotonic time at which it first looked like this."""

    activity: Activity = _NOTHING_RUNS
    since_ns: int = 0


@dataclass(slots=True)
class Watched:
    """One instance under watch."""

    meter: CellMeter
    bounds: Bounds
    kill: Callable[[EndReason, str], None]
    sighting: Sighting = field(default_factory=Sighting)
    memory_bytes: int = 0
    """As last read, for reports."""
    was_stopped: bool = False


def bounds_of(language: str, timeout_s: float, memory_mb: int) -> Bounds:
    """The bounds of a version."""
    return Bounds(int(timeout_s * 1e9), (memory_mb + OVERHEAD_MB[language]) * _MB)


def sighted(before: Sighting, activity: Activity, now_ns: int) -> Sighting:
    """The sighting after reading the page again."""
    return before if activity == before.activity else Sighting(activity, now_ns)


def is_overdue(sighting: Sighting, bounds: Bounds, now_ns: int) -> bool:
    """Whether the running invocation is past its deadline by more than the grace.

    The page is written by the instance, so a deadline further away than the version's timeout is not
    believed: no invocation that was running at the sighting may run longer than that."""
    deadline_ns = sighting.activity.deadline_ns
    if deadline_ns == 0:
        return False
    believed_ns = min(deadline_ns, sighting.since_ns + bounds.timeout_ns)
    return now_ns > believed_ns + DEADLINE_GRACE_NS


def is_too_large(memory_bytes: int, bounds: Bounds) -> bool:
    """Whether the instance uses more memory than its version and its runtime may."""
    return memory_bytes > bounds.memory_bytes


class Watch:
    """One loop over all running instances."""

    def __init__(self, clock: Clock, watched: Callable[[], Iterable[Watched]]) -> None:
        self._clock = clock
        self._watched = watched
        self._rounds = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(ACTIVITY_PERIOD_S)
            try:
                self.look()
            except Exception:
                # Without the watch nothing would stop a runaway function; the next round may well succeed.
                log.exception("watch_round_failed")

    def look(self) -> None:
        """One round."""
        now_ns = int(self._clock.monotonic() * 1e9)
        self._rounds += 1
        for each in tuple(self._watched()):
            if not self._in_time(each, now_ns):
                each.kill(EndReason.TIMEOUT, "ran past its timeout")
            elif (self._is_busy(each) or self._rounds % MEMORY_EVERY == 0) and not self._in_size(each):
                used, allowed = each.memory_bytes // _MB, each.bounds.memory_bytes // _MB
                each.kill(EndReason.OUT_OF_MEMORY, f"used {used} MB of memory, the limit is {allowed} MB")
            elif self._rounds % STATE_EVERY == 0 and not self._in_motion(each):
                each.kill(EndReason.EXITED, "was stopped by a signal and not continued")

    def _in_time(self, each: Watched, now_ns: int) -> bool:
        each.sighting = sighted(each.sighting, each.meter.activity(), now_ns)
        if not is_overdue(each.sighting, each.bounds, now_ns):
            return True
        # The page is not written atomically: what looks overdue is read once more before anything is killed.
        again = sighted(each.sighting, each.meter.activity(), now_ns)
        overdue = is_overdue(again, each.bounds, now_ns)
        each.sighting = again
        return not overdue

    def _in_motion(self, each: Watched) -> bool:
        before, each.was_stopped = each.was_stopped, each.meter.stopped()
        return not (before and each.was_stopped)

    def _is_busy(self, each: Watched) -> bool:
        return each.sighting.activity.deadline_ns != 0

    def _in_size(self, each: Watched) -> bool:
        each.memory_bytes = each.meter.memory_bytes()
        return not is_too_large(each.memory_bytes, each.bounds)
