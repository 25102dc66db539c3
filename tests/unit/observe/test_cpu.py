"""The share of the processors in use, from the kernel's counters."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudlet.observe.cpu import CpuMeter


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


def counters(path: Path, user: int, idle: int, waiting: int = 0) -> None:
    path.write_text(f"cpu  {user} 0 0 {idle} {waiting} 0 0 0 0 0\ncpu0 1 2 3\n")


def test_the_share_between_two_readings(tmp_path: Path) -> None:
    clock, stat = Hands(), tmp_path / "stat"
    counters(stat, 100, 900)
    meter = CpuMeter(clock, stat)
    assert meter.busy() == 0.0
    counters(stat, 130, 960, 10)
    assert meter.busy() == 0.0  # too early to say
    clock.at += 0.3
    assert meter.busy() == pytest.approx(0.3)
    clock.at += 0.3
    counters(stat, 230, 960, 10)
    assert meter.busy() == 1.0


def test_without_counters_nothing_is_known(tmp_path: Path) -> None:
    clock = Hands()
    meter = CpuMeter(clock, tmp_path / "missing")
    clock.at += 1
    assert meter.busy() == 0.0


def test_this_machine_is_somewhere_between(tmp_path: Path) -> None:
    clock = Hands()
    meter = CpuMeter(clock)
    clock.at += 1
    assert 0.0 <= meter.busy() <= 1.0
