"""The page with the metrics of all processes."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Counter

from cloudlet.model.errors import Unavailable
from cloudlet.serve import scrape
from cloudlet.serve.scrape import Scrape

pytestmark = pytest.mark.anyio


async def present() -> bytes:
    return b"cloudlet_other_calls_total 3.0\n"


async def away() -> bytes:
    raise Unavailable


async def hung() -> bytes:
    await asyncio.Event().wait()
    return b""


async def test_who_does_not_answer_is_named_and_the_others_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "SOURCE_S_MAX", 0.01)
    registry = CollectorRegistry()
    Counter("cloudlet_api_calls_total", "Calls", registry=registry).inc()
    page = await Scrape(registry, {"control": present, "edge": away, "node": hung})()
    lines = page.decode().splitlines()
    assert "cloudlet_api_calls_total 1.0" in lines
    assert "cloudlet_other_calls_total 3.0" in lines
    assert 'cloudlet_observe_source_up{source="control"} 1.0' in lines
    assert 'cloudlet_observe_source_up{source="edge"} 0.0' in lines
    assert 'cloudlet_observe_source_up{source="node"} 0.0' in lines


async def test_scrapes_do_not_pile_up() -> None:
    running, most = 0, 0

    async def slow() -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return b""

    page = Scrape(CollectorRegistry(), {"node": slow})
    await asyncio.gather(*(page() for _ in range(10)))
    assert most == 1
