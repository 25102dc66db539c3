"""Our side: a whole installation in a temporary directory, with many functions registered."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cloudlet.cli.client import AdminClient
from cloudlet.cli.session import CommandFailed
from cloudlet.model.errors import PlatformError
from cloudlet.model.function import Version, VersionKey
from cloudlet.model.ids import DEFAULT_ENVIRONMENT, LATEST
from cloudlet.settings import Paths
from cloudlet.state.sqlite import SqliteRecords
from tests.acceptance.installation import Installation, InstallationFailed, descendants

from .errors import BenchmarkFailed
from .results import REPOSITORY
from .wrk import Target

PROJECT = REPOSITORY / "bench" / "project"
REGISTERED = 2000
"""Functions that the installation knows while it is measured."""
GROUP = 100
"""Records written at once."""
POLL_S = 0.005
QUIET_S_MAX = 30.0
LOG_LINES = 30


class BenchInstallation(Installation):
    """An installation with settings of its own, asked over its socket instead of by a command: starting a
    Python program for each look would compete with what is measured."""

    def __init__(self, data: Path, settings: Mapping[str, str]) -> None:
        super().__init__(data)
        self._settings = {f"CLOUDLET_{name.upper()}": value for name, value in settings.items()}
        self._admin = AdminClient(Paths(data).admin_socket, "not running")

    def status(self) -> dict[str, Any]:
        return self._admin.get("/status")

    def target(self, function: str, token: str = "") -> Target:
        return Target(function, f"{self.url}/v1/functions/{function}", token)

    def quiet(self, pools: Mapping[str, int]) -> None:
        """Wait until no instance runs and the pools hold this many cells. Raise BenchmarkFailed."""
        deadline = time.monotonic() + QUIET_S_MAX
        while True:
            status = self.status()
            filled = {name: count for name, count in status["pools"].items() if count}
            if not status["running"] and filled == {name: n for name, n in pools.items() if n}:
                return
            if time.monotonic() > deadline:
                raise BenchmarkFailed(f"not quiet after {QUIET_S_MAX:.0f} s: {status}")
            time.sleep(POLL_S)

    def processes(self) -> list[int]:
        """Process ids of everything that belongs to it."""
        return [self.pid, *descendants(self.pid)]

    def _status(self) -> dict[str, Any] | None:
        try:
            status = self.status()
        except (CommandFailed, PlatformError):
            time.sleep(POLL_S)
            return None
        return status if status.get("url") and status.get("node") else None

    def _environment(self) -> dict[str, str]:
        return super()._environment() | self._settings


@dataclass(frozen=True, slots=True)
class Copies:
    """`count` functions with the code of `function`; the configuration changed as told."""

    function: str
    count: int
    keep_alive_s: float | None = None
    first: int = 0
    """Number of the first copy."""


@contextmanager
def installation(
    copies: Sequence[Copies], settings: Mapping[str, str] | None = None, only: Sequence[str] = ()
) -> Iterator[BenchInstallation]:
    """A running installation with the functions of ``bench/project`` (or `only` these) deployed and `copies`
    of them registered. It is ended, and its data removed, whatever happens. Raise InstallationFailed."""
    with tempfile.TemporaryDirectory(prefix="cloudlet-bench-") as folder:
        running = BenchInstallation(Path(folder) / "data", settings or {})
        try:
            running.start()
            for name in only or ("",):
                running.deploy(PROJECT, *(("--only", name) if name else ()))
            if copies:
                ended(running)
                asyncio.run(_register(Paths(running.data).control_db, copies))
                running.start()
            yield running
        except (InstallationFailed, BenchmarkFailed, PlatformError):
            _show_logs(Paths(running.data).logs / "_platform")
            raise
        finally:
            ended(running)


def _show_logs(folder: Path) -> None:
    """The end of what the platform's processes said: the files go away with the installation."""
    for path in sorted(folder.glob("*.log")):
        lines = path.read_text(errors="replace").splitlines()[-LOG_LINES:]
        print(f"--- {path.name}", *lines, sep="\n", file=sys.stderr)


def ended(running: BenchInstallation) -> None:
    """Stop it. Raise BenchmarkFailed when a process is left behind."""
    left = running.stop()
    if left:
        raise BenchmarkFailed(f"processes left behind: {', '.join(left)}")


def copy_name(function: str, number: int) -> str:
    return f"{function}-{number:04d}"


async def _register(control_db: Path, copies: Sequence[Copies]) -> None:
    """Add records of functions that share the code of a deployed one: two thousand real deploys would take
    minutes and end in the same records. Nobody else may have the file open."""
    records = SqliteRecords(control_db)
    try:
        deployed = {version.function: version for version, _ in records.functions(DEFAULT_ENVIRONMENT)}
        for wanted in copies:
            found = deployed[wanted.function]
            end = wanted.first + wanted.count
            for first in range(wanted.first, end, GROUP):
                numbers = range(first, min(first + GROUP, end))
                await asyncio.gather(*(_add(records, found, wanted, number) for number in numbers))
    finally:
        records.close()


async def _add(records: SqliteRecords, found: Version, wanted: Copies, number: int) -> None:
    config = found.config
    if wanted.keep_alive_s is not None:
        config = replace(config, scale=replace(config.scale, keep_alive_s=wanted.keep_alive_s))
    key = VersionKey(DEFAULT_ENVIRONMENT, copy_name(wanted.function, number), found.digest)
    now = time.time()
    await records.add_version(key, config, found.code_dir, now)
    await records.point_alias(key, LATEST, now)
