"""What node and launcher say to each other: one JSON object a message on a sequenced-packet socket, with
descriptors beside it. Standard library only.

The node begins with a `Setting`; the answer is ``{"landlock": ABI}`` or ``{"error": TEXT}``. Then, each
answered by its ``id`` with ``{"id", "pid"}`` or ``{"id", "error"}``::

    {"op":"make","id","request"}  a `CellRequest`, with DESCRIPTORS beside it; `pid`: the cell's first process
    {"op":"show","id","cell","root","path"}   show the directory `path` below code root number `root`
    {"op":"gone","cell"}     the cell has ended; no answer

A cell that is being set up speaks on its setup socket: READY with `PARTS` beside it, or FAILED and a text;
the socket is closed when the runtime has been executed. On its status socket the cell's first process tells
the wait status of the runtime, four bytes, before it ends itself.
"""

from __future__ import annotations

import array
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

MESSAGE_BYTES_MAX = 128 * 1024
DESCRIPTORS = ("stdout", "stderr", "listener", "control", "page", "setup", "status")
"""Beside a request, in this order."""
PARTS = ("proc", "tmp", "door")
"""Beside READY: the cell's ``/proc`` and ``/tmp``, and a listener on its loopback."""
READY, FAILED = b"r", b"f"
CODE = "/code"
"""Where a cell finds the function's code."""
USER_ID = 1000
"""The cell's user and group, as it sees them itself."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all cells of a launcher have in common."""

    visible: Sequence[str]
    """Directories and files that every cell can read, under their own names; resolved."""
    code: Sequence[str]
    """Directories below which there is code to be shown; resolved."""
    tmp_bytes: int
    tmp_files: int


@dataclass(frozen=True, slots=True)
class CellRequest:
    """One cell."""

    cell: str
    command: Sequence[str]
    environment: Mapping[str, str]
    runtime: str
    """``node`` or ``python``: which system calls it may make."""
    user: int
    """User and group id on the host; 0: the launcher's own."""
    files_max: int
    processes_max: int
    file_bytes_max: int


def setting_message(setting: Setting) -> bytes:
    return json.dumps(asdict(setting)).encode()


def make_message(number: int, request: CellRequest) -> bytes:
    return json.dumps({"op": "make", "id": number, "request": asdict(request)}).encode()


def show_message(number: int, cell: str, root: int, path: str) -> bytes:
    return json.dumps({"op": "show", "id": number, "cell": cell, "root": root, "path": path}).encode()


def gone_message(cell: str) -> bytes:
    return json.dumps({"op": "gone", "cell": cell}).encode()


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next message and its descriptors. Raise EOFError at the end, OSError."""
    data, ancillary, _, _ = connection.recvmsg(
        MESSAGE_BYTES_MAX, socket.CMSG_SPACE(4 * len(DESCRIPTORS)), socket.MSG_CMSG_CLOEXEC
    )
    descriptors = descriptors_of(ancillary)
    if not data:
        raise EOFError
    message: dict[str, Any] = json.loads(data)
    return message, descriptors


def send(connection: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Raise OSError (BlockingIOError when it would have to wait)."""
    rights = array.array("i", descriptors)
    connection.sendmsg((data,), [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else [])


def descriptors_of(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came with a message."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)
