"""How many instances a version should have: a pure function of its signals, its rule and the time.

Three answers are combined by their maximum:

* what is needed *now*: calls that run or wait. A new instance helps only those that are still waiting once
  it has started, so what the present instances clear in that time is left out (a slow start never floods
  the node). While the processors are busy anyway, more processes may make calls slower, not faster: then
  their number grows by half at a time;
* what was *used* lately: the highest use within the keep-alive, so that the end of a burst throws nothing
  away and an idle version falls to its minimum exactly one keep-alive after it was last used. Forecasts are
  not remembered: a wrong one is forgotten with the calls that caused it;
* in burst mode (need more than doubled) the count never falls, whatever the keep-alive.

A call is counted once: the edge's figures include calls that it handed to the activator, therefore the
larger of the two counts is taken, not the sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cloudlet.model.function import ScaleRule

from .signals import Signals

BURST_S_MIN = 2.0
BURST_STARTS = 4
"""Burst mode lasts at least two seconds, or as long as this many starts take."""


REFUSED_SHARE_GROW = 0.01
"""An early-bound version grows when instances refuse more calls than this share."""


FIRST_STARTS = 4
"""Instances for any number of calls whose duration nobody knows yet. The first of them tells it: if calls
are short these are enough, and if not, the running ones show it within a moment."""


CPU_FULL = 0.9
"""Share of the processors in use from which on more instances take from those that run."""
UTILISATION = 0.8
"""An instance is taken to be in use for this share of the time; the rest is room for chance."""
CALL_OVERHEAD_S = 0.00005
"""What an instance needs for a call beside the handler: reading, parsing, writing."""
MEASURED_MIN = 10
"""Fewer calls than these tell no mean duration."""
SPREAD_KEPT_S = 10.0
"""The edge keeps the most instances of so many seconds: taking one away and giving it back is work."""
UNUSUAL = 4
"""A running call is out of the ordinary once it has run this many times as long as calls do now."""


@dataclass(frozen=True, slots=True)
class ScaleState:
    """What the decision remembers from one look to the next."""

    peaks: tuple[tuple[float, int], ...] = ()
    """(time, use), uses falling: the sliding maximum. At most one entry per count."""
    burst_until: float = 0.0
    count: int = 0
    spreads: tuple[tuple[float, int], ...] = ()
    """The same for the instances that the edge used."""


@dataclass(frozen=True, slots=True)
class ScaleDecision:
    """``spread`` of the ``count`` instances are for the edge to call by itself, the others stand by for the
    calls that those refuse. Few busy instances serve more calls than many that are woken for each one."""

    count: int
    burst: bool
    state: ScaleState
    spread: int


def desired_count(
    signals: Signals, rule: ScaleRule, concurrency: int, state: ScaleState, now: float
) -> ScaleDecision:
    """Instances wanted from now on, between the rule's minimum and maximum."""
    need = need_now(signals, concurrency)
    held = max((count for at, count in state.peaks if now - at < rule.keep_alive_s), default=0)
    burst_until = state.burst_until
    if need > 2 * max(1, held):
        burst_until = now + max(BURST_S_MIN, BURST_STARTS * signals.start_s)
    burst = now < burst_until
    wanted = max(need, held, state.count if burst else 0)
    count = min(max(wanted, rule.instances_min), max(rule.instances_max, rule.instances_min))
    peaks = _remember(state.peaks, used_now(signals, concurrency), rule.keep_alive_s, now)
    spreads = _remember(state.spreads, spread_now(signals, concurrency), SPREAD_KEPT_S, now)
    spread = max((most for _, most in spreads), default=1)
    return ScaleDecision(count, burst, ScaleState(peaks, burst_until, count, spreads), spread)


def remembered(count: int, now: float) -> ScaleState:
    """State of a version whose `count` instances were taken over: its history is unknown, so what runs was
    needed just now."""
    return ScaleState(peaks=((now, count),) if count > 0 else (), count=count)


def need_now(signals: Signals, concurrency: int) -> int:
    """Instances for the calls that are here at this moment, without memory and without limits."""
    return max(used_now(signals, concurrency), _waiting_need(signals, concurrency))


