"""Waiting for other programs to rest."""

from __future__ import annotations

import pytest

from bench.harness.quiet import LOOK_S, Processors, Quiet, busy_share, parsed


class Machine:
    """A machine whose processors are used by these shares, one look after the other; the last one stays."""

    def __init__(self, *shares: float) -> None:
        self.now = Processors(0, 0)
        self.slept_s = 0.0
        self._shares = iter(shares)
        self._share = 0.0

    def look(self) -> Processors:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds
        self._share = next(self._shares, self._share)
        self.now = Processors(self.now.busy + round(1000 * self._share), self.now.whole + 1000)


def test_a_quiet_machine_costs_one_look() -> None:
    machine = Machine(0.02)
    quiet = Quiet(machine.look, machine.sleep)
    quiet.wait()
    assert machine.slept_s == pytest.approx(LOOK_S)
    assert [row.value for row in quiet.rows()] == [0.02]


def test_a_busy_machine_is_waited_for() -> None:
    machine = Machine(0.9, 0.8, 0.1)
    quiet = Quiet(machine.look, machine.sleep)
    quiet.wait()
    assert machine.slept_s == pytest.approx(3 * LOOK_S)
    assert [row.value for row in quiet.rows()] == [0.1]


def test_waiting_ends_and_the_result_says_how_busy_the_machine_was() -> None:
    machine = Machine(0.9)
    quiet = Quiet(machine.look, machine.sleep, wait_s_max=1.0)
    for _ in range(3):
        quiet.wait()
    # The whole budget once, then one look for each run.
    assert machine.slept_s == pytest.approx(1.0 + 3 * LOOK_S)
    assert [row.value for row in quiet.rows()] == [0.9]


def test_the_kernels_counters_are_read() -> None:
    text = "cpu  100 10 40 700 50 5 5 90 30 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
    assert parsed(text) == Processors(busy=250, whole=1000)


def test_no_time_is_no_work() -> None:
    assert busy_share(Processors(5, 10), Processors(5, 10)) == 0
