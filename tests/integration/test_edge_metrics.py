"""The edge's numbers, from a real Envoy: its names are not ours to decide."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cloudlet.gateway.envoy.metrics import edge_metrics
from cloudlet.gateway.envoy.structure import EdgeModel
from cloudlet.model.errors import EdgeUnavailable
from tests.integration.edge_support import ADD, Edge, busy, model, running_edge

pytestmark = pytest.mark.anyio

VERSION = {"environment": ADD.environment, "function": ADD.function, "version": ADD.digest}


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with running_edge() as started:
        yield started


async def value(edge: Edge, name: str, **labels: str) -> float | None:
    """The sample with exactly these labels."""
    text = (await edge_metrics(edge.admin)).decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if (sample.name, sample.labels) == (name, labels):
                return float(sample.value)
    return None


async def test_calls_are_counted_by_status_and_by_version(edge: Edge) -> None:
    await edge.serve_early(await edge.instance())
    for _ in range(3):
        await edge.call()
    await edge.call(headers={})
    await edge.call(path="/nothing")
    assert await value(edge, "cloudlet_edge_calls_total", **{"class": "2xx"}) == 4
    assert await value(edge, "cloudlet_edge_calls_total", **{"class": "4xx"}) == 1
    assert await value(edge, "cloudlet_edge_version_calls_total", **VERSION) == 3
    assert await value(edge, "cloudlet_edge_version_active_calls", **VERSION) == 0
    assert await value(edge, "cloudlet_edge_forwarded_calls_total", upstream="api") == 1
    assert await value(edge, "cloudlet_edge_active_calls") == 0
    assert await value(edge, "cloudlet_edge_active_connections") == 1
    assert await value(edge, "cloudlet_edge_call_duration_seconds_count") is not None


async def test_refused_calls_are_counted(edge: Edge) -> None:
    await edge.serve_early(await edge.instance(answer=busy))
    await edge.call()
    assert await value(edge, "cloudlet_edge_version_refused_calls_total", **VERSION) == 1
    assert await value(edge, "cloudlet_edge_version_calls_total", **VERSION) == 2


async def test_a_version_that_lost_its_cluster_is_no_longer_named(edge: Edge) -> None:
    await edge.serve_early(await edge.instance())
    await edge.call()
    await edge.serve_late()
    # The cluster stays for a moment, for calls that are still on their way.
    async with asyncio.timeout(20):
        while await value(edge, "cloudlet_edge_version_calls_total", **VERSION) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_what_envoy_refuses_is_counted_by_file(edge: Edge) -> None:
    name = "cloudlet_edge_rejected_updates_total"
    for file in ("clusters", "routes", "keys", "bans"):
        assert await value(edge, name, file=file) == 0
    refused = replace(model(early=False).functions[0], timeout_s=-100.0)
    with pytest.raises(EdgeUnavailable):
        await edge.publisher.publish(EdgeModel((), (refused,)))
    assert await value(edge, name, file="routes") == 1
    installer = edge.publisher._installer
    type_url = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
    for file, path in (("clusters", installer.clusters), ("keys", installer.keys), ("bans", installer.bans)):
        resource = {"@type": type_url, "name": "other", "typed_config": {"@type": "nothing"}}
        before = path.path.read_bytes()
        with pytest.raises(EdgeUnavailable):
            await installer.install(path, [resource])
        assert path.path.read_bytes() == before
        assert (await value(edge, name, file=file) or 0) >= 1, file


async def test_an_edge_that_is_away_says_so(edge: Edge) -> None:
    await edge.stop_envoy()
    with pytest.raises(EdgeUnavailable):
        await edge_metrics(edge.admin)
