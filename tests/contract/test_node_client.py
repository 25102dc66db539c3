"""The contract of `NodeClient`, held by the fake and by a real node (processes, Node.js) over its socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Protocol

import pytest

from cloudlet.model.clock import SystemClock
from cloudlet.model.errors import FunctionLoadFailed, InstanceNotFound, NodeUnavailable, Unavailable
from cloudlet.model.function import FunctionConfig, Runtime, Version
from cloudlet.model.sandbox import (
    EndReason,
    InstanceEnded,
    InstanceState,
    InstanceStatus,
    NodeClient,
    NodeReport,
    StartRequest,
)
from cloudlet.node.client import SocketNodeClient
from cloudlet.node.fake import FakeNode
from cloudlet.node.instances import NodeLimits
from cloudlet.node.node import Node, NodeParts, prepare_directories, shown_directories
from cloudlet.sandbox.process import ProcessDriver
from cloudlet.settings import Paths

pytestmark = pytest.mark.anyio
INSTANCES_MAX = 3


class World(Protocol):
    """A node, its client, and what a test does behind the client's back."""

    client: NodeClient

    def version(self, function: str = "hello") -> Version: ...

    def broken_version(self) -> Version: ...

    def crash(self, status: InstanceStatus) -> None: ...

    async def disappear(self) -> None: ...


class FakeWorld:
    def __init__(self) -> None:
        self.node = FakeNode(instances_max=INSTANCES_MAX)
        self.client: NodeClient = self.node

    def version(self, function: str = "hello") -> Version:
        return version(function, Path("/nowhere"))

    def broken_version(self) -> Version:
        self.node.fail_starts("broken", FunctionLoadFailed("Error: boom\n    at index.js:1"))
        return version("broken", Path("/nowhere"))

    def crash(self, status: InstanceStatus) -> None:
        self.node.end(status.instance_id, detail="killed by signal 9")

    async def disappear(self) -> None:
        self.node.partition()


class RealWorld:
    def __init__(self, paths: Paths, node: Node, client: SocketNodeClient) -> None:
        self.client: NodeClient = client
        self._paths = paths
        self._node = node

    def version(self, function: str = "hello") -> Version:
        return self._write(function, "exports.main = async event => ({ event, pid: process.pid })")

    def broken_version(self) -> Version:
        return self._write("broken", "throw new Error('boom')")

    def crash(self, status: InstanceStatus) -> None:
        os.kill(status.pid, signal.SIGKILL)

    async def disappear(self) -> None:
        await self._node.close(0.0)

    def _write(self, function: str, text: str) -> Version:
        directory = self._paths.code / "default" / function / "1"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "index.js").write_text(text)
        return version(function, directory)


def version(function: str, directory: Path) -> Version:
    return Version("default", function, "0123456789abcdef", 1, FunctionConfig(), str(directory), 0.0)


@pytest.fixture
def data() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cl-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture(params=["fake", "http"])
async def world(request: pytest.FixtureRequest, data: Path) -> AsyncIterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    paths = Paths(data)
    prepare_directories(paths)
    async with AsyncExitStack() as stack:
        driver = ProcessDriver(shown_directories(paths))
        stack.push_async_callback(driver.close)
        node = Node(paths, NodeParts(driver, SystemClock()), NodeLimits("node", INSTANCES_MAX))
        await node.start()
        stack.push_async_callback(node.close, 1.0)
        client = await stack.enter_async_context(SocketNodeClient(paths.node_socket))
        yield RealWorld(paths, node, client)


async def next_event(events: AsyncIterator[NodeReport | InstanceEnded]) -> NodeReport | InstanceEnded:
    async with asyncio.timeout(20):
        return await anext(events)


async def test_a_started_instance_is_ready_and_reported(world: World) -> None:
    status = await world.client.start(StartRequest("a1", world.version()))
    assert status.instance_id == "a1"
    assert status.state is InstanceState.READY
    assert status.version == world.version().key
    assert status.socket_path.endswith("/a1.sock")
    report = await world.client.report()
    assert [(each.instance_id, each.state) for each in report.instances] == [("a1", InstanceState.READY)]


async def test_repeating_a_start_returns_the_instance_that_exists(world: World) -> None:
    request = StartRequest("a1", world.version())
    first, second = await asyncio.gather(world.client.start(request), world.client.start(request))
    third = await world.client.start(request)
    assert first.pid == second.pid == third.pid
    assert len((await world.client.report()).instances) == 1


async def test_a_function_that_cannot_be_loaded_fails_its_start_with_message_and_stack(world: World) -> None:
    with pytest.raises(FunctionLoadFailed, match=r"(?s)boom.*at .*index\.js"):
        await world.client.start(StartRequest("a1", world.broken_version()))
    assert (await world.client.report()).instances == ()


