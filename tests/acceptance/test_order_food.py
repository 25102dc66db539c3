"""The example project, end to end: the real edge, real instances, the SDKs from npm, files on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.acceptance.installation import Installation
from tests.acceptance.order_food import CHECKS, COLD, PROJECT, STAGES, World, cold_start, latencies

# One installation serves all of them, so all run in one worker.
pytestmark = pytest.mark.xdist_group("order-food")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    installation = Installation(tmp_path_factory.mktemp("order-food"))
    world = World(installation)
    try:
        installation.start()
        installation.deploy(PROJECT, "--create-collections")
        world.prepare(fresh=True)
        yield world
    finally:
        world.close()
        left = installation.stop()
    assert left == []


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_holds(world: World, check: Callable[[World], str]) -> None:
    assert check(world)


@pytest.mark.parametrize(("function", "data"), COLD, ids=[function for function, _ in COLD])
def test_a_cold_start_explains_itself(world: World, function: str, data: dict[str, Any]) -> None:
    first, second = cold_start(world, function, data)
    assert first.ok and second.ok
    assert {"load", "handler"} <= first.stages.keys()
    assert "load" not in second.stages
    assert 0 < sum(first.stages.get(stage, 0) for stage in STAGES) <= first.elapsed_ms


def test_warm_calls_are_measured(world: World) -> None:
    measured = latencies(world, calls=20)
    assert all(0 < each.p50_ms <= each.p95_ms for each in measured)
