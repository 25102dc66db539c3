"""What the metrics of every process share: the text form, durations, and how long the event loop was held up.

Each process has a registry of its own, made where it is wired and passed in. Names are
``cloudlet_<room>_<what>_<unit>``; labels have few values: never a user, a request or an address.
``docs/reference/metrics.md`` lists all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text form, which every collector of metrics understands."""
DURATIONS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Bounds for durations of work that is quick as a rule."""
PAUSES_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
PAUSE_LOOK_S = 0.1
"""How often the loop is looked at. Longer pauses are seen for certain, shorter ones in their share."""

# The time at which each series began doubles the size of the text and tells nothing that is needed.
disable_created_metrics()  # type: ignore[no-untyped-call]


def exposition(registry: CollectorRegistry) -> bytes:
    """All metrics of `registry` in the text form."""
    return generate_latest(registry)


def gauge(
    name: str, text: str, values: Iterable[tuple[tuple[str, ...], float]], labels: tuple[str, ...] = ()
) -> Metric:
    """A family whose values are read when it is asked for."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for of, value in values:
        family.add_metric(of, value)
    return family


def counter(
    name: str, text: str, values: Iterable[tuple[tuple[str, ...], float]], labels: tuple[str, ...] = ()
) -> Metric:
    """The same for something that only grows; `name` ends in ``_total``."""
    family = CounterMetricFamily(name, text, labels=labels)
    for of, value in values:
        family.add_metric(of, value)
    return family


class Reader:
    """A collector for values that live elsewhere: `read` is called at every scrape, by who asks."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return self._read()


class LoopPauses:
    """How late the event loop of a process comes to work that is due."""

    def __init__(self, room: str, registry: CollectorRegistry) -> None:
        self._pauses = Histogram(
            f"cloudlet_{room}_loop_pause_seconds",
            "How late the event loop came to work that was due",
            buckets=PAUSES_S,
            registry=registry,
        )

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + PAUSE_LOOK_S
            await asyncio.sleep(PAUSE_LOOK_S)
            self.came(due, loop.time())

    def came(self, due: float, now: float) -> None:
        """Work that was due at `due` was begun at `now`."""
        self._pauses.observe(max(0.0, now - due))


def resident_bytes(pid: int) -> int:
    """Memory that a process holds, 0 when it has ended or the system does not tell (Linux only)."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = next((line for line in text.splitlines() if line.startswith("VmRSS:")), "")
    return int(found.split()[1]) * 1024 if found else 0
