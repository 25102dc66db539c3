"""What hostile code can do in a cell of the rung `namespaces`. The rung `process` is the control which shows
that the attacks themselves work."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cloudlet.sandbox.base import Cell, CellLimits, CellSpec, Driver
from cloudlet.sandbox.namespaces.driver import NamespacesDriver, Options
from cloudlet.sandbox.process import ProcessDriver
from tests.acceptance.installation import Installation
from tests.unit.sandbox.namespaces import ordinary_user
from tests.unit.sandbox.namespaces.support import skip_without_namespaces

ATTACKER = Path(__file__).with_name("isolation_attacker.py")
REPOSITORY = Path(__file__).resolve().parents[2]
LIMITS = CellLimits(files_max=256, processes_max=32)
TMP_BYTES, TMP_FILES = 1024 * 1024, 64
IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="an ordinary user has one user id to give")

REFUSED = {
    **dict.fromkeys(
        (
            "mount",
            "umount",
            "pivot_root",
            "chroot",
            "unshare",
            "clone_newuser",
            "setns",
            "ptrace",
            "process_vm_readv",
            "keyctl",
            "add_key",
            "bpf",
            "io_uring",
            "userfaultfd",
            "perf_event_open",
            "open_by_handle_at",
            "fsopen",
            "personality",
            "init_module",
            "raw socket",
        ),
        errno.EPERM,
    ),
    "clone3": errno.ENOSYS,
    "become root": errno.EINVAL,
    "signal another process": errno.ESRCH,
    "environment of another process": errno.ENOENT,
    "memory of another process": errno.ENOENT,
    "first process": errno.ENOENT,
    "code of another function": errno.ENOENT,
    "file of the host": errno.ENOENT,
    "admin socket": errno.ENOENT,
    "abstract socket": errno.ECONNREFUSED,
    "loopback of the host": errno.ECONNREFUSED,
    "metadata address": errno.ENETUNREACH,
    "packet socket": errno.EAFNOSUPPORT,
    "netfilter": errno.EAFNOSUPPORT,
    "kernel crypto": errno.EAFNOSUPPORT,
}
UNWRITABLE = (
    "write code",
    "add code",
    "write a program",
    "write to etc",
    "write to the root",
    "kernel setting",
)
"""Refused by the mount, by modes or by Landlock: who comes first depends on the file and the kernel."""
FACTS = (
    "processes seen",
    "interfaces",
    "fork bomb",
    "full tmp",
    "many files",
    "many descriptors",
    "descriptors",
    "hostname",
    "environment",
    "status",
    "user",
    "devices",
)
CONTROL = (
    "signal another process",
    "environment of another process",
    "memory of another process",
    "code of another function",
    "file of the host",
    "admin socket",
    "abstract socket",
    "loopback of the host",
    "unshare",
    "ptrace",
    "keyctl",
    "personality",
)
"""These succeed on `process`; the others would do harm there, or need root or a certain kernel."""
NEED_ROOT = ("environment of another process", "memory of another process")
HARMLESS = ("processes seen", "full tmp", "many files")
"""Facts that `process` is asked for, too."""


@asynccontextmanager
async def attacked(rung: str) -> AsyncIterator[tuple[Cell, dict[str, Any]]]:
    """A cell with the attacker, and its targets, which are there until the end."""
    with tempfile.TemporaryDirectory(prefix="cl-", dir="/tmp") as name, ExitStack() as stack:
        root = Path(name)
        for code in ("one", "two"):
            (root / "code" / code).mkdir(parents=True)
            (root / "code" / code / "index.py").write_text("")
        (root / "cell").mkdir(mode=0o700)
        targets = targets_in(root, stack)
        driver = driver_of(rung, root / "code")
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(root / "code" / "c.sock"))
        command = (sys.executable, "-I", "-S", "-B", str(ATTACKER))
        cell = await driver.make(CellSpec("c1", command, {"TZ": "UTC"}, listener, root / "cell", LIMITS))
        try:
            assert json.loads(await cell.receive()) == {"event": "booted"}
            targets["code"] = cell.mount_code(root / "code" / "one")
            yield cell, targets
        finally:
            await cell.close()
            await driver.close()


def driver_of(rung: str, code: Path) -> Driver:
    if rung == "process":
        return ProcessDriver((code, ATTACKER.parent))
    return NamespacesDriver((code,), (ATTACKER,), Options(tmp_bytes=TMP_BYTES, tmp_files=TMP_FILES))


def targets_in(root: Path, stack: ExitStack) -> dict[str, Any]:
    unix, abstract = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
    unix.bind(str(root / "code" / "admin.sock"))
    unix.listen(4)
    abstract.bind(f"\0cloudlet-{root.name}")
    abstract.listen(4)
    loopback = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return {
        "pid": os.getpid(),
        "other_code": str(root / "code" / "two" / "index.py"),
        "host_file": "/etc/login.defs",
        "unix": str(root / "code" / "admin.sock"),
        "abstract": f"cloudlet-{root.name}",
        "port": loopback.getsockname()[1],
    }


@cache
def outcomes(rung: str) -> dict[str, Any]:
    """All attacks, in one cell."""

    async def attack() -> dict[str, Any]:
        if rung == "namespaces":
            await skip_without_namespaces()
        async with attacked(rung) as (cell, targets), asyncio.timeout(60):
            attacks = (
                (*CONTROL, *HARMLESS) if rung == "process" else (*REFUSED, *UNWRITABLE, "device", *FACTS)
            )
            await cell.send(json.dumps({**targets, "attacks": attacks}).encode())
            line = await cell.receive()
            assert line, os.read(cell.outputs[1], 4000).decode()
            found: dict[str, Any] = json.loads(line)
            return found

    return asyncio.run(attack())


@pytest.mark.parametrize("attack", REFUSED)
def test_an_attack_is_refused(attack: str) -> None:
    assert outcomes("namespaces")[attack] == REFUSED[attack]


@pytest.mark.parametrize("attack", CONTROL)
def test_the_attack_works_without_isolation(attack: str) -> None:
    if attack in NEED_ROOT and not IS_ROOT:
        pytest.skip("an ordinary user's process has a user namespace, for its /tmp")
    assert outcomes("process")[attack] == 0


@pytest.mark.parametrize("attack", UNWRITABLE)
def test_nothing_but_tmp_can_be_written(attack: str) -> None:
    assert outcomes("namespaces")[attack] in (errno.EROFS, errno.EACCES)


def test_no_device_can_be_made() -> None:
    assert outcomes("namespaces")["device"] in (errno.EPERM, errno.EACCES)


def test_a_cell_sees_only_itself() -> None:
    found = outcomes("namespaces")
    assert 2 in found["processes seen"] and len(found["processes seen"]) == 2  # and the attack's own process
    assert os.getpid() in outcomes("process")["processes seen"]
    assert found["interfaces"] == ["lo"]
    assert found["hostname"] == ["cell", "cell"]
    assert found["descriptors"] == [0, 1, 2, 3, 4, 5]
    assert set(found["environment"]) <= {"HOME", "TMPDIR", "TZ", "LC_CTYPE"}
    assert found["user"] == [1000, 1000]
    assert set(found["devices"]) == {
        *("fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero")
    }


def test_a_cell_has_no_rights() -> None:
    status = outcomes("namespaces")["status"]
    assert {
        name: int(value, 16) for name, value in status.items() if name.startswith("Cap")
    } == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert not IS_ROOT or status["Groups"] == ""


def test_bombs_are_bounded() -> None:
    found = outcomes("namespaces")
    error, children = found["fork bomb"]
    assert error == errno.EAGAIN and children <= LIMITS.processes_max
    error, written = found["full tmp"]
    assert error == errno.ENOSPC and written <= TMP_BYTES
    error, made = found["many files"]
    assert error == errno.ENOSPC and made <= TMP_FILES
    error, opened = found["many descriptors"]
    assert error == errno.EMFILE and opened <= LIMITS.files_max
    control = outcomes("process")
    assert control["full tmp"][0] == control["many files"][0] == 0


@pytest.mark.anyio
async def test_a_child_that_hides_ends_with_its_cell() -> None:
    await skip_without_namespaces()
    async with attacked("namespaces") as (cell, targets), asyncio.timeout(60):
        await cell.send(json.dumps({**targets, "daemon": True}).encode())
        assert json.loads(await cell.receive()) == {}
        cell.kill()
        await cell.wait()
        # The end of the file: nobody holds the other end any more. (Else: BlockingIOError.)
        assert os.read(cell.outputs[0], 100) == b""


@pytest.mark.anyio
async def test_the_memory_of_a_cell_is_that_of_all_its_processes_and_its_files() -> None:
    await skip_without_namespaces()
    async with attacked("namespaces") as (cell, targets), asyncio.timeout(60):
        before = cell.meter.memory_bytes()
        assert before > 1_000_000
        await cell.send(json.dumps({**targets, "hoard": TMP_BYTES // 2}).encode())
        assert json.loads(await cell.receive()) == {}
        assert cell.meter.memory_bytes() > before + TMP_BYTES // 2


@needs_root
@pytest.mark.anyio
async def test_cells_of_root_have_users_of_their_own() -> None:
    await skip_without_namespaces()
    async with attacked("namespaces") as (one, _):
        first, count = Options().user_first, Options().user_count
        owner = Path(f"/proc/{one.pid}").stat().st_uid
        assert first <= owner < first + count


class Isolated(Installation):
    """A platform whose instances are isolated."""

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {"CLOUDLET_RUNG": "namespaces"}


NODE = """
const http = require('http'), os = require('os')
const answer = (url) => new Promise((done, fail) => {
  http.get(url, (reply) => done(reply.resume().statusCode)).on('error', fail)
})
exports.main = async () => {
  const { URL } = JSON.parse(process.env.TCB_CONTEXT_CNFG)
  const seen = [process.getuid(), process.cwd(), os.hostname(), Object.keys(os.networkInterfaces())]
  return [await answer(URL), ...seen]
}
"""
PYTHON = """
import os, socket
def main_handler(event, context):
    return [os.getuid(), os.getcwd(), socket.gethostname()]
