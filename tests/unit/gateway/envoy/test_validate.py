"""Every file that we render, read by the real Envoy."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudlet.dialects.errors import edge_replies
from cloudlet.gateway.envoy.bans import ban_filter
from cloudlet.gateway.envoy.bootstrap import Candidate
from cloudlet.gateway.envoy.keys import PublicKey, session_filter
from cloudlet.gateway.envoy.options import EdgeFiles, EdgeOptions
from cloudlet.gateway.envoy.structure import (
    EdgeEnvironment,
    EdgeFunction,
    EdgeModel,
    clusters,
    route_configuration,
)
from cloudlet.gateway.envoy.validate import validate
from cloudlet.model.errors import EdgeUnavailable

pytestmark = pytest.mark.anyio

FUNCTIONS = (
    EdgeFunction("env-1", "add", "aaaa", 0.5, early=True),
    EdgeFunction("env-1", "add2", "bbbb", 900.0),
    EdgeFunction("Env-1", "add", "aaaa", 3.0),
)
ENVIRONMENTS = (EdgeEnvironment("env-1", ("old.id", "x|y")), EdgeEnvironment("Env-1"))


def options(tmp_path: Path, concurrency: int = 1) -> EdgeOptions:
    return EdgeOptions(
        "127.0.0.1",
        0,
        EdgeFiles(tmp_path / "edge", tmp_path / "e.sock"),
        tmp_path / "act.sock",
        tmp_path / "api.sock",
        tmp_path / "xds.sock",
        replies=tuple(edge_replies()),
        concurrency=concurrency,
    )


def candidate(model: EdgeModel) -> Candidate:
    return Candidate(
        clusters=tuple(clusters(model.early)),
        routes=route_configuration(model),
        keys=session_filter([PublicKey.unusable(), PublicKey.unusable()]),
        bans=ban_filter(["s1", "s2"]),
    )


@pytest.mark.parametrize(
    "model",
    [EdgeModel(), EdgeModel(ENVIRONMENTS), EdgeModel(ENVIRONMENTS, FUNCTIONS), EdgeModel((), FUNCTIONS)],
)
async def test_envoy_takes_what_we_render(tmp_path: Path, model: EdgeModel) -> None:
    await validate(options(tmp_path), candidate(model))


async def test_envoy_takes_it_with_several_workers(tmp_path: Path) -> None:
    await validate(options(tmp_path, concurrency=2), candidate(EdgeModel()))


async def test_a_misspelt_field_and_a_wrong_value_are_found(tmp_path: Path) -> None:
    good = candidate(EdgeModel(ENVIRONMENTS, FUNCTIONS))
    misspelt = Candidate(good.clusters, {**good.routes, "misspelt": 1}, good.keys, good.bans)
    with pytest.raises(EdgeUnavailable, match="misspelt"):
        await validate(options(tmp_path), misspelt)
    wrong = candidate(EdgeModel((), (EdgeFunction("env-1", "add", "a", -70.0),)))
    with pytest.raises(EdgeUnavailable, match="duration"):
        await validate(options(tmp_path), wrong)
