"""Warm calls per second through the edge, beside the bare frameworks of others.

Ours: a session token checked by the edge, the default sandbox, logs and metrics on, 2,000 functions
registered. The peers: the same small function, no gateway, no session, the settings they come with. Rounds
are interleaved, so that a busy moment of the machine meets every side.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.harness.http import EVENT, checked_call
from bench.harness.platform import REGISTERED, BenchInstallation, Copies, installation
from bench.harness.quiet import Quiet
from bench.harness.results import Row
from bench.harness.run import Progress, benchmark, time_limit
from bench.harness.stats import median, paired_ratio
from bench.harness.tools import need_wrk
from bench.harness.wrk import Load, Target, load
from bench.peers import PEERS, install, running

CONNECTIONS = (16, 64)
LANGUAGES = ("node", "python")
WARM_UP_S = 2
METRICS = (("calls_per_s", "calls/s"), ("p50_ms", "ms"), ("p99_ms", "ms"))


@dataclass(slots=True)
class Measured:
    """Loads by (case, peer or None for ours), one per round."""

    loads: dict[tuple[str, str | None], list[Load]] = field(default_factory=lambda: defaultdict(list))

    def rows(self) -> list[Row]:
        """Ours first in every case, then its peers; failed calls of ours at the end."""
        found: list[Row] = []
        for case in dict.fromkeys(case for case, _ in self.loads):
            ours = self.loads[case, None]
            peers = [peer for of, peer in self.loads if of == case and peer is not None]
            for metric, unit in METRICS:
                mine = [getattr(each, metric) for each in ours]
                found.append(Row(case, metric, round(median(mine), 3), unit))
                for peer in peers:
                    theirs = [getattr(each, metric) for each in self.loads[case, peer]]
                    ratio = round(paired_ratio(mine, theirs), 3)
                    found.append(Row(case, metric, round(median(theirs), 3), unit, peer, ratio))
            found.append(Row(case, "errors", float(sum(each.errors for each in ours)), "calls"))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each run of wrk")
    parser.add_argument("--ours", action="store_true", help="leave the peers out")
    options = parser.parse_args()
    benchmark("warm", lambda: measure(options.rounds, options.seconds, not options.ours))


def measure(rounds: int, seconds: int, with_peers: bool) -> Sequence[Row]:
    wrk, progress = need_wrk(), Progress()
    packages = install() if with_peers else None
    with tempfile.TemporaryDirectory(prefix="cloudlet-bench-") as work, time_limit():
        with installation([Copies("add-node", REGISTERED)], only=("add-node", "add-python")) as ours:
            token = ours.token("oBench")
            targets = {language: ours.target(f"add-{language}", token) for language in LANGUAGES}
            if packages is None:
                return _rounds(wrk, ours, targets, {}, rounds, seconds, progress)
            with running(packages, Path(work)) as peers:
                return _rounds(wrk, ours, targets, peers, rounds, seconds, progress)


def _rounds(
    wrk: str,
    installed: BenchInstallation,
    ours: Mapping[str, Target],
    peers: Mapping[str, Target],
    rounds: int,
    seconds: int,
    progress: Progress,
) -> list[Row]:
    for target in (*ours.values(), *peers.values()):
        checked_call(target)
        load(wrk, target, EVENT, CONNECTIONS[-1], WARM_UP_S)
        progress(f"warmed up {target.name}")
    measured, quiet = Measured(), Quiet()
    for number in range(rounds):
        for connections in CONNECTIONS:
            for language in LANGUAGES:
                case = f"{language}-{connections}"
                sides: list[tuple[str | None, Target]] = [(None, ours[language])]
                sides += [(p.name, peers[p.name]) for p in PEERS if p.language == language and peers]
                seen = []
                for peer, target in sides:
                    quiet.wait()
                    one = load(wrk, target, EVENT, connections, seconds)
                    measured.loads[case, peer].append(one)
                    seen.append(f"{peer or 'cloudlet'} {one.calls_per_s:,.0f} ({one.p99_ms:.1f} ms)")
                instances = len(installed.instances(ours[language].name))
                progress(f"round {number + 1} {case}: {', '.join(seen)}; {instances} instances")
    for target in (*ours.values(), *peers.values()):
        checked_call(target)
    return [*measured.rows(), *quiet.rows()]


if __name__ == "__main__":
    main()
