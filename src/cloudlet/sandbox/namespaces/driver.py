"""The driver of the rung `namespaces`.

Not enforced from outside: memory, which the watch reads for the whole cell, ``/tmp`` included, and bounds by
killing ("soft"). There is no way out of a cell's network yet: a function reaches itself and the platform.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from cloudlet.model.errors import Unavailable
from cloudlet.model.sandbox import Rung

from ..base import CONTROL_LINE_BYTES_MAX, CellSpec
from ..process import ACTIVITY_BYTES, ProcessCell, ProcessMeter
from . import kernel, messages
from .client import CellProcess, Launcher, launch, processes
from .messages import CODE, FAILED, PARTS, READY, CellRequest, Setting
from .users import UserIds

SETUP_S_MAX = 20.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CREDENTIALS_BYTES = 12
log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Options:
    """What all cells of a driver have in common."""

    tmp_bytes: int = 128 * 1024 * 1024
    """Size of ``/tmp``. It is memory, and counts as the cell's."""
    tmp_files: int = 16_384
    """Files and directories in ``/tmp``."""
    user_first: int = 1_900_000_000
    """First user and group id of the host that cells get when the node is root."""
    user_count: int = 65_536


class NamespacesDriver:
    """Makes cells of the rung `namespaces` (Linux 5.12 or later, x86_64 or aarch64).

    `code` are the directories below which the code of versions lies; a cell sees none of it but what it is
    shown. `visible` are files and directories that every cell can read: interpreters, shims. They must exist
    before the first cell is made, and, for root, be readable by everybody.
    """

    def __init__(self, code: Sequence[Path], visible: Sequence[Path], options: Options | None = None) -> None:
        options = options or Options()
        self._code = tuple(path.resolve() for path in code)
        self._setting = Setting(
            visible=sorted({str(path.resolve()) for path in (*visible, *interpreter_directories())}),
            code=[str(path) for path in self._code],
            tmp_bytes=options.tmp_bytes,
            tmp_files=options.tmp_files,
        )
        self._users = UserIds(options.user_first, options.user_count) if os.geteuid() == 0 else None
        self._launcher: Launcher | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    @property
    def rung(self) -> Rung:
        return Rung.NAMESPACES

    @property
    def private_tmp(self) -> bool:
        return True

    async def start(self) -> None:
        """Start what makes cells, so that a machine which cannot isolate them is noticed at once. Raise
        Unavailable."""
        await self._running_launcher()
        log.info("driver_ready", rung=self.rung.value, own_users=self._users is not None)

    async def make(self, spec: CellSpec) -> NamespacesCell:
        launcher = await self._running_launcher()
        with ExitStack() as undo:
            try:
                cell = await self._make(spec, launcher, undo)
            except OSError as error:
                raise Unavailable(f"no cell can be made with {spec.command[0]}: {error}") from error
            undo.pop_all()
            return cell

    async def close(self) -> None:
        self._closed = True
        if self._launcher is not None:
            await self._launcher.close()

    async def _running_launcher(self) -> Launcher:
        if not kernel.supported():
            raise Unavailable(f"cells cannot be isolated on {kernel.MACHINE}: use CLOUDLET_RUNG=process")
        async with self._starting:
            if self._closed:
                raise Unavailable("the sandbox driver is closed")
            if self._launcher is None or not self._launcher.alive:
                if self._launcher is not None:
                    log.warning("launcher_restarted")
                    await self._launcher.close()
                self._launcher = await launch(self._setting)
            return self._launcher

    async def _make(self, spec: CellSpec, launcher: Launcher, undo: ExitStack) -> NamespacesCell:
        """Everything that `undo` gets is taken back when the start fails."""
        user = self._users.take() if self._users else 0
        if self._users:
            undo.callback(self._users.give_back, user)
        page = _activity_page()
        undo.callback(os.close, page)
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        with theirs, ExitStack() as handed:
            outputs = [_output(undo, handed) for _ in range(2)]
            setup, their_setup = _packets(undo, handed)
            status, their_status = _packets(undo, handed)
            setup.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=CONTROL_LINE_BYTES_MAX)
            undo.callback(writer.close)
            request = _request(spec, user)
            undo.callback(_forget, launcher, spec.cell_id)  # it may be cloned when we are cancelled
            answer = launcher.ask(
                lambda number: messages.make_message(number, request),
                (
                    outputs[0][1],
                    outputs[1][1],
                    spec.listener.fileno(),
                    theirs.fileno(),
                    page,
                    their_setup.fileno(),
                    their_status.fileno(),
                ),
            )
        process = await answer
        if process is None:
            raise Unavailable("the launcher of cells has made none")
        process.status = status
        try:
            with setup:
                process.pid, parts = await _set_up(setup)
        except BaseException:
            process.signal_group(signal.SIGKILL)
            await process.wait()
            raise
        undo.callback(parts.close)
        process.proc = parts.proc
        held = _Held(self, launcher, spec.cell_id, user, parts, status)
        return NamespacesCell(process, reader, writer, (outputs[0][0], outputs[1][0]), page, held)

    def find_code(self, directory: Path) -> tuple[int, str]:
        """The number of the code root that holds `directory`, and the way from there. Raise Unavailable."""
        if not directory.is_dir():
            raise Unavailable(f"code directory {directory} does not exist")
        real = directory.resolve()
        for number, root in enumerate(self._code):
            if real.is_relative_to(root):
                return number, str(real.relative_to(root))
        raise Unavailable(f"code directory {directory} is in none of the directories that cells may be shown")

    def give_back(self, user: int) -> None:
        if self._users is not None:
            self._users.give_back(user)


