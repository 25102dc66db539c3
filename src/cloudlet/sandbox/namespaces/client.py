"""The node's side of the launcher: it is started, asked, and its cells are never lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from cloudlet.model.errors import Unavailable

from ..base import CellExit
from . import messages
from .messages import Setting

START_S_MAX = 20.0
ANSWER_S_MAX = 20.0
PENDING_MAX = 4096
"""Messages that the launcher may be behind; it takes about a millisecond for each."""
_SOURCE = Path(__file__).resolve().parents[3]
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[2]); "
    "from cloudlet.sandbox.namespaces.launcher import main; main(int(sys.argv[1]))"
)
log: structlog.stdlib.BoundLogger = structlog.get_logger()


class CellProcess:
    """The first process of a cell: our child, and the one whose end is the end of all of them."""

    def __init__(self, init_pid: int) -> None:
        self._init_pid = init_pid
        self.pid = init_pid
        """That of the runtime, once it is known."""
        self.proc = -1
        """The cell's own ``/proc``. Not ours to close."""
        self.status: socket.socket | None = None
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[CellExit] = self._loop.create_future()
        self._pidfd = os.pidfd_open(init_pid)
        self._loop.add_reader(self._pidfd, self._on_end)

    @property
    def running(self) -> bool:
        return not self._ended.done()

    def signal_group(self, number: int) -> None:
        """Signal every process of the cell. One that has ended is fine."""
        if not self.running:
            return
        if number == signal.SIGKILL:
            os.kill(self._init_pid, number)  # not reaped yet, so the number is still its own
        elif self.proc >= 0:
            _signal_all(self.proc, number)

    async def wait(self) -> CellExit:
        """The end of the runtime. May be awaited by several, cancelled and repeated."""
        return await asyncio.shield(self._ended)

    def _on_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        os.waitpid(self._init_pid, 0)
        self._ended.set_result(_exit_of(self.status))


