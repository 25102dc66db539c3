"""What is measured about one version, as plain values for the decisions. No clock is read here."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

RATE_WINDOW_S = 1.0
"""Time constant of the arrival rate: a burst shows within a fraction of it."""
CALLS_KEPT = 128
"""Late-bound calls remembered per version; the binding decision looks at these."""
START_S_UNKNOWN = 0.1
"""Start time assumed before one was measured."""
ELAPSED_WEIGHT = 0.1
"""Of the newest call in the running mean: about the last ten calls count."""
EDGE_INTERVALS = 3
"""So many readings of the edge in a row must say that early binding does not suit a version."""
EDGE_STALE_S = 5.0
"""Edge figures older than this say nothing: an early-bound version then keeps what it has."""


@dataclass(frozen=True, slots=True)
class EdgeTraffic:
    """What the edge counted for one early-bound version since it knows its cluster."""

    calls_total: int
    active: int
    """Calls running now, at instances and at the activator together."""
    retries_total: int
    """Calls an instance refused or could not take."""
    p95_s: float | None = None
    """95th percentile of the last interval; None when there was no call in it."""


@dataclass(frozen=True, slots=True)
class Signals:
    """One moment of one version: the input of the scaling decision."""

    running: int = 0
    """Leased calls now."""
    running_peak: int = 0
    """Most leased calls at the same time since the last look: short calls between two looks are seen,
    too."""
    waiting: int = 0
    arrivals_per_s: float = 0.0
    duration_s: float | None = None
    """Mean duration of a late-bound call; None before the first one ended."""
    measured: int = 0
    """How many calls that is the mean of (at most CALLS_KEPT)."""
    elapsed_s: float | None = None
    """The same lately on the activator's clock, which counts the time when it was busy with others."""
    oldest_s: float = 0.0
    """How long the oldest leased call has been running, on the activator's clock."""
    start_s: float = START_S_UNKNOWN
    serving: int = 0
    refusing: int = 0
    """Of these, how many just refused a call because the edge keeps them busy."""
    starting: int = 0
    early: bool = False
    edge_fresh: bool = False
    edge_active: int = 0
    edge_calls_per_s: float = 0.0
    edge_p95_s: float | None = None
    edge_refused_share: float = 0.0
    edge_serving: int = 0
    """Instances that served when these figures were new: they say nothing about those that came since."""
    edge_published: int = 0
    """Of these, how many the edge called by itself."""
    cpu_busy: float = 0.0
    """Share of the processors in use lately, by everybody."""


@dataclass(frozen=True, slots=True)
class BindingSignals:
    """The input of the binding decision."""

    calls: int
    """Late-bound calls measured (at most CALLS_KEPT)."""
    p95_s: float | None
    failed_share: float
    edge_calls: int = 0
    """Calls the edge sent itself in the last interval."""
    edge_p95_s: float | None = None
    """The best of the last EDGE_INTERVALS intervals; None while one of them had no calls: a hiccup proves
    nothing."""
    refused_share: float = 0.0
    """Share of calls that an instance refused, again the best of these intervals."""