@dataclass(slots=True)
class _Parts:
    """What a cell hands out: its ``/proc`` and ``/tmp``, and a listener on its loopback."""

    proc: int
    tmp: int
    door: socket.socket | None

    def close(self) -> None:
        for descriptor in (self.proc, self.tmp):
            if descriptor >= 0:
                os.close(descriptor)
        self.proc = self.tmp = -1
        if self.door is not None:
            self.door.close()


@dataclass(frozen=True, slots=True)
class _Held:
    """What is to be given back at the end of a cell."""

    driver: NamespacesDriver
    launcher: Launcher
    cell_id: str
    user: int
    parts: _Parts
    status: socket.socket


class NamespacesCell(ProcessCell):
    """A cell in namespaces of its own. `pid` is that of the runtime, as the host sees it."""

    def __init__(
        self,
        process: CellProcess,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        outputs: tuple[int, int],
        page: int,
        held: _Held,
    ) -> None:
        super().__init__(process, reader, writer, outputs, page, lambda _: True)
        self.meter = _Meter(process, page, held.parts)
        self._held: _Held | None = held
        self._showing: asyncio.Future[CellProcess | None] | None = None

    async def send(self, line: bytes) -> None:
        """Also raise Unavailable when the code could not be shown, which is known only by now."""
        if self._showing is not None:
            showing, self._showing = self._showing, None
            await asyncio.shield(showing)
        await super().send(line)

    def mount_code(self, directory: Path) -> str:
        if self._held is None:
            raise Unavailable("the cell has ended")
        root, path = self._held.driver.find_code(directory)
        cell_id = self._held.cell_id
        self._showing = self._held.launcher.ask(
            lambda number: messages.show_message(number, cell_id, root, path)
        )
        return CODE

    def platform_listener(self) -> socket.socket | None:
        if self._held is None or self._held.parts.door is None:
            raise Unavailable("the cell has ended, or its listener was taken already")
        door, self._held.parts.door = self._held.parts.door, None
        return door

    async def close(self) -> None:
        await super().close()
        held, self._held = self._held, None
        if held is None:
            return
        if self._showing is not None:
            self._showing.cancel()
        held.parts.close()
        held.status.close()
        held.driver.give_back(held.user)
        _forget(held.launcher, held.cell_id)


