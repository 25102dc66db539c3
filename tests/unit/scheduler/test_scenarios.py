"""The scheduler from zero to n and back, in virtual time: one behaviour each."""

from __future__ import annotations

import asyncio

import pytest

from cloudlet.model.errors import ConcurrencyExceeded, FunctionLoadFailed, FunctionNotFound, Unavailable
from cloudlet.model.function import Runtime, ScaleRule
from cloudlet.model.sandbox import EndReason, InstanceState
from cloudlet.scheduler.leases import Outcome
from cloudlet.scheduler.lifecycle import Phase
from cloudlet.scheduler.signals import EdgeTraffic
from tests.property.scheduler_world import World, make_version
from tests.property.virtual_time import run_virtual


def outcomes(world: World) -> list[str]:
    return [result.outcome for result in world.results]


def test_a_cold_call_starts_an_instance_and_idleness_ends_it() -> None:
    async def story() -> None:
        world = World()
        await world.begin(make_version("hello"))
        await world.call("hello", 0.01)
        assert outcomes(world) == ["ok"]
        assert world.results[0].waited_s == pytest.approx(0.05, abs=0.005)
        assert len(world.node.instances) == 1
        await asyncio.sleep(4.5)
        assert len(world.node.instances) == 1
        await asyncio.sleep(1.5)
        assert world.node.instances == {}
        assert world.scheduler.status().versions == ()
        assert world.violations == []

    run_virtual(story)


def test_the_first_start_is_ordered_when_the_call_comes_and_not_at_the_next_look() -> None:
    async def story() -> None:
        world = World()
        await world.begin(make_version("hello"))
        version = world.scheduler.resolve("default", "hello")
        ticket = world.scheduler.ticket(world.clock.monotonic() + 60)
        assert world.scheduler.try_acquire(version, ticket) is None
        assert sum(each.phases.get(Phase.STARTING, 0) for each in world.scheduler.status().versions) == 1
        lease = await world.scheduler.acquire(version, ticket)
        lease.finish(Outcome.DONE)
        assert len(world.node.cells) == 1

    run_virtual(story)


def test_five_calls_over_three_instances_take_two_rounds() -> None:
    async def story() -> None:
        world = World()
        await world.begin(make_version("slow", scale=ScaleRule(instances_max=3)))
        for _ in range(5):
            world.call("slow", 0.5)
        began = world.clock.monotonic()
        await world.settle()
        assert outcomes(world) == ["ok"] * 5
        assert len(world.node.cells) == 3
        assert world.clock.monotonic() - began == pytest.approx(1.05, abs=0.02)

    run_virtual(story)


def test_short_calls_do_not_flood_the_node_while_a_start_is_slow() -> None:
    async def story() -> None:
        world = World(starts_at_once=100)
        await world.begin(make_version("quick"))
        await world.call("quick", 0.002)
        for _ in range(20):
            world.call("quick", 0.002)
        await world.settle()
        assert outcomes(world) == ["ok"] * 21
        assert len(world.node.cells) == 1

    run_virtual(story)


def test_the_end_of_a_burst_keeps_what_was_scaled_up() -> None:
    async def story() -> None:
        world = World()
        await world.begin(make_version("burst"))
        for _ in range(8):
            world.call("burst", 0.5)
        await world.settle()
        assert len(world.node.instances) == 8
        for _ in range(8):
            await world.call("burst", 0.1)
            await asyncio.sleep(0.4)
        assert len(world.node.instances) == 8
        for _ in range(6):
            await world.call("burst", 0.1)
            await asyncio.sleep(0.4)
        assert len(world.node.instances) == 1

    run_virtual(story)


def test_instances_min_is_kept_and_max_is_never_passed() -> None:
    async def story() -> None:
        world = World()
        await world.begin(make_version("kept", scale=ScaleRule(instances_min=2, instances_max=3)))
        await asyncio.sleep(1)
        assert len(world.node.instances) == 2
        for _ in range(10):
            world.call("kept", 0.2)
        await asyncio.sleep(0.15)
        assert len(world.node.instances) == 3
        await world.settle()
        await asyncio.sleep(100)
        assert len(world.node.instances) == 2

    run_virtual(story)


