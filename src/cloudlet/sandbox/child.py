"""Child processes: started in a session of their own, with exactly the descriptors they are to have, and
never lost.

Used for cells and for the platform's own processes. Children are forked from the thread of the event loop,
which has to be the main thread: the death signal is tied to the thread that forked.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .base import CellExit

_SAFE_DESCRIPTOR = 64
"""Descriptors on their way to a child are moved up here first, out of the way of the numbers they will
get."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to start a child process."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    """The whole environment."""
    directory: Path
    stdout: int
    stderr: int
    descriptors: Mapping[int, int]
    """Number in the child (from 3) → our descriptor, which stays ours."""
    prepare: Callable[[], None] | None = None
    """Runs in the child between fork and exec, so it must not import, lock or log. Its OSError makes `spawn`
    fail and its text is on `stderr`."""


class Child:
    """A running process and everything in its process group.

    When the process ends by itself, what is left of its group is killed before the process id can be given
    to another.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[CellExit] = self._loop.create_future()
        self._pidfd = -1
        self._watch()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return not self._ended.done()

    def signal_group(self, number: int) -> None:
        """Signal the process and its descendants that stayed in its group. One that has ended is fine."""
        if self.running:
            _signal_group(self.pid, number)

    def signal(self, number: int) -> None:
        """Signal the process alone. One that has ended is fine."""
        if self.running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def wait(self) -> CellExit:
        """The end of the process. May be awaited by several, cancelled and repeated."""
        return await asyncio.shield(self._ended)

    def put_down(self) -> None:
        """Kill it and what stayed in its group, and take its end at once, for who cannot wait."""
        if self.running:
            _signal_group(self.pid, signal.SIGKILL)
            self._on_end()

    def _watch(self) -> None:
        if sys.platform == "linux":
            self._pidfd = os.pidfd_open(self.pid)
            self._loop.add_reader(self._pidfd, self._on_end)
        else:
            future = self._loop.run_in_executor(None, self._process.wait)
            future.add_done_callback(lambda _: self._on_end())

    def _on_end(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        _signal_group(self.pid, signal.SIGKILL)
        code = self._process.wait()
        if not self._ended.done():
            self._ended.set_result(CellExit(-1, -code) if code < 0 else CellExit(code))


def spawn(spec: ChildSpec) -> Child:
    """Start a child in a session of its own, without controlling terminal and with an umask of 077.

    Raise OSError (no such program, no process, no descriptor) or subprocess.SubprocessError (`prepare`
    failed); nothing runs then."""
    with _raised(spec.descriptors) as moved:
        preexec = partial(_in_child, moved, spec.prepare)
        # Python warns of forks in processes with threads, because code that needs a lock could wait for ever
        # in the child. `_in_child` makes system calls and nothing else.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            process = subprocess.Popen(
                spec.command,
                env=dict(spec.environment),
                cwd=spec.directory,
                stdin=subprocess.DEVNULL,
                stdout=spec.stdout,
                stderr=spec.stderr,
                start_new_session=True,
                umask=0o077,
                pass_fds=tuple(moved),
                # Without it subprocess need not copy this process's page tables to fork.
                preexec_fn=preexec if spec.prepare or moved else None,
            )
    try:
        return Child(process)
    except BaseException:
        process.kill()
        process.wait()
        raise


def _in_child(descriptors: Mapping[int, int], prepare: Callable[[], None] | None) -> None:
    """Between fork and exec. What is not in `descriptors` is closed by subprocess after this."""
    try:
        if prepare is not None:
            prepare()
        for number, source in descriptors.items():
            os.dup2(source, number, inheritable=True)
    except OSError as exc:
        os.write(2, str(exc).encode())
        raise


@contextmanager
def _raised(descriptors: Mapping[int, int]) -> Iterator[Mapping[int, int]]:
    """Copies of `descriptors` above all target numbers, while every target number is in use.

    subprocess opens a pipe of its own before the fork; were one of the target numbers free, that pipe could
    get it and be overwritten."""
    with ExitStack() as stack:
        moved = {}
        for number, source in descriptors.items():
            moved[number] = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _SAFE_DESCRIPTOR)
            stack.callback(os.close, moved[number])
        for number in descriptors:
            if not _in_use(number):
                os.dup2(next(iter(moved.values())), number, inheritable=False)
                stack.callback(os.close, number)
        yield moved


def _in_use(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _signal_group(group: int, number: int) -> None:
    # EPERM: macOS says so for a group of which only the ended leader is left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def close_all(descriptors: Sequence[int]) -> None:
    """Close what is open of `descriptors`; negative numbers are passed over."""
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)
