"""The activator's small decisions: time, stages, words."""

from __future__ import annotations

import pytest

from cloudlet.gateway.activator import time_allowed
from cloudlet.gateway.errors import timeout_error
from cloudlet.gateway.timing import merged, parsed, stages
from cloudlet.model.function import VersionKey
from cloudlet.model.sandbox import StartTiming
from cloudlet.scheduler.leases import ColdStart, Lease
from cloudlet.scheduler.queue import Ticket


@pytest.mark.parametrize(
    ("timeout_s", "attempt", "early", "allowed_s", "wait_s"),
    [
        (3.0, "1", False, 63.0, 59.95),  # late-bound: the edge's route waits
        (3.0, None, True, 63.0, 59.95),  # the platform's own call: no edge clock
        (3.0, "1", True, 3.03, 1.515),  # early-bound, no instance there: one try's clock
        (3.0, "2", False, 3.03, 1.515),  # refused by an instance
        (900.0, "1", False, 960.0, 59.95),
    ],
)
def test_a_call_is_answered_before_its_callers_clock_runs_out(
    timeout_s: float, attempt: str | None, early: bool, allowed_s: float, wait_s: float
) -> None:
    assert time_allowed(timeout_s, attempt, early) == pytest.approx((allowed_s, wait_s))


def lease(granted_at: float, cold: ColdStart | None) -> Lease:
    return Lease(
        "i", "/i", VersionKey("e", "f", "d"), Ticket(1, 10.0, 70.0), granted_at, cold, lambda *_: None
    )


def test_stages_add_up_to_the_time_until_the_call_was_sent() -> None:
    cold = ColdStart(issued_at=10.002, ready_at=10.099, timing=StartTiming(sandbox_ms=60.0, load_ms=30.0))
    found = stages(lease(10.1, cold), arrived_at=10.0, sent_at=10.101)
    assert sum(found.values()) == pytest.approx(101.0)
    assert found == pytest.approx({"queue": 2.0, "schedule": 9.0, "sandbox": 60.0, "load": 30.0})
    warm = stages(lease(10.5, None), arrived_at=10.0, sent_at=10.501)
    assert warm == pytest.approx({"queue": 500.0, "schedule": 1.0})


def test_a_start_that_began_before_the_call_came_is_not_counted_negative() -> None:
    cold = ColdStart(issued_at=9.0, ready_at=10.01, timing=StartTiming(sandbox_ms=900.0, load_ms=100.0))
    found = stages(lease(10.01, cold), arrived_at=10.0, sent_at=10.01)
    assert (found["queue"], found["schedule"]) == (0.0, 0.0)


def test_what_the_instance_measured_wins() -> None:
    value = merged(["handler;dur=1.5, load;dur=8", "db;desc=x"], {"queue": 1.0, "load": 7.0})
    assert value == "queue;dur=1.000, handler;dur=1.5, load;dur=8, db;desc=x"
    assert parsed(value) == {"queue": 1.0, "handler": 1.5, "load": 8.0}
    assert parsed("a;dur=x, ;dur=1, b") == {}


@pytest.mark.parametrize(("timeout_s", "text"), [(3.0, "3"), (0.5, "0.5"), (900.0, "900")])
def test_the_timeout_is_said_as_the_shims_say_it(timeout_s: float, text: str) -> None:
    assert timeout_error(timeout_s).message == f"Invoking task timed out after {text} seconds"