"""


def test_functions_of_both_languages_run_isolated_and_reach_the_platform(tmp_path: Path) -> None:
    asyncio.run(skip_without_namespaces())
    for function, name, text in (("node", "index.js", NODE), ("python", "index.py", PYTHON)):
        folder = tmp_path / "project" / "cloudfunctions" / function
        folder.mkdir(parents=True)
        (folder / name).write_text(text)
    config = {"cloudfunctionRoot": "cloudfunctions/", "appid": "wx1"}
    (tmp_path / "project" / "project.config.json").write_text(json.dumps(config))
    platform = Isolated(tmp_path / "data")
    try:
        platform.start()
        platform.deploy(tmp_path / "project")
        assert platform.invoke("node", {}) == [200, 1000, "/code", "cell", ["lo"]]
        assert platform.invoke("python", {}) == [1000, "/code", "cell"]
        assert platform.status()["rung"] == "namespaces"
    finally:
        left = platform.stop()
    assert left == []


@needs_root
def test_an_ordinary_user_has_the_same_isolation() -> None:
    """The contract of cells and all attacks, by a user without any rights."""
    asyncio.run(skip_without_namespaces())
    command = (sys.executable, "-m", ordinary_user.__name__, sys.executable, "-m", "pytest", "-q")
    suites = ("tests/contract/test_sandbox.py", "tests/integration/test_isolation.py")
    done = subprocess.run(
        (*command, "-k", "namespaces or isolation", *suites),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