def _exit_of(status: socket.socket | None) -> CellExit:
    """What the first process told; it tells nothing when the whole cell was killed."""
    told = b""
    if status is not None:
        with suppress(OSError):
            told = status.recv(4)
    if len(told) != 4:
        return CellExit(-1, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(struct.unpack("i", told)[0])
    return CellExit(-1, -code) if code < 0 else CellExit(code)


def processes(proc: int) -> list[str]:
    """Names in a cell's ``/proc`` of its processes, without the first. Raise OSError."""
    return [name for name in os.listdir(proc) if name.isdigit() and name != "1"]


def _signal_all(proc: int, number: int) -> None:
    """Signal what there is until there is nothing new: what forks meanwhile is found in the next round."""
    signalled: set[str] = set()
    for _ in range(64):
        new = set(processes(proc)) - signalled
        if not new:
            return
        for name in new:
            with suppress(FileNotFoundError, ProcessLookupError):
                descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
                try:
                    signal.pidfd_send_signal(descriptor, number)
                finally:
                    os.close(descriptor)
        signalled |= new


class Launcher:
    """A running launcher. Constructed by `launch`."""

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self._process = process
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._answers: dict[int, asyncio.Future[CellProcess | None]] = {}
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()
        self._number = 0
        self._loop.add_reader(connection, self._hear)
        self.alive = True

    def ask(
        self, message: Callable[[int], bytes], descriptors: Sequence[int] = ()
    ) -> asyncio.Future[CellProcess | None]:
        """Send a question made with its number; a copy of `descriptors` goes along. The future has the new
        cell's process, or None for another question, or raises Unavailable. A cell whose future was cancelled
        is killed."""
        answer: asyncio.Future[CellProcess | None] = self._loop.create_future()
        self._number += 1
        number = self._number
        self._answers[number] = answer
        try:
            self.tell(message(number), descriptors)
        except (Unavailable, OSError):
            del self._answers[number]
            raise
        return answer

    def tell(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send what needs no answer. Raise Unavailable when the launcher is gone or too far behind."""
        if not self.alive:
            raise Unavailable("the launcher of cells has ended")
        if len(message) > messages.MESSAGE_BYTES_MAX:
            raise Unavailable(f"command and environment of a cell have {len(message)} bytes: too many")
        if len(self._outgoing) >= PENDING_MAX:
            raise Unavailable("the launcher of cells is too far behind")
        self._outgoing.append((message, _copies(descriptors)))
        if len(self._outgoing) == 1:
            self._flush()

    async def close(self) -> None:
        """End it. Repeating is fine."""
        self._end("it was closed")
        self._process.kill()
        await self._loop.run_in_executor(None, self._process.wait)

    def _flush(self) -> None:
        try:
            while self._outgoing:
                message, descriptors = self._outgoing[0]
                messages.send(self._connection, message, descriptors)
                self._outgoing.popleft()
                _close_all(descriptors)
        except BlockingIOError:
            self._loop.add_writer(self._connection, self._flush)
        except OSError as error:
            self._end(str(error))
        else:
            self._loop.remove_writer(self._connection)

    def _hear(self) -> None:
        try:
            message, descriptors = messages.receive(self._connection)
        except BlockingIOError:
            return
        except (EOFError, OSError) as error:
            self._end(str(error) or "it has ended")
            return
        _close_all(descriptors)
        self._answered(message)

    def _answered(self, message: dict[str, Any]) -> None:
        answer = self._answers.pop(message["id"], None)
        error, pid = message.get("error"), message.get("pid", 0)
        process = CellProcess(pid) if pid else None
        if answer is None or answer.done():
            if process is not None:
                process.signal_group(signal.SIGKILL)
        elif error is not None:
            answer.set_exception(Unavailable(str(error)))
        else:
            answer.set_result(process)

    def _end(self, reason: str) -> None:
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._connection)
        self._loop.remove_writer(self._connection)
        self._connection.close()
        while self._outgoing:
            _close_all(self._outgoing.popleft()[1])
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Unavailable(f"the launcher of cells has ended: {reason}"))
        self._answers.clear()


async def launch(setting: Setting) -> Launcher:
    """Start a launcher. Raise Unavailable with the step that failed; nothing runs then."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    interpreter = str(Path(sys.executable).resolve())
    command = (interpreter, "-I", "-S", "-B", "-c", _PROGRAM, str(theirs.fileno()), str(_SOURCE))
    with theirs:
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                command,
                env={"LANG": "C.UTF-8"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(theirs.fileno(),),
            )
        except OSError as error:
            ours.close()
            raise Unavailable(f"the launcher of cells cannot be started: {error}") from error
    try:
        landlock = await _set(ours, setting)
        log.info("launcher_ready", pid=process.pid, landlock_abi=landlock)
        return Launcher(process, ours)
    except BaseException:
        ours.close()
        process.kill()
        process.wait()
        raise


async def _set(connection: socket.socket, setting: Setting) -> int:
    """Return the kernel's version of Landlock, 0 without."""
    messages.send(connection, messages.setting_message(setting))
    try:
        async with asyncio.timeout(START_S_MAX):
            data = await asyncio.get_running_loop().sock_recv(connection, messages.MESSAGE_BYTES_MAX)
    except (TimeoutError, OSError) as error:
        raise Unavailable(f"the launcher of cells does not answer: {error}") from error
    if not data:
        raise Unavailable("the launcher of cells ended before it was ready")
    answer = json.loads(data)
    if "error" in answer:
        raise Unavailable(
            f"cells cannot be isolated on this machine: {answer['error']} (cloudlet doctor tells what to do)"
        )
    return int(answer["landlock"])


def _copies(descriptors: Sequence[int]) -> list[int]:
    """Raise OSError; nothing is left open then."""
    copies: list[int] = []
    try:
        for descriptor in descriptors:
            copies.append(os.dup(descriptor))
    except OSError:
        _close_all(copies)
        raise
    return copies


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
