"""Making blank cells: a booted runtime with its socket and its directory, not yet known for what."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from cloudlet.model.clock import Clock
from cloudlet.model.errors import Unavailable
from cloudlet.model.function import MEMORY_MB_DEFAULT, TIMEOUT_S_MAX, FunctionConfig, Runtime
from cloudlet.model.ids import new_instance_id
from cloudlet.model.sandbox import EndReason
from cloudlet.sandbox.base import Cell, CellSpec, Driver
from cloudlet.sandbox.child import ChildSpec, spawn

from .runtimes import Runtimes
from .watch import Watched, bounds_of
from .wire import parse_cell_event

BOOT_TIMEOUT_S = 20.0
BOOTS_AT_ONCE = max(2, os.cpu_count() or 1)
"""Booting takes a processor. In a burst the first cells are there sooner when not all boot at once."""
BACKLOG = 512
"""Connections that may wait while the function is loaded."""
log: structlog.stdlib.BoundLogger = structlog.get_logger()

Command = Callable[[Runtime, str, int], Sequence[str]]
"""The command line of a cell, from its runtime, the interpreter and the memory of its function in MB
(`runtime.bundle.command`)."""


@dataclass(frozen=True, slots=True)
class CellKind:
    """What has to be known about a function to start a cell that can become an instance of it."""

    runtime: Runtime
    memory_mb: int
    """Node.js cannot change its heap limit after the start. 0 for Python, which has none."""


def kind_of(config: FunctionConfig) -> CellKind:
    """The cells that a version can use."""
    return CellKind(config.runtime, config.memory_mb if config.runtime.language == "node" else 0)


@dataclass(frozen=True, slots=True)
class Blank:
    """A booted cell. Its holder calls `discard` in the end."""

    kind: CellKind
    cell: Cell
    directory: Path
    socket_path: Path
    boot_ms: float

    async def discard(self) -> None:
        """End the cell and remove what it left. May be repeated."""
        await self.cell.close()
        self.socket_path.unlink(missing_ok=True)
        await remove_tree(self.directory)


class CellMaker:
    """Makes blank cells in `directory`."""

    def __init__(
        self, driver: Driver, runtimes: Runtimes, command: Command, directory: Path, clock: Clock
    ) -> None:
        self._driver = driver
        self._runtimes = runtimes
        self._command = command
        self._directory = directory
        self._clock = clock
        self._boots = asyncio.Semaphore(BOOTS_AT_ONCE)
        self.booting: list[Watched] = []
        """Cells that were started and have not said a word yet, for the watch."""

    async def make(self, kind: CellKind) -> Blank:
        """Return a booted cell. Raise Unavailable; nothing is left behind then, nor when cancelled."""
        interpreter = await self._runtimes.ensure(kind.runtime)
        async with self._boots:
            return await self._make(kind, interpreter)

    async def _make(self, kind: CellKind, interpreter: Path) -> Blank:
        started = self._clock.monotonic()
        cell_id = new_instance_id()
        directory = self._directory / cell_id
        path = self._directory / f"{cell_id}.sock"
        try:
            directory.mkdir(mode=0o700, parents=True)
            with _listener(path) as listener:
                command = tuple(self._command(kind.runtime, str(interpreter), kind.memory_mb))
                environment = _environment(cell_id, interpreter)
                cell = await self._driver.make(CellSpec(cell_id, command, environment, listener, directory))
        except BaseException as exc:
            path.unlink(missing_ok=True)
            shutil.rmtree(directory, ignore_errors=True)  # nothing ran in it, so it is small
            if isinstance(exc, OSError):
                raise Unavailable(f"no cell can be made: {exc}") from exc
            raise
        blank = Blank(kind, cell, directory, path, 0.0)
        watched = watched_blank(kind, cell)
        self.booting.append(watched)
        try:
            await _booted(cell)
        except BaseException:
            await blank.discard()
            raise
        finally:
            self.booting.remove(watched)
        boot_ms = (self._clock.monotonic() - started) * 1000
        return Blank(kind, cell, directory, path, boot_ms)


def watched_blank(kind: CellKind, cell: Cell) -> Watched:
    """A cell that has no version yet, for the watch."""
    bounds = bounds_of(kind.runtime.language, TIMEOUT_S_MAX, kind.memory_mb or MEMORY_MB_DEFAULT)

    def kill(_reason: EndReason, detail: str) -> None:
        log.warning("blank_cell_killed", runtime=kind.runtime, pid=cell.pid, detail=detail)
        cell.kill()

    return Watched(cell.meter, bounds, kill)


async def remove_tree(directory: Path) -> None:
    """Remove a directory that function code may have filled, without holding up the loop for it."""
    try:
        directory.rmdir()  # the common case: nothing was left in it
        return
    except FileNotFoundError:
        return
    except OSError:
        pass  # not empty
    devnull = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        command = ("/bin/rm", "-rf", "--", str(directory))
        child = spawn(ChildSpec(command, {}, Path("/"), devnull, devnull, {}, None))
    except (OSError, subprocess.SubprocessError) as exc:
        log.warning("directory_not_removed", path=str(directory), reason=str(exc))
        return
    finally:
        os.close(devnull)
    try:
        code = (await child.wait()).code
    except asyncio.CancelledError:
        # Nobody would take its end any more. What is left is removed at the next start.
        child.put_down()
        raise
    if code != 0:
        log.warning("directory_not_removed", path=str(directory))


def _listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _environment(cell_id: str, interpreter: Path) -> dict[str, str]:
    """The contract's environment at start."""
    return {
        "PATH": f"{interpreter.parent}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "CLOUDLET_INSTANCE": cell_id,
    }


async def _booted(cell: Cell) -> None:
    """Wait for the shim's first word."""
    try:
        async with asyncio.timeout(BOOT_TIMEOUT_S):
            line = await cell.receive()
    except TimeoutError:
        raise Unavailable(f"the runtime did not boot within {BOOT_TIMEOUT_S:.0f} seconds") from None
    event = parse_cell_event(line)
    if event is None or event.event != "booted":
        raise Unavailable(f"the runtime ended before it had booted: {_last_words(cell)}")


def _last_words(cell: Cell) -> str:
    try:
        return os.read(cell.outputs[1], 2000).decode(errors="replace").strip() or "it printed nothing"
    except OSError:
        return "it printed nothing"
