"""Early or late: whether the edge may send a version's calls to its instances without asking. A pure
function.

Early binding is earned by measured calls and lost by measurements, never by configuration. Between the two
thresholds nothing changes (hysteresis), and a version that lost it waits before it can earn it again, so
that a function near the border does not make the edge's routes flap.
"""

from __future__ import annotations

from dataclasses import dataclass

from .signals import BindingSignals


@dataclass(frozen=True, slots=True)
class BindingRule:
    """The thresholds, each with its reason."""

    calls_min: int = 30
    """Fewer calls prove nothing."""
    earn_p95_s: float = 0.020
    """An instance refuses what has not started after 20 ms: calls that are longer would be refused in
    rows."""
    lose_p95_s: float = 0.060
    """As the edge sees it: up to 20 ms in the instance's queue, the call itself, and a busy machine."""
    failed_share_max: float = 0.05
    contended_share: float = 0.02
    """From this share of refused calls on, waiting is part of what the edge measures."""
    refused_share_max: float = 0.10
    """Each refused call costs a second trip; from here on the queue in the activator is better, unless the
    calls are short: then the activator would be the bottleneck."""
    edge_calls_min: int = 20
    """Fewer calls of one interval say nothing about refusals."""
    pause_s: float = 30.0
    """Time between losing and earning again."""


@dataclass(frozen=True, slots=True)
class Binding:
    """What holds now, and since when it may be changed."""

    early: bool = False
    earn_after: float = 0.0


def decide_binding(binding: Binding, signals: BindingSignals, rule: BindingRule, now: float) -> Binding:
    """The binding from now on."""
    if binding.early:
        return _lost(rule, now) if _unfit(signals, rule) else binding
    earned = now >= binding.earn_after and _fit(signals, rule)
    return Binding(early=True, earn_after=binding.earn_after) if earned else binding


def _fit(signals: BindingSignals, rule: BindingRule) -> bool:
    return (
        signals.calls >= rule.calls_min
        and signals.p95_s is not None
        and signals.p95_s < rule.earn_p95_s
        and signals.failed_share <= rule.failed_share_max
    )


def _unfit(signals: BindingSignals, rule: BindingRule) -> bool:
    if signals.edge_calls < rule.edge_calls_min:
        return False
    slow = signals.edge_p95_s is not None and signals.edge_p95_s > rule.lose_p95_s
    if signals.refused_share <= rule.contended_share:
        return slow
    # Refused calls run through the activator, which tells how long they really are.
    long = signals.p95_s is None or signals.p95_s >= rule.earn_p95_s
    return long and (slow or signals.refused_share > rule.refused_share_max)


def _lost(rule: BindingRule, now: float) -> Binding:
    return Binding(early=False, earn_after=now + rule.pause_s)
