"""From what was measured to rows, for each benchmark."""

from __future__ import annotations

import itertools

import pytest

from bench import burst, cold, idle, warm
from bench.harness.errors import BenchmarkFailed
from bench.harness.http import RESULT, Answer
from bench.harness.results import Row
from bench.harness.wrk import Load


def values(rows: list[Row]) -> dict[tuple[str, str, str | None], tuple[float, float | None]]:
    return {(row.case, row.metric, row.peer): (row.value, row.ratio) for row in rows}


def test_warm_pairs_every_metric_with_every_peer() -> None:
    measured = warm.Measured()
    measured.loads["node-64", None] = [Load(200, 1, 4, 0), Load(20, 2, 8, 1), Load(300, 3, 6, 0)]
    measured.loads["node-64", "workerd"] = [Load(100, 1, 8, 5), Load(10, 1, 4, 0), Load(100, 1, 6, 0)]
    found = values(measured.rows())
    assert found["node-64", "calls_per_s", None] == (200, None)
    assert found["node-64", "calls_per_s", "workerd"] == (100, 2)
    assert found["node-64", "p50_ms", None] == (2, None)
    assert found["node-64", "p99_ms", "workerd"] == (6, 1)
    assert found["node-64", "errors", None] == (1, None)


def test_cold_reports_cases_and_the_decision_over_all_of_them() -> None:
    def answer(latency_ms: float, queue: float, schedule: float) -> Answer:
        return Answer(200, RESULT, latency_ms, {"queue": queue, "schedule": schedule, "sandbox": 30.0})

    measured = cold.Measured({"node-empty": [answer(50, 0.1, 1)], "python-empty": [answer(20, 0.3, 3)]})
    found = values(measured.rows())
    assert found["node-empty", "median_ms", None] == (50, None)
    assert found["python-empty", "p95_ms", None] == (20, None)
    assert found["python-empty", "sandbox_median_ms", None] == (30, None)
    assert found["decision", "p50_ms", None] == (0.1, None)
    assert found["decision", "p99_ms", None] == (0.3, None)
    assert found["decision-and-handover", "p99_ms", None] == (3.3, None)


def test_idle_adds_the_processes_up() -> None:
    looks = [idle.Look(1.0, {"api": 50.0, "envoy": 40.0}), idle.Look(2.0, {"api": 52.0, "envoy": 44.0})]
    found = values(idle.rows("platform", looks))
    assert found["platform", "memory_mb", None] == (93, None)
    assert found["platform", "memory_mb_envoy", None] == (42, None)
    assert found["platform", "ready_s", None] == (1.5, None)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["python3", "/v/bin/cloudlet", "up", "--data", "/d"], "node"),
        (["python3", "-m", "cloudlet.serve.process", "control", "--settings", "{}"], "control"),
        (["/v/bin/envoy", "--config-path", "/tmp/x"], "envoy"),
        (["node", "--no-deprecation", "/s/runtime/node/shim.mjs"], "cell_node"),
        (["python3", "-I", "/s/runtime/python/shim.py"], "cell_python"),
        (["sleep", "1"], "other"),
    ],
)
def test_processes_are_told_apart_by_their_command(command: list[str], expected: str) -> None:
    assert idle.role(command) == expected


def test_memory_is_the_proportional_share() -> None:
    assert idle.pss_mb("00400000-7fff ---p 0 00:00 0 [rollup]\nRss: 9000 kB\nPss:    2048 kB\n") == 2
    with pytest.raises(BenchmarkFailed, match="proportional"):
        idle.pss_mb("Rss: 9000 kB\n")


def test_calls_leave_slowly_then_faster_then_evenly() -> None:
    times = burst.departures(quiet_s=4, ramp_s=1, full_s=8)
    assert times == sorted(times) and times[0] == 0
    quiet = [at for at in times if at < 4]
    full = [at for at in times if at >= 5]
    assert len(quiet) == 4 * burst.QUIET_PER_S
    assert len(full) == pytest.approx(8 * burst.BURST_PER_S, rel=0.01)
    # The rate rises evenly: in its one second, the mean of both.
    ramp = [at for at in times if 4 <= at < 5]
    assert len(ramp) == pytest.approx((burst.QUIET_PER_S + burst.BURST_PER_S) / 2, rel=0.05)
    steps = [later - earlier for earlier, later in itertools.pairwise(ramp)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(steps))


def test_burst_counts_slow_calls_and_adds_errors_up() -> None:
    repeats = [
        burst.Repeat([1, 2, 150, 3], {}, instances=4),
        burst.Repeat([1, 2, 3, 4], {"429 LIMIT": 1, "TimeoutError": 1}, instances=2),
    ]
    found = values(burst.rows("node-add", repeats))
    assert found["node-add", "slow_share", None] == (0.125, None)
    assert found["node-add", "p99_ms", None] == (77, None)
    assert found["node-add", "errors", None] == (2, None)
    assert found["node-add", "instances", None] == (3, None)