class Meter:
    """Running measurements of one version, of bounded size. Every method takes the time (monotonic
    seconds)."""

    def __init__(self) -> None:
        self._calls: deque[tuple[float, bool]] = deque(maxlen=CALLS_KEPT)
        self._summary: _Summary | None = _Summary()
        """Of `_calls`; None when it must be made anew."""
        self._elapsed_s: float | None = None
        self._rate = 0.0
        self._rate_at = 0.0
        self._start_s = START_S_UNKNOWN
        self._edge: EdgeTraffic | None = None
        self._edge_at = -math.inf
        self._edge_calls = 0
        self._edge_rate = 0.0
        self._edge_instances: tuple[int, int] | None = None
        """How many served, and how many of these the edge called, when its figures were new."""
        self._recent: deque[tuple[float | None, float]] = deque(maxlen=EDGE_INTERVALS)
        """(p95, refused share) of the last intervals."""

    def arrived(self, now: float) -> None:
        """A call came in."""
        self._rate = self._rate_now(now) + 1.0 / RATE_WINDOW_S
        self._rate_at = now

    def finished(self, duration_s: float, elapsed_s: float, failed: bool) -> None:
        """A late-bound call ended."""
        self._calls.append((duration_s, failed))
        self._summary = None
        known = self._elapsed_s
        self._elapsed_s = elapsed_s if known is None else known + ELAPSED_WEIGHT * (elapsed_s - known)

    def started(self, duration_s: float) -> None:
        """An instance became ready after `duration_s`."""
        self._start_s = 0.5 * self._start_s + 0.5 * duration_s

    def edge(self, traffic: EdgeTraffic, now: float) -> None:
        """The edge's counters, read at `now`. Counters that went down belong to a new edge process."""
        before, elapsed = self._edge, now - self._edge_at
        self._edge, self._edge_at, self._edge_instances = traffic, now, None
        if before is None or traffic.calls_total < before.calls_total or elapsed <= 0:
            self._edge_calls, self._edge_rate = 0, 0.0
            self._recent.clear()
            return
        self._edge_calls = traffic.calls_total - before.calls_total
        self._edge_rate = self._edge_calls / elapsed
        retries = max(0, traffic.retries_total - before.retries_total)
        refused = min(1.0, retries / self._edge_calls) if self._edge_calls else 0.0
        self._recent.append((traffic.p95_s if self._edge_calls else None, refused))

    def forget_edge(self) -> None:
        """The version is no longer early-bound; its next cluster counts from zero."""
        self._edge, self._edge_at, self._edge_instances = None, -math.inf, None
        self._edge_calls, self._edge_rate = 0, 0.0
        self._recent.clear()

    def forget_calls(self) -> None:
        """Start measuring anew: what was measured before no longer describes the version."""
        self._calls.clear()
        self._summary = None

    def signals(
        self,
        *,
        running: int,
        running_peak: int,
        oldest_s: float,
        waiting: int,
        serving: int,
        published: int,
        refusing: int,
        starting: int,
        early: bool,
        cpu_busy: float,
        now: float,
    ) -> Signals:
        """The first look after a reading of the edge decides what it says about."""
        if self._edge_instances is None:
            self._edge_instances = (serving, published)
        fresh = now - self._edge_at <= EDGE_STALE_S
        edge = self._edge if fresh else None
        return Signals(
            running=running,
            running_peak=max(running, running_peak),
            oldest_s=oldest_s,
            waiting=waiting,
            arrivals_per_s=self._rate_now(now),
            duration_s=self._late().mean_s,
            measured=self._late().calls,
            elapsed_s=self._elapsed_s,
            start_s=self._start_s,
            serving=serving,
            refusing=refusing,
            starting=starting,
            early=early,
            edge_fresh=fresh,
            edge_active=edge.active if edge else 0,
            edge_calls_per_s=self._edge_rate if edge else 0.0,
            edge_p95_s=edge.p95_s if edge else None,
            edge_serving=self._edge_instances[0],
            edge_published=self._edge_instances[1],
            edge_refused_share=self._recent[-1][1] if edge and self._recent else 0.0,
            cpu_busy=cpu_busy,
        )

    def binding(self) -> BindingSignals:
        late = self._late()
        full = len(self._recent) == EDGE_INTERVALS
        p95s = [p95_s for p95_s, _ in self._recent if p95_s is not None]
        return BindingSignals(
            calls=late.calls,
            p95_s=late.p95_s,
            failed_share=late.failed_share,
            edge_calls=self._edge_calls,
            edge_p95_s=min(p95s) if len(p95s) == EDGE_INTERVALS else None,
            refused_share=min(share for _, share in self._recent) if full else 0.0,
        )

    def _late(self) -> _Summary:
        if self._summary is None:
            durations = sorted(duration for duration, _ in self._calls)
            count = len(durations)
            failed = sum(1 for _, failed in self._calls if failed)
            self._summary = (
                _Summary(count, sum(durations) / count, percentile(durations, 0.95), failed / count)
                if count
                else _Summary()
            )
        return self._summary

    def _rate_now(self, now: float) -> float:
        return self._rate * math.exp(-max(0.0, now - self._rate_at) / RATE_WINDOW_S)


@dataclass(frozen=True, slots=True)
class _Summary:
    """The remembered late-bound calls in four numbers."""

    calls: int = 0
    mean_s: float | None = None
    p95_s: float | None = None
    failed_share: float = 0.0


def percentile(ordered: list[float], share: float) -> float | None:
    """The value below which `share` of the sorted list lies (nearest rank); None for an empty list."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]
