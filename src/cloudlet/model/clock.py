"""Time as a value that is handed in, so that decisions can be replayed and tests need not wait."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: wall time for records people read, monotonic time for every duration and deadline."""

    def now(self) -> float:
        """Seconds since the Unix epoch (may step)."""
        ...

    def monotonic(self) -> float:
        """Seconds of CLOCK_MONOTONIC: the same value in every process of this machine, never steps."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
