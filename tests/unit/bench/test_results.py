"""Tables and files of the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.harness.results import Report, Row, machine, number, report, table, to_json, write

ROWS = (
    Row("node-64", "calls_per_s", 20000.0, "calls/s"),
    Row("node-64", "calls_per_s", 10000.0, "calls/s", "workerd", 2.0),
    Row("node-64", "p99_ms", 3.456, "ms"),
)


def test_the_file_has_the_documented_shape(tmp_path: Path) -> None:
    path = write(Report("warm", "c0ffee", "2026-01-02T03:04:05+00:00", {"cores": 2}, ROWS), tmp_path)
    assert path == tmp_path / "warm.json"
    assert json.loads(path.read_text()) == {
        "name": "warm",
        "commit": "c0ffee",
        "at": "2026-01-02T03:04:05+00:00",
        "machine": {"cores": 2},
        "rows": [
            {
                "case": "node-64",
                "metric": "calls_per_s",
                "value": 20000.0,
                "unit": "calls/s",
                "peer": None,
                "ratio": None,
            },
            {
                "case": "node-64",
                "metric": "calls_per_s",
                "value": 10000.0,
                "unit": "calls/s",
                "peer": "workerd",
                "ratio": 2.0,
            },
            {
                "case": "node-64",
                "metric": "p99_ms",
                "value": 3.456,
                "unit": "ms",
                "peer": None,
                "ratio": None,
            },
        ],
    }


def test_results_are_replaced_as_a_whole(tmp_path: Path) -> None:
    write(report("warm", ROWS), tmp_path)
    write(report("warm", ROWS[:1]), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["warm.json"]
    assert len(json.loads((tmp_path / "warm.json").read_text())["rows"]) == 1


def test_a_report_says_when_and_where_but_names_no_machine() -> None:
    made = report("warm", ROWS)
    assert made.at.endswith("+00:00")
    assert made.commit == "unknown" or len(made.commit.removesuffix("-dirty")) == 40
    assert set(made.machine) == {"cpu", "cores", "memory_mb", "system", "python", "load_1m"}
    assert machine()["cores"] and json.loads(to_json(made))["machine"] == made.machine


def test_the_table_lines_its_numbers_up() -> None:
    lines = table(ROWS).splitlines()
    assert lines[0].split() == ["case", "metric", "value", "unit", "peer", "ours", "÷", "peer"]
    assert [line.index("s", 22) for line in lines[2:4]] == [lines[2].index("s", 22)] * 2
    assert lines[3].split() == ["node-64", "calls_per_s", "10,000", "calls/s", "workerd", "2.00"]
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0123456, "0.0123"), (3.456, "3.46"), (99.94, "99.9"), (100.4, "100"), (26300.4, "26,300")],
)
def test_numbers_are_as_long_as_they_are_exact(value: float, text: str) -> None:
    assert number(value) == text
