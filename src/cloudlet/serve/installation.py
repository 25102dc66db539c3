"""The data directory and the run directory: made, checked and locked before anything starts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from cloudlet.model.errors import DataDirectoryInUse, InvalidRequest, PortTaken, StoreUnavailable
from cloudlet.settings import Paths

FORMAT = 1
"""Number of the data directory's layout; a newer number than ours is refused."""

SOCKET_PATH_BYTES_MAX = 107


def prepare_data(paths: Paths) -> None:
    """Make the data directory and check that this version may use it.

    Raise StoreUnavailable when it cannot be written, InvalidRequest when a newer cloudlet made it.
    """
    try:
        paths.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in (paths.documents, paths.code, paths.cache, paths.logs):
            part.mkdir(mode=0o700, exist_ok=True)
        _check_format(paths.data / "format")
    except OSError as error:
        raise _unwritable(paths, error) from error


def _unwritable(paths: Paths, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(
        f"cannot write to the data directory {paths.data} ({error.strerror}): "
        "choose another with --data, or make it writable"
    )


def _check_format(file: Path) -> None:
    if not file.exists():
        temporary = file.with_suffix(".new")
        temporary.write_text(f"{FORMAT}\n")
        temporary.replace(file)
        return
    text = file.read_text().strip()
    if not text.isdigit():
        raise InvalidRequest(f"{file} is damaged: it should hold a number")
    if int(text) > FORMAT:
        raise InvalidRequest(
            f"the data directory {file.parent} was made by a newer cloudlet (format {text}, "
            f"this one knows {FORMAT}): upgrade cloudlet"
        )


@contextlib.contextmanager
def lock_data(paths: Paths) -> Iterator[None]:
    """Hold the data directory alone. Raise DataDirectoryInUse, naming the process that holds it, or
    StoreUnavailable when the lock cannot be written."""
    try:
        descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(paths, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise DataDirectoryInUse(
                f"another cloudlet (process {holder}) is using {paths.data}: stop it, or choose another "
                "directory with --data"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def run_directory(paths: Paths) -> Iterator[None]:
    """Make the run directory, empty, and remove it at the end.

    The data lock must be held: what is there belongs to a dead run. Raise InvalidRequest when its place is
    taken by somebody else's directory.
    """
    run = paths.run
    longest = len(str(paths.instances)) + len("/0123456789.sock")
    if longest > SOCKET_PATH_BYTES_MAX:
        raise InvalidRequest(f"the run directory {run} is too long for unix sockets")
    with contextlib.suppress(FileNotFoundError):
        found = run.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise InvalidRequest(f"{run} exists and is not ours: remove it")
        shutil.rmtree(run)
    run.mkdir(mode=0o700, parents=True)
    try:
        paths.edge.mkdir()
        paths.instances.mkdir()
        yield
    finally:
        shutil.rmtree(run, ignore_errors=True)


def listen_unix(path: Path, mode: int = 0o600) -> socket.socket:
    """A listening unix socket that children may inherit."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path.unlink(missing_ok=True)
    listener.bind(str(path))
    path.chmod(mode)
    listener.listen(2048)
    return listener


def claim_port(host: str, port: int) -> int:
    """The port the edge will listen on (a free one for 0). Raise PortTaken.

    The edge shares its port between its own restarts, so a second program would silently get a part of the
    calls: that is why the port is tried without sharing first.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(
                f"cannot listen on {host}:{port} ({error.strerror}): choose another port with --port"
            ) from error
        chosen: int = probe.getsockname()[1]
        return chosen
