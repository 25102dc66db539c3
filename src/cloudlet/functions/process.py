"""Runs an installer with limits on time, output and size, and ends all of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cloudlet.model.errors import BuildFailed

from . import launch
from .limits import BUILD_LOG_BYTES_MAX, INSTALL_TIMEOUT_S, PACKAGE_BYTES_MAX
from .tree import check_size

SIZE_CHECK_S = 5.0
"""How often the size of what an installer writes is looked at."""
OUTPUT_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Command:
    """One program to run."""

    argv: tuple[str, ...]
    cwd: Path
    environ: Mapping[str, str]
    """The whole environment of the program."""
    timeout_s: float = INSTALL_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How it ended."""

    exit_code: int
    """Negative: the signal that ended it."""
    log: str
    """The end of what it printed."""


CommandRunner = Callable[[Command], Awaitable[CommandResult]]
"""Stricter rungs of isolation take the place of `run_command`."""


async def run_command(command: Command) -> CommandResult:
    """Run to the end, or kill the whole process group: at the time limit, when `cwd` or the output grows
    too large (BuildFailed), when cancelled. The kernel kills the program when this process dies.
    """
    # A file, not a pipe: a grandchild that keeps it open holds nothing up.
    with tempfile.TemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(
            *_launcher(command.argv),
            cwd=command.cwd,
            env=dict(command.environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        ending = asyncio.create_task(process.wait())
        watching = asyncio.create_task(_watch_size(command.cwd, output))
        try:
            await asyncio.wait(
                (ending, watching), timeout=command.timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if watching.done():
                await watching
            if not ending.done():
                limit = f"{_name(command)} took longer than {command.timeout_s:g} seconds"
                raise BuildFailed(f"{limit}\n{_tail(output)}".strip())
            return CommandResult(ending.result(), _tail(output))
        finally:
            _kill_group(process)
            watching.cancel()
            await asyncio.gather(ending, watching, return_exceptions=True)


def _launcher(argv: tuple[str, ...]) -> tuple[str, ...]:
    script = str(Path(launch.__file__).resolve())
    return (sys.executable, "-I", "-S", script, str(os.getpid()), str(PACKAGE_BYTES_MAX), *argv)


async def _watch_size(directory: Path, output: IO[bytes]) -> None:
    """Never ends by itself; raises BuildFailed."""
    while True:
        await asyncio.sleep(SIZE_CHECK_S)
        if os.fstat(output.fileno()).st_size > OUTPUT_BYTES_MAX:
            raise BuildFailed(f"the installer printed more than {OUTPUT_BYTES_MAX >> 20} MB")
        with suppress(OSError):
            # Files come and go while they are counted.
            await asyncio.to_thread(check_size, directory, "what the installer wrote")


def _tail(output: IO[bytes]) -> str:
    """Read without moving the file's position, which the program shares and may still write at."""
    size = os.fstat(output.fileno()).st_size
    start = max(0, size - BUILD_LOG_BYTES_MAX)
    text = os.pread(output.fileno(), BUILD_LOG_BYTES_MAX, start).decode("utf-8", errors="replace").strip()
    return f"…{text}" if start else text


def _kill_group(process: asyncio.subprocess.Process) -> None:
    """The program leads its group; the group may outlive it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _name(command: Command) -> str:
    return " ".join(Path(part).name for part in command.argv[:3])
