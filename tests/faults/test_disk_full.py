"""The disk is full while clients call and write: writes are refused or in doubt, and nothing else happens."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.answers import Promise
from tests.faults.rig import Target, under_fire

pytestmark = pytest.mark.xdist_group("faults")
CLIENTS = 64
DISK_MB = 48


def test_no_file_of_api_may_grow(tmp_path: Path) -> None:
    """A limit on the size of files, set from outside: no rights are needed for it."""
    with under_fire(tmp_path / "data") as target:
        pid = target.processes()["api"][0]

        def limit(size: int) -> None:
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))

        writes_stop_and_go_on(target, lambda: limit(4096), lambda: limit(resource.RLIM_INFINITY))
        assert target.processes()["api"] == [pid]


def test_the_disk_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, under_fire(disk / "data") as target:
        ballast = disk / "ballast"
        before = {name: pids for name, pids in target.processes().items() if name != "cell"}
        writes_stop_and_go_on(target, lambda: fill(ballast), ballast.unlink)
        assert {name: pids for name, pids in target.processes().items() if name != "cell"} == before


def writes_stop_and_go_on(target: Target, fill: Callable[[], None], free: Callable[[], None]) -> None:
    """Calls go on and documents are read while nothing can be written; afterwards everything goes on."""
    with target.traffic(CLIENTS) as traffic:
        counts = traffic.ledger.counts
        fill()
        try:
            refused = counts[f"write {Promise.NOT_STARTED}"] + counts[f"write {Promise.UNKNOWN}"]

            def writes_are_refused() -> bool:
                now = counts[f"write {Promise.NOT_STARTED}"] + counts[f"write {Promise.UNKNOWN}"]
                return now > refused + CLIENTS

            target.wait(traffic, writes_are_refused, "writes are refused")
            calls = counts["call done"]
            target.wait(traffic, lambda: counts["call done"] > calls + CLIENTS, "calls go on")
            written = traffic.ledger.promised[Promise.DONE].copy()
            assert written <= target.documents(traffic)
        finally:
            free()
        target.served(traffic)


def fill(ballast: Path) -> None:
    """Take every byte that is left."""
    with ballast.open("wb", buffering=0) as file:
        piece = bytes(64 * 1024)
        while piece:
            try:
                file.write(piece)
            except OSError:
                piece = piece[: len(piece) // 2]


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of DISK_MB of its own, where that is allowed."""
    directory.mkdir()
    options = f"size={DISK_MB}m,mode=0700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "cloudlet-test", str(directory)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {os.fsdecode(mounted.stderr).strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True, capture_output=True)
