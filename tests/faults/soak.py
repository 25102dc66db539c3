"""``make soak``: kill and stop processes of a busy installation, round after round.

``SEED=7 ROUNDS=200 MINUTES=30 FUNCTIONS=1000 python -m tests.faults.soak``: the seed decides what is hit in
which round, and is printed. After each round every answer must have been on the list and every promise kept;
now and then nothing may be left of what was hit. Exit code 0 when all rounds held.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from tests.acceptance.installation import InstallationFailed
from tests.faults.belongings import check_descriptors
from tests.faults.rig import CELL, Target, under_fire

ROUNDS, MINUTES, FUNCTIONS, CLIENTS = 200, 30.0, 1000, 64
SETTLE_EVERY = 20
KINDS = ("api", "control", "envoy", CELL)
NODE = "node"
_NODE_SHARE, _STOP_SHARE, _TWO_SHARE = 0.03, 0.25, 0.3


@dataclass(frozen=True, slots=True)
class Blow:
    """What is done in one round."""

    names: tuple[str, ...]
    stop: bool = False
    """Stopped by a signal instead of killed."""

    def __str__(self) -> str:
        return f"{'stop' if self.stop else 'kill'} {' and '.join(self.names)}"


@dataclass(frozen=True, slots=True)
class Round:
    number: int
    blow: Blow
    recovered_s: float


class TooSlow(AssertionError):
    """The rounds were not done within the time they have."""


def blows(seed: int) -> Iterator[Blow]:
    """What is hit, round by round: the same for the same seed."""
    chance = random.Random(seed)
    while True:
        if chance.random() < _NODE_SHARE:
            yield Blow((NODE,))
        else:
            count = 2 if chance.random() < _TWO_SHARE else 1
            yield Blow(tuple(chance.sample(KINDS, count)), chance.random() < _STOP_SHARE)


def play(
    target: Target, plan: Iterator[Blow], rounds: int, limit_s: float, tell: Callable[[Round], None]
) -> list[Round]:
    """Do that many rounds. Raise AssertionError for the first that does not hold, TooSlow after `limit_s`."""
    deadline = time.monotonic() + limit_s
    done: list[Round] = []
    before: Mapping[str, int] = {}
    for number in range(1, rounds + 1):
        if time.monotonic() > deadline:
            raise TooSlow(f"{number - 1} of {rounds} rounds in {limit_s:.0f} s")
        blow = next(plan)
        try:
            done.append(Round(number, blow, strike(target, blow)))
        except AssertionError as exc:
            raise AssertionError(f"round {number}, {blow}: {exc}") from exc
        tell(done[-1])
        if number % SETTLE_EVERY == 0 or number == rounds:
            target.settle()
            now = target.descriptors()
            check_descriptors(before or now, now)
            before = before or now
    return done


def strike(target: Target, blow: Blow) -> float:
    """One round; return the seconds until everybody was served again."""
    with target.traffic(CLIENTS) as traffic:
        began = time.monotonic()
        if blow.names == (NODE,):
            target.kill_everything(traffic)
            return time.monotonic() - began
        traffic.edge_hit = "envoy" in blow.names
        victims = target.hit(signal.SIGSTOP if blow.stop else signal.SIGKILL, *blow.names)
        return target.recover(traffic, victims)


def summary(done: list[Round], target: Target) -> str:
    """What happened, in a few lines."""
    times = sorted(each.recovered_s for each in done)
    cuts = quantiles(times, n=20) if len(times) > 1 else times * 19
    counts = ", ".join(f"{count} x {what}" for what, count in sorted(target.counts().items()))
    return (
        f"{len(done)} rounds held. Served again after: median {cuts[9]:.1f} s, 95 % {cuts[18]:.1f} s, "
        f"at most {times[-1]:.1f} s\nanswers: {counts}\nopen descriptors: {target.descriptors()}"
    )


def main() -> int:
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1_000_000))
    rounds = int(os.environ.get("ROUNDS") or ROUNDS)
    minutes = float(os.environ.get("MINUTES") or MINUTES)
    functions = int(os.environ.get("FUNCTIONS") or FUNCTIONS)
    print(f"soak: SEED={seed} ROUNDS={rounds} MINUTES={minutes:g} FUNCTIONS={functions}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="cloudlet-soak-"))
    try:
        with under_fire(directory / "data", functions=functions) as target:
            done = play(target, blows(seed), rounds, minutes * 60, _tell)
            print(summary(done, target))
    except (AssertionError, InstallationFailed) as exc:
        print(f"soak failed with SEED={seed}: {exc}\ndata and logs are kept in {directory}")
        return 1
    shutil.rmtree(directory)
    print("soak ok")
    return 0


def _tell(done: Round) -> None:
    print(f"{done.number:4}  {done.blow!s:30} {done.recovered_s:5.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