def used_now(signals: Signals, concurrency: int) -> int:
    """Instances that the calls of this moment really occupy."""
    late = math.ceil(signals.running_peak / concurrency)
    return max(late, _edge_used(signals, concurrency)) if signals.early else late


def _edge_used(signals: Signals, concurrency: int) -> int:
    """Instances for the calls that the edge sends by itself.

    Calls in flight there include those in the instances' own short queues, which is where they belong: 64
    callers of a function of 0.2 ms need a few instances, not 64. So the rate and the length of a call say how
    many are in use, calls in flight only how many could be of use at all, and refusals that there are too
    few.
    """
    if not signals.edge_fresh:
        return signals.serving
    rate, p95_s = signals.edge_calls_per_s, signals.edge_p95_s or 0.0
    in_flight = math.ceil(signals.edge_active / concurrency)
    if rate <= 0:
        return min(signals.serving, in_flight)
    useful = max(1, in_flight, math.ceil(rate * p95_s / concurrency))
    occupied = _occupied(signals, concurrency)
    # With the duration just forgotten, because it no longer holds: what there is.
    used = signals.serving if occupied is None else occupied
    # With instances that stand by the edge gets one of these first.
    if _refuses(signals) and signals.edge_published >= signals.edge_serving and signals.cpu_busy < CPU_FULL:
        # One step for one reading: it is looked at many times before there is a new one.
        used = max(used, signals.edge_serving + max(1, signals.edge_serving // 4))
    return min(useful, used)


def spread_now(signals: Signals, concurrency: int) -> int:
    """Instances that the edge should call by itself."""
    if not signals.edge_fresh:
        return max(1, signals.serving)
    occupied = _occupied(signals, concurrency)
    used = signals.edge_published if occupied is None else occupied
    if _refuses(signals):
        used = max(used, signals.edge_published + max(1, signals.edge_published // 2))
    return max(1, used)


def _occupied(signals: Signals, concurrency: int) -> int | None:
    """Instances that the edge's rate of calls fills; None while nobody knows how long a call takes. Neither
    the 95th percentile nor the first few calls are a mean: of a function that is slow now and then they would
    make ten times as many."""
    if signals.duration_s is None or signals.measured < MEASURED_MIN:
        return None
    call_s = signals.duration_s + CALL_OVERHEAD_S
    return math.ceil(signals.edge_calls_per_s * call_s / (concurrency * UTILISATION))


def _refuses(signals: Signals) -> bool:
    return signals.edge_refused_share > REFUSED_SHARE_GROW


def _waiting_need(signals: Signals, concurrency: int) -> int:
    """Instances for the calls that wait in the activator and those that run there."""
    if signals.waiting == 0:
        return 0
    # An instance that the edge keeps busy takes none of the calls that wait here.
    one_each = math.ceil((signals.running + signals.waiting) / concurrency) + signals.refusing
    have = signals.serving + signals.starting
    most = one_each
    if signals.cpu_busy >= CPU_FULL:
        # Step by step: functions that only wait need many instances on a busy machine, too.
        most = min(one_each, max(have, FIRST_STARTS, signals.serving + max(1, signals.serving // 2)))
    # A call that runs longer than calls used to says more about those behind it than history does: it may
    # be one of the slow ones, or itself wait for a call of the same function that waits here.
    unusual = signals.elapsed_s is None or signals.oldest_s > UNUSUAL * signals.elapsed_s
    duration_s = max(signals.duration_s or 0.0, signals.oldest_s if unusual else 0.0)
    if duration_s <= 0:
        return min(most, max(have, FIRST_STARTS))
    cleared = (have - signals.refusing) * concurrency * signals.start_s / duration_s
    left = signals.waiting + signals.arrivals_per_s * signals.start_s - cleared
    if left <= 0:
        return min(have, most)
    more = math.ceil(left * duration_s / (concurrency * max(signals.start_s, 0.001)))
    return min(have + more, most)


def _remember(
    peaks: tuple[tuple[float, int], ...], used: int, kept_s: float, now: float
) -> tuple[tuple[float, int], ...]:
    kept = tuple((at, count) for at, count in peaks if now - at < kept_s and count > used)
    return (*kept, (now, used)) if used > 0 else kept
