"""Rows of a benchmark, as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "bench" / "results"


@dataclass(frozen=True, slots=True)
class Row:
    """One number. `peer` names the system that it belongs to, when that is not cloudlet."""

    case: str
    metric: str
    value: float
    unit: str
    peer: str | None = None
    ratio: float | None = None
    """Ours ÷ the peer's; only in rows of a peer."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one run of a benchmark measured."""

    name: str
    commit: str
    at: str
    """Time of the end, ISO 8601, UTC."""
    machine: Mapping[str, str | int | float]
    rows: Sequence[Row]


def report(name: str, rows: Sequence[Row]) -> Report:
    return Report(name, _commit(), datetime.now(UTC).isoformat(timespec="seconds"), machine(), rows)


def to_json(report: Report) -> str:
    """The shape that docs/reference/performance.md describes."""
    return json.dumps(asdict(report), indent=1, ensure_ascii=False) + "\n"


def write(report: Report, folder: Path = RESULTS) -> Path:
    """Replace the results of the last run as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.name}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(to_json(report))
    return temporary.replace(path)


def table(rows: Sequence[Row]) -> str:
    """The rows in columns, numbers to the right."""
    head = ("case", "metric", "value", "unit", "peer", "ours ÷ peer")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    right = {2, 5}
    text = [
        "  ".join(
            c.rjust(widths[n]) if n in right else c.ljust(widths[n]) for n, c in enumerate(line)
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "─" * max(map(len, text)), *text[1:]])


def _cells(row: Row) -> tuple[str, ...]:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return row.case, row.metric, number(row.value), row.unit, row.peer or "", ratio


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def machine() -> dict[str, str | int | float]:
    """What the numbers depend on; nothing that names the machine."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        "memory_mb": pages * page_bytes // 2**20,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    """The commit that was measured, with ``-dirty`` when files differ from it; ``unknown`` outside git."""
    try:
        done = subprocess.run(
            [
                "git",
                "-c",
                "safe.directory=*",
                "describe",
                "--always",
                "--abbrev=40",
                "--dirty",
                "--exclude=*",
            ],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
