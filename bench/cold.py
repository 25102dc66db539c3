"""The first call after scale to zero, as a client sees it at the edge.

``*-empty``: no cell waits, the process is started for this call. ``*-pooled``: a waiting cell is loaded with
the function. ``decision``: from a call's arrival at the activator until the start it needs is ordered from
the node, as the activator measures it (the ``queue`` stage of ``Server-Timing``), all cold calls together;
``decision-and-handover`` adds all other work of the platform around the start (``schedule``).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.harness.errors import BenchmarkFailed
from bench.harness.http import Answer, checked_call
from bench.harness.platform import REGISTERED, Copies, copy_name, installation
from bench.harness.quiet import Quiet
from bench.harness.results import Row
from bench.harness.run import Progress, benchmark, time_limit
from bench.harness.stats import median, percentile

KEEP_ALIVE_S = 0.2
"""Scale to zero soon after each call, or the benchmark would mostly wait."""
EMPTY = {"node-empty": "add-node", "python-empty": "add-python"}
POOLED = {"node-pooled": "add-node", "python-pooled": "add-python", "node-wx-server-sdk": "wx-sdk"}
STAGES = ("queue", "schedule", "sandbox", "load", "init", "handler")


@dataclass(slots=True)
class Measured:
    """Cold answers by case."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    quiet: Quiet = field(default_factory=Quiet)

    def rows(self) -> list[Row]:
        found: list[Row] = []
        for case, answers in self.answers.items():
            latencies = [answer.latency_ms for answer in answers]
            found.append(_row(case, "median_ms", median(latencies)))
            found.append(_row(case, "p95_ms", percentile(latencies, 0.95)))
            for stage in STAGES:
                times = [answer.stages[stage] for answer in answers if stage in answer.stages]
                if times:
                    found.append(_row(case, f"{stage}_median_ms", median(times)))
        every = [answer for answers in self.answers.values() for answer in answers]
        found += _decision("decision", [answer.stages["queue"] for answer in every])
        both = [answer.stages["queue"] + answer.stages["schedule"] for answer in every]
        return found + _decision("decision-and-handover", both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=40, help="cold calls of each case")
    options = parser.parse_args()
    benchmark("cold", lambda: measure(options.rounds))


def measure(rounds: int) -> Sequence[Row]:
    progress, measured = Progress(), Measured()
    with time_limit():
        _measure(EMPTY, {"pool_node": "0", "pool_python": "0"}, {}, rounds, measured, progress)
        _measure(POOLED, {}, {"node24": 1, "python3": 1}, rounds, measured, progress)
    return [*measured.rows(), *measured.quiet.rows()]


def _measure(
    cases: Mapping[str, str],
    settings: Mapping[str, str],
    pools: Mapping[str, int],
    rounds: int,
    measured: Measured,
    progress: Progress,
) -> None:
    """Call each case in turn, each time when nothing runs and the pools are full."""
    # The copies scale to zero sooner than what was deployed; one of each is enough.
    copies = [
        *(Copies(function, 1, KEEP_ALIVE_S) for function in cases.values()),
        Copies("add-node", REGISTERED, first=1),
    ]
    with installation(copies, settings, tuple(cases.values())) as ours:
        token = ours.token("oBench")
        progress(f"ready: {', '.join(cases)}")
        targets = {case: ours.target(copy_name(function, 0), token) for case, function in cases.items()}
        for target in targets.values():
            ours.quiet(pools)
            checked_call(target)  # once, so that files are in memory and the route is known
        for number in range(rounds):
            measured.quiet.wait()
            for case, target in targets.items():
                ours.quiet(pools)
                measured.answers.setdefault(case, []).append(_cold(checked_call(target), case))
            if number % 10 == 9:
                latest = {case: measured.answers[case][-1].latency_ms for case in cases}
                progress(f"round {number + 1}: " + ", ".join(f"{c} {ms:.1f} ms" for c, ms in latest.items()))


def _cold(answer: Answer, case: str) -> Answer:
    """Raise BenchmarkFailed for an answer that waited for no start."""
    if "sandbox" not in answer.stages:
        raise BenchmarkFailed(f"a call of {case} was not cold: {answer.stages}")
    return answer


def _row(case: str, metric: str, value: float) -> Row:
    return Row(case, metric, round(value, 3), "ms")


def _decision(case: str, times: Sequence[float]) -> list[Row]:
    return [_row(case, "p50_ms", percentile(times, 0.5)), _row(case, "p99_ms", percentile(times, 0.99))]


if __name__ == "__main__":
    main()
