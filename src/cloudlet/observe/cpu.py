"""How busy the machine's processors are, everything that runs on it included."""

from __future__ import annotations

from pathlib import Path

from cloudlet.model.clock import Clock

WINDOW_S = 0.25
"""A share is measured over at least this long; until then the last one stands."""


class CpuMeter:
    """Share of all processors in use, from the kernel's counters (Linux); 0 where there are none."""

    def __init__(self, clock: Clock, counters: Path = Path("/proc/stat")) -> None:
        self._clock = clock
        self._counters = counters
        self._at = clock.monotonic()
        self._before = self._read()
        self._share = 0.0

    def busy(self) -> float:
        """Between 0 and 1, over about the last WINDOW_S seconds or since the last call. Cheap."""
        now = self._clock.monotonic()
        if now - self._at >= WINDOW_S:
            current = self._read()
            total, idle = current[0] - self._before[0], current[1] - self._before[1]
            self._share = min(1.0, max(0.0, 1.0 - idle / total)) if total > 0 else 0.0
            self._at, self._before = now, current
        return self._share

    def _read(self) -> tuple[int, int]:
        """(all, idle) ticks since the machine started. Ticks that a hypervisor took count as used."""
        try:
            with self._counters.open() as file:
                fields = [int(field) for field in file.readline().split()[1:9]]
        except (OSError, ValueError):
            return 0, 0
        return sum(fields), sum(fields[3:5])
