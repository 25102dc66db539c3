"""Reading Envoy's administration: what it says, and what happens when it says something else."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from cloudlet.gateway.envoy.admin import AdminClient, listening_port, ready
from cloudlet.model.errors import EdgeUnavailable

pytestmark = pytest.mark.anyio

STATS = {
    "stats": [
        {"name": "cluster.v/e/f/1.upstream_rq_total", "value": 7},
        {"name": "cluster_manager.cds.version_text", "value": "abc"},
        {
            "histograms": {
                "supported_quantiles": [0.0, 50.0, 95.0],
                "computed_quantiles": [
                    {
                        "name": "cluster.v/e/f/1.upstream_rq_time",
                        "values": [
                            {"interval": 1.0, "cumulative": 1.0},
                            {"interval": 2.0, "cumulative": 2.0},
                            {"interval": None, "cumulative": 9.5},
                        ],
                    }
                ],
            }
        },
    ]
}


@pytest.fixture
async def socket() -> AsyncIterator[Path]:
    """A stand-in for the admin socket: ``/stats`` answers well, ``/listeners`` without a listener."""

    async def stats(request: web.Request) -> web.Response:
        return web.json_response(STATS if request.query["filter"] == "all" else {})

    async def listeners(request: web.Request) -> web.Response:
        return web.json_response({"listener_statuses": []})

    async def not_ready(request: web.Request) -> web.Response:
        return web.Response(status=503, text="INITIALIZING")

    directory = Path(tempfile.mkdtemp(prefix="admin-"))
    app = web.Application()
    app.router.add_get("/stats", stats)
    app.router.add_get("/listeners", listeners)
    app.router.add_get("/ready", not_ready)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(directory / "s")).start()
        yield directory / "s"
    finally:
        await runner.cleanup()
        shutil.rmtree(directory)


async def test_statistics_become_numbers_texts_and_percentiles(socket: Path) -> None:
    client = AdminClient(socket)
    try:
        values = await client.stats("all")
        assert await client.stats("none") == {}
    finally:
        await client.close()
    assert values["cluster_manager.cds.version_text"] == "abc"
    assert values["cluster.v/e/f/1.upstream_rq_total"] == 7
    assert values["cluster.v/e/f/1.upstream_rq_time"] == {0: 1.0, 50: 2.0, 95: None}


async def test_an_edge_that_is_not_ready_or_has_no_listener(socket: Path) -> None:
    assert not await ready(socket)
    with pytest.raises(EdgeUnavailable, match="no listener"):
        await listening_port(socket)
    client = AdminClient(socket)
    try:
        with pytest.raises(EdgeUnavailable, match="not ready"):
            await client.wait_ready(0.0)
    finally:
        await client.close()


async def test_nobody_there(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    assert not await ready(missing)
    with pytest.raises(EdgeUnavailable, match="does not answer"):
        await listening_port(missing)
