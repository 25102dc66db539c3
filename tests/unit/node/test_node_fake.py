"""The twin of a node: virtual time and ordered failures."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from cloudlet.model.errors import NodeUnavailable, Unavailable
from cloudlet.model.function import FunctionConfig, Runtime, Version
from cloudlet.model.sandbox import EndReason, InstanceEnded, InstanceState, NodeReport, StartRequest
from cloudlet.node import hub
from cloudlet.node.fake import FakeNode
from cloudlet.node.hub import EventHub

pytestmark = pytest.mark.anyio
VERSION = Version("env", "fn", "d1", 1, FunctionConfig(), "/nowhere", 0.0)


async def settle() -> None:
    """Let everything that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_start_takes_the_virtual_time_that_was_ordered() -> None:
    node = FakeNode()
    node.delays["start"] = 0.5
    starting = asyncio.create_task(node.start(StartRequest("a1", VERSION)))
    await settle()
    assert (await node.report()).instances[0].state is InstanceState.STARTING
    node.advance(0.4)
    await settle()
    assert not starting.done()
    node.advance(0.2)
    assert (await starting).state is InstanceState.READY


async def test_a_stop_waits_for_what_runs_as_long_as_its_grace_allows() -> None:
    node = FakeNode()
    for instance_id, busy_s in (("short", 1.0), ("long", 100.0)):
        await node.start(StartRequest(instance_id, VERSION))
        node.set_busy(instance_id, busy_s)
    stops = [asyncio.create_task(node.stop(instance_id, 5.0)) for instance_id in ("short", "long")]
    await settle()
    node.advance(1.0)
    await settle()
    assert [stop.done() for stop in stops] == [True, False]
    node.advance(4.0)
    await settle()
    assert [stop.done() for stop in stops] == [True, True]
    assert node.calls[-2:] == [("stop", "short"), ("stop", "long")]


async def test_a_partition_hides_the_node_but_not_its_instances() -> None:
    node = FakeNode()
    await node.start(StartRequest("a1", VERSION))
    node.partition()
    with pytest.raises(NodeUnavailable):
        await node.report()
    node.heal()
    assert [each.instance_id for each in (await node.report()).instances] == ["a1"]
    async with aclosing(node.events()) as events:  # type: ignore[type-var]  # an async generator
        assert isinstance(await anext(events), NodeReport)
        node.end("a1", EndReason.TIMEOUT)
        ended = await anext(events)
        assert isinstance(ended, InstanceEnded)
        assert ended.reason is EndReason.TIMEOUT


async def test_failing_starts_can_be_mended() -> None:
    node = FakeNode()
    node.fail_starts("fn", Unavailable("no cell"))
    with pytest.raises(Unavailable, match="no cell"):
        await node.start(StartRequest("a1", VERSION))
    node.fail_starts("fn", None)
    assert (await node.start(StartRequest("a1", VERSION))).state is InstanceState.READY
    assert Runtime.NODE24 not in (await node.report()).pools


async def test_a_subscriber_that_lags_is_cut_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "BEHIND_MAX", 3)
    events = EventHub(lambda: NodeReport("node", ()))
    lagging, reading = aiter(events.subscribe()), aiter(events.subscribe())
    await anext(lagging)
    await anext(reading)
    for number in range(5):
        events.publish(InstanceEnded(str(number), VERSION.key, EndReason.EXITED))
        received = await anext(reading)
        assert isinstance(received, InstanceEnded)
        assert received.instance_id == str(number)
    assert [each async for each in lagging] == [
        InstanceEnded(str(number), VERSION.key, EndReason.EXITED) for number in range(3)
    ]
    events.close()
    assert [each async for each in reading] == []
