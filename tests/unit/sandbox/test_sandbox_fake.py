"""The named failures of the twin."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from cloudlet.model.errors import Unavailable
from cloudlet.sandbox.base import CellExit, CellSpec
from cloudlet.sandbox.fake import Failure, FakeCell, FakeDriver

pytestmark = pytest.mark.anyio


async def make(tmp_path: Path, failure: Failure) -> FakeCell:
    with socket.socket(socket.AF_UNIX) as listener:
        spec = CellSpec("c", ("none", failure), {}, listener, tmp_path)
        return await FakeDriver().make(spec)


async def test_a_slow_cell_boots_when_told_to(tmp_path: Path) -> None:
    cell = await make(tmp_path, Failure.SLOW)
    waiting = asyncio.create_task(cell.receive())
    await asyncio.sleep(0)
    assert not waiting.done()
    cell.proceed()
    assert await waiting == b'{"event": "booted"}'
    await cell.close()


async def test_a_cell_that_dies_at_start_never_boots(tmp_path: Path) -> None:
    cell = await make(tmp_path, Failure.DIES_AT_START)
    assert await cell.receive() == b""
    assert await cell.wait() == CellExit(1)
    await cell.close()


async def test_a_cell_that_is_never_ready_boots_but_does_not_load(tmp_path: Path) -> None:
    cell = await make(tmp_path, Failure.NEVER_READY)
    assert await cell.receive() == b'{"event": "booted"}'
    await cell.send(b'{"op":"load"}')
    waiting = asyncio.create_task(cell.receive())
    await asyncio.sleep(0)
    assert not waiting.done()
    cell.kill()
    assert await waiting == b""
    await cell.close()


async def test_a_driver_can_be_out_of_cells(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await make(tmp_path, Failure.CANNOT_START)
