"""The data directory, the run directory with its sockets, and the port."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloudlet.model.errors import PortTaken
from cloudlet.node.frames import Request, framed
from cloudlet.serve.installation import SOCKET_PATH_BYTES_MAX, claim_port, lock_data
from cloudlet.settings import Paths

from .finding import Finding, ok, problem, warning
from .machine import nearest

_OTHERS = 0o077
_ANSWER_S_MAX = 2.0


@dataclass(frozen=True, slots=True)
class Owned:
    """A file or directory as it is."""

    uid: int
    mode: int
    directory: bool


@dataclass(frozen=True, slots=True)
class Places:
    """What was seen of one installation."""

    paths: Paths
    uid: int
    """Of who looks."""
    pid: int | None
    """Of the node that holds the data directory; None when nothing runs."""
    data: Owned | None
    writable: bool
    """The data directory, or, while it is not there, where it will be made."""
    control_db: Owned | None
    run: Owned | None
    sockets: Mapping[str, bool]
    """Whether somebody answers, by the socket's name; only looked at while something runs."""


def see_places(paths: Paths) -> Places:
    pid = holder(paths.lock)
    return Places(
        paths=paths,
        uid=os.getuid(),
        pid=pid,
        data=_owned(paths.data),
        writable=os.access(nearest(paths.data), os.W_OK | os.X_OK),
        control_db=_owned(paths.control_db),
        run=_owned(paths.run),
        sockets={} if pid is None else _sockets(paths),
    )


def judge_places(seen: Places) -> list[Finding]:
    return [_judge_data(seen), *_judge_secrets(seen), *_judge_run(seen)]


def _judge_data(seen: Places) -> Finding:
    data = seen.paths.data
    if not seen.writable:
        fix = f"sudo chown -R $(id -un) {nearest(data)}, or choose another directory with --data"
        return problem("data", f"{data} cannot be written", fix)
    if seen.data is None:
        return ok("data", f"{data} will be made by 'cloudlet up'")
    if seen.data.uid != seen.uid:
        fix = f"run cloudlet as the user who owns it, or: sudo chown -R $(id -un) {data}"
        return warning("data", f"{data} belongs to another user", fix)
    state = f"in use by process {seen.pid}" if seen.pid else "not in use"
    return ok("data", f"{data} is writable and {state}")


def _judge_secrets(seen: Places) -> list[Finding]:
    """The control records hold the keys that sign tokens."""
    path = seen.paths.control_db
    if seen.control_db is None:
        return []
    if not seen.control_db.mode & _OTHERS:
        return [ok("secrets", "only their owner can read the keys")]
    text = f"others may read {path}, which holds the keys that sign tokens"
    repair = (lambda: path.chmod(0o600)) if seen.control_db.uid == seen.uid else None
    return [problem("secrets", text, f"chmod 600 {path}", repair)]


def _judge_run(seen: Places) -> list[Finding]:
    run = seen.paths.run
    longest = len(os.fsencode(seen.paths.instances)) + len("/0123456789.sock")
    if longest > SOCKET_PATH_BYTES_MAX:
        return [problem("run-directory", f"{run} is too long for sockets", "use a shorter TMPDIR")]
    if seen.run is None:
        if seen.pid is None:
            return [ok("run-directory", f"{run} will be made at the start")]
        text = f"{run} was removed while process {seen.pid} needs it"
        return [
            problem("run-directory", text, "start cloudlet again, and keep cleaners of /tmp away from it")
        ]
    if not seen.run.directory or seen.run.uid != seen.uid:
        text = f"{run} is not a directory of this user: cloudlet will not start"
        return [problem("run-directory", text, f"sudo rm -rf {run}")]
    if seen.pid is None:
        text = f"{run} was left behind by a run that was killed"
        paths = seen.paths
        return [warning("run-directory", text, "nothing: the next start removes it", lambda: clear(paths))]
    if seen.run.mode & _OTHERS:
        fix = f"chmod 700 {run}"
        text = f"others may enter {run}"
        return [problem("run-directory", text, fix, lambda: run.chmod(0o700)), *_judge_sockets(seen)]
    return [ok("run-directory", f"{run} belongs to this user alone"), *_judge_sockets(seen)]


def _judge_sockets(seen: Places) -> list[Finding]:
    silent = sorted(name for name, alive in seen.sockets.items() if not alive)
    if silent:
        text = f"nobody answers on {', '.join(silent)}"
        fix = f"look into {seen.paths.logs}/_platform; what died or hangs is restarted within seconds"
        return [problem("sockets", text, fix)]
    return [ok("sockets", f"all {len(seen.sockets)} sockets answer")] if seen.sockets else []


def judge_port(host: str, port: int, ours: int | None) -> Finding:
    """`ours`: the port that our own edge listens on; None while it does not run. Tries the port."""
    if ours is not None:
        return ok("port", f"the edge listens on {host}:{ours}")
    if port == 0:
        return ok("port", "the edge takes a free port")
    try:
        claim_port(host, port)
    except PortTaken as error:
        fix = f"choose another port with --port; see who has it with: ss -ltnp 'sport = :{port}'"
        return problem("port", error.message.partition(": choose")[0], fix)
    return ok("port", f"{host}:{port} is free")


def holder(lock: Path) -> int | None:
    """The process that holds the data directory; None when nobody does."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
    return None


def answers(path: Path, question: bytes) -> bool:
    """Whether somebody listens on a unix socket, and also says something, if it is known how to ask: the
    kernel takes connections for a process that hangs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_ANSWER_S_MAX)
        try:
            probe.connect(str(path))
            if not question:
                return True
            probe.sendall(question)
            return probe.recv(1) != b""
        except OSError:
            return False


def clear(paths: Paths) -> None:
    """Remove what a killed run left. Raise DataDirectoryInUse when something runs by now, and OSError."""
    with lock_data(paths):
        shutil.rmtree(paths.run)


def _sockets(paths: Paths) -> dict[str, bool]:
    """Whether somebody answers, for each socket of a running platform."""
    http = b"GET /doctor HTTP/1.1\r\nhost: cloudlet\r\nconnection: close\r\n\r\n"
    questions = {
        paths.node_socket: framed(Request(1, "report")),
        paths.control_socket: http,
        paths.activator_socket: http,
        paths.api_socket: http,
        paths.admin_socket: http,
        paths.platform_socket: b"",
        paths.xds_socket: b"",
    }
    return {path.name: answers(path, question) for path, question in questions.items()}


def _owned(path: Path) -> Owned | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return Owned(found.st_uid, stat.S_IMODE(found.st_mode), stat.S_ISDIR(found.st_mode))
