"""Other programs on the machine: wait until they rest, and tell how busy they were."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .errors import BenchmarkFailed
from .results import Row
from .stats import median

LOOK_S = 0.2
QUIET_SHARE = 0.15
"""Below this share of the processors in use, nobody else is at work: what we measure rests between runs."""
WAIT_S_MAX = 45.0
"""Waiting in one benchmark, all looks together: it has to end on a busy machine, too."""


@dataclass(frozen=True, slots=True)
class Processors:
    """Time that all processors together have spent, in ticks since the machine started."""

    busy: int
    whole: int


class Quiet:
    """Made once for each benchmark; `wait` goes before each run of the load."""

    def __init__(
        self,
        look: Callable[[], Processors] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        wait_s_max: float = WAIT_S_MAX,
    ) -> None:
        self._look = look or processors
        self._sleep = sleep
        self._looks_left = round(wait_s_max / LOOK_S)
        self._shares: list[float] = []

    def wait(self) -> None:
        """Return when the machine is quiet or waiting has taken all the time that it may."""
        while True:
            before = self._look()
            self._sleep(LOOK_S)
            share = busy_share(before, self._look())
            if share <= QUIET_SHARE or self._looks_left == 0:
                self._shares.append(share)
                return
            self._looks_left -= 1

    def rows(self) -> list[Row]:
        """The median share of the processors that others used when a run began."""
        return [Row("machine", "others_share", round(median(self._shares), 3), "of all processors")]


def busy_share(before: Processors, after: Processors) -> float:
    """The share (0 to 1) of processor time used between two looks; 0 when no tick passed."""
    whole = after.whole - before.whole
    return (after.busy - before.busy) / whole if whole > 0 else 0.0


def processors() -> Processors:
    """Now. Raise BenchmarkFailed where the kernel does not tell."""
    try:
        return parsed(Path("/proc/stat").read_text())
    except OSError as exc:
        raise BenchmarkFailed("the benchmarks need Linux: they read /proc/stat") from exc


def parsed(stat: str) -> Processors:
    """From the first line of ``/proc/stat``: user, nice, system, idle, iowait, irq, softirq, steal, …; guest
    time is part of user time already."""
    ticks = [int(field) for field in stat.splitlines()[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return Processors(sum(ticks) - idle, sum(ticks))
