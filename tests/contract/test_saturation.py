"""More calls than instances, exact in virtual time; `tests/faults/test_saturation.py` has real processes."""

from __future__ import annotations

import asyncio
import random

import pytest

from cloudlet.model.function import ScaleRule
from tests.contract.activator_support import with_config
from tests.contract.saturation_support import Held, Story, p95_s, story
from tests.property.virtual_time import VirtualClock, run_virtual

SPAN_S_MAX = 1.2
FAST_P95_S_MAX = 0.06
CALLERS = 8


@pytest.mark.parametrize("spin", [0, 1], ids=["waiting", "spinning"])
@pytest.mark.parametrize("history", ["cold", "fast"])
def test_five_calls_of_half_a_second_over_three_instances(history: str, spin: int) -> None:
    async def tell() -> None:
        async with story(with_config(scale=ScaleRule(instances_max=3))) as told:
            if history == "fast":
                await told.earn_early_binding()
            began = asyncio.get_running_loop().time()
            calls = await asyncio.gather(*(told.call(ms=500, spin=spin) for _ in range(5)))
            took = asyncio.get_running_loop().time() - began
            assert [call.status for call in calls] == [200] * 5
            instances = told.system.node.instances.values()
            assert len(instances) <= 3
            assert all(one.overlaps == 0 for one in instances)
            if not spin:
                assert took < SPAN_S_MAX

    run_virtual(tell)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_fast_calls_of_a_function_that_is_sometimes_slow_stay_fast(seed: int) -> None:
    """Nine of ten calls take 2 ms, the tenth 500 ms; it was fast until now. That needs no more instances than
    there are callers, and some because nobody can know how many there are."""

    async def tell() -> None:
        async with story(with_config(scale=ScaleRule(instances_max=1000)), seed) as told:
            await told.earn_early_binding()
            calls = await _mixed(told, random.Random(seed))
            assert {call.status for call, _ in calls} == {200}
            assert not told.early
            assert len(told.system.node.instances) < 3 * CALLERS
            assert p95_s([call for call, ms in calls if ms == 2]) < FAST_P95_S_MAX

    run_virtual(tell)


class RestlessClock(VirtualClock):
    """Its wall clock is set by hours whenever somebody looks."""

    def __init__(self) -> None:
        self._chance = random.Random(4)

    def now(self) -> float:
        return super().now() + self._chance.uniform(-1, 1) * 86400


def test_setting_the_clock_changes_no_turn() -> None:
    async def tell(clock: VirtualClock) -> list[Held]:
        async with story(with_config(scale=ScaleRule(instances_max=3)), clock=clock) as told:
            await told.earn_early_binding()
            return list(await asyncio.gather(*(told.call(ms=500) for _ in range(5))))

    def times(clock: VirtualClock) -> list[tuple[float, float, float]]:
        calls = run_virtual(lambda: tell(clock))
        assert [call.status for call in calls] == [200] * 5
        return [(call.began, call.ended, call.took) for call in calls]

    assert times(RestlessClock()) == times(VirtualClock())


async def _mixed(told: Story, chance: random.Random) -> list[tuple[Held, int]]:
    """Callers without pause."""
    seen: list[tuple[Held, int]] = []

    async def play() -> None:
        for _ in range(200):
            ms = 500 if chance.random() < 0.1 else 2
            seen.append((await told.call(ms=ms), ms))

    await asyncio.gather(*(play() for _ in range(CALLERS)))
    return seen
