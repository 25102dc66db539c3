"""The systems we compare ourselves with: from npm and PyPI, bare, pinned, kept outside git."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.harness.errors import BenchmarkFailed
from bench.harness.results import REPOSITORY
from bench.harness.servers import free_port, server
from bench.harness.wrk import Target
from cloudlet.functions.toolchain import Toolchain, find_toolchain

HERE = Path(__file__).parent
FUNCTIONS = HERE / "functions"
CACHE = REPOSITORY / ".bench-cache"
INSTALL_S_MAX = 600


@dataclass(frozen=True, slots=True)
class Installed:
    """Where the packages are."""

    node: Path
    modules: Path
    scripts: Path
    """Commands of the Python packages."""
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Peer:
    """`command` gives what to run for a port."""

    name: str
    language: str
    command: Callable[[Installed, int], list[str]]


def _tcb_ff(at: Installed, port: int) -> list[str]:
    return [
        *_node(at, "@cloudbase/functions-framework/bin/tcb-ff.js"),
        f"--source={FUNCTIONS / 'tcb.cjs'}",
        "--target=main",
        f"--port={port}",
    ]


def _google_node(at: Installed, port: int) -> list[str]:
    return [
        *_node(at, "@google-cloud/functions-framework/build/src/main.js"),
        f"--source={FUNCTIONS / 'google.cjs'}",
        "--target=main",
        f"--port={port}",
    ]


def _workerd(at: Installed, port: int) -> list[str]:
    kind = f"workerd-{sys.platform}-{'arm64' if platform.machine() in {'arm64', 'aarch64'} else '64'}"
    # The package's own command is a Node program that starts this binary.
    binary = at.modules / "@cloudflare" / kind / "bin" / "workerd"
    return [str(binary), "serve", str(FUNCTIONS / "worker.capnp"), f"--socket-addr=http=127.0.0.1:{port}"]


def _google_python(at: Installed, port: int) -> list[str]:
    command = str(at.scripts / "functions-framework")
    source = str(FUNCTIONS / "google.py")
    return [command, "--source", source, "--target=main", "--host=127.0.0.1", f"--port={port}"]


def _node(at: Installed, script: str) -> list[str]:
    return [str(at.node), f"--require={HERE / 'loopback.cjs'}", str(at.modules / script)]


PEERS = (
    Peer("tcb-ff", "node", _tcb_ff),
    Peer("workerd", "node", _workerd),
    Peer("google-ff-node", "node", _google_node),
    Peer("google-ff-python", "python", _google_python),
)


@contextmanager
def running(at: Installed, work: Path) -> Iterator[dict[str, Target]]:
    """All peers, each with a folder of its own below `work` for what it writes; by name."""
    with ExitStack() as stack:
        targets = {}
        for peer in PEERS:
            folder, port = work / peer.name, free_port()
            folder.mkdir()
            command = peer.command(at, port)
            stack.enter_context(server(peer.name, command, folder, port, at.environment))
            targets[peer.name] = Target(peer.name, f"http://127.0.0.1:{port}/")
        yield targets


def install() -> Installed:
    """Install what is missing in ``.bench-cache``. Raise BenchmarkFailed with the installer's words."""
    tools = find_toolchain(os.environ)
    modules = _once("node", HERE / "package-lock.json", lambda folder: _npm(tools, folder))
    python = _once("python", HERE / "requirements.txt", lambda folder: _pip(tools, folder))
    environment = {**tools.environ, "NODE_ENV": "production"}
    return Installed(tools.node, modules / "node_modules", python / "bin", environment)


def install_parse_server() -> Installed:
    """The same for Parse Server, which the other benchmarks do not need."""
    tools = find_toolchain(os.environ)
    pins = HERE / "parse-server"
    modules = _once("parse-server", pins / "package-lock.json", lambda folder: _npm(tools, folder, pins))
    environment = {**tools.environ, "NODE_ENV": "production", "NODE_PATH": str(modules / "node_modules")}
    return Installed(tools.node, modules / "node_modules", modules, environment)


def _once(name: str, pins: Path, make: Callable[[Path], None]) -> Path:
    """The folder that `make` made for these pins; made again when they or this machine's Python change."""
    folder = CACHE / name
    stamp = folder / "stamp"
    wanted = f"{hashlib.sha256(pins.read_bytes()).hexdigest()} {sys.version_info[:2]} {folder}\n"
    if stamp.is_file() and stamp.read_text() == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"Installing the peers of {pins.name} into {folder.relative_to(REPOSITORY)}", flush=True)
    make(folder)
    stamp.write_text(wanted)
    return folder


def _npm(tools: Toolchain, folder: Path, pins: Path = HERE) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(pins / name, folder)
    path = f"{tools.node.parent}:{tools.environ['PATH']}"
    flags = ["--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--no-update-notifier"]
    _run([str(tools.node), str(tools.npm), "ci", *flags], folder, {**tools.environ, "PATH": path})


def _pip(tools: Toolchain, folder: Path) -> None:
    _run([str(tools.python), "-m", "venv", str(folder)], folder, tools.environ)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", "-r", str(HERE / "requirements.txt")], folder, tools.environ)


def _run(command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=INSTALL_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise BenchmarkFailed(f"{Path(command[0]).name} did not end within {INSTALL_S_MAX} s") from exc
    if done.returncode != 0:
        raise BenchmarkFailed(f"the peers could not be installed: {(done.stderr or done.stdout).strip()}")