def test_concurrency_packs_calls_into_one_instance() -> None:
    async def story() -> None:
        world = World()
        await world.begin(make_version("many", concurrency=4))
        for _ in range(4):
            world.call("many", 0.3)
        await world.settle()
        assert len(world.node.cells) == 1

    run_virtual(story)


def test_a_full_queue_answers_at_once() -> None:
    async def story() -> None:
        world = World(concurrent_executions_max=3)
        await world.begin(make_version("full", scale=ScaleRule(instances_max=1)))
        for _ in range(5):
            world.call("full", 0.1)
        await world.settle()
        assert sorted(outcomes(world)) == [ConcurrencyExceeded.code] * 2 + ["ok"] * 3

    run_virtual(story)


def test_a_waiting_call_is_answered_by_its_deadline() -> None:
    async def story() -> None:
        world = World()
        await world.begin(make_version("busy", scale=ScaleRule(instances_max=1)))
        first = world.call("busy", 2.0)
        await asyncio.sleep(0.1)
        await world.call("busy", 0.1, patience_s=0.5)
        assert world.results[0].outcome == ConcurrencyExceeded.code
        assert world.results[0].waited_s == pytest.approx(0.5)
        await first
        assert world.results[1].outcome == "ok"

    run_virtual(story)


def test_code_that_does_not_load_fails_all_waiting_calls_and_is_tried_rarely() -> None:
    async def story() -> None:
        world = World()
        world.node.failures = ["load_failed"] * 50
        await world.begin(make_version("broken"))
        for _ in range(3):
            world.call("broken", 0.1)
        await world.settle()
        assert outcomes(world) == [FunctionLoadFailed.code] * 3
        before = len(world.node.cells)
        await world.call("broken", 0.1)
        assert world.results[-1].outcome == FunctionLoadFailed.code
        assert world.results[-1].waited_s == 0.0
        assert len(world.node.cells) == before
        for _ in range(60):
            await asyncio.sleep(1)
            await world.call("broken", 0.1)
        assert len(world.node.cells) < before + 10

    run_virtual(story)


def test_a_missing_cell_is_tried_again_while_the_call_waits() -> None:
    async def story() -> None:
        world = World(start_s_max=1.5)
        world.node.failures = ["no_cell", "no_cell", "never_ready", "no_cell", "slow"]
        await world.begin(make_version("hard"))
        await world.call("hard", 0.01, patience_s=6.0)
        assert world.results[-1].outcome == "ok"
        assert world.violations == []

    run_virtual(story)


def test_a_call_that_never_gets_an_instance_says_why() -> None:
    async def story() -> None:
        world = World()
        world.node.failures = ["no_cell"] * 500
        await world.begin(make_version("hard"))
        await world.call("hard", 0.01, patience_s=2.0)
        assert outcomes(world) == [Unavailable.code]

    run_virtual(story)


def test_early_binding_is_earned_published_and_left_in_order() -> None:
    async def story() -> None:
        world = World()
        version = make_version("warm")
        await world.begin(version)
        for _ in range(12):
            await world.call("warm", 0.005)
        await asyncio.sleep(0.3)
        assert world.edge.early == {version.key}
        (instance,) = world.node.instances.values()
        assert world.edge.endpoints[version.key] == {instance.socket_path}
        assert world.scheduler.status().versions[0].phases == {Phase.PUBLISHED: 1}
        await asyncio.sleep(8)
        assert world.node.instances == {}
        assert world.edge.endpoints[version.key] == frozenset()
        assert world.edge.early == set()
        assert [what for what, _ in world.node.log] == ["start", "quiesce", "stop"]
        assert world.violations == []

    run_virtual(story)


def test_an_early_bound_version_is_kept_while_the_edge_calls_it() -> None:
    async def story() -> None:
        world = World()
        version = make_version("warm")
        await world.begin(version)
        for _ in range(400):
            await world.call("warm", 0.005)
            await asyncio.sleep(0.1)
        assert len(world.node.cells) == 1
        assert world.edge.early == {version.key}
        assert world.edge.counters[version.key].calls_total > 300

    run_virtual(story)


