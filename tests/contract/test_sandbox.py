"""The contract of the sandbox seam, held by every driver."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from cloudlet.model.errors import Unavailable
from cloudlet.sandbox.base import Activity, Cell, CellExit, CellSpec, Driver
from cloudlet.sandbox.fake import Failure, FakeDriver
from cloudlet.sandbox.namespaces.driver import NamespacesDriver
from cloudlet.sandbox.process import ProcessDriver
from tests.unit.sandbox.namespaces.support import skip_without_namespaces

pytestmark = pytest.mark.anyio
SHIM = Path(__file__).with_name("stand_in_shim.py")
LOAD = {"op": "load", "handler": "ok", "concurrency": 1}


@pytest.fixture
def root() -> Iterator[Path]:
    """A short directory: socket paths have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="cl-") as name:
        yield Path(name)


class Room:
    """A driver and the cells made in a test."""

    def __init__(self, driver: Driver, root: Path, stack: AsyncExitStack) -> None:
        self.driver = driver
        self.root = root
        self.code = root / "code"
        self._stack = stack

    def spec(self, failure: Failure, name: str = "c1") -> CellSpec:
        directory = self.root / name
        directory.mkdir(mode=0o700)
        listener = socket.socket(socket.AF_UNIX)
        self._stack.callback(listener.close)
        listener.bind(str(self.root / f"{name}.sock"))
        listener.listen(8)
        command = (sys.executable, "-I", "-S", str(SHIM), failure)
        return CellSpec(name, command, {"TZ": "UTC"}, listener, directory)

    async def cell(self, failure: Failure = Failure.NONE) -> Cell:
        cell = await self.driver.make(self.spec(failure))
        self._stack.push_async_callback(cell.close)
        return cell

    async def booted(self, failure: Failure = Failure.NONE) -> Cell:
        cell = await self.cell(failure)
        assert await event(cell) == {"event": "booted"}
        return cell


@pytest.fixture(params=["fake", "process", "namespaces"])
async def room(request: pytest.FixtureRequest, root: Path) -> AsyncIterator[Room]:
    (root / "code").mkdir()
    (root / "code" / "index.js").write_text("exports.main = () => 1")
    if request.param == "namespaces":
        await skip_without_namespaces()
    async with AsyncExitStack() as stack:
        driver = driver_of(request.param, root / "code")
        stack.push_async_callback(driver.close)
        yield Room(driver, root, stack)


def driver_of(rung: str, code: Path) -> Driver:
    if rung == "fake":
        return FakeDriver()
    if rung == "process":
        return ProcessDriver((code, SHIM.parent.resolve()))
    return NamespacesDriver((code,), (SHIM.parent,))


async def event(cell: Cell) -> dict[str, Any]:
    async with asyncio.timeout(20):
        message: dict[str, Any] = json.loads(await cell.receive())
        return message


async def ended(cell: Cell) -> CellExit:
    async with asyncio.timeout(20):
        return await cell.wait()


async def load(cell: Cell, code: Path, handler: str = "ok") -> dict[str, Any]:
    path = cell.mount_code(code)
    await cell.send(json.dumps({**LOAD, "code": path, "handler": handler}).encode())
    return await event(cell)


async def test_a_cell_boots_loads_and_ends_by_itself(room: Room) -> None:
    cell = await room.booted()
    assert cell.pid > 0
    assert (await load(cell, room.code))["event"] == "loaded"
    await cell.send(b'{"op":"quiesce"}')
    assert await event(cell) == {"event": "quiesced"}
    await cell.send(b'{"op":"end"}')
    assert await ended(cell) == CellExit(0)
    assert await ended(cell) == CellExit(0)


async def test_killing_can_be_repeated_and_is_told_apart_from_an_exit(room: Room) -> None:
    cell = await room.booted()
    cell.kill()
    cell.kill()
    assert await ended(cell) == CellExit(-1, signal.SIGKILL)
    cell.kill()
    cell.set_frozen(True)
    assert cell.meter.memory_bytes() == 0


async def test_a_frozen_cell_can_be_killed(room: Room) -> None:
    cell = await room.booted()
    cell.set_frozen(True)
    cell.set_frozen(True)
    cell.kill()
    assert await ended(cell) == CellExit(-1, signal.SIGKILL)


async def test_a_frozen_cell_goes_on_after_the_thaw(room: Room) -> None:
    cell = await room.booted()
    cell.set_frozen(True)
    cell.set_frozen(False)
    assert (await load(cell, room.code))["event"] == "loaded"


async def test_the_channel_is_closed_after_the_end(room: Room) -> None:
    cell = await room.booted()
    cell.kill()
    await ended(cell)
    assert await cell.receive() == b""
    assert await cell.receive() == b""
    with pytest.raises(Unavailable):
        await cell.send(b'{"op":"resume"}')


async def test_cancelling_receive_loses_no_line(room: Room) -> None:
    cell = await room.booted()
    waiting = asyncio.create_task(cell.receive())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await load(cell, room.code))["event"] == "loaded"


async def test_cancelling_wait_keeps_the_cell(room: Room) -> None:
    cell = await room.booted()
    waiting = asyncio.create_task(cell.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    cell.kill()
    assert (await ended(cell)).signal == signal.SIGKILL


async def test_closing_kills_and_can_be_repeated(room: Room) -> None:
    cell = await room.booted()
    outputs = cell.outputs
    await cell.close()
    await cell.close()
    assert (await ended(cell)).signal == signal.SIGKILL
    assert cell.meter.activity() == Activity()
    for descriptor in outputs:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


async def test_outputs_end_with_the_cell(room: Room) -> None:
    cell = await room.booted()
    cell.kill()
    await ended(cell)
    assert [os.read(descriptor, 10) for descriptor in cell.outputs] == [b"", b""]


async def test_code_that_does_not_exist_cannot_be_mounted(room: Room) -> None:
    cell = await room.booted()
    with pytest.raises(Unavailable):
        cell.mount_code(room.root / "missing")


async def test_a_failed_load_is_an_answer_and_not_an_end(room: Room) -> None:
    cell = await room.booted(Failure.LOAD_FAILS)
    answer = await load(cell, room.code, "fail")
    assert answer["event"] == "load_failed"
    assert answer["error"]["errorMessage"] == "boom"


async def test_a_cell_that_dies_later_says_by_which_signal(room: Room) -> None:
    cell = await room.booted(Failure.DIES_LATER)
    assert (await load(cell, room.code, "die"))["event"] == "loaded"
    assert await ended(cell) == CellExit(-1, signal.SIGSEGV)


async def test_a_closed_driver_makes_no_cell(room: Room) -> None:
    await room.driver.close()
    await room.driver.close()
    with pytest.raises(Unavailable):
        await room.cell()