async def test_a_full_node_makes_no_instance(world: World) -> None:
    requests = [StartRequest(f"a{number}", world.version()) for number in range(INSTANCES_MAX)]
    await asyncio.gather(*map(world.client.start, requests))
    with pytest.raises(Unavailable):
        await world.client.start(StartRequest("b", world.version()))
    await world.client.stop("a0", 0.0)
    assert (await world.client.start(StartRequest("c", world.version()))).state is InstanceState.READY


async def test_quiesce_and_resume_can_be_repeated(world: World) -> None:
    await world.client.start(StartRequest("a1", world.version()))
    await world.client.quiesce("a1")
    await world.client.quiesce("a1")
    assert (await world.client.report()).instances[0].state is InstanceState.QUIESCED
    await world.client.resume("a1")
    await world.client.resume("a1")
    assert (await world.client.report()).instances[0].state is InstanceState.READY


async def test_unknown_instances_cannot_be_quiesced_but_stopped(world: World) -> None:
    with pytest.raises(InstanceNotFound):
        await world.client.quiesce("nobody")
    with pytest.raises(InstanceNotFound):
        await world.client.resume("nobody")
    await world.client.stop("nobody", 1.0)


async def test_a_stopped_instance_is_gone_and_stopping_can_be_repeated(world: World) -> None:
    await world.client.start(StartRequest("a1", world.version()))
    await asyncio.gather(world.client.stop("a1", 5.0), world.client.stop("a1", 5.0))
    await world.client.stop("a1", 5.0)
    assert (await world.client.report()).instances == ()
    with pytest.raises(InstanceNotFound):
        await world.client.quiesce("a1")


async def test_an_instance_can_be_stopped_while_it_starts_or_before(world: World) -> None:
    starting = asyncio.create_task(world.client.start(StartRequest("a1", world.version())))
    await asyncio.sleep(0)
    await world.client.stop("a1", 0.0)
    async with asyncio.timeout(20):
        outcome = (await asyncio.gather(starting, return_exceptions=True))[0]
    assert isinstance(outcome, Unavailable | InstanceStatus)
    assert (await world.client.report()).instances == ()
    with pytest.raises(Unavailable):
        await world.client.start(StartRequest("a1", world.version()))


async def test_events_begin_with_a_report_and_go_on_with_every_end(world: World) -> None:
    await world.client.start(StartRequest("a1", world.version()))
    async with aclosing(world.client.events()) as events:  # type: ignore[type-var]  # a generator in every twin
        report = await next_event(events)
        assert isinstance(report, NodeReport)
        assert [each.instance_id for each in report.instances] == ["a1"]
        status = await world.client.start(StartRequest("a2", world.version()))
        await world.client.stop("a1", 5.0)
        stopped = await next_event(events)
        assert isinstance(stopped, InstanceEnded)
        assert (stopped.instance_id, stopped.reason) == ("a1", EndReason.STOPPED)
        world.crash(status)
        crashed = await next_event(events)
        assert isinstance(crashed, InstanceEnded)
        assert (crashed.instance_id, crashed.reason) == ("a2", EndReason.EXITED)
        assert "signal 9" in crashed.detail
        with pytest.raises(FunctionLoadFailed):
            await world.client.start(StartRequest("a3", world.broken_version()))
        failed = await next_event(events)
        assert isinstance(failed, InstanceEnded)
        assert (failed.instance_id, failed.reason) == ("a3", EndReason.LOAD_FAILED)


async def test_an_instance_that_ended_refuses_connections_when_its_end_is_told(world: World) -> None:
    status = await world.client.start(StartRequest("a1", world.version()))
    async with aclosing(world.client.events()) as events:  # type: ignore[type-var]  # a generator in every twin
        await next_event(events)
        world.crash(status)
        await next_event(events)
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(OSError, match="No such file"):
        probe.connect(status.socket_path)


async def test_a_node_that_is_gone_is_unavailable_and_breaks_its_event_streams(world: World) -> None:
    async with aclosing(world.client.events()) as events:  # type: ignore[type-var]  # a generator in every twin
        await next_event(events)
        await world.disappear()
        with pytest.raises(StopAsyncIteration):
            await next_event(events)
    for call in (world.client.report(), world.client.stop("a1", 0.0), world.client.quiesce("a1")):
        with pytest.raises(NodeUnavailable):
            await call
    with pytest.raises(NodeUnavailable):
        await anext(aiter(world.client.events()))


async def test_pools_are_reported(world: World) -> None:
    await world.client.set_pool(Runtime.PYTHON3, 0)
    await world.client.set_pool(Runtime.NODE24, 1)
    assert Runtime.NODE24 in (await world.client.report()).pools