def test_a_version_that_becomes_slow_loses_early_binding_but_keeps_its_instances() -> None:
    async def story() -> None:
        world = World()
        version = make_version("warm")
        await world.begin(version)
        for _ in range(12):
            await world.call("warm", 0.005)
        await asyncio.sleep(0.3)
        (before,) = world.node.instances
        for second in range(6):
            world.edge.counters[version.key] = EdgeTraffic(30 * second, 1, 0, 0.1)
            await asyncio.sleep(1.0)
        assert world.edge.early == set()
        assert world.edge.endpoints[version.key] == frozenset()
        assert before in world.node.instances
        assert world.node.instances[before].state is InstanceState.READY

    run_virtual(story)


def test_a_new_version_takes_over_and_the_old_one_finishes_what_runs() -> None:
    async def story() -> None:
        world = World()
        old, new = make_version("app", "v1"), make_version("app", "v2")
        await world.begin(old)
        running = world.call("app", 1.0)
        await asyncio.sleep(0.2)
        timing = await world.scheduler.prepare(new)
        assert timing.load_ms == 2.0
        world.deploy(new)
        await world.call("app", 0.01)
        assert world.results[-1].waited_s == 0.0
        await running
        assert outcomes(world) == ["ok", "ok"]
        await asyncio.sleep(1.0)
        assert [one.version.digest for one in world.node.instances.values()] == ["v2"]

    run_virtual(story)


def test_preparing_a_broken_version_says_why_and_leaves_nothing() -> None:
    async def story() -> None:
        world = World()
        await world.begin(make_version("app", "v1"))
        world.node.failures = ["load_failed"]
        with pytest.raises(FunctionLoadFailed, match="boom"):
            await world.scheduler.prepare(make_version("app", "v2"))
        await asyncio.sleep(1)
        assert world.node.instances == {}
        assert world.scheduler.status().versions == ()

    run_virtual(story)


def test_a_prepared_version_that_no_alias_takes_is_ended_after_a_while() -> None:
    async def story() -> None:
        world = World(prepare_hold_s=3.0)
        await world.begin(make_version("app", "v1"))
        await world.scheduler.prepare(make_version("app", "v2"))
        await asyncio.sleep(2)
        assert len(world.node.instances) == 1
        await asyncio.sleep(2)
        assert world.node.instances == {}

    run_virtual(story)


def test_deleting_a_function_answers_its_waiting_calls() -> None:
    async def story() -> None:
        world = World()
        world.node.failures = ["slow"]
        await world.begin(make_version("app"), make_version("other"))
        world.call("app", 0.1)
        await asyncio.sleep(0.1)
        world.deploy(make_version("other"))
        await world.settle()
        assert outcomes(world) == [FunctionNotFound.code]
        await asyncio.sleep(3)
        assert world.node.instances == {}

    run_virtual(story)


def test_a_full_node_evicts_the_idlest_instance_for_a_version_that_has_none() -> None:
    async def story() -> None:
        world = World(instances_max=2)
        await world.begin(*(make_version(name) for name in ("a", "b", "c")))
        await world.call("a", 0.01)
        await world.call("b", 0.01)
        await world.call("c", 0.01)
        assert outcomes(world) == ["ok"] * 3
        assert sorted(one.version.function for one in world.node.instances.values()) == ["b", "c"]

    run_virtual(story)


def test_what_the_edge_calls_by_itself_is_not_idle() -> None:
    async def story() -> None:
        world = World(instances_max=2)
        await world.begin(*(make_version(name) for name in ("warm", "b", "c")))
        for _ in range(12):
            await world.call("warm", 0.005)
        await asyncio.sleep(0.3)
        (warm,) = world.node.instances
        for _ in range(20):
            await world.call("warm", 0.005)
            await asyncio.sleep(0.1)
        await world.call("b", 0.01)
        await world.call("warm", 0.005)
        await world.call("c", 0.01)
        assert outcomes(world) == ["ok"] * 35
        assert warm in world.node.instances
        assert world.violations == []

    run_virtual(story)


def test_an_instance_that_dies_is_replaced_and_its_endpoint_goes() -> None:
    async def story() -> None:
        world = World()
        version = make_version("warm")
        await world.begin(version)
        for _ in range(12):
            await world.call("warm", 0.005)
        await asyncio.sleep(0.3)
        (instance_id,) = world.node.instances
        world.node.end(instance_id, EndReason.OUT_OF_MEMORY)
        assert await world.scheduler.end_reason(instance_id, 1.0) is EndReason.OUT_OF_MEMORY
        await asyncio.sleep(0.1)
        assert instance_id not in str(world.edge.endpoints)
        await world.call("warm", 0.005)
        assert world.results[-1].outcome == "ok"

    run_virtual(story)


