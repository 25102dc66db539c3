"""The platform's door into each instance, and how it is handed to the api process.

SDK calls of an instance go to ``127.0.0.1:PORT``, a listener that belongs to this instance alone; which
listener a call arrives on says who speaks. The node makes the listeners and keeps a copy of each, so the api
process may die and come back while connections wait in their backlogs. The api process connects to
`Paths.platform_socket` and is sent, for every instance there is and then for every new one, a JSON line with
the listener as ancillary descriptor::

    {"op":"add","instance":…,"environment":…,"function":…,"secret_id":…,"secret_key":…,"session_token":…}
    {"op":"remove","instance":…}

Descriptors arrive in the order of their "add" lines.
"""

from __future__ import annotations

import array
import asyncio
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from cloudlet.model.ids import new_secret
from cloudlet.runtime.bundle import InstanceCredentials

BACKLOG = 128
PENDING_MAX = 4096
"""Messages that a receiver may be behind before it is cut (it comes back and is told everything anew)."""
RECEIVERS_MAX = 8
_OnClose = Callable[["_Receiver"], None]
log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PlatformDoor:
    """The listener of one instance."""

    instance: str
    environment: str
    function: str
    credentials: InstanceCredentials
    listener: socket.socket

    @property
    def url(self) -> str:
        """Where the instance finds the platform (dialect A)."""
        port: int = self.listener.getsockname()[1]
        return f"http://127.0.0.1:{port}/admin"


def open_door(
    instance: str, environment: str, function: str, listener: socket.socket | None = None
) -> PlatformDoor:
    """Make the credentials of a new instance, and its listener unless the cell has brought one. Raise
    OSError."""
    listener = listener or _listen()
    credentials = InstanceCredentials(new_secret("AKID"), new_secret("sk"), new_secret("st"))
    return PlatformDoor(instance, environment, function, credentials, listener)


def _listen() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind(("127.0.0.1", 0))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


class PlatformServer:
    """Tells every connected receiver about every door."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._doors: dict[str, PlatformDoor] = {}
        self._receivers: set[_Receiver] = set()
        self._listener: socket.socket | None = None

    @property
    def receivers(self) -> int:
        """Connected processes."""
        return len(self._receivers)

    def start(self) -> None:
        """Listen. Raise OSError when the socket cannot be made."""
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            listener.bind(str(self.path))
            self.path.chmod(0o600)
            listener.listen(RECEIVERS_MAX)
        except BaseException:
            listener.close()
            raise
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)
        self._listener = listener

    def add(self, door: PlatformDoor) -> None:
        """A new instance."""
        self._doors[door.instance] = door
        for receiver in tuple(self._receivers):
            receiver.push(_add_line(door), door.listener)

    def remove(self, instance: str) -> None:
        """The instance is gone; its listener is closed. Unknown ones are fine."""
        door = self._doors.pop(instance, None)
        if door is None:
            return
        door.listener.close()
        for receiver in tuple(self._receivers):
            receiver.push(_remove_line(instance), None)

    def close(self) -> None:
        """Stop listening, cut the receivers, close every door. May be repeated."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            self.path.unlink(missing_ok=True)
        for receiver in tuple(self._receivers):
            receiver.close()
        for instance in tuple(self._doors):
            self.remove(instance)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError as exc:
            log.warning("platform_accept_failed", reason=str(exc))
            return
        if len(self._receivers) >= RECEIVERS_MAX:
            connection.close()
            return
        receiver = _Receiver(connection, self._receivers.discard)
        self._receivers.add(receiver)
        for door in self._doors.values():
            receiver.push(_add_line(door), door.listener)


class _Receiver:
    """One connected process. Sends what fits and queues the rest."""

    def __init__(self, connection: socket.socket, on_close: _OnClose) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._on_close = on_close
        self._pending: deque[tuple[bytes, socket.socket | None]] = deque()
        self._open = True
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection, self._hear)

    def push(self, line: bytes, listener: socket.socket | None) -> None:
        if not self._open:
            return
        if len(self._pending) >= PENDING_MAX:
            log.warning("platform_receiver_cut", pending=len(self._pending))
            self.close()
            return
        # A copy, because the instance may be gone before its line is sent.
        self._pending.append((line, listener.dup() if listener else None))
        if len(self._pending) == 1:
            self._flush()

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._connection)
        self._loop.remove_writer(self._connection)
        self._connection.close()
        while self._pending:
            _close(self._pending.popleft()[1])
        self._on_close(self)

    def _flush(self) -> None:
        try:
            while self._pending:
                line, listener = self._pending[0]
                sent = _send(self._connection, line, listener)
                self._pending.popleft()
                _close(listener)
                if sent < len(line):
                    self._pending.appendleft((line[sent:], None))
        except BlockingIOError:
            self._loop.add_writer(self._connection, self._flush)
        except OSError:
            self.close()
        else:
            self._loop.remove_writer(self._connection)

    def _hear(self) -> None:
        """Receivers say nothing; readable means that they are gone (or misbehave)."""
        self.close()


def _send(connection: socket.socket, line: bytes, listener: socket.socket | None) -> int:
    if listener is None:
        return connection.send(line)
    rights = array.array("i", (listener.fileno(),))
    return connection.sendmsg((line,), ((socket.SOL_SOCKET, socket.SCM_RIGHTS, rights),))


def _close(listener: socket.socket | None) -> None:
    if listener is not None:
        listener.close()


def _add_line(door: PlatformDoor) -> bytes:
    secrets = door.credentials
    return _line(
        {
            "op": "add",
            "instance": door.instance,
            "environment": door.environment,
            "function": door.function,
            "secret_id": secrets.secret_id,
            "secret_key": secrets.secret_key,
            "session_token": secrets.session_token,
        }
    )


def _remove_line(instance: str) -> bytes:
    return _line({"op": "remove", "instance": instance})


def _line(message: dict[str, str]) -> bytes:
    return msgspec.json.encode(message) + b"\n"
