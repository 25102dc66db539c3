"""The rung `process`: a plain child process. No isolation from the host or from other cells.

What it has nevertheless: a session of its own, descriptors 0 to 5 and nothing else, an empty environment but
for the contract's, the death signal, no gain of privileges by setuid programs, limits on files, file size
and core dumps, and, where the kernel allows it, a ``/tmp`` of its own and code that it cannot change. Not
enforced: the number of processes, except in a user namespace (elsewhere the kernel counts the processes of
the whole user, and root's not at all).
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

import structlog

from cloudlet.model.errors import Unavailable
from cloudlet.model.sandbox import Rung

from . import linux
from .base import CONTROL_LINE_BYTES_MAX, Activity, CellExit, CellLimits, CellSpec
from .child import Child, ChildSpec, close_all, spawn
from .tmp import PrivateTmp, detect

ACTIVITY_BYTES = 4096
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
log: structlog.stdlib.BoundLogger = structlog.get_logger()


class ProcessDriver:
    """Makes cells of the rung `process`.

    `shown` are the directories that a cell needs and that could lie under ``/tmp`` (code, runtimes): they
    stay visible there, and read-only where the kernel allows it. They must exist before the first cell is
    made.
    """

    def __init__(self, shown: Sequence[Path]) -> None:
        self._tmp = detect((*shown, *map(Path, (sys.prefix, sys.base_prefix))), fixed=shown)
        self._closed = False
        log.info("driver_ready", rung=self.rung.value, private_tmp=self.private_tmp)

    @property
    def rung(self) -> Rung:
        return Rung.PROCESS

    @property
    def private_tmp(self) -> bool:
        return self._tmp is not None

    async def make(self, spec: CellSpec) -> ProcessCell:
        if self._closed:
            raise Unavailable("the sandbox driver is closed")
        with ExitStack() as undo:
            try:
                cell = await self._start(spec, undo)
            except (OSError, subprocess.SubprocessError) as exc:
                raise Unavailable(f"no cell can be made with {spec.command[0]}: {exc}") from exc
            undo.pop_all()
            return cell

    async def close(self) -> None:
        self._closed = True

    async def _start(self, spec: CellSpec, undo: ExitStack) -> ProcessCell:
        """Everything that `undo` gets is taken back when the start fails. The fork is the last step and
        waits for nothing, so that no cancellation can leave a process behind."""
        page = _activity_file(spec.directory)
        undo.callback(os.close, page)
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        outputs = []
        with theirs, ExitStack() as inherited:
            for _ in range(2):
                read, write = os.pipe()
                undo.callback(os.close, read)
                inherited.callback(os.close, write)
                os.set_blocking(read, False)
                outputs.append((read, write))
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=CONTROL_LINE_BYTES_MAX)
            undo.callback(writer.close)
            child = self._spawn(spec, theirs.fileno(), page, outputs)
        undo.callback(child.signal_group, signal.SIGKILL)
        return ProcessCell(child, reader, writer, (outputs[0][0], outputs[1][0]), page, self._shows)

    def _spawn(self, spec: CellSpec, control: int, page: int, outputs: list[tuple[int, int]]) -> Child:
        (_, stdout), (stderr_read, stderr) = outputs
        private = "/tmp" if self._tmp else str(spec.directory)  # noqa: S108 - the cell's own, see tmp.py
        child = ChildSpec(
            command=spec.command,
            environment={**spec.environment, "HOME": private, "TMPDIR": private},
            directory=spec.directory,
            stdout=stdout,
            stderr=stderr,
            descriptors={3: spec.listener.fileno(), 4: control, 5: page},
            prepare=_preparation(spec.limits, self._tmp, spec.directory),
        )
        try:
            return spawn(child)
        except subprocess.SubprocessError as exc:
            raise OSError(_said(stderr_read) or str(exc)) from exc

    def _shows(self, directory: Path) -> bool:
        return self._tmp is None or self._tmp.shows(directory)


class CellChild(Protocol):
    """What a cell needs of its process; a `Child`, or what another rung has instead. As described there."""

    @property
    def pid(self) -> int: ...

    @property
    def running(self) -> bool: ...

    def signal_group(self, number: int) -> None: ...

    async def wait(self) -> CellExit: ...


class ProcessCell:
    """A child process as a cell."""

    def __init__(
        self,
        child: CellChild,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        outputs: tuple[int, int],
        page: int,
        shows: Callable[[Path], bool],
    ) -> None:
        self._child = child
        self._reader = reader
        self._writer = writer
        self._outputs = outputs
        self._shows = shows
        self.meter = ProcessMeter(child, page)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def outputs(self) -> tuple[int, int]:
        return self._outputs

    async def send(self, line: bytes) -> None:
        if not self._child.running:
            raise Unavailable("the cell has ended")
        try:
            self._writer.write(line + b"\n")
            await self._writer.drain()
        except (OSError, RuntimeError) as exc:
            raise Unavailable("the cell has closed its control channel") from exc

    async def receive(self) -> bytes:
        try:
            line = await self._reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            log.warning("control_line_too_long", pid=self.pid, bytes_max=CONTROL_LINE_BYTES_MAX)
            self._writer.close()
            self._reader.feed_eof()
            return b""
        except (asyncio.IncompleteReadError, OSError):
            return b""
        return line[:-1]

    def mount_code(self, directory: Path) -> str:
        if not directory.is_dir():
            raise Unavailable(f"code directory {directory} does not exist")
        if not self._shows(directory):
            raise Unavailable(f"code directory {directory} cannot be shown to a cell with a /tmp of its own")
        return str(directory)

    def platform_listener(self) -> socket.socket | None:
        return None

    def set_frozen(self, frozen: bool) -> None:
        self.meter.frozen = frozen
        self._child.signal_group(signal.SIGSTOP if frozen else signal.SIGCONT)

    def kill(self) -> None:
        self._child.signal_group(signal.SIGKILL)

    async def wait(self) -> CellExit:
        return await self._child.wait()

    async def close(self) -> None:
        self.kill()
        await self._child.wait()
        outputs, self._outputs = self._outputs, (-1, -1)
        close_all(outputs)
        self.meter.close()
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


class ProcessMeter:
    """Reads the activity page, the resident memory and the state of one process."""

    def __init__(self, child: CellChild, page: int) -> None:
        self._child = child
        self._page = page
        self._statm = -1
        self.frozen = False
        """The driver has stopped the process itself."""
        if sys.platform == "linux":
            self._statm = os.open(f"/proc/{child.pid}/statm", os.O_RDONLY | os.O_CLOEXEC)

    def activity(self) -> Activity:
        if self._page < 0:
            return Activity()
        # pread, not mmap: the cell can make the file shorter, and a map would then raise SIGBUS in the node.
        raw = os.pread(self._page, 16, 0)
        if len(raw) < 16:
            return Activity()
        return Activity(int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little"))

    def memory_bytes(self) -> int:
        if self._statm < 0 or not self._child.running:
            return 0
        try:
            fields = os.pread(self._statm, 128, 0).split()
        except ProcessLookupError:
            return 0
        return int(fields[1]) * _PAGE_BYTES

    def stopped(self) -> bool:
        return not self.frozen and self._child.running and linux.is_stopped(self._child.pid)

    def close(self) -> None:
        page, self._page = self._page, -1
        statm, self._statm = self._statm, -1
        close_all((page, statm))


def _preparation(limits: CellLimits, tmp: PrivateTmp | None, directory: Path) -> Callable[[], None]:
    """What the child does between fork and exec; everything it needs is computed here, before the fork."""
    parent = os.getpid()
    mounts = tmp.prepare(directory) if tmp else None
    own_user_namespace = tmp is not None and tmp.user_namespace
    bounds = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, limits.files_max),
        (resource.RLIMIT_FSIZE, limits.file_bytes_max),
    ]
    if own_user_namespace:
        bounds.append((resource.RLIMIT_NPROC, limits.processes_max))
    ceilings = [(name, _at_most(value, resource.getrlimit(name)[1])) for name, value in bounds]

    def prepare() -> None:
        if mounts is not None:
            mounts()
        for name, value in ceilings:
            resource.setrlimit(name, (value, value))
        linux.no_new_privileges()
        linux.die_with_parent(parent)

    return prepare


def _at_most(value: int, hard: int) -> int:
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def _activity_file(directory: Path) -> int:
    """A file of 4,096 zero bytes without a name."""
    if sys.platform == "linux":
        page = os.memfd_create("activity", os.MFD_CLOEXEC)
    else:
        page, name = tempfile.mkstemp(dir=directory)
        Path(name).unlink()
    os.ftruncate(page, ACTIVITY_BYTES)
    return page


def _said(descriptor: int) -> str:
    try:
        return os.read(descriptor, 4096).decode(errors="replace")
    except BlockingIOError:
        return ""