class _Meter(ProcessMeter):
    """Reads the memory of all processes of the cell, and what lies in its ``/tmp``."""

    def __init__(self, process: CellProcess, page: int, parts: _Parts) -> None:
        super().__init__(process, page)
        self._process = process
        self._parts = parts

    def memory_bytes(self) -> int:
        if self._parts.proc < 0 or not self._process.running:
            return 0
        tmp = os.fstatvfs(self._parts.tmp)
        pages = sum(_resident(self._parts.proc, name) for name in processes(self._parts.proc))
        return pages * _PAGE_BYTES + (tmp.f_blocks - tmp.f_bfree) * tmp.f_frsize


def _resident(proc: int, name: str) -> int:
    """Pages of one process of a cell, 0 when it has ended."""
    try:
        descriptor = os.open(f"{name}/statm", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    try:
        return int(os.read(descriptor, 128).split()[1])
    except ProcessLookupError:
        return 0
    finally:
        os.close(descriptor)


def interpreter_directories() -> tuple[Path, ...]:
    """What this Python needs to run: its programs and its library, nothing of a virtual environment."""
    base = Path(sys.base_prefix).resolve()
    return tuple(path for name in ("bin", "lib", "lib64") if (path := base / name).is_dir())


async def _set_up(setup: socket.socket) -> tuple[int, _Parts]:
    """Wait until the runtime has been executed. Return its process id and what the cell hands out. Raise
    Unavailable with the step that failed."""
    pid, parts = 0, None
    try:
        async with asyncio.timeout(SETUP_S_MAX):
            while True:
                await _readable(setup)
                data, ancillary, _, _ = setup.recvmsg(
                    8192, socket.CMSG_SPACE(4 * len(PARTS)) + socket.CMSG_SPACE(_CREDENTIALS_BYTES)
                )
                if data.startswith(FAILED):
                    raise Unavailable(f"no cell can be made: {data[1:].decode(errors='replace')}")
                if data == READY:
                    pid, parts = _sender(ancillary), _parts(messages.descriptors_of(ancillary))
                elif parts is None:
                    raise Unavailable("no cell can be made: it ended while it was set up")
                else:
                    return pid, parts
    except TimeoutError:
        _close(parts)
        raise Unavailable(f"no cell can be made: it was not set up in {SETUP_S_MAX:.0f} seconds") from None
    except BaseException:
        _close(parts)
        raise


def _parts(descriptors: Sequence[int]) -> _Parts:
    if len(descriptors) != len(PARTS):
        raise Unavailable("no cell can be made: too many descriptors are open")
    proc, tmp, door = descriptors
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return _Parts(proc, tmp, socket.socket(fileno=door))


def _close(parts: _Parts | None) -> None:
    if parts is not None:
        parts.close()


def _sender(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    """The process id of who sent a message, as this process sees it."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return int.from_bytes(data[:4], sys.byteorder)
    raise Unavailable("no cell can be made: the kernel did not tell its process id")


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _request(spec: CellSpec, user: int) -> CellRequest:
    interpreter = str(Path(spec.command[0]).resolve())
    environment: Mapping[str, str] = {**spec.environment, "HOME": "/tmp", "TMPDIR": "/tmp"}  # noqa: S108
    return CellRequest(
        cell=spec.cell_id,
        command=(interpreter, *spec.command[1:]),
        environment=environment,
        runtime="node" if Path(interpreter).name.startswith("node") else "python",
        user=user,
        files_max=spec.limits.files_max,
        processes_max=spec.limits.processes_max,
        file_bytes_max=spec.limits.file_bytes_max,
    )


def _activity_page() -> int:
    """A file of 4,096 zero bytes without a name, which the cell can make neither larger nor smaller."""
    page = os.memfd_create("activity", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(page, ACTIVITY_BYTES)
        fcntl.fcntl(page, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(page)
        raise
    return page


def _output(undo: ExitStack, handed: ExitStack) -> tuple[int, int]:
    read, write = os.pipe()
    undo.callback(os.close, read)
    handed.callback(os.close, write)
    os.set_blocking(read, False)
    return read, write


def _packets(undo: ExitStack, handed: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    undo.callback(ours.close)
    handed.callback(theirs.close)
    return ours, theirs


def _forget(launcher: Launcher, cell_id: str) -> None:
    with suppress(Unavailable):
        launcher.tell(messages.gone_message(cell_id))
