"""Results in the documentation."""

from __future__ import annotations

from pathlib import Path

from bench.harness.results import Report, Row, write
from bench.report import PAGE, filled, read

REPORT = Report(
    "warm",
    "c0ffee",
    "2026-01-02T03:04:05+00:00",
    {"cores": 2, "cpu": "A processor", "load_1m": 1.5},
    [
        Row("node-64", "calls_per_s", 20000.0, "calls/s"),
        Row("node-64", "calls_per_s", 10000.0, "calls/s", "workerd", 2.0),
        Row("node-64", "p99_ms", 3.456, "ms"),
        Row("node-64", "p99_ms", 6.912, "ms", "workerd", 0.5),
        Row("node-64", "errors", 0.0, "calls"),
        Row("decision", "p50_ms", 0.1, "ms"),
    ],
)
PAGE_BEFORE = "# Speed\n<!-- results warm -->\nold\n<!-- end -->\ntext\n<!-- results cold -->\n<!-- end -->\n"
PAGE_AFTER = """# Speed
<!-- results warm -->

2026-01-02, 2 cores (A processor), load average 1.5 at the end.

| case | system | calls_per_s | p99_ms |
| --- | --- | --: | --: |
| node-64 | cloudlet | 20,000 | 3.46 |
| node-64 | workerd | 10,000 (×2.00) | 6.91 (×0.50) |

| case | system | p50_ms |
| --- | --- | --: |
| decision | cloudlet | 0.1 |

<!-- end -->
text
<!-- results cold -->
<!-- end -->
"""


def test_tables_are_put_between_their_marks_and_nothing_else_changes() -> None:
    once = filled(PAGE_BEFORE, {"warm": REPORT})
    assert once == PAGE_AFTER
    assert filled(once, {"warm": REPORT}) == once


def test_what_was_written_can_be_read(tmp_path: Path) -> None:
    assert read(write(REPORT, tmp_path)) == REPORT


def test_every_benchmark_has_its_place_on_the_page() -> None:
    folder = PAGE.parents[2] / "bench"
    names = {path.stem.replace("_", "-") for path in folder.glob("[a-z]*.py")} - {"report"}
    assert {name for name in names if f"<!-- results {name} -->" in PAGE.read_text()} == names
    assert {name for name in names if f"make bench-{name}" in PAGE.read_text()} == names
