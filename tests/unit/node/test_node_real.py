"""A whole node with real processes and the Node.js shim."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cloudlet.model.clock import SystemClock
from cloudlet.model.function import FunctionConfig, Runtime, Version
from cloudlet.model.sandbox import EndReason, InstanceEnded, InstanceStatus, StartRequest
from cloudlet.node.client import SocketNodeClient
from cloudlet.node.instances import NodeLimits
from cloudlet.node.logs import LogQuery
from cloudlet.node.node import Node, NodeParts, prepare_directories, shown_directories
from cloudlet.node.platform_client import DoorAdded, DoorRemoved, PlatformListeners
from cloudlet.sandbox.process import ProcessDriver
from cloudlet.settings import Paths

pytestmark = pytest.mark.anyio


class Scene:
    def __init__(self, paths: Paths, node: Node, client: SocketNodeClient) -> None:
        self.paths = paths
        self.node = node
        self.client = client

    async def start(self, text: str, instance_id: str = "a1", **config: object) -> InstanceStatus:
        directory = self.paths.code / "default" / "fn" / str(abs(hash(text)))
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "index.js").write_text(text)
        settings = FunctionConfig(**config)  # type: ignore[arg-type]  # each test names a few fields
        version = Version("default", "fn", "d1", 1, settings, str(directory), 0.0)
        return await self.client.start(StartRequest(instance_id, version))

    async def ended_after_call(self, status: InstanceStatus) -> InstanceEnded:
        """Call the instance, which is not going to answer, and return how it ended."""
        async with aclosing(self.client.events()) as events, asyncio.timeout(30):  # type: ignore[type-var]
            await anext(events)
            with pytest.raises(aiohttp.ClientError):
                await call(status)
            event = await anext(events)
            assert isinstance(event, InstanceEnded)
            return event


async def call(status: InstanceStatus, request_id: str = "r-1") -> Any:
    headers = {"x-request-id": request_id, "x-cloudlet-env": "default", "x-cloudlet-function": "fn"}
    connector = aiohttp.UnixConnector(status.socket_path)
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.post("http://instance/", data=b"{}", headers=headers) as response:
            return await response.json()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="cl-", dir="/tmp") as name:
        paths = Paths(Path(name))
        prepare_directories(paths)
        async with AsyncExitStack() as stack:
            driver = ProcessDriver(shown_directories(paths))
            stack.push_async_callback(driver.close)
            node = Node(paths, NodeParts(driver, SystemClock()), NodeLimits())
            await node.start()
            stack.push_async_callback(node.close, 1.0)
            client = await stack.enter_async_context(SocketNodeClient(paths.node_socket))
            yield Scene(paths, node, client)
        assert not paths.run.exists()


async def test_a_function_answers_and_its_lines_are_found_by_request(scene: Scene) -> None:
    status = await scene.start("exports.main = () => { console.log('hello'); console.error('oh'); return 7 }")
    assert await call(status, "r-1") == 7
    assert await call(status, "r-2") == 7
    records = await scene.client.logs(LogQuery("default", "fn", request_id="r-2"))
    assert sorted((each.instance, each.level, each.text) for each in records) == [
        ("a1", "error", "oh"),
        ("a1", "info", "hello"),
    ]


async def test_an_endless_loop_is_killed_after_its_time(scene: Scene) -> None:
    status = await scene.start("exports.main = async () => { await 1; while (true) {} }", timeout_s=0.2)
    ended = await scene.ended_after_call(status)
    assert ended.reason is EndReason.TIMEOUT


async def test_memory_outside_of_the_heap_is_bounded(scene: Scene) -> None:
    text = "const a = []; exports.main = () => { while (true) a.push(Buffer.alloc(1e6, 1)) }"
    status = await scene.start(text, memory_mb=64, timeout_s=20.0)
    ended = await scene.ended_after_call(status)
    assert ended.reason is EndReason.OUT_OF_MEMORY


async def test_the_heap_is_bounded(scene: Scene) -> None:
    text = "const a = []; exports.main = () => { while (true) a.push({ x: Math.random() + 'y' }) }"
    status = await scene.start(text, memory_mb=64, timeout_s=20.0)
    ended = await scene.ended_after_call(status)
    assert ended.reason is EndReason.OUT_OF_MEMORY


async def test_a_flooding_function_does_not_hold_up_the_node(scene: Scene) -> None:
    text = "exports.main = () => { while (true) console.log('x'.repeat(1000)) }"
    status = await scene.start(text, timeout_s=0.5)
    assert (await scene.ended_after_call(status)).reason is EndReason.TIMEOUT
    log = scene.node.logs.path("default", "fn")
    assert 0 < log.stat().st_size < 8 * 1024 * 1024


async def test_the_api_process_hears_of_the_instances_doors(scene: Scene) -> None:
    async with PlatformListeners(scene.paths.platform_socket) as doors, asyncio.timeout(30):
        async with aclosing(aiter(doors)) as changes:  # type: ignore[type-var]  # an async generator
            status = await scene.start("exports.main = () => process.env.TCB_CONTEXT_CNFG")
            added = await anext(changes)
            assert isinstance(added, DoorAdded)
            with added.listener:
                port = added.listener.getsockname()[1]
            assert json.loads(await call(status)) == {"URL": f"http://127.0.0.1:{port}/admin"}
            await scene.client.stop("a1", 5.0)
            assert await anext(changes) == DoorRemoved("a1")


async def test_files_that_a_function_leaves_are_removed(scene: Scene) -> None:
    text = (
        "const fs = require('fs'), dir = process.env.TMPDIR + '/a/b';"
        "exports.main = () => { fs.mkdirSync(dir, { recursive: true }); return 1 }"
    )
    status = await scene.start(text)
    assert await call(status) == 1
    await scene.client.stop("a1", 5.0)
    assert list(scene.paths.instances.iterdir()) == []


async def test_an_instance_from_the_pool_says_so(scene: Scene) -> None:
    await scene.client.set_pool(Runtime.NODE24, 1)
    async with asyncio.timeout(30):
        while True:
            if (await scene.client.report()).pools.get(Runtime.NODE24) == 1:
                break
            await asyncio.sleep(0.01)
    status = await scene.start("exports.main = () => 1")
    assert status.timing.pooled
    assert status.timing.sandbox_ms == 0.0
    assert await call(status) == 1


PARENT = """
import asyncio, pathlib, sys
from cloudlet.model.clock import SystemClock
from cloudlet.model.function import FunctionConfig, Version
from cloudlet.model.sandbox import StartRequest
from cloudlet.node.instances import NodeLimits
from cloudlet.node.node import Node, NodeParts, prepare_directories, shown_directories
from cloudlet.sandbox.process import ProcessDriver
from cloudlet.settings import Paths
async def main():
    paths = Paths(pathlib.Path(sys.argv[1]))
    prepare_directories(paths)
    code = paths.code / "fn"
    code.mkdir()
    (code / "index.js").write_text("exports.main = () => { while (true) {} }")
    node = Node(paths, NodeParts(ProcessDriver(shown_directories(paths)), SystemClock()), NodeLimits())
    await node.start()
    version = Version("default", "fn", "d1", 1, FunctionConfig(timeout_s=60.0), str(code), 0.0)
    status = await node.instances.start(StartRequest("a1", version))
    print("pid", status.pid, status.socket_path, flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
async def test_instances_die_with_a_node_that_is_killed_and_the_next_one_cleans_up() -> None:
    with tempfile.TemporaryDirectory(prefix="cl-", dir="/tmp") as name:
        pidfd, socket_path = instance_of_killed_node(name)
        try:
            await has_ended(pidfd)
        finally:
            os.close(pidfd)
        assert socket_path.exists()
        paths = Paths(Path(name))
        prepare_directories(paths)
        assert not socket_path.exists()
        shutil.rmtree(paths.run)


def instance_of_killed_node(data: str) -> tuple[int, Path]:
    """Start a node with an instance and kill it; return a pidfd and the socket of the instance."""
    parent = subprocess.Popen((sys.executable, "-c", PARENT, data), stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        with parent.stdout:
            while not (line := parent.stdout.readline()).startswith("pid"):
                assert line
        _, pid, socket_path = line.split()
        return os.pidfd_open(int(pid)), Path(socket_path)
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()


async def has_ended(pidfd: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(20):
            await ended.wait()
    finally:
        loop.remove_reader(pidfd)
