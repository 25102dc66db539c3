"""The seam between the node and a rung of the isolation ladder.

A `Driver` makes `Cell`s. A cell is one runtime process that was started as ``runtime/contract.md`` section 1
says and does not know yet what it will serve. Who holds a cell speaks the contract's control lines with it;
the driver neither reads nor changes them. One contract suite (``tests/contract/test_sandbox.py``) runs
against every driver.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cloudlet.model.sandbox import Rung

CONTROL_LINE_BYTES_MAX = 1024 * 1024
"""Longest control line; a load failure carries a stack, a load request the user's variables."""


@dataclass(frozen=True, slots=True)
class CellLimits:
    """What a cell may use. A rung that cannot enforce one of them says so in its own docstring."""

    files_max: int = 4096
    """Open descriptors of one process."""
    processes_max: int = 512
    """Processes and threads together."""
    file_bytes_max: int = 512 * 1024 * 1024
    """Size of one file (the vendors give 512 MB of temporary space)."""


@dataclass(frozen=True, slots=True)
class CellSpec:
    """Everything that is known about a cell before it is known for what."""

    cell_id: str
    command: tuple[str, ...]
    """The runtime: absolute path of the interpreter and its arguments."""
    environment: Mapping[str, str]
    """The whole environment, except for ``HOME`` and ``TMPDIR``, which the driver sets."""
    listener: socket.socket
    """Listening unix socket that becomes descriptor 3. The caller keeps its own copy and closes it."""
    directory: Path
    """Existing, empty, private directory; the cell's temporary files go here. The caller removes it."""
    limits: CellLimits = CellLimits()


@dataclass(frozen=True, slots=True)
class CellExit:
    """How a cell's main process ended: by itself with `code`, or by `signal` (then `code` is -1)."""

    code: int
    signal: int = 0

    def __str__(self) -> str:
        return f"killed by signal {self.signal}" if self.signal else f"exited with code {self.code}"


@dataclass(frozen=True, slots=True)
class Activity:
    """The activity page (contract, section 5). Written by the cell, so believed within limits only."""

    deadline_ns: int = 0
    """CLOCK_MONOTONIC nanoseconds at which the earliest running invocation is over its time; 0: nothing
    runs."""
    count: int = 0
    """Invocations started so far."""


class CellMeter(Protocol):
    """What can be read of a running cell from outside, at any time, without its help and without waiting."""

    def activity(self) -> Activity:
        """The activity page now; zeros after the cell was closed."""
        ...

    def memory_bytes(self) -> int:
        """Memory of the whole cell that counts against its limit; 0 once it has ended."""
        ...

    def stopped(self) -> bool:
        """Whether somebody else than the driver has stopped the main process (SIGSTOP): it will not come
        back by itself. False when that cannot be told."""
        ...


class Cell(Protocol):
    """One running cell. All methods may be called at any time after `Driver.make` returned, also after the
    end."""

    @property
    def pid(self) -> int:
        """Process id on the host, for people and for reports."""
        ...

    @property
    def outputs(self) -> tuple[int, int]:
        """Non-blocking read ends of what the cell prints (descriptors 1 and 2). They belong to the cell:
        nobody else closes them, and nobody reads them after `close`."""
        ...

    @property
    def meter(self) -> CellMeter: ...

    async def send(self, line: bytes) -> None:
        """Send one control line (without its line feed). Raise Unavailable when the cell has ended. When
        cancelled the line may have been sent."""
        ...

    async def receive(self) -> bytes:
        """The next control line (without its line feed), or ``b""`` once the cell's side is closed, then
        always. A line over CONTROL_LINE_BYTES_MAX ends the channel. One reader at a time. When cancelled no
        line is lost."""
        ...

    def mount_code(self, directory: Path) -> str:
        """Make an existing directory readable for the cell and return the path by which the cell knows it.
        Called once. Raise Unavailable when the cell cannot be shown that directory."""
        ...

    def platform_listener(self) -> socket.socket | None:
        """A listener on the loopback that the cell's processes see, for the caller to keep; None when that is
        the host's. Called once. Raise Unavailable when the cell has ended."""
        ...

    def set_frozen(self, frozen: bool) -> None:
        """Stop or continue the whole cell, descendants included. Repeating is fine; a cell that has ended is
        fine."""
        ...

    def kill(self) -> None:
        """End the whole cell at once, frozen or not, descendants included. Returns before it has ended
        (`wait`). Repeating is fine; a cell that has ended is fine."""
        ...

    async def wait(self) -> CellExit:
        """Return when the main process has ended; what else belonged to the cell has been killed by then.
        May be awaited by several, cancelled and repeated; the answer is always the same."""
        ...

    async def close(self) -> None:
        """Kill what still runs, wait for it, and give back every descriptor. Repeating is fine. When
        cancelled the cell is killed, but `close` has to be called again."""
        ...


class Driver(Protocol):
    """One rung. A driver may be used as soon as it is constructed, until it is closed."""

    @property
    def rung(self) -> Rung: ...

    @property
    def private_tmp(self) -> bool:
        """Whether ``/tmp`` itself is the cell's own; otherwise only ``TMPDIR`` is."""
        ...

    async def make(self, spec: CellSpec) -> Cell:
        """Start a cell. It runs when this returns, but may not have booted yet (it says so on its channel).
        Raise Unavailable when no cell can be made; nothing is left behind then, nor when cancelled. Two
        cells never share a spec."""
        ...

    async def close(self) -> None:
        """End what the driver keeps for itself. The cells are their holders' to close, before this.
        Repeating is fine; `make` raises Unavailable afterwards."""
        ...
