"""Put the latest results into the tables of docs/reference/performance.md."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bench.harness.results import REPOSITORY, RESULTS, Report, Row, number

PAGE = REPOSITORY / "docs" / "reference" / "performance.md"
_PLACE = re.compile(r"(<!-- results (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    reports = {path.stem: read(path) for path in sorted(RESULTS.glob("*.json"))}
    text = PAGE.read_text()
    new = filled(text, reports)
    PAGE.write_text(new)
    print(f"{PAGE.relative_to(REPOSITORY)}: {'changed' if new != text else 'as it was'}")
    missing = sorted({match["name"] for match in _PLACE.finditer(new)} - reports.keys())
    if missing:
        print(f"no results yet: {', '.join(missing)} (make bench-NAME)", file=sys.stderr)
        raise SystemExit(1)


def read(path: Path) -> Report:
    return msgspec.json.decode(path.read_bytes(), type=Report)


def filled(text: str, reports: Mapping[str, Report]) -> str:
    """`text` with a table between each pair of marks; places without a report stay as they are."""

    def replaced(place: re.Match[str]) -> str:
        report = reports.get(place["name"])
        return f"{place[1]}{section(report)}{place[3]}" if report else place[0]

    return _PLACE.sub(replaced, text)


def section(report: Report) -> str:
    """The conditions in one line, then a table: a row per case and system, a column per metric."""
    machine = report.machine
    conditions = (
        f"{report.at[:10]}, {machine['cores']} cores ({machine['cpu']}), "
        f"load average {machine['load_1m']} at the end."
    )
    return f"\n{conditions}\n\n{markdown(report.rows)}\n"


def markdown(rows: Sequence[Row]) -> str:
    """Cases with the same metrics share a table; columns are in the order of the rows."""
    lines: dict[tuple[str, str | None], dict[str, str]] = {}
    for row in rows:
        cell = number(row.value) + ("" if row.ratio is None else f" (×{row.ratio:.2f})")
        lines.setdefault((row.case, row.peer), {})[row.metric] = cell
    tables: dict[tuple[str, ...], list[list[str]]] = {}
    for (case, peer), cells in lines.items():
        metrics = tuple(metric for metric in cells if metric != "errors")
        tables.setdefault(metrics, []).append([case, peer or "cloudlet", *(cells[m] for m in metrics)])
    return "\n".join(_table(metrics, body) for metrics, body in tables.items())


def _table(metrics: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    head = ["case", "system", *metrics]
    rule = ["---", "---", *("--:" for _ in metrics)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *body))


if __name__ == "__main__":
    main()
