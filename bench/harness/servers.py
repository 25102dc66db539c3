"""Child processes of a benchmark: started, waited for, and ended whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import BenchmarkFailed

READY_S_MAX = 30.0
STOP_S_MAX = 5.0


@contextmanager
def server(
    name: str, command: Sequence[str], folder: Path, port: int, environment: Mapping[str, str]
) -> Iterator[int]:
    """Run `command` in `folder` until the block ends; gives its process id. Raise BenchmarkFailed when nobody
    listens on `port` of the loopback address in time."""
    output = folder / "output.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            # A group of its own, so that its workers end with it.
            start_new_session=True,
        )
    try:
        _wait_until_ready(name, process, port, output)
        yield process.pid
    finally:
        _end(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(name: str, process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    deadline = time.monotonic() + READY_S_MAX
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            said = output.read_text(errors="replace").strip()[-500:]
            raise BenchmarkFailed(f"{name} did not start: {said}")
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask, wait, then force; the group goes with its leader. `process` is not reaped before the last signal,
    so the group's id cannot have passed to somebody else."""
    deadline = time.monotonic() + STOP_S_MAX
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    while time.monotonic() < deadline and not _exited(process.pid):
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _exited(pid: int) -> bool:
    """Whether our child has ended; it stays to be reaped."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
