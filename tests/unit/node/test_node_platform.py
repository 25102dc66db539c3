"""The doors of instances, handed over between processes."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from cloudlet.model.errors import NodeUnavailable
from cloudlet.node import platform
from cloudlet.node.platform import PlatformDoor, PlatformServer, open_door
from cloudlet.node.platform_client import DoorAdded, DoorRemoved, PlatformListeners

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server() -> AsyncIterator[PlatformServer]:
    with tempfile.TemporaryDirectory(prefix="cl-", dir="/tmp") as name:
        server = PlatformServer(Path(name) / "platform.sock")
        server.start()
        yield server
        server.close()
        server.close()
        assert list(Path(name).iterdir()) == []


async def change(changes: AsyncIterator[DoorAdded | DoorRemoved]) -> DoorAdded | DoorRemoved:
    async with asyncio.timeout(20):
        return await anext(changes)


async def hears_on(added: DoorAdded, door: PlatformDoor) -> bool:
    """Whether a connection to the door's address arrives at the listener that was handed over."""
    loop = asyncio.get_running_loop()
    with added.listener, socket.socket() as caller:
        caller.setblocking(False)
        await loop.sock_connect(caller, door.listener.getsockname())
        async with asyncio.timeout(20):
            accepted, address = await loop.sock_accept(added.listener)
        with accepted:
            return bool(address == caller.getsockname())


async def test_a_receiver_hears_of_the_doors_there_are_and_of_every_change(server: PlatformServer) -> None:
    first = open_door("i1", "env", "one")
    server.add(first)
    async with PlatformListeners(server.path) as doors, aclosing(aiter(doors)) as changes:  # type: ignore[type-var]
        added = await change(changes)
        assert isinstance(added, DoorAdded)
        assert (added.instance, added.environment, added.function) == ("i1", "env", "one")
        assert added.secret_key == first.credentials.secret_key
        assert await hears_on(added, first)
        # A removal and an addition that arrive together: the descriptor belongs to the addition.
        second = open_door("i2", "env", "two")
        server.remove("i1")
        server.add(second)
        removed, added = await change(changes), await change(changes)
        assert removed == DoorRemoved("i1")
        assert isinstance(added, DoorAdded)
        assert await hears_on(added, second)


async def test_a_receiver_that_comes_back_is_told_everything_again(server: PlatformServer) -> None:
    door = open_door("i1", "env", "one")
    server.add(door)
    for _ in range(2):
        async with PlatformListeners(server.path) as doors, aclosing(aiter(doors)) as changes:  # type: ignore[type-var]
            added = await change(changes)
            assert isinstance(added, DoorAdded)
            assert await hears_on(added, door)


async def test_the_stream_ends_with_the_node(server: PlatformServer) -> None:
    async with PlatformListeners(server.path) as doors, aclosing(aiter(doors)) as changes:  # type: ignore[type-var]
        waiting = asyncio.create_task(change(changes))
        await asyncio.sleep(0)
        server.close()
        with pytest.raises(StopAsyncIteration):
            await waiting
    with pytest.raises(NodeUnavailable):
        await PlatformListeners(server.path).__aenter__()


async def test_a_receiver_that_does_not_read_is_cut_and_costs_no_descriptors(
    server: PlatformServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "PENDING_MAX", 20)
    before = len(list(Path("/dev/fd").iterdir()))
    with socket.socket(socket.AF_UNIX) as lazy:
        lazy.connect(str(server.path))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert server.receivers == 1
        for _ in range(10_000):
            server.add(open_door("i1", "env", "f" * 60))
            server.remove("i1")
            if not server.receivers:
                break
        assert server.receivers == 0
    assert len(list(Path("/dev/fd").iterdir())) <= before + 1
