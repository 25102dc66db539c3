"""What only the rung `process` promises."""

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
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cloudlet.model.errors import Unavailable
from cloudlet.sandbox.base import Cell, CellSpec
from cloudlet.sandbox.process import ProcessDriver
from cloudlet.sandbox.tmp import PrivateTmp, outermost

pytestmark = pytest.mark.anyio
SHIM = Path(__file__).parents[2] / "contract" / "stand_in_shim.py"
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="death signal and pidfd are Linux's")


@pytest.fixture
def root() -> Iterator[Path]:
    """A short directory under /tmp, which a private /tmp must not hide where it is needed."""
    with tempfile.TemporaryDirectory(prefix="cl-", dir="/tmp") as name:
        (Path(name) / "code").mkdir()
        (Path(name) / "code" / "index.py").write_text("")
        (Path(name) / "cell").mkdir()
        yield Path(name)


@asynccontextmanager
async def running(root: Path, command: tuple[str, ...] = ()) -> AsyncIterator[Cell]:
    driver = ProcessDriver((root / "code", SHIM.parent))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "s"))
        listener.listen(8)
        command = command or (sys.executable, "-I", "-S", str(SHIM))
        environment = {"TZ": "UTC", "PATH": "/usr/bin:/bin"}
        cell = await driver.make(CellSpec("cell", command, environment, listener, root / "cell"))
    try:
        yield cell
    finally:
        await cell.close()


async def event(cell: Cell) -> dict[str, Any]:
    async with asyncio.timeout(20):
        message: dict[str, Any] = json.loads(await cell.receive())
        return message


async def loaded(cell: Cell, root: Path, handler: str = "ok") -> dict[str, Any]:
    await event(cell)
    code = cell.mount_code(root / "code")
    await cell.send(json.dumps({"op": "load", "code": code, "handler": handler}).encode())
    report: dict[str, Any] = (await event(cell))["report"]
    return report


async def test_a_cell_has_six_descriptors_its_own_session_and_only_the_named_environment(root: Path) -> None:
    async with running(root) as cell:
        report = await loaded(cell, root)
        tmp = "/tmp" if ProcessDriver(()).private_tmp else str(root / "cell")
        assert report["inspect"]["descriptors"] == [0, 1, 2, 3, 4, 5]
        assert report["inspect"]["session"] == report["pid"] == cell.pid
        assert report["inspect"]["listening"] == 1
        assert report["inspect"]["page_bytes"] == 4096
        environment = {name: value for name, value in report["environment"].items() if name != "LC_CTYPE"}
        assert environment == {"TZ": "UTC", "PATH": "/usr/bin:/bin", "HOME": tmp, "TMPDIR": tmp}
        assert cell.meter.memory_bytes() > 1_000_000


async def test_tmp_is_private_and_the_code_under_it_stays_visible(root: Path) -> None:
    if not ProcessDriver(()).private_tmp:
        pytest.skip("this machine allows no mount namespaces")
    (root / "other").mkdir()
    async with running(root) as cell:
        report = await loaded(cell, root)
        assert report["entries"] == ["index.py"]
        # Nothing but the mount points of what has to stay visible.
        assert set(report["inspect"]["tmp"]) <= {path.relative_to("/tmp").parts[0] for path in shown(root)}
        with pytest.raises(Unavailable):
            cell.mount_code(root / "other")


async def test_the_code_cannot_be_changed_by_the_cell_whoever_owns_it(root: Path) -> None:
    if not ProcessDriver(()).private_tmp:
        pytest.skip("this machine allows no mount namespaces")
    async with running(root) as cell:
        report = await loaded(cell, root, "write")
        assert report["write"] == [errno.EROFS, errno.EROFS, 0]
    assert [path.name for path in (root / "code").iterdir()] == ["index.py"]
    assert (root / "code" / "index.py").read_text() == ""
    # Versions that are deployed later lie in the same directory: the host goes on writing there.
    (root / "code" / "later").mkdir()


def shown(root: Path) -> tuple[Path, ...]:
    prefixes = (Path(sys.prefix), Path(sys.base_prefix))
    return outermost((root / "code", SHIM.parent, *prefixes))


@needs_linux
async def test_killing_takes_the_children_of_the_function_along(root: Path) -> None:
    async with running(root) as cell:
        report = await loaded(cell, root, "child")
        pidfd = os.pidfd_open(report["child"])
        try:
            cell.kill()
            await cell.wait()
            await readable(pidfd)
        finally:
            os.close(pidfd)


@needs_linux
async def test_an_exit_takes_the_children_of_the_function_along(root: Path) -> None:
    async with running(root) as cell:
        report = await loaded(cell, root, "child")
        pidfd = os.pidfd_open(report["child"])
        try:
            await cell.send(b'{"op":"end"}')
            await cell.wait()
            await readable(pidfd)
        finally:
            os.close(pidfd)


async def readable(descriptor: int) -> None:
    """Wait until a process (by its pidfd) has ended."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(20):
            await ended.wait()
    finally:
        loop.remove_reader(descriptor)


async def test_an_interpreter_that_does_not_exist_makes_no_cell_and_leaks_nothing(root: Path) -> None:
    descriptors = open_descriptors()
    with pytest.raises(Unavailable, match="/no/such/node"):
        async with running(root, ("/no/such/node",)):
            pass
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert open_descriptors() == descriptors


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


PARENT = """
import asyncio, pathlib, socket, sys
from cloudlet.sandbox.base import CellSpec
from cloudlet.sandbox.process import ProcessDriver
async def main():
    root, shim = map(pathlib.Path, sys.argv[1:])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(root / "s"))
    listener.listen(1)
    command = (sys.executable, "-I", "-S", str(shim))
    cell = await ProcessDriver((shim.parent,)).make(CellSpec("c", command, {}, listener, root / "cell"))
    await cell.receive()
    cell.set_frozen(True)
    print("pid", cell.pid, flush=True)
    await cell.wait()
asyncio.run(main())
"""


@needs_linux
async def test_the_cell_dies_with_its_node_even_when_it_cannot_run(root: Path) -> None:
    pidfd = killed_parent_of(root)
    try:
        await readable(pidfd)
    finally:
        os.close(pidfd)


def killed_parent_of(root: Path) -> int:
    """Start a node with a frozen cell and kill it; return a pidfd of the cell."""
    parent = subprocess.Popen(
        (sys.executable, "-c", PARENT, str(root), str(SHIM)), stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        with parent.stdout:
            while not (line := parent.stdout.readline()).startswith("pid"):
                assert line
        return os.pidfd_open(int(line.split()[1]))
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()


def test_only_the_outermost_directories_under_tmp_are_shown(root: Path) -> None:
    inner = root / "code" / "inner"
    inner.mkdir()
    kept = outermost((inner, root / "code", Path("/usr"), root / "missing"))
    assert kept == (root / "code",)
    tmp = PrivateTmp(kept, user_namespace=False)
    assert tmp.shows(inner) and tmp.shows(Path("/usr")) and not tmp.shows(root)
