"""What the platform costs while nobody calls it, and how soon it is ready.

``memory_mb`` is the proportional set size of all its processes: memory that they share is counted once.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.harness.errors import BenchmarkFailed
from bench.harness.platform import REGISTERED, BenchInstallation, Copies, ended, installation
from bench.harness.results import Row
from bench.harness.run import Progress, benchmark, time_limit
from bench.harness.stats import median

SETTLE_S = 2.0
"""After the start, before memory is looked at: lazily loaded parts are in, the pools are full."""
WITHOUT_POOLS = {"pool_node": "0", "pool_python": "0"}


@dataclass(frozen=True, slots=True)
class Look:
    """One installation at rest."""

    ready_s: float
    memory_mb: Mapping[str, float]
    """By process name."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="starts of each case")
    options = parser.parse_args()
    benchmark("idle", lambda: measure(options.rounds))


def measure(rounds: int) -> Sequence[Row]:
    if sys.platform != "linux":
        raise BenchmarkFailed("only Linux tells how much memory processes share")
    progress = Progress()
    with time_limit():
        looks: dict[str, list[Look]] = {"platform": [], "platform-pools": []}
        for _ in range(rounds):
            looks["platform"].append(_fresh(WITHOUT_POOLS, {}))
            looks["platform-pools"].append(_fresh({}, {"node24": 1, "python3": 1}))
            progress(
                ", ".join(f"{case} {sum(seen[-1].memory_mb.values()):.0f} MB" for case, seen in looks.items())
            )
        looks["platform-2000-functions"] = [_registered()]
    return [row for case, seen in looks.items() for row in rows(case, seen)]


def rows(case: str, looks: Sequence[Look]) -> list[Row]:
    """Medians of the starts: the whole, then each kind of process."""
    whole = median([sum(look.memory_mb.values()) for look in looks])
    found = [Row(case, "memory_mb", round(whole, 1), "MB")]
    found.append(Row(case, "ready_s", round(median([look.ready_s for look in looks]), 3), "s"))
    for name in looks[0].memory_mb:
        part = median([look.memory_mb.get(name, 0.0) for look in looks])
        found.append(Row(case, f"memory_mb_{name}", round(part, 1), "MB"))
    return found


def _fresh(settings: Mapping[str, str], pools: Mapping[str, int]) -> Look:
    """A new, empty installation, started for the second time (the first makes its files)."""
    with tempfile.TemporaryDirectory(prefix="cloudlet-bench-") as folder:
        running = BenchInstallation(Path(folder) / "data", settings)
        try:
            running.start()
            ended(running)
            return _look(running, running.start(), pools)
        finally:
            ended(running)


def _registered() -> Look:
    """Without pools, with many functions known; the last start of `installation` is not the one measured."""
    with installation([Copies("add-node", REGISTERED)], WITHOUT_POOLS, ("add-node",)) as running:
        ended(running)
        return _look(running, running.start(), {})


def _look(running: BenchInstallation, ready_s: float, pools: Mapping[str, int]) -> Look:
    running.quiet(pools)
    time.sleep(SETTLE_S)
    memory: dict[str, float] = {}
    for pid in running.processes():
        name = role(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0"))
        memory[name] = memory.get(name, 0.0) + pss_mb(Path(f"/proc/{pid}/smaps_rollup").read_text())
    return Look(ready_s, memory)


def role(command: Sequence[str]) -> str:
    """What a process of the installation is, from its command line."""
    if "cloudlet.serve.process" in command:
        return command[command.index("cloudlet.serve.process") + 1]
    for mark, name in (("envoy", "envoy"), ("shim.py", "cell_python"), ("shim.mjs", "cell_node")):
        if any(Path(word).name == mark for word in command):
            return name
    if any(Path(word).name == "cloudlet" for word in command) and "up" in command:
        return "node"
    return "other"


def pss_mb(smaps: str) -> float:
    """From the text of ``smaps_rollup``. Raise BenchmarkFailed when it does not tell."""
    for line in smaps.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise BenchmarkFailed("the kernel does not tell the proportional set size")


if __name__ == "__main__":
    main()
