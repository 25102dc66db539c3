"""What the scheduler remembers about each version between two looks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from cloudlet.model.errors import FunctionLoadFailed, PlatformError
from cloudlet.model.function import Runtime, ScaleRule, Version, VersionKey
from cloudlet.model.sandbox import StartTiming

from .autoscale import ScaleState
from .bind import Binding, BindingRule
from .signals import Meter

LOAD_BACKOFF_S = 0.5
LOAD_BACKOFF_S_MAX = 60.0
CELL_BACKOFF_S = 0.05
CELL_BACKOFF_S_MAX = 5.0


@dataclass(frozen=True, slots=True)
class SchedulerOptions:
    """The scheduler's knobs. The first three come from the settings; the rest are fixed for a reason."""

    instances_max: int = 200
    concurrent_executions_max: int = 1000
    pools: Mapping[Runtime, int] = field(default_factory=dict)
    starts_at_once: int = 4
    """A start is mostly CPU time; twice the cores of a small machine."""
    pace_s: float = 0.25
    """Time between two looks when nothing wakes the loop."""
    waiting_pace_s: float = 0.05
    """The same while calls wait: it shows only with time that they wait for something slow."""
    edge_pace_s: float = 1.0
    """Time between two readings of the edge's counters (only while something is early-bound)."""
    report_pace_s: float = 30.0
    """Time between two full comparisons with the node's report."""
    start_s_max: float = 60.0
    quiesce_s_max: float = 5.0
    stop_slack_s: float = 5.0
    node_call_s_max: float = 10.0
    prepare_hold_s: float = 60.0
    """How long a prepared version is kept while nothing points to it."""
    binding: BindingRule = field(default_factory=BindingRule)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Failed starts of a version in a row."""

    failures: int = 0
    retry_at: float = 0.0
    error: PlatformError | None = None
    """The last failure: what callers get while no start may be tried."""


def after_failure(backoff: Backoff, error: PlatformError, now: float) -> Backoff:
    """Exponential and bounded. Code that does not load is tried rarely: only a new version or a changed
    outside world can help; a missing cell is tried again soon."""
    loading = isinstance(error, FunctionLoadFailed)
    base, top = (LOAD_BACKOFF_S, LOAD_BACKOFF_S_MAX) if loading else (CELL_BACKOFF_S, CELL_BACKOFF_S_MAX)
    pause = min(top, base * 2.0 ** min(backoff.failures, 20))
    return Backoff(backoff.failures + 1, now + pause, error)


@dataclass(eq=False, slots=True)
class VersionRecord:
    """Everything about one version. Dropped when no alias points to it and nothing of it is left."""

    key: VersionKey
    version: Version | None = None
    """None for instances that were adopted and whose version no alias points to any more."""
    live: bool = False
    meter: Meter = field(default_factory=Meter)
    scale: ScaleState = field(default_factory=ScaleState)
    desired: int = 0
    burst: bool = False
    binding: Binding = field(default_factory=Binding)
    backoff: Backoff = Backoff()
    hold_until: float = 0.0
    edge_busy_at: float = 0.0
    """When the edge was last known (or had to be feared) to call the version by itself."""
    prepared: list[asyncio.Future[StartTiming]] = field(default_factory=list)

    @property
    def rule(self) -> ScaleRule:
        return self.version.config.scale if self.version else ScaleRule()

    @property
    def concurrency(self) -> int:
        return max(1, self.version.config.concurrency) if self.version else 1
