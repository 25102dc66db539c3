"""What only the rung `namespaces` promises: it fails closed and loses nothing."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from cloudlet.model.errors import Unavailable
from cloudlet.sandbox.base import Cell, CellExit, CellSpec
from cloudlet.sandbox.namespaces.driver import NamespacesDriver, Options
from tests.unit.sandbox.namespaces.support import skip_without_namespaces

pytestmark = pytest.mark.anyio
SHIM = Path(__file__).parents[3] / "contract" / "stand_in_shim.py"
SHIM_COMMAND = (sys.executable, "-I", "-S", str(SHIM))


class Scene:
    def __init__(self, root: Path, driver: NamespacesDriver, stack: AsyncExitStack) -> None:
        self.root = root
        self.driver = driver
        self._stack = stack
        self._count = 0

    def spec(self, command: tuple[str, ...] = SHIM_COMMAND) -> CellSpec:
        self._count += 1
        listener = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(self.root / f"{self._count}.sock"))
        listener.listen(8)
        return CellSpec(f"c{self._count}", command, {"TZ": "UTC"}, listener, self.root)

    async def cell(self, command: tuple[str, ...] = SHIM_COMMAND) -> Cell:
        cell = await self.driver.make(self.spec(command))
        self._stack.push_async_callback(cell.close)
        return cell


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    await skip_without_namespaces()
    with tempfile.TemporaryDirectory(prefix="cl-", dir="/tmp") as name:
        root = Path(name)
        for code in ("one", "two"):
            (root / "code" / code).mkdir(parents=True)
            (root / "code" / code / f"{code}.py").write_text("")
        async with AsyncExitStack() as stack:
            driver = NamespacesDriver((root / "code",), (SHIM.parent,))
            stack.push_async_callback(driver.close)
            yield Scene(root, driver, stack)


async def event(cell: Cell) -> dict[str, Any]:
    async with asyncio.timeout(20):
        line = await cell.receive()
    assert line, os.read(cell.outputs[1], 4000).decode()
    message: dict[str, Any] = json.loads(line)
    return message


async def loaded(cell: Cell, code: Path, handler: str = "ok") -> dict[str, Any]:
    await event(cell)
    path = cell.mount_code(code)
    await cell.send(json.dumps({"op": "load", "code": path, "handler": handler}).encode())
    report: dict[str, Any] = (await event(cell))["report"]
    return report


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def test_each_cell_sees_the_code_it_was_shown_and_no_other(scene: Scene) -> None:
    one, two = await scene.cell(), await scene.cell()
    assert (await loaded(one, scene.root / "code" / "one"))["entries"] == ["one.py"]
    assert (await loaded(two, scene.root / "code" / "two"))["entries"] == ["two.py"]


async def test_code_that_is_closed_to_other_users_can_be_read_by_the_cell_but_not_written(
    scene: Scene,
) -> None:
    code = scene.root / "code" / "one"
    (code / "index.py").write_text("")
    (code / "one.py").chmod(0o600)
    for directory in (code, code.parent):
        directory.chmod(0o700)
    cell = await scene.cell()
    report = await loaded(cell, code, "write")
    assert report["entries"] == ["index.py", "one.py"]
    assert report["write"] == [errno.EROFS, errno.EROFS, 0]


async def test_a_version_that_was_deployed_after_the_cell_was_made_can_be_shown(scene: Scene) -> None:
    cell = await scene.cell()
    (scene.root / "code" / "later").mkdir()
    (scene.root / "code" / "later" / "new.py").write_text("")
    assert (await loaded(cell, scene.root / "code" / "later"))["entries"] == ["new.py"]


async def test_code_outside_of_the_code_directory_cannot_be_shown(scene: Scene) -> None:
    cell = await scene.cell()
    (scene.root / "code" / "link").symlink_to("/etc")
    for directory in (Path("/etc"), scene.root / "code" / "link", scene.root / "code" / ".."):
        with pytest.raises(Unavailable, match="in none of the directories"):
            cell.mount_code(directory)


async def test_code_that_goes_before_it_is_shown_is_an_error_of_the_send(scene: Scene) -> None:
    cell = await scene.cell()
    (scene.root / "code" / "short").mkdir()
    cell.mount_code(scene.root / "code" / "short")
    (scene.root / "code" / "short").rmdir()
    with pytest.raises(Unavailable, match="/code/0/short: No such file"):
        await cell.send(b'{"op":"load"}')


async def test_children_are_frozen_and_thawed_too(scene: Scene) -> None:
    cell = await scene.cell()
    report = await loaded(cell, scene.root / "code" / "one", "child")
    assert report["child"] > 2
    for frozen, states in ((True, {"T"}), (False, {"R", "S", "D"})):
        cell.set_frozen(frozen)
        assert children_of(cell.pid)
        async with asyncio.timeout(20):
            while not {state_of(pid) for pid in (cell.pid, *children_of(cell.pid))} <= states:  # noqa: ASYNC110
                await asyncio.sleep(0)  # a signal arrives when the process runs next
    assert not cell.meter.stopped()


def children_of(pid: int) -> list[int]:
    found = (int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit())
    return [each for each in found if stat_of(each)[1:2] == [str(pid)]]


def state_of(pid: int) -> str:
    return stat_of(pid)[0]


def stat_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


async def test_the_platform_is_reached_through_the_loopback_of_the_cell(scene: Scene) -> None:
    program = "import socket,os;s=socket.create_connection(('127.0.0.1',int(os.read(4,9))));s.send(b'hello')"
    cell = await scene.cell((sys.executable, "-I", "-S", "-c", program))
    listener = cell.platform_listener()
    assert listener is not None
    with listener:
        listener.setblocking(False)
        await cell.send(str(listener.getsockname()[1]).encode())
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20):
            connection, _ = await loop.sock_accept(listener)
            with connection:
                assert await loop.sock_recv(connection, 9) == b"hello"
    with pytest.raises(Unavailable):
        cell.platform_listener()


async def test_a_runtime_that_cannot_be_executed_makes_no_cell_and_leaks_nothing(scene: Scene) -> None:
    await (await scene.cell()).close()
    specs = [scene.spec(("/no/such/node",)) for _ in range(3)]
    before = open_descriptors()
    for spec in specs:
        with pytest.raises(Unavailable, match="No such file or directory: '/no/such/node'"):
            await scene.driver.make(spec)
    await asyncio.sleep(0)
    assert open_descriptors() == before


async def test_a_cancelled_make_leaves_no_process(scene: Scene) -> None:
    await scene.driver.start()
    making = [asyncio.create_task(scene.driver.make(scene.spec())) for _ in range(4)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for task in making:
        task.cancel()
    assert all(
        isinstance(each, asyncio.CancelledError)
        for each in await asyncio.gather(*making, return_exceptions=True)
    )
    # The launcher answers in order: after this one nothing of the others can come.
    await (await scene.cell()).close()
    async with asyncio.timeout(20):
        while mine := [pid for pid in children_of(os.getpid()) if named(pid, "cell")]:
            await ended(mine[0])


def named(pid: int, name: str) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text() == f"{name}\n"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def ended(pid: int) -> None:
    """Wait for a process by its pidfd, and let the driver's own watch reap it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(descriptor, done.set)
    try:
        await done.wait()
        await asyncio.sleep(0)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def test_cells_outlive_their_launcher_and_the_next_cell_gets_a_new_one(scene: Scene) -> None:
    old = await scene.cell()
    await event(old)
    launcher = scene.driver._launcher
    assert launcher is not None
    os.kill(launcher._process.pid, signal.SIGKILL)
    await asyncio.to_thread(launcher._process.wait)
    async with asyncio.timeout(20):
        while launcher.alive:  # noqa: ASYNC110 - the end is noticed by the loop, which tells nobody
            await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="launcher"):
        old.mount_code(scene.root / "code" / "one")
    new = await scene.cell()
    assert (await loaded(new, scene.root / "code" / "one"))["entries"] == ["one.py"]
    await old.send(b'{"op":"end"}')
    async with asyncio.timeout(20):
        assert await old.wait() == CellExit(0)


