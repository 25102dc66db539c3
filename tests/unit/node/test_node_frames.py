"""Messages on the node's socket."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from cloudlet.model.clock import SystemClock
from cloudlet.model.errors import InvalidParameter
from cloudlet.model.function import FunctionConfig, Version
from cloudlet.model.sandbox import StartRequest
from cloudlet.node.cells import CellMaker
from cloudlet.node.client import SocketNodeClient
from cloudlet.node.frames import (
    REQUEST_BYTES_MAX,
    FrameSplitter,
    FrameTooLong,
    Reply,
    Request,
    encoded,
    framed,
)
from cloudlet.node.instances import Instances, NodeLimits
from cloudlet.node.logs import LogQuery, LogStore
from cloudlet.node.platform import PlatformServer
from cloudlet.node.pools import Pools
from cloudlet.node.runtimes import Runtimes
from cloudlet.node.server import NodeServer
from cloudlet.runtime import bundle
from cloudlet.sandbox.fake import FakeDriver


@given(st.lists(st.binary(max_size=50)), st.lists(st.integers(1, 9), min_size=1))
def test_messages_come_out_whole_however_they_were_cut(bodies: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    splitter = FrameSplitter(50)
    found: list[bytes] = []
    at = turn = 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        found += splitter.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert found == bodies


def test_a_message_that_announces_too_much_is_refused_before_it_comes() -> None:
    splitter = FrameSplitter(10)
    assert splitter.feed(b"\0\0\0\x0a0123456789\0\0\0") == [b"0123456789"]
    with pytest.raises(FrameTooLong):
        splitter.feed(b"\x0b")


@pytest.fixture
async def path() -> AsyncIterator[Path]:
    """The socket of a server without any instance."""
    with tempfile.TemporaryDirectory(prefix="cl-", dir="/tmp") as name:
        root = Path(name)
        driver, clock, runtimes = FakeDriver(), SystemClock(), Runtimes(root)
        pools = Pools(CellMaker(driver, runtimes, bundle.command, root, clock))
        logs = LogStore(root / "logs")
        platform = PlatformServer(root / "platform.sock")
        instances = Instances(pools, platform, logs, root, driver.rung, NodeLimits(), clock)
        server = NodeServer(root / "node.sock", instances, runtimes, CollectorRegistry())
        await server.start()
        yield root / "node.sock"
        await instances.close(0.0)
        await server.close()
        assert not (root / "node.sock").exists()


@pytest.mark.anyio
async def test_what_is_no_request_is_answered_with_an_error(path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(framed(Request(1, "dance")) + framed(Request(2, "stop", encoded("a1"))))
    found = [msgspec.msgpack.decode(await _message(reader), type=Reply) for _ in range(2)]
    assert sorted((reply.number, reply.error.code if reply.error is not None else "") for reply in found) == [
        (1, "invalid_parameter"),
        (2, "invalid_parameter"),
    ]
    writer.close()
    await writer.wait_closed()


@pytest.mark.anyio
@pytest.mark.parametrize("nonsense", [b"\xff\xff\xff\xff", b"\0\0\0\x01\xc1"])
async def test_a_client_that_speaks_nonsense_is_cut_and_others_are_not(path: Path, nonsense: bytes) -> None:
    async with SocketNodeClient(path) as client:
        assert (await client.report()).instances == ()
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(nonsense)
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        assert (await client.report()).instances == ()


@pytest.mark.anyio
async def test_a_request_too_large_and_a_name_that_leaves_its_directory_are_refused(path: Path) -> None:
    config = FunctionConfig(environment_variables={"LONG": "x" * REQUEST_BYTES_MAX})
    large = StartRequest("a1", Version("env", "fn", "d1", 1, config, "/nowhere", 0.0))
    async with SocketNodeClient(path) as client:
        with pytest.raises(InvalidParameter):
            await client.start(large)
        with pytest.raises(InvalidParameter):
            await client.logs(LogQuery("env", "../fn"))
        assert (await client.report()).instances == ()


async def _message(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(20):
        return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
