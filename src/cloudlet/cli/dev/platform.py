"""The platform as a child of ``cloudlet dev``."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..exit_codes import ExitCode
from ..session import CommandFailed

STOP_S_MAX = 45.0
"""Calls in flight are finished first; longer than the platform itself ever takes."""
LAST_WORDS = 20
_PR_SET_PDEATHSIG = 1

DEV_SETTINGS = {"CREATE_COLLECTIONS": "true", "EXPLAIN_EMPTY": "true", "ACCESS_LOG": "true"}
"""What differs from ``cloudlet up``; the environment of the person wins."""


class DevPlatform:
    """Starts ``cloudlet up``, hears what it says, and ends it. In the same process group, so that Ctrl-C
    reaches it even if we are stuck; on Linux it ends in order when we are killed."""

    def __init__(self, data: Path, options: Mapping[str, str], say: Callable[[dict[str, Any]], None]) -> None:
        """`options` of ``cloudlet up``; `say` gets what the node logs, on another thread."""
        self._words = [sys.executable, "-m", "cloudlet.cli.main", "up", "--json", "--data", str(data)]
        for name, value in options.items():
            self._words += [name, value]
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None
        self._last: deque[str] = deque(maxlen=LAST_WORDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> dict[str, Any]:
        """What ``cloudlet up --json`` says when it is ready. Raise CommandFailed with its own words. Call
        from the main thread, before others are started."""
        environment = {f"CLOUDLET_{name}": value for name, value in DEV_SETTINGS.items()} | dict(os.environ)
        parent = os.getpid()
        self._process = subprocess.Popen(
            self._words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: _prepare(parent),
        )
        self._listener = threading.Thread(target=self._listen, name="node-log", daemon=True)
        self._listener.start()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._failed()
        ready: dict[str, Any] = json.loads(line)
        return ready

    def terminate(self) -> None:
        """Ask it to end; safe in a signal handler."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """End it in order, or at once when that takes too long. May be repeated."""
        process = self._process
        if process is None:
            return
        self.terminate()
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._listener is not None:
            self._listener.join(1.0)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        self._process = None

    def failed(self) -> CommandFailed:
        """What to say when it has ended by itself."""
        return self._failed()

    def _failed(self) -> CommandFailed:
        assert self._process is not None
        code = self._process.wait()
        if self._listener is not None:
            self._listener.join(1.0)
        for line in reversed(self._last):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                error = json.loads(line)["error"]
                return CommandFailed(str(error["message"]), _exit_code(code), str(error["code"]))
        last = self._last[-1] if self._last else "it said nothing"
        return CommandFailed(f"cloudlet ended with {code}: {last}", ExitCode.FAILED, "failed")

    def _listen(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        with contextlib.suppress(ValueError):  # closed while it was read
            for raw in self._process.stderr:
                line = raw.decode(errors="replace").rstrip()
                self._last.append(line)
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if isinstance(event, dict) and "event" in event:
                    self._say(event)


def _exit_code(code: int) -> ExitCode:
    return ExitCode(code) if code in {each.value for each in ExitCode} and code else ExitCode.FAILED


def _prepare(parent: int) -> None:
    """In the child, before it becomes the platform: a terminal that closes tells us, and we end it in order;
    on Linux the kernel asks it to end when we are gone."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
