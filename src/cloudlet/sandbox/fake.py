"""The in-memory twin of a driver: cells that are no processes, programmed by their spec, with named failures.

A cell of the fake answers the control lines of ``runtime/contract.md`` as a shim does. Nothing in it waits
for the clock: what is slow waits for `FakeCell.proceed`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

from cloudlet.model.errors import Unavailable
from cloudlet.model.sandbox import Rung

from .base import Activity, CellExit, CellSpec
from .child import close_all

LINES_MAX = 64
"""Control lines waiting for their reader."""


class Failure(StrEnum):
    """How a fake cell misbehaves."""

    NONE = "none"
    CANNOT_START = "cannot_start"
    """`make` raises Unavailable."""
    SLOW = "slow"
    """Says "booted" only after `proceed`."""
    NEVER_READY = "never_ready"
    """Boots, but never answers a load."""
    DIES_AT_START = "dies_at_start"
    """Ends with code 1 before it has booted."""
    DIES_LATER = "dies_later"
    """Ends by signal 11 right after it said "loaded"."""
    LOAD_FAILS = "load_fails"
    """Answers a load with an error of the user's code."""


class FakeDriver:
    """Makes `FakeCell`s and remembers them, in order, in `cells`.

    A spec says how its cell misbehaves by the last word of its command (a value of `Failure`)."""

    def __init__(self) -> None:
        self.cells: list[FakeCell] = []
        self._closed = False

    @property
    def rung(self) -> Rung:
        return Rung.PROCESS

    @property
    def private_tmp(self) -> bool:
        return False

    async def make(self, spec: CellSpec) -> FakeCell:
        failure = _named_failure(spec.command[-1])
        if self._closed or failure is Failure.CANNOT_START:
            raise Unavailable("no cell can be made")
        cell = FakeCell(spec, failure, 100_000 + len(self.cells))
        self.cells.append(cell)
        return cell

    async def close(self) -> None:
        self._closed = True


class FakeCell:
    """A cell in memory. `received` holds the operations it was sent, `frozen` whether it is stopped; while
    it is `deaf` it answers none."""

    def __init__(self, spec: CellSpec, failure: Failure, pid: int) -> None:
        self.spec = spec
        self.failure = failure
        self.received: list[dict[str, Any]] = []
        self.frozen = False
        self.deaf = False
        self.meter = FakeMeter()
        self._pid = pid
        self._lines: asyncio.Queue[bytes] = asyncio.Queue(LINES_MAX)
        self._ended: asyncio.Future[CellExit] = asyncio.get_running_loop().create_future()
        pipes = (os.pipe(), os.pipe())
        self._outputs: tuple[int, int] = (pipes[0][0], pipes[1][0])
        self._writes: tuple[int, ...] = (pipes[0][1], pipes[1][1])
        for descriptor in self._outputs:
            os.set_blocking(descriptor, False)
        self._boot()

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def outputs(self) -> tuple[int, int]:
        return self._outputs

    def proceed(self) -> None:
        """Let a slow cell finish booting."""
        self._say({"event": "booted"})

    def says(self, line: bytes) -> None:
        """Put a line on the control channel (function code can do so too)."""
        self._lines.put_nowait(line)

    def prints(self, text: bytes) -> None:
        """Write to the cell's standard output (at most what a pipe holds)."""
        os.write(self._writes[0], text)

    def ends(self, exit_: CellExit) -> None:
        """The cell's process ends by itself."""
        if self._ended.done():
            return
        writes, self._writes = self._writes, ()
        close_all(writes)
        self.meter.close()
        self._ended.set_result(exit_)
        self._lines.put_nowait(b"")

    async def send(self, line: bytes) -> None:
        if self._ended.done():
            raise Unavailable("the cell has ended")
        message = json.loads(line)
        self.received.append(message)
        answer = _ANSWERS.get(message["op"])
        if answer is not None and not self.deaf:
            answer(self)

    async def receive(self) -> bytes:
        if self._ended.done() and self._lines.empty():
            return b""
        return await self._lines.get()

    def mount_code(self, directory: Path) -> str:
        if not directory.is_dir():
            raise Unavailable(f"code directory {directory} does not exist")
        return str(directory)

    def platform_listener(self) -> socket.socket | None:
        return None

    def set_frozen(self, frozen: bool) -> None:
        self.frozen = frozen

    def kill(self) -> None:
        self.ends(CellExit(-1, signal.SIGKILL))

    async def wait(self) -> CellExit:
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        self.kill()
        outputs, self._outputs = self._outputs, (-1, -1)
        close_all(outputs)

    def _boot(self) -> None:
        if self.failure is Failure.DIES_AT_START:
            self.ends(CellExit(1))
        elif self.failure is not Failure.SLOW:
            self._say({"event": "booted"})

    def _load(self) -> None:
        if self.failure is Failure.LOAD_FAILS:
            error = {"errorCode": 1, "errorMessage": "boom", "stackTrace": "Error: boom\n    at index.js:1:7"}
            self._say({"event": "load_failed", "error": error})
        elif self.failure is not Failure.NEVER_READY:
            self._say({"event": "loaded", "load_ms": 1.5})
        if self.failure is Failure.DIES_LATER:
            self.ends(CellExit(-1, signal.SIGSEGV))

    def _say(self, message: dict[str, Any]) -> None:
        if not self._ended.done():
            self._lines.put_nowait(json.dumps(message).encode())


class FakeMeter:
    """Values that a test sets."""

    def __init__(self) -> None:
        self.current = Activity()
        self.bytes_used = 0
        self.is_stopped = False

    def activity(self) -> Activity:
        return self.current

    def memory_bytes(self) -> int:
        return self.bytes_used

    def stopped(self) -> bool:
        return self.is_stopped

    def close(self) -> None:
        """Everything reads as zero, as after the end of a process."""
        self.current = Activity()
        self.bytes_used = 0


def _named_failure(word: str) -> Failure:
    return next((each for each in Failure if each.value == word), Failure.NONE)


_ANSWERS: dict[str, Callable[[FakeCell], None]] = {
    "load": lambda cell: cell._load(),
    "quiesce": lambda cell: cell._say({"event": "quiesced"}),
    "resume": lambda cell: cell._say({"event": "resumed"}),
    "end": lambda cell: cell.ends(CellExit(0)),
}
