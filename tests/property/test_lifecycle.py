"""The scheduler under random calls, deploys and faults in virtual time, and the life cycle under random
events.

Invariants, each checked by `scheduler_world` at the moment it could be broken:

* no acknowledged endpoint is stopped, and the edge never calls an instance that is being stopped;
* a cell serves one version, and an id that was stopped is not started again;
* no call begins twice;
* every call is answered by its deadline;
* nothing is leased on an instance that is quiesced or stopped;
* once the calls end, everything returns to zero: instances, endpoints, early bindings.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudlet.model.function import ScaleRule, VersionKey
from cloudlet.model.sandbox import EndReason
from cloudlet.scheduler.lifecycle import LEAVING, SERVING, Action, Event, Instance, Phase, transition
from tests.property.scheduler_world import World, make_version
from tests.property.virtual_time import run_virtual

FUNCTIONS = ("alpha", "beta", "gamma")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens, and how long nothing else does afterwards."""

    what: str
    function: str
    amount: int
    duration_s: float
    pause_s: float


steps = st.builds(
    Step,
    what=st.sampled_from(
        ["calls"] * 5
        + [
            "stream",
            "stream",
            "cancel",
            "crash",
            "fault",
            "edge",
            "cut",
            "away",
            "deploy",
            "delete",
            "control",
        ]
    ),
    function=st.sampled_from(FUNCTIONS),
    amount=st.integers(1, 12),
    duration_s=st.sampled_from([0.001, 0.005, 0.05, 0.4, 2.0]),
    pause_s=st.sampled_from([0.0, 0.0, 0.003, 0.02, 0.06, 0.5, 2.2, 2.3, 6.0]),
)
FAULTS = ("load_failed", "no_cell", "never_ready", "slow", "dies_later")


class Story:
    """Plays steps on a world."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed, instances_max=8, start_s_max=3.0, prepare_hold_s=5.0)
        self.digests = dict.fromkeys(FUNCTIONS, 1)

    def versions(self) -> list[str]:
        return [function for function, digest in self.digests.items() if digest]

    def deploy(self) -> None:
        rule = ScaleRule(instances_max=4, keep_alive_s=2.0)
        self.world.deploy(
            *(
                make_version(name, f"v{digest}", scale=rule, concurrency=2 if name == "gamma" else 1)
                for name, digest in self.digests.items()
                if digest
            )
        )

    async def play(self, step: Step) -> None:
        world = self.world
        match step.what:
            case "calls":
                for _ in range(step.amount):
                    world.call(step.function, step.duration_s, patience_s=5.0)
            case "stream":
                for _ in range(step.amount * 4):
                    await asyncio.wait([world.call(step.function, 0.002, patience_s=5.0)])
            case "cancel":
                for task in world.calls[-step.amount :]:
                    task.cancel()
            case "crash":
                for instance_id in sorted(world.node.instances)[: step.amount % 3 + 1]:
                    world.node.end(instance_id, EndReason.EXITED)
            case "fault":
                world.node.failures.append(FAULTS[step.amount % len(FAULTS)])
            case "edge":
                world.edge.refusals += step.amount
            case "cut":
                world.node.cut_streams()
            case "away":
                world.node.away = True
                world.node.cut_streams()
                await asyncio.sleep(step.duration_s)
                world.node.away = False
            case "deploy":
                self.digests[step.function] = max(self.digests.values()) + 1
                self.deploy()
            case "delete":
                self.digests[step.function] = 0
                self.deploy()
            case "control":
                await world.restart_control()
        await asyncio.sleep(step.pause_s)

    async def end(self) -> None:
        """Calls end, then everything returns to zero."""
        world = self.world
        world.node.failures.clear()
        world.edge.refusals = 0  # an edge that refuses for ever never confirms that instances may end
        await world.settle()
        await asyncio.sleep(90.0)
        assert world.violations == []
        assert world.node.instances == {}, world.scheduler.status()
        assert not any(world.edge.endpoints.values())
        assert world.edge.early == set()
        assert world.scheduler.status().versions == ()


def tell(story: list[Step], seed: int) -> None:
    async def play() -> None:
        teller = Story(seed)
        await teller.world.begin()
        teller.deploy()
        for step in story:
            await teller.play(step)
            assert teller.world.violations == [], step
        await teller.end()

    run_virtual(play)


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(story=st.lists(steps, min_size=1, max_size=25), seed=st.integers(0, 2**16))
def test_what_must_hold_holds_whatever_happens(story: list[Step], seed: int) -> None:
    tell(story, seed)


@pytest.mark.long
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(story=st.lists(steps, min_size=1, max_size=40), seed=st.integers(0, 2**16))
def test_what_must_hold_holds_in_many_more_stories(story: list[Step], seed: int) -> None:
    tell(story, seed)


@given(st.lists(st.sampled_from(list(Event)), max_size=40))
def test_a_stop_follows_only_an_acknowledged_absence(events: list[Event]) -> None:
    instance = Instance("i", VersionKey("default", "f", "v1"))
    for event in events:
        before = instance
        instance, actions = transition(instance, event)
        if Action.STOP in actions:
            assert before.phase is Phase.DRAINING
            assert not instance.exposed
        if instance.listed:
            assert instance.exposed
        if instance.phase in LEAVING:
            assert instance.phase is Phase.QUIESCING or not instance.listed
        if before.phase in LEAVING:
            assert instance.phase not in SERVING
        if before.phase is Phase.GONE:
            assert (instance, actions) == (before, ())
        if before.phase in SERVING and instance.phase not in SERVING and instance.phase is not Phase.GONE:
            assert Action.SUSPEND in actions
