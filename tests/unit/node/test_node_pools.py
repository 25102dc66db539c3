"""Cells waiting, and their refilling."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cloudlet.model.clock import SystemClock
from cloudlet.model.errors import Unavailable
from cloudlet.model.function import Runtime
from cloudlet.model.sandbox import EndReason
from cloudlet.node.cells import CellKind, CellMaker
from cloudlet.node.pools import Pools
from cloudlet.node.runtimes import Runtimes
from cloudlet.sandbox.base import CellExit
from cloudlet.sandbox.fake import Failure, FakeDriver

pytestmark = pytest.mark.anyio
NODE = CellKind(Runtime.NODE24, 256)
PYTHON = CellKind(Runtime.PYTHON3, 0)


class Scene:
    """Pools over fake cells, which misbehave as `failure` says when they are made."""

    def __init__(self, directory: Path) -> None:
        self.driver = FakeDriver()
        self.directory = directory
        self.failure = Failure.NONE
        self.commands: list[tuple[Runtime, int]] = []
        self.maker = CellMaker(self.driver, Runtimes(directory), self._command, directory, SystemClock())
        self.pools = Pools(self.maker)

    def _command(self, runtime: Runtime, interpreter: str, memory_mb: int) -> tuple[str, ...]:
        self.commands.append((runtime, memory_mb))
        return (interpreter, self.failure)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.005)

    def waiting(self, runtime: Runtime = Runtime.PYTHON3) -> int:
        return self.pools.sizes().get(runtime, 0)


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="cl-", dir="/tmp") as name:
        made = Scene(Path(name))
        running = asyncio.create_task(made.pools.run())
        try:
            yield made
        finally:
            running.cancel()
            await asyncio.wait((running,))
        assert list(Path(name).iterdir()) == []


async def test_an_empty_pool_makes_the_cell_that_is_asked_for() -> None:
    async with scene() as it:
        blank, pooled = await it.pools.take(PYTHON)
        assert not pooled
        assert blank.kind == PYTHON
        assert blank.socket_path.exists()
        await blank.discard()
        await blank.discard()
        assert not blank.socket_path.exists()
        assert not blank.directory.exists()


async def test_a_waiting_cell_is_taken_and_replaced() -> None:
    async with scene() as it:
        it.pools.set_size(Runtime.PYTHON3, 1)
        await it.until(lambda: it.waiting() == 1)
        blank, pooled = await it.pools.take(PYTHON)
        assert pooled
        assert it.waiting() == 0
        await it.until(lambda: it.waiting() == 1)
        assert len(it.driver.cells) == 2
        await blank.discard()


async def test_a_smaller_pool_ends_its_superfluous_cells() -> None:
    async with scene() as it:
        it.pools.set_size(Runtime.PYTHON3, 2)
        await it.until(lambda: it.waiting() == 2)
        it.pools.set_size(Runtime.PYTHON3, 0)
        await it.until(lambda: it.waiting() == 0)
        await it.until(lambda: not any(it.directory.iterdir()))


async def test_a_waiting_cell_that_dies_is_replaced() -> None:
    async with scene() as it:
        it.pools.set_size(Runtime.PYTHON3, 1)
        await it.until(lambda: it.waiting() == 1)
        it.driver.cells[0].ends(CellExit(-1, 9))
        await it.until(lambda: len(it.driver.cells) == 2 and it.waiting() == 1)


async def test_a_cell_that_is_being_made_for_the_pool_is_taken_over() -> None:
    async with scene() as it:
        it.failure = Failure.SLOW
        it.pools.set_size(Runtime.PYTHON3, 1)
        await it.until(lambda: len(it.driver.cells) == 1)
        taking = asyncio.create_task(it.pools.take(PYTHON))
        await asyncio.sleep(0)
        it.driver.cells[0].proceed()
        blank, pooled = await taking
        assert not pooled
        assert len(it.driver.cells) == 1
        it.failure = Failure.NONE
        await blank.discard()


async def test_who_gives_up_a_cell_that_was_taken_over_leaves_nothing_behind() -> None:
    async with scene() as it:
        it.failure = Failure.SLOW
        it.pools.set_size(Runtime.PYTHON3, 1)
        await it.until(lambda: len(it.driver.cells) == 1)
        taking = asyncio.create_task(it.pools.take(PYTHON))
        await asyncio.sleep(0)
        it.failure = Failure.NONE
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        assert (await it.driver.cells[0].wait()).signal == 9
        await it.until(lambda: it.waiting() == 1)


async def test_a_pool_is_made_for_the_size_that_was_asked_for_twice_in_a_row() -> None:
    async with scene() as it:
        it.pools.set_size(Runtime.NODE24, 1)
        await it.until(lambda: it.waiting(Runtime.NODE24) == 1)
        large = CellKind(Runtime.NODE24, 1024)
        for number in (1, 2):
            blank, pooled = await it.pools.take(large)
            assert not pooled
            await blank.discard()
            assert it.commands.count((Runtime.NODE24, 1024)) == number
        await it.until(lambda: it.commands.count((Runtime.NODE24, 1024)) == 3)
        await it.until(lambda: it.waiting(Runtime.NODE24) == 1)
        blank, pooled = await it.pools.take(large)
        assert pooled
        await blank.discard()


@pytest.mark.parametrize("failure", [Failure.CANNOT_START, Failure.DIES_AT_START])
async def test_a_cell_that_cannot_be_made_is_unavailable_and_leaves_nothing(failure: Failure) -> None:
    async with scene() as it:
        it.failure = failure
        with pytest.raises(Unavailable):
            await it.pools.take(PYTHON)
        assert list(it.directory.iterdir()) == []


async def test_cancelling_a_slow_boot_leaves_nothing() -> None:
    async with scene() as it:
        it.failure = Failure.SLOW
        taking = asyncio.create_task(it.pools.take(PYTHON))
        await it.until(lambda: len(it.driver.cells) == 1)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        assert list(it.directory.iterdir()) == []


async def test_cells_are_watched_while_they_boot_and_while_they_wait() -> None:
    async with scene() as pools_scene:
        pools_scene.failure = Failure.SLOW
        pools_scene.pools.set_size(Runtime.PYTHON3, 1)
        await pools_scene.until(lambda: len(pools_scene.pools.watched()) == 1)
        cell = pools_scene.driver.cells[0]
        assert [each.meter for each in pools_scene.pools.watched()] == [cell.meter]
        cell.proceed()
        await pools_scene.until(lambda: pools_scene.waiting() == 1)
        (watched,) = pools_scene.pools.watched()
        pools_scene.failure = Failure.NONE
        watched.kill(EndReason.EXITED, "was stopped by a signal and not continued")
        await pools_scene.until(lambda: len(pools_scene.driver.cells) == 2 and pools_scene.waiting() == 1)