async def test_what_is_visible_below_tmp_stays_so_in_the_cells_own(scene: Scene) -> None:
    program = scene.root / "visible" / "program.py"
    program.parent.mkdir()
    program.write_text("import os; os.write(4, repr(sorted(os.listdir('/tmp'))).encode() + b'\\n')")
    for path in (scene.root, program.parent):
        path.chmod(0o755)
    driver = NamespacesDriver((), (program.parent,), Options())
    try:
        cell = await driver.make(scene.spec((sys.executable, "-I", "-S", str(program))))
        try:
            async with asyncio.timeout(20):
                assert await cell.receive() == repr([scene.root.name]).encode()
        finally:
            await cell.close()
    finally:
        await driver.close()


PARENT = """
import asyncio, pathlib, socket, sys
from cloudlet.sandbox.base import CellSpec
from cloudlet.sandbox.namespaces.driver import NamespacesDriver
async def main():
    root, shim = map(pathlib.Path, sys.argv[1:])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(root / "s"))
    listener.listen(1)
    command = (sys.executable, "-I", "-S", str(shim))
    cell = await NamespacesDriver((), (shim.parent,)).make(CellSpec("c", command, {}, listener, root))
    await cell.receive()
    cell.set_frozen(True)
    print("pid", cell.pid, flush=True)
    await cell.wait()
asyncio.run(main())
"""


async def test_the_cell_dies_with_its_node_even_when_it_cannot_run(scene: Scene) -> None:
    parent = subprocess.Popen(  # noqa: ASYNC220
        (sys.executable, "-c", PARENT, str(scene.root), str(SHIM)), stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        with parent.stdout:
            while not (line := parent.stdout.readline()).startswith("pid"):
                assert line
        pid = int(line.split()[1])
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    async with asyncio.timeout(20):
        await ended(pid)
