"""The rows of ``make bench-scale``."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from bench import scale
from bench.harness.errors import BenchmarkFailed


def test_rows_are_medians_beside_the_small_installation_and_the_longest_pause() -> None:
    measured = scale.Measured(
        few=[100.0, 200.0, 400.0],
        calls=[110.0, 210.0, 300.0],
        p99_ms=[1.0, 9.0, 2.0],
        publish_ms=[50.0, 60.0, 300.0],
        publish_cpu_ms=[30.0, 40.0, 50.0],
        pause_ms=[5.0, 6.0, 90.0],
        idle_pause_ms=[1.0, 2.0, 3.0],
        ready_s=[1.0, 1.5, 2.0],
        memory_mb={"node": 40.0, "envoy": 60.5},
        errors=2,
    )
    rows = {(row.metric, row.peer): row for row in measured.rows("functions-7")}
    assert {row.case for row in rows.values()} == {"functions-7"}
    assert rows["calls_per_s", None].value == 210
    assert rows["calls_per_s", "10 functions"].value == 200
    assert rows["calls_per_s", "10 functions"].ratio == 1.05
    assert (rows["publish_ms", None].value, rows["publish_max_ms", None].value) == (60, 300)
    assert (rows["control_pause_ms", None].value, rows["control_pause_max_ms", None].value) == (6, 90)
    assert (rows["memory_mb", None].value, rows["memory_mb_envoy", None].value) == (100.5, 60.5)
    assert rows["errors", None].value == 2


def test_waiting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "WAIT_S_MAX", 0.0)
    scale._until(lambda: True, "it was so")
    with pytest.raises(BenchmarkFailed, match="until it was so"):
        scale._until(lambda: False, "it was so")


def test_control_is_asked_as_long_as_the_block_lasts_and_at_least_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = threading.Semaphore(0)

    class Connection:
        def close(self) -> None:
            """There is nothing to close."""

    def ask(_connection: object) -> bytes:
        asked.release()
        return json.dumps({}).encode()

    monkeypatch.setattr(scale, "_connected", lambda _control: Connection())
    monkeypatch.setattr(scale, "_ask", ask)
    with scale._asking(tmp_path / "control.sock") as took:
        for _ in range(3):
            assert asked.acquire(timeout=30)
    assert len(took) >= 3
    with scale._asking(tmp_path / "control.sock") as took:
        pass
    assert len(took) >= 1
