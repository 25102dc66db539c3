"""Somebody sets the clock by hours while clients call and write: no duration changes, tokens keep their word.

The wall clock of an installation's processes is moved by a small library that is loaded before their own
(``clock.c``); the machine's stays as it is.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.acceptance.player import Player
from tests.faults.rig import CELL, Target, under_fire

pytestmark = [
    pytest.mark.xdist_group("faults"),
    pytest.mark.skipif(
        sys.platform != "linux" or not shutil.which("cc"), reason="needs Linux and a compiler"
    ),
]
CLIENTS = 64
HOUR_S = 3600
SOURCE = Path(__file__).with_name("clock.c")


class WallClock:
    """The clock that the installation's processes are shown."""

    def __init__(self, directory: Path) -> None:
        self.library = directory / "clock.so"
        self.file = directory / "clock"
        self._offset = 0
        options = ("-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O1")
        subprocess.run(["cc", *options, "-o", self.library, SOURCE], check=True, capture_output=True)
        self.file.write_bytes(bytes(8))

    def now(self) -> float:
        return time.time() + self._offset

    def set(self, offset: int) -> None:
        """Seconds off the true time. Processes that run see it at once."""
        self._offset = offset
        with self.file.open("r+b") as file:
            file.write(struct.pack("=q", offset))


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> WallClock:
    return WallClock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, clock: WallClock) -> Iterator[Target]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(clock.library))
        patch.setenv("CLOCK_FILE", str(clock.file))
        data = tmp_path_factory.mktemp("steps") / "data"
        with under_fire(data, clock.now) as target, target.leaving_nothing(CLIENTS):
            yield target


def test_back_and_forward_under_calls(target: Target, clock: WallClock) -> None:
    """No process is taken for hung, no call for late, and no token that is young enough is refused."""
    before = _long_lived(target)
    with target.traffic(CLIENTS) as traffic:
        traffic.clock_set = True
        counts = traffic.ledger.counts
        for offset in (-2 * HOUR_S, 0):
            clock.set(offset)
            wanted = counts["call done"] + 5 * CLIENTS, counts["write done"] + 5 * CLIENTS

            def go_on(calls: int, writes: int) -> bool:
                return counts["call done"] > calls and counts["write done"] > writes

            target.wait(traffic, partial(go_on, *wanted), "calls and writes go on")
        assert counts["call unknown"] == counts["write unknown"] == 0
    assert _long_lived(target) == before


def test_tokens_end_by_the_clock_and_new_ones_are_given(target: Target, clock: WallClock) -> None:
    installation = target.installation
    with Player(installation.url, installation.token("user-a")) as young:
        assert young.call("echo", {}).status == 200
        clock.set(2 * HOUR_S)
        try:
            answer = young.call("echo", {})
            assert (answer.status, answer.body["code"]) == (401, "ACCESS_TOKEN_EXPIRED")
            with Player(installation.url, installation.token("user-a")) as renewed:
                assert renewed.call("echo", {}).status == 200
                clock.set(0)
                assert renewed.call("echo", {}).status == 200
        finally:
            clock.set(0)
        assert young.call("echo", {}).status == 200


def _long_lived(target: Target) -> dict[str, list[int]]:
    return {name: pids for name, pids in target.processes().items() if name != CELL}
