"""Desired against actual, over all versions, as one immutable plan that leaves no choice to the executor.

Pure. Both directions are fixed in one pass; whatever is in transition (starting, leaving) is counted but
not touched. Starts are dealt out one at a time to the version that has waited longest, so that one version
with many waiting calls does not starve the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cloudlet.model.function import ScaleRule, VersionKey

from .lifecycle import AT_THE_EDGE, LEAVING, SERVING, Phase

EVICT_IDLE_S = 2.0
"""A version that has an instance already gets another one's place only after that was idle for so long."""


@dataclass(frozen=True, slots=True)
class InstanceView:
    """One instance as the planner sees it."""

    instance_id: str
    phase: Phase
    running: int = 0
    idle_since: float = 0.0
    broken: bool = False
    """Must not get another call: it timed out, closed its connection or does not answer."""


@dataclass(frozen=True, slots=True)
class VersionView:
    """One version as the planner sees it."""

    key: VersionKey
    desired: int
    live: bool = True
    """An alias points to it."""
    held: bool = False
    """Prepared for an alias that is about to move: one instance is kept although nothing needs it yet."""
    early: bool = False
    spread: int = 1
    """How many of the instances the edge should call by itself, if the version is early-bound."""
    rule: ScaleRule = field(default_factory=ScaleRule)
    waiting: int = 0
    waiting_since: float = 0.0
    start_after: float = 0.0
    """No start before this time: the last ones failed."""
    burst: bool = False
    instances: tuple[InstanceView, ...] = ()

    @property
    def wanted(self) -> int:
        return max(1, self.desired) if self.held else self.desired

    @property
    def serving(self) -> tuple[InstanceView, ...]:
        return tuple(one for one in self.instances if one.phase in SERVING and not one.broken)

    @property
    def starting(self) -> int:
        return sum(1 for one in self.instances if one.phase is Phase.STARTING)

    @property
    def present(self) -> int:
        """Instances that serve or will."""
        return len(self.serving) + self.starting


@dataclass(frozen=True, slots=True)
class Limits:
    instances_max: int
    """Instances of all versions together, in whatever phase: each holds memory."""
    starts_at_once: int
    """Starts running at the same time: more only slow each other down."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, as ids."""

    start: tuple[VersionKey, ...] = ()
    """One entry per instance to start."""
    publish: tuple[str, ...] = ()
    withdraw: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()


@dataclass(slots=True)
class _Deal:
    """How many more instances a version wants, while starts are dealt out."""

    view: VersionView
    missing: int
    given: int = field(default=0)


def make_plan(versions: tuple[VersionView, ...], limits: Limits, now: float) -> Plan:
    """Compare all desired with all actual."""
    leave = {one for view in versions for one in _surplus(view)}
    starts, evicted = _starts(versions, limits, leave, now)
    leave.update(evicted)
    publish, withdraw = _bindings(versions, leave)
    return Plan(tuple(starts), tuple(publish), tuple(withdraw), tuple(sorted(leave)))


def may_start_first(key: VersionKey, instances: Sequence[tuple[VersionKey, Phase]], limits: Limits) -> bool:
    """Whether a version may get its first instance without a plan: nothing of it is there, in whatever
    phase, and neither room nor a turn has to be taken from another version."""
    starting = sum(1 for _, phase in instances if phase is Phase.STARTING)
    room = len(instances) < limits.instances_max and starting < limits.starts_at_once
    return room and all(version != key for version, _ in instances)


def _surplus(view: VersionView) -> list[str]:
    """Instances of a version that must go: broken ones, and the longest idle above the wanted count. An
    instance that runs a call is never chosen, and none while calls wait for it."""
    broken = [one.instance_id for one in view.instances if one.broken and one.phase in SERVING]
    if view.waiting:
        return broken
    surplus = view.present - view.wanted
    idle = sorted((one for one in view.serving if one.running == 0), key=_idlest_first)
    return broken + [one.instance_id for one in idle[: max(0, surplus)]]


def _starts(
    versions: tuple[VersionView, ...], limits: Limits, leaving: set[str], now: float
) -> tuple[list[VersionKey], list[str]]:
    total = sum(len(view.instances) for view in versions)
    room = max(0, limits.instances_max - total)
    starting = sum(view.starting for view in versions)
    burst = 2 if any(view.burst for view in versions) else 1
    turns = max(0, limits.starts_at_once * burst - starting)
    deals = [_Deal(view, view.wanted - view.present) for view in versions if view.start_after <= now]
    deals = sorted((deal for deal in deals if deal.missing > 0), key=_neediest_first)
    starts = _deal_out(deals, min(room, turns))
    if turns <= len(starts) or len(starts) < room:
        return starts, []
    on_their_way = len(leaving) + sum(
        1 for view in versions for one in view.instances if one.phase in LEAVING
    )
    without, more = _unmet(deals)
    spare = [one for one in _spare(versions, leaving) if one.idle_since < now]
    long_idle = [one for one in spare if now - one.idle_since >= EVICT_IDLE_S]
    count = max(min(without, len(spare)), min(without + more, len(long_idle)))
    count = min(count, turns - len(starts)) - on_their_way
    return starts, [one.instance_id for one in spare[: max(0, count)]]


def _deal_out(deals: list[_Deal], turns: int) -> list[VersionKey]:
    starts: list[VersionKey] = []
    while len(starts) < turns:
        open_deals = [deal for deal in deals if deal.given < deal.missing]
        if not open_deals:
            break
        for deal in open_deals[: turns - len(starts)]:
            deal.given += 1
            starts.append(deal.view.key)
    return starts


def _unmet(deals: list[_Deal]) -> tuple[int, int]:
    """Starts that found no room: of versions that have nothing at all, and of those that could use more."""
    without = more = 0
    for deal in deals:
        left = deal.missing - deal.given
        if not deal.view.present and (deal.view.waiting or deal.view.held):
            without += min(left, 1)
            left -= 1
        if deal.view.waiting:
            more += max(0, left)
    return without, more


def _spare(versions: tuple[VersionView, ...], leaving: set[str]) -> list[InstanceView]:
    """Idle instances above their version's minimum, the idlest first."""
    candidates: list[InstanceView] = []
    for view in versions:
        spare = len(view.serving) - (view.rule.instances_min if view.live else 0)
        if view.waiting or spare <= 0 or view.held:
            continue
        idle = [one for one in view.serving if one.running == 0 and one.instance_id not in leaving]
        candidates.extend(sorted(idle, key=_idlest_first)[:spare])
    return sorted(candidates, key=_idlest_first)


def _bindings(versions: tuple[VersionView, ...], leave: set[str]) -> tuple[list[str], list[str]]:
    publish: list[str] = []
    withdraw: list[str] = []
    for view in versions:
        staying = [one for one in view.instances if one.instance_id not in leave]
        exposed = [one.instance_id for one in staying if one.phase in AT_THE_EDGE]
        standing_by = [one for one in staying if one.phase is Phase.READY and not one.broken]
        spread = view.spread if view.early and view.live else 0
        # Those that were idle longest are left to go to sleep.
        standing_by.sort(key=_idlest_first, reverse=True)
        publish += [one.instance_id for one in standing_by[: max(0, spread - len(exposed))]]
        withdraw += exposed[spread:]
    return publish, withdraw


def _idlest_first(one: InstanceView) -> tuple[float, str]:
    return one.idle_since, one.instance_id


def _neediest_first(deal: _Deal) -> tuple[bool, float, VersionKey]:
    view = deal.view
    return not view.waiting, view.waiting_since, view.key
