"""The frame of every benchmark: time limit, table, JSON, exit code."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from tests.acceptance.installation import InstallationFailed

from .errors import BenchmarkFailed
from .results import REPOSITORY, Row, report, table, write

MEASURE_S_MAX = 300
"""A benchmark that takes longer is ended without a result."""


def benchmark(name: str, measure: Callable[[], Sequence[Row]], *, whole: bool = True) -> NoReturn:
    """Run it, print its table, write ``bench/results/NAME.json`` and leave: 0 when there is a result and no
    call failed, 1 otherwise. Not `whole`: only a part was measured, and the results of the last run stay."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        rows = measure()
    except (BenchmarkFailed, InstallationFailed) as exc:
        print(f"bench-{name}: {exc}", file=sys.stderr)
        raise SystemExit(1) from exc
    print(f"\n{table(rows)}\n")
    if whole:
        print(f"written to {write(report(name, rows)).relative_to(REPOSITORY)}")
    failed = [row for row in rows if row.metric == "errors" and row.value]
    for row in failed:
        print(f"bench-{name}: {row.value:.0f} calls of {row.case} failed", file=sys.stderr)
    raise SystemExit(1 if failed else 0)


@contextmanager
def time_limit(seconds: int = MEASURE_S_MAX) -> Iterator[None]:
    """Raise BenchmarkFailed in the block when it takes longer. Main thread only."""

    def too_long(number: int, frame: FrameType | None) -> NoReturn:
        raise BenchmarkFailed(f"not finished after {seconds} s; is the machine busy with something else?")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


class Progress:
    """One line per step on standard error, with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self._started:6.1f} s  {text}", file=sys.stderr, flush=True)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """So that every ``with`` on the way out ends what it started."""
    raise SystemExit(128 + number)
