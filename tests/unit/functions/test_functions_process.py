"""Installers as processes: how they end, what is kept of their output."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from cloudlet.functions import process
from cloudlet.functions.process import Command, run_command
from cloudlet.functions.toolchain import installer_environment
from cloudlet.model.errors import BuildFailed

pytestmark = pytest.mark.anyio


def python(code: str, cwd: Path, timeout_s: float = 30.0) -> Command:
    return Command((sys.executable, "-I", "-S", "-c", code), cwd, {"PATH": os.environ["PATH"]}, timeout_s)


async def test_exit_code_and_output(tmp_path: Path) -> None:
    result = await run_command(
        python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)", tmp_path)
    )
    assert result.exit_code == 3
    assert set(result.log.split()) == {"out", "err"}


async def test_only_the_end_of_a_long_output_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BUILD_LOG_BYTES_MAX", 100)
    result = await run_command(python("print('a' * 1000); print('the end')", tmp_path))
    assert result.log.startswith("…a")
    assert result.log.endswith("the end")
    assert len(result.log) <= 101


async def test_a_program_that_hangs_is_killed(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=r"took longer than 0\.5 seconds"):
        await run_command(python("import time; time.sleep(600)", tmp_path, timeout_s=0.5))


async def test_a_child_that_stays_behind_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, time, pathlib\n"
        "child = os.fork()\n"
        "time.sleep(600) if not child else pathlib.Path('pid').write_text(str(child))\n"
    )
    result = await run_command(python(code, tmp_path))
    assert result.exit_code == 0
    await gone(int((tmp_path / "pid").read_text()))


async def test_cancelling_ends_the_program_and_its_children(tmp_path: Path) -> None:
    news = fifo(tmp_path / "pids")
    code = (
        "import os, time, pathlib\n"
        "child = os.fork()\n"
        "pathlib.Path('pids').write_text(f'{os.getpid()} {child}') if child else None\n"
        "time.sleep(600)\n"
    )
    task = asyncio.create_task(run_command(python(code, tmp_path)))
    pids = await told(news)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for pid in pids.split():
        await gone(int(pid))


async def test_too_much_on_the_disk_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SIZE_CHECK_S", 0.02)
    monkeypatch.setattr("cloudlet.functions.tree.PACKAGE_FILES_MAX", 3)
    code = "import time, pathlib\nfor i in range(9): pathlib.Path(str(i)).touch()\ntime.sleep(600)"
    with pytest.raises(BuildFailed, match="what the installer wrote has more than"):
        await run_command(python(code, tmp_path))


async def test_it_dies_with_the_process_that_asked(tmp_path: Path) -> None:
    """The asking process is killed without a chance to clean up."""
    news = fifo(tmp_path / "pid")
    program = "import os, time, pathlib; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(600)"
    asker = (
        "import asyncio, sys, pathlib\n"
        "from cloudlet.functions.process import Command, run_command\n"
        f"argv = (sys.executable, '-I', '-S', '-c', {program!r})\n"
        "asyncio.run(run_command(Command(argv, pathlib.Path('.'), {}, 600)))\n"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", asker, cwd=tmp_path)
    try:
        pid = int(await told(news))
    finally:
        child.kill()
        await child.wait()
    await gone(pid)


def test_installers_do_not_see_the_platforms_variables() -> None:
    seen = installer_environment(
        {
            "PATH": "/bin",
            "CLOUDLET_DATA": "x",
            "AWS_SECRET": "x",
            "npm_config_registry": "r",
            "PIP_INDEX_URL": "i",
        }
    )
    seen.pop("npm_config_globalconfig", None)  # there or not: the machine's own file
    assert seen == {
        "PATH": "/bin",
        "npm_config_registry": "r",
        "PIP_INDEX_URL": "i",
        "NODE_USE_SYSTEM_CA": "1",
    }


def fifo(path: Path) -> int:
    """A pipe with a name; open on both sides, so that neither side waits for the other."""
    os.mkfifo(path)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK)


async def told(handle: int) -> str:
    """What was written into the pipe, once something was."""
    try:
        await readable(handle)
        return os.read(handle, 1000).decode()
    finally:
        os.close(handle)


async def gone(pid: int) -> None:
    """Return when the process has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await readable(handle)
    finally:
        os.close(handle)


async def readable(handle: int) -> None:
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, ready.set)
    try:
        async with asyncio.timeout(30):
            await ready.wait()
    finally:
        loop.remove_reader(handle)