def test_only_the_node_says_why_an_instance_ended() -> None:
    """Asking it to leave finds it gone before the event tells that the node has killed it."""

    async def story() -> None:
        world = World()
        await world.begin(make_version("hungry"))
        await world.call("hungry", 0.005)
        (instance,) = world.node.instances.values()
        world.node.instances.clear()
        asked = asyncio.create_task(world.scheduler.end_reason(instance.instance_id, 10.0))
        world.deploy()
        await asyncio.sleep(1)
        assert world.scheduler.status().versions == ()
        assert not asked.done()
        world.node.instances[instance.instance_id] = instance
        world.node.end(instance.instance_id, EndReason.OUT_OF_MEMORY)
        assert await asked is EndReason.OUT_OF_MEMORY
        assert await world.scheduler.end_reason(instance.instance_id, 0.0) is EndReason.OUT_OF_MEMORY

    run_virtual(story)


def test_a_new_control_process_takes_running_instances_over() -> None:
    async def story() -> None:
        world = World()
        version = make_version("warm")
        await world.begin(version)
        for _ in range(12):
            await world.call("warm", 0.005)
        await asyncio.sleep(0.3)
        before = list(world.node.instances)
        (socket_path,) = world.edge.endpoints[version.key]
        world.node.away = True
        await world.scheduler.close()
        world.scheduler = world._control()
        world.scheduler.apply(world.snapshot)
        starting = asyncio.create_task(world.scheduler.start())
        await asyncio.sleep(5)
        assert not starting.done()
        assert world.edge.endpoints[version.key] == {socket_path}
        world.node.away = False
        await starting
        world.edge.early.discard(version.key)
        await world.call("warm", 0.005)
        assert world.results[-1].waited_s == 0.0
        await asyncio.sleep(0.5)
        assert list(world.node.instances) == before
        assert world.violations == []

    run_virtual(story)


def test_endpoints_of_instances_that_died_with_their_control_process_are_gone() -> None:
    async def story() -> None:
        world = World()
        await world.begin(make_version("warm"))
        for _ in range(12):
            await world.call("warm", 0.005)
        await asyncio.sleep(0.3)
        (instance_id,) = world.node.instances
        world.node.end(instance_id, EndReason.EXITED)
        await world.restart_control()
        await world.call("warm", 0.005)
        assert world.results[-1].outcome == "ok"
        await asyncio.sleep(30)
        assert not any(world.edge.endpoints.values())
        assert world.violations == []

    run_virtual(story)


def test_the_node_keeps_the_pools_it_was_told_also_after_it_was_away() -> None:
    async def story() -> None:
        world = World(pools={Runtime.NODE24: 2})
        await world.begin()
        assert world.node.pools == {Runtime.NODE24: 2}
        world.node.pools.clear()
        world.node.cut_streams()
        await asyncio.sleep(1)
        assert world.node.pools == {Runtime.NODE24: 2}

    run_virtual(story)


def test_a_refused_call_keeps_its_place_and_goes_to_another_instance() -> None:
    async def story() -> None:
        world = World()
        await world.begin(make_version("busy"))
        await world.call("busy", 0.01)
        (instance,) = world.node.instances.values()
        instance.running = 1  # the edge uses it, too
        await world.call("busy", 0.01)
        assert world.results[-1].outcome == "ok"
        assert len(world.node.instances) == 2

    run_virtual(story)


def test_closing_answers_waiting_calls_and_leaves_the_instances() -> None:
    async def story() -> None:
        world = World()
        await world.begin(make_version("slow", scale=ScaleRule(instances_max=1)))
        world.call("slow", 1.0)
        await asyncio.sleep(0.1)
        world.call("slow", 1.0)
        await asyncio.sleep(0.1)
        await world.scheduler.close()
        await world.settle()
        assert sorted(outcomes(world)) == ["ok", "shutting_down"]
        assert len(world.node.instances) == 1

    run_virtual(story)
