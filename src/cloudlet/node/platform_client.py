"""The receiving half of `node.platform`, for the api process."""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from cloudlet.model.errors import NodeUnavailable

_LINE_BYTES_MAX = 16 * 1024
_DESCRIPTORS_MAX = 16


@dataclass(frozen=True, slots=True)
class DoorAdded:
    """An instance may call. The receiver owns `listener` (listening, non-blocking) and closes it."""

    instance: str
    environment: str
    function: str
    secret_id: str
    secret_key: str
    session_token: str
    listener: socket.socket


@dataclass(frozen=True, slots=True)
class DoorRemoved:
    """The instance is gone: close its listener."""

    instance: str


class PlatformListeners:
    """What the node says about the doors of its instances::

        async with PlatformListeners(paths.platform_socket) as doors:   # raises NodeUnavailable
            async for change in doors: ...

    First every door that exists, then the changes. The iterator ends when the node goes away; a receiver
    then closes the listeners that it holds and enters anew (it is told everything again).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._buffer = b""
        self._descriptors: deque[int] = deque()

    async def __aenter__(self) -> PlatformListeners:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, str(self._path))
        except OSError as exc:
            connection.close()
            raise NodeUnavailable(f"the node does not answer at {self._path}: {exc.strerror}") from exc
        except BaseException:
            connection.close()
            raise
        self._socket = connection
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        while self._descriptors:
            os.close(self._descriptors.popleft())

    async def __aiter__(self) -> AsyncIterator[DoorAdded | DoorRemoved]:
        while await self._read():
            *lines, self._buffer = self._buffer.split(b"\n")
            for line in lines:
                yield self._change(json.loads(line))

    async def _read(self) -> bool:
        """Take what has arrived; False at the end of the stream."""
        if self._socket is None:
            return False
        await _readable(self._socket)
        try:
            data, ancillary, _, _ = self._socket.recvmsg(
                _LINE_BYTES_MAX, socket.CMSG_SPACE(_DESCRIPTORS_MAX * 4)
            )
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._descriptors.extend(_received(ancillary))
        self._buffer += data
        return bool(data) and len(self._buffer) <= 2 * _LINE_BYTES_MAX

    def _change(self, message: dict[str, str]) -> DoorAdded | DoorRemoved:
        if message.pop("op") == "remove":
            return DoorRemoved(message["instance"])
        listener = socket.socket(fileno=self._descriptors.popleft())
        listener.setblocking(False)
        return DoorAdded(**message, listener=listener)


def _received(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return list(descriptors)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection, wake)
    try:
        await ready
    finally:
        loop.remove_reader(connection)
