"""What we read from the load generator."""

from __future__ import annotations

import pytest

from bench.harness.errors import BenchmarkFailed
from bench.harness.wrk import Load, parse

SUMMARY = (
    '{"requests":30000,"duration_us":3000000,"p50_us":2400,"p99_us":3900,'
    '"connect":0,"read":1,"write":0,"status":2,"timeout":4}'
)


def test_the_summary_line_is_found_among_wrks_own() -> None:
    output = f"Running 3s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n{SUMMARY}\n"
    assert parse(output) == Load(calls_per_s=10000.0, p50_ms=2.4, p99_ms=3.9, errors=7, answered=30000)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("unable to connect", "printed no summary"),
        (SUMMARY.replace(":30000,", ":0,"), "no call was answered"),
    ],
)
def test_no_number_is_made_up(output: str, message: str) -> None:
    with pytest.raises(BenchmarkFailed, match=message):
        parse(output)
