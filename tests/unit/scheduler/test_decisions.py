"""The pure decisions: how many, early or late, what to start and what to end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudlet.model.app import Environment
from cloudlet.model.errors import EnvironmentNotFound, FunctionLoadFailed, FunctionNotFound, Unavailable
from cloudlet.model.function import Alias, FunctionConfig, ScaleRule, Version, VersionKey
from cloudlet.model.ids import LATEST
from cloudlet.scheduler.autoscale import ScaleState, desired_count, need_now, remembered, spread_now
from cloudlet.scheduler.bind import Binding, BindingRule, decide_binding
from cloudlet.scheduler.catalog import Catalog
from cloudlet.scheduler.lifecycle import Phase
from cloudlet.scheduler.plan import InstanceView, Limits, Plan, VersionView, make_plan, may_start_first
from cloudlet.scheduler.records import Backoff, after_failure
from cloudlet.scheduler.signals import BindingSignals, EdgeTraffic, Meter, Signals, percentile
from cloudlet.state.base import Snapshot

RULE = ScaleRule(keep_alive_s=10.0)
SHORT = Signals(duration_s=0.002, start_s=0.05)
EARLY = Signals(measured=50, early=True, edge_fresh=True, serving=4, edge_serving=4, edge_published=4)
REFUSED = replace(
    EARLY, edge_calls_per_s=100, edge_refused_share=0.02, serving=12, edge_serving=12, edge_published=12
)
LONG = Signals(duration_s=0.5, start_s=0.05)


@pytest.mark.parametrize(
    ("signals", "concurrency", "need"),
    [
        (Signals(), 1, 0),
        (Signals(running=3, running_peak=3), 1, 3),
        (Signals(running=0, running_peak=2), 1, 2),
        (Signals(running=5, running_peak=5), 4, 2),
        (Signals(waiting=3), 1, 3),  # nothing measured: each may be long
        (Signals(waiting=64), 1, 4),  # but the first few will tell
        (Signals(waiting=60, running=4, running_peak=4, serving=4, oldest_s=0.001), 1, 4),  # perhaps short
        (Signals(waiting=60, running=4, running_peak=4, serving=4, oldest_s=0.5), 1, 64),  # long, as it seems
        (replace(SHORT, running=1, running_peak=1, waiting=1, serving=1, oldest_s=0.5), 1, 2),  # not this one
        (replace(LONG, running=1, running_peak=1, waiting=4, serving=1), 1, 5),
        (
            replace(SHORT, running=1, running_peak=1, waiting=10, serving=1),
            1,
            1,
        ),  # cleared before a start ends
        (replace(SHORT, running=1, running_peak=1, waiting=100, serving=1), 1, 4),
        (replace(SHORT, waiting=100), 1, 4),
        (replace(SHORT, waiting=100, starting=4), 1, 4),  # those on their way are not started again
        (replace(SHORT, waiting=1, serving=1, refusing=1), 1, 2),
        # Busy processors: a few to begin with, then by half at a time.
        (replace(LONG, waiting=60, cpu_busy=0.95), 1, 4),
        (replace(LONG, waiting=60, serving=4, running=4, running_peak=4, cpu_busy=0.95), 1, 6),
        (replace(LONG, waiting=60, serving=4, starting=2, running=4, running_peak=4, cpu_busy=0.95), 1, 6),
        (Signals(early=True, edge_fresh=True), 1, 0),
        (Signals(early=True, edge_fresh=False, serving=3), 1, 3),  # blind: keep what is there
        (replace(EARLY, edge_active=3, running=2, running_peak=2), 1, 3),  # not 5
        (replace(EARLY, edge_calls_per_s=0.5), 1, 1),
        (replace(EARLY, edge_calls_per_s=1000, edge_p95_s=0.003), 1, 3),
        (replace(EARLY, edge_active=64), 1, 4),  # in the instances' queues, but in time
        (replace(EARLY, edge_active=64, edge_calls_per_s=5000, duration_s=0.0003), 1, 3),
        (replace(EARLY, edge_active=64, edge_calls_per_s=5000, duration_s=0.005), 1, 32),
        (replace(EARLY, edge_active=64, edge_calls_per_s=100, edge_refused_share=0.02), 1, 5),
        (replace(REFUSED, edge_active=64), 1, 15),
        (replace(REFUSED, edge_active=64, serving=15), 1, 15),  # one step for one reading
        (replace(REFUSED, edge_active=64, edge_published=11, duration_s=0.001), 1, 1),  # one stands by
        (replace(REFUSED, edge_active=6), 1, 6),
        (replace(EARLY, edge_active=8, edge_calls_per_s=140, edge_p95_s=0.5), 1, 4),  # nobody knows the mean
    ],
)
def test_what_is_needed_now(signals: Signals, concurrency: int, need: int) -> None:
    assert need_now(signals, concurrency) == need


def test_what_was_needed_is_kept_exactly_for_the_keep_alive() -> None:
    state = ScaleState()
    state = desired_count(Signals(running_peak=8), RULE, 1, state, 100.0).state
    counts = []
    for now in (101.0, 109.9, 110.0, 119.9):
        decision = desired_count(Signals(running_peak=2 if now < 110.0 else 0), RULE, 1, state, now)
        state = decision.state
        counts.append(decision.count)
    assert counts == [8, 8, 2, 0]


def test_a_burst_does_not_shrink_before_it_is_over() -> None:
    rule = ScaleRule(keep_alive_s=0.0)
    up = desired_count(Signals(running_peak=9, start_s=1.0), rule, 1, ScaleState(), 10.0)
    assert (up.count, up.burst) == (9, True)
    during = desired_count(Signals(), rule, 1, up.state, 13.9)
    assert (during.count, during.burst) == (9, True)
    after = desired_count(Signals(), rule, 1, during.state, 14.0)
    assert (after.count, after.burst) == (0, False)


def test_the_rule_bounds_the_count() -> None:
    rule = ScaleRule(instances_min=2, instances_max=3)
    assert desired_count(Signals(), rule, 1, ScaleState(), 0.0).count == 2
    assert desired_count(Signals(waiting=50), rule, 1, ScaleState(), 0.0).count == 3


def test_a_restarted_scheduler_does_not_scale_down_what_it_finds() -> None:
    state = remembered(4, 100.0)
    assert desired_count(Signals(serving=4), RULE, 1, state, 105.0).count == 4
    assert desired_count(Signals(serving=4), RULE, 1, state, 110.0).count == 0


def test_memory_of_the_past_is_bounded() -> None:
    state = ScaleState()
    for tick in range(1000):
        now = tick * 0.001
        state = desired_count(Signals(running_peak=1000 - tick % 7), RULE, 1, state, now).state
    assert len(state.peaks) <= 7


GOOD = BindingSignals(calls=50, p95_s=0.005, failed_share=0.0)
BIND = BindingRule()


@pytest.mark.parametrize(
    ("signals", "early"),
    [
        (GOOD, True),
        (replace(GOOD, calls=29), False),
        (replace(GOOD, p95_s=0.020), False),
        (replace(GOOD, p95_s=None), False),
        (replace(GOOD, failed_share=0.06), False),
    ],
)
def test_early_binding_is_earned_by_many_short_calls(signals: BindingSignals, early: bool) -> None:
    assert decide_binding(Binding(), signals, BIND, 0.0).early is early


@pytest.mark.parametrize(
    ("signals", "early"),
    [
        (replace(GOOD, edge_calls=100, edge_p95_s=0.025), True),  # between the thresholds: no change
        (replace(GOOD, edge_calls=100, edge_p95_s=0.061), False),
        # Short calls that are refused: a busy machine, which the activator would make busier.
        (replace(GOOD, edge_calls=100, edge_p95_s=0.061, refused_share=0.11), True),
        (replace(GOOD, p95_s=0.021, edge_calls=100, refused_share=0.11), False),
        (replace(GOOD, p95_s=0.021, edge_calls=100, edge_p95_s=0.061, refused_share=0.03), False),
        (replace(GOOD, p95_s=0.021, edge_calls=100, refused_share=0.03), True),
        (replace(GOOD, edge_calls=19, edge_p95_s=1.0), True),  # too few to judge
    ],
)
def test_early_binding_is_lost_by_measurements(signals: BindingSignals, early: bool) -> None:
    assert decide_binding(Binding(early=True), signals, BIND, 0.0).early is early


def test_what_was_lost_is_not_earned_again_at_once() -> None:
    lost = decide_binding(Binding(early=True), replace(GOOD, edge_calls=100, edge_p95_s=1.0), BIND, 100.0)
    assert not decide_binding(lost, GOOD, BIND, 129.9).early
    assert decide_binding(lost, GOOD, BIND, 130.0).early


def key(name: str) -> VersionKey:
    return VersionKey("default", name, "v1")


def idle(instance_id: str, since: float = 0.0, phase: Phase = Phase.READY) -> InstanceView:
    return InstanceView(instance_id, phase, idle_since=since)


LIMITS = Limits(instances_max=10, starts_at_once=4)


def test_missing_instances_are_started_in_turns_the_longest_waiting_first() -> None:
    views = (
        VersionView(key("a"), desired=9, waiting=9, waiting_since=2.0),
        VersionView(key("b"), desired=1, waiting=1, waiting_since=1.0),
    )
    assert make_plan(views, LIMITS, 5.0).start == (key("b"), key("a"), key("a"), key("a"))


def test_starts_under_way_count() -> None:
    view = VersionView(
        key("a"), desired=3, instances=(idle("1", phase=Phase.STARTING), idle("2", phase=Phase.STARTING))
    )
    assert make_plan((view,), LIMITS, 0.0).start == (key("a"),)
    assert make_plan((view,), Limits(10, 2), 0.0).start == ()


def test_no_start_while_the_last_failure_is_fresh() -> None:
    view = VersionView(key("a"), desired=1, waiting=1, start_after=5.0)
    assert make_plan((view,), LIMITS, 4.9) == Plan()
    assert make_plan((view,), LIMITS, 5.0).start == (key("a"),)


def test_the_longest_idle_leave_and_those_that_run_stay() -> None:
    busy = InstanceView("busy", Phase.READY, running=1, idle_since=0.0)
    view = VersionView(key("a"), desired=1, instances=(busy, idle("old", 1.0), idle("new", 2.0)))
    assert make_plan((view,), LIMITS, 9.0).leave == ("new", "old")
    assert make_plan((replace(view, desired=2),), LIMITS, 9.0).leave == ("old",)
    assert make_plan((replace(view, desired=0, waiting=1),), LIMITS, 9.0).leave == ()


def test_a_version_without_alias_leaves_unless_it_is_held() -> None:
    view = VersionView(key("a"), desired=0, live=False, instances=(idle("1"),))
    assert make_plan((view,), LIMITS, 0.0).leave == ("1",)
    assert make_plan((replace(view, held=True),), LIMITS, 0.0).leave == ()


def test_a_broken_instance_leaves_and_is_replaced() -> None:
    view = VersionView(key("a"), desired=1, instances=(replace(idle("1"), broken=True, running=1),))
    plan = make_plan((view,), LIMITS, 0.0)
    assert (plan.leave, plan.start) == (("1",), (key("a"),))


def test_what_is_in_transition_is_left_alone() -> None:
    leaving = tuple(idle(phase.value, phase=phase) for phase in (Phase.QUIESCING, Phase.DRAINING))
    view = VersionView(key("a"), desired=0, instances=leaving)
    assert make_plan((view,), LIMITS, 0.0) == Plan()


def test_a_full_node_makes_room_for_a_version_that_has_nothing() -> None:
    full = Limits(instances_max=2, starts_at_once=4)
    old = VersionView(key("old"), desired=1, instances=(idle("o", 1.0),))
    new = VersionView(key("new"), desired=1, instances=(idle("n", 2.0),))
    needy = VersionView(key("needy"), desired=1, waiting=1, waiting_since=3.0)
    assert make_plan((old, new, needy), full, 9.0) == Plan(leave=("o",))
    kept = replace(old, rule=ScaleRule(instances_min=1))
    assert make_plan((kept, new, needy), full, 9.0) == Plan(leave=("n",))
    prepared = replace(needy, waiting=0, live=False, held=True)
    assert make_plan((old, new, prepared), full, 9.0) == Plan(leave=("o",))
    leaving = replace(old, instances=(idle("o", 1.0, Phase.QUIESCING),))
    assert make_plan((leaving, new, needy), full, 9.0) == Plan()


def test_a_version_that_grows_takes_only_what_was_idle_for_long() -> None:
    full = Limits(instances_max=3, starts_at_once=4)
    others = VersionView(key("old"), desired=2, instances=(idle("o", 1.0), idle("p", 2.0)))
    busy = InstanceView("b", Phase.READY, running=1)
    growing = VersionView(key("new"), desired=3, waiting=2, waiting_since=2.0, instances=(busy,))
    assert make_plan((others, growing), full, 2.9) == Plan()
    assert make_plan((others, growing), full, 3.0) == Plan(leave=("o",))
    assert make_plan((others, growing), full, 4.0) == Plan(leave=("o", "p"))


def test_ready_instances_of_early_versions_are_published_and_others_withdrawn() -> None:
    instances = (idle("1"), idle("2", phase=Phase.PUBLISHED))
    early = VersionView(key("a"), desired=2, early=True, spread=2, instances=instances)
    assert make_plan((early,), LIMITS, 0.0) == Plan(publish=("1",))
    assert make_plan((replace(early, early=False),), LIMITS, 0.0) == Plan(withdraw=("2",))


@pytest.mark.parametrize(
    ("instances", "may"),
    [
        ([], True),
        ([("other", Phase.READY)], True),
        ([("mine", Phase.STARTING)], False),
        ([("mine", Phase.STOPPING)], False),  # its place may be wanted by another: the plan knows
        ([("other", Phase.STARTING)] * 2, False),
        ([("other", Phase.READY)] * 4, False),
    ],
)
def test_a_first_instance_needs_no_plan_when_it_takes_nothing_from_anybody(
    instances: list[tuple[str, Phase]], may: bool
) -> None:
    there = [(VersionKey("default", function, "v1"), phase) for function, phase in instances]
    limits = Limits(instances_max=4, starts_at_once=2)
    assert may_start_first(VersionKey("default", "mine", "v1"), there, limits) is may


def test_the_edge_gets_as_many_instances_as_its_calls_fill_and_the_rest_stand_by() -> None:
    ready = (idle("old", 1.0), idle("new", 2.0))
    view = VersionView(key("a"), desired=2, early=True, spread=1, instances=ready)
    assert make_plan((view,), LIMITS, 9.0) == Plan(publish=("new",))
    published = tuple(idle(one, phase=Phase.PUBLISHED) for one in ("1", "2", "3"))
    view = VersionView(key("a"), desired=3, early=True, spread=1, instances=published)
    assert make_plan((view,), LIMITS, 9.0) == Plan(withdraw=("2", "3"))


@pytest.mark.parametrize(
    ("signals", "concurrency", "spread"),
    [
        (replace(EARLY, edge_fresh=False), 1, 4),  # blind: all of them
        (replace(EARLY, duration_s=0.001), 1, 1),  # no calls: one is enough to begin with
        (replace(EARLY, edge_calls_per_s=10_000.0, duration_s=0.00003), 1, 1),
        (replace(EARLY, edge_calls_per_s=20_000.0, duration_s=0.00003), 1, 2),
        (replace(EARLY, edge_calls_per_s=1_000.0, duration_s=0.02), 1, 26),
        (replace(EARLY, edge_calls_per_s=1_000.0, duration_s=0.02), 8, 4),
        (replace(EARLY, edge_calls_per_s=1_000.0, duration_s=0.02, measured=9), 1, 4),  # too few tell nothing
        (replace(EARLY, edge_calls_per_s=1_000.0, edge_p95_s=0.02), 1, 4),  # nobody knows the mean
        (replace(EARLY, edge_calls_per_s=100.0, duration_s=0.001, edge_refused_share=0.02), 1, 6),
    ],
)
def test_how_many_the_edge_calls_by_itself(signals: Signals, concurrency: int, spread: int) -> None:
    assert spread_now(signals, concurrency) == spread


def test_what_the_edge_used_lately_stays_with_it() -> None:
    quiet = replace(EARLY, duration_s=0.00003)
    busy = replace(EARLY, edge_calls_per_s=40_000.0, duration_s=0.00003, edge_active=64)
    decision = desired_count(busy, RULE, 1, ScaleState(), 0.0)
    assert decision.spread == 4
    decision = desired_count(quiet, RULE, 1, decision.state, 9.9)
    assert decision.spread == 4
    assert desired_count(quiet, RULE, 1, decision.state, 10.0).spread == 1


def test_failed_starts_are_repeated_ever_more_rarely() -> None:
    backoff, pauses = Backoff(), []
    for _ in range(12):
        backoff = after_failure(backoff, FunctionLoadFailed(), 0.0)
        pauses.append(backoff.retry_at)
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses[-1] == 60.0
    assert after_failure(Backoff(failures=50), Unavailable(), 0.0).retry_at == 5.0


def test_the_meter_measures_rates_and_shares() -> None:
    meter = Meter()
    for tick in range(100):
        meter.arrived(10.0 + tick * 0.01)
    signals = seen(meter, serving=0, early=False, now=11.0)
    assert 50 < signals.arrivals_per_s < 100
    meter.edge(EdgeTraffic(1000, 2, 10, 0.004), 20.0)
    meter.edge(EdgeTraffic(1200, 3, 60, 0.005), 22.0)
    signals = seen(meter, serving=1, early=True, now=23.0)
    assert (signals.edge_calls_per_s, signals.edge_active, signals.edge_p95_s) == (100.0, 3, 0.005)
    assert signals.edge_refused_share == 0.25
    assert (meter.binding().refused_share, meter.binding().edge_p95_s) == (0.0, None)  # not yet for long
    meter.edge(EdgeTraffic(1300, 3, 70, 0.050), 23.0)
    meter.edge(EdgeTraffic(1400, 3, 120, 0.040), 24.0)
    assert (meter.binding().refused_share, meter.binding().edge_p95_s) == (0.1, 0.005)
    meter.edge(EdgeTraffic(1500, 3, 170, 0.060), 25.0)
    assert meter.binding().edge_p95_s == 0.040
    meter.edge(EdgeTraffic(5, 0, 0, None), 26.0)  # a new edge process counts from zero
    assert meter.binding().edge_calls == 0


def test_a_reading_of_the_edge_is_about_the_instances_of_its_time() -> None:
    meter = Meter()
    meter.edge(EdgeTraffic(100, 0, 0), 20.0)
    assert seen(meter, serving=4, early=True, now=20.1).edge_serving == 4
    assert seen(meter, serving=5, early=True, now=20.2).edge_serving == 4
    meter.edge(EdgeTraffic(200, 0, 0), 21.0)
    assert seen(meter, serving=5, early=True, now=21.1).edge_serving == 5


def seen(meter: Meter, serving: int, early: bool, now: float) -> Signals:
    """At a moment in which nothing runs or waits."""
    return meter.signals(
        running=0,
        running_peak=0,
        oldest_s=0.0,
        waiting=0,
        serving=serving,
        published=serving,
        refusing=0,
        starting=0,
        early=early,
        cpu_busy=0.0,
        now=now,
    )


def test_percentile_is_the_nearest_rank() -> None:
    assert percentile([], 0.95) is None
    assert percentile([1.0], 0.95) == 1.0
    assert percentile([float(n) for n in range(1, 101)], 0.95) == 95.0


def version(digest: str) -> Version:
    return Version("shop", "order", digest, 1, FunctionConfig(), "/code", 0.0)


def test_a_call_takes_the_version_the_edge_drew_or_the_latest() -> None:
    latest, canary = version("new"), version("canary")
    catalog = Catalog(
        Snapshot(
            3,
            (Environment("shop", 0.0, aliases=("shop-1a2b",)),),
            (latest, canary),
            (Alias("shop", "order", LATEST, "new", 0.0), Alias("shop", "order", "next", "canary", 0.0)),
        )
    )
    assert catalog.resolve("shop", "order") is latest
    assert catalog.resolve("shop-1a2b", "order", "canary") is canary
    assert catalog.resolve("shop", "order", "gone") is latest
    with pytest.raises(FunctionNotFound, match="pay"):
        catalog.resolve("shop", "pay")
    with pytest.raises(EnvironmentNotFound, match="else"):
        catalog.resolve("else", "order")
