"""The process beside the node that clones cells. Standard library only, one thread.

The node itself has threads and an event loop, so no code may run in it between fork and exec; and only a
process that sits in a mount namespace of its own can show a waiting cell its code later. Cells are cloned as
children of the node (CLONE_PARENT), which hears of their end whatever becomes of the launcher.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import cell, image, kernel, messages
from .messages import DESCRIPTORS, USER_ID, CellRequest, Setting


def main(descriptor: int) -> None:
    """Serve the node on a socket until it is closed."""
    connection = socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    os.umask(0o022)
    kernel.prctl("death signal", kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    # A cell's first process is a copy of this one: it must have no handler that the cell could reach.
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    try:
        message, _ = messages.receive(connection)
        setting = Setting(**message)
        _enter(setting)
    except OSError as error:
        messages.send(connection, _answer(error=str(error.args[-1])))
        return
    launcher = _Launcher(connection, setting)
    gc.collect()
    gc.freeze()
    gc.disable()
    messages.send(connection, _answer(landlock=launcher.layers.landlock))
    with suppress(EOFError):
        while True:
            launcher.serve(*messages.receive(connection))


class _Launcher:
    def __init__(self, connection: socket.socket, setting: Setting) -> None:
        self._connection = connection
        self._setting = setting
        self.layers = cell.layers()
        self._shown: set[str] = set()
        self._users: dict[str, int] = {}
        """Cell → its user on the host, unless that is the launcher's own."""
        self._owners: dict[str, int] = {}
        """Cell → a user namespace in which root is that user."""

    def serve(self, message: dict[str, Any], descriptors: list[int]) -> None:
        try:
            self._obey(message, descriptors)
        except OSError as error:
            if "id" in message:
                self._say(id=message["id"], error=str(error.args[-1]))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _obey(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if message["op"] == "make":
            request = CellRequest(**message["request"])
            self._say(id=message["id"], pid=self._make(request, descriptors))
            if request.user:
                # Now, while the runtime boots. Should it fail it is tried again when it is needed.
                with suppress(OSError):
                    self._owner(request.cell)
        elif message["op"] == "show":
            self._show(message["cell"], f"/code/{message['root']}/{message['path']}")
            self._say(id=message["id"], pid=0)
        elif message["op"] == "gone":
            self._forget(message["cell"])

    def _make(self, request: CellRequest, descriptors: list[int]) -> int:
        if len(descriptors) != len(DESCRIPTORS):
            raise OSError(9, "descriptors were lost on the way to the launcher")
        Path("/stage", request.cell).mkdir(mode=0o755)
        try:
            if request.user:
                self._users[request.cell] = request.user
            return self._clone(request, dict(zip(DESCRIPTORS, descriptors, strict=True)))
        except OSError:
            self._forget(request.cell)
            raise

    def _clone(self, request: CellRequest, descriptors: dict[str, int]) -> int:
        read, write = os.pipe()
        try:
            if request.user:
                # Else the cell could not open /dev/stdout, which is a name for them.
                os.fchown(descriptors["stdout"], request.user, request.user)
                os.fchown(descriptors["stderr"], request.user, request.user)
            pid = kernel.clone(kernel.CELL_NAMESPACES | kernel.CLONE_PARENT)
            if pid == 0:
                self._connection.close()
                os.close(write)
                cell.become(request, self._setting, self.layers, descriptors, read)
            try:
                _map_ids(pid, request.user or os.geteuid(), request.user or os.getegid())
            except OSError:
                os.kill(pid, signal.SIGKILL)
                raise
            os.write(write, b"g")
            return pid
        finally:
            os.close(read)
            os.close(write)

    def _show(self, name: str, source: str) -> None:
        target = f"/stage/{name}"
        if name in self._users:
            # The files are root's and closed to others; this cell has another user, and sees them as its own.
            kernel.bind_as(source, target, image.READ_ONLY | kernel.ATTR_NODEV, self._owner(name))
        else:
            kernel.mount(source, target, "", kernel.MS_BIND | kernel.MS_REC)
        self._shown.add(name)

    def _owner(self, name: str) -> int:
        if name not in self._owners:
            self._owners[name] = _namespace_of(self._users[name])
        return self._owners[name]

    def _forget(self, name: str) -> None:
        self._users.pop(name, None)
        if name in self._owners:
            os.close(self._owners.pop(name))
        if name in self._shown:
            self._shown.discard(name)
            kernel.detach(f"/stage/{name}")
        Path("/stage", name).rmdir()

    def _say(self, **fields: int | str) -> None:
        messages.send(self._connection, _answer(**fields))


def _enter(setting: Setting) -> None:
    """Leave the host's mounts, as root or with a user namespace."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        kernel.unshare(kernel.CLONE_NEWNS)
    else:
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWUSER)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    image.enter(setting)


def _namespace_of(user: int) -> int:
    """A descriptor of a user namespace in which root is `user`. It belongs to no process."""
    read, write = os.pipe()
    try:
        pid = kernel.clone(kernel.CLONE_NEWUSER)
        if pid == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        try:
            _write(f"/proc/{pid}/uid_map", f"0 {user} 1")
            _write(f"/proc/{pid}/gid_map", f"0 {user} 1")
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    finally:
        os.close(read)
        os.close(write)


def _map_ids(pid: int, user: int, group: int) -> None:
    _write(f"/proc/{pid}/uid_map", f"{USER_ID} {user} 1")
    _write(f"/proc/{pid}/gid_map", f"{USER_ID} {group} 1")


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise OSError(error.errno, f"{path}: {error.strerror}") from error


def _answer(**fields: int | str) -> bytes:
    return json.dumps(fields).encode()


if __name__ == "__main__":
    main(int(sys.argv[1]))
