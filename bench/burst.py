"""From 5 to 500 calls a second within one second.

Open loop: calls leave at their times, whatever has been answered, and a call's latency counts from the time
it should have left. Each repeat calls a function that has never been called before its quiet part.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from bench.harness.http import EVENT, RESULT, checked_call
from bench.harness.platform import REGISTERED, BenchInstallation, Copies, copy_name, installation
from bench.harness.quiet import Quiet
from bench.harness.results import Row
from bench.harness.run import Progress, benchmark, time_limit
from bench.harness.stats import median, percentile, share_above
from bench.harness.wrk import Target

QUIET_PER_S, BURST_PER_S = 5, 500
QUIET_S, RAMP_S = 4.0, 1.0
SLOW_MS = 100.0
CALL_S_MAX = 30.0
CASES = {"node-add": "add-node", "node-wait-20ms": "wait-20ms", "python-add": "add-python"}


@dataclass(frozen=True, slots=True)
class Repeat:
    """One burst."""

    latencies_ms: Sequence[float]
    """Of the calls from the start of the ramp on."""
    failures: Mapping[str, int]
    """How many calls were not answered rightly, by what came instead."""
    instances: int
    """At its end."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="at the full rate")
    options = parser.parse_args()
    benchmark("burst", lambda: measure(options.repeats, options.seconds))


def measure(repeats: int, full_s: float) -> Sequence[Row]:
    progress, quiet = Progress(), Quiet()
    copies = [Copies(function, repeats) for function in CASES.values()]
    copies.append(Copies("add-node", REGISTERED, first=repeats))
    seen: dict[str, list[Repeat]] = {case: [] for case in CASES}
    with time_limit(), installation(copies, only=tuple(CASES.values())) as ours:
        token = ours.token("oBench")
        for number in range(repeats):
            for case, function in CASES.items():
                target = ours.target(copy_name(function, number), token)
                quiet.wait()
                one = _burst(ours, target, full_s)
                seen[case].append(one)
                progress(
                    f"repeat {number + 1} {case}: p99 {percentile(one.latencies_ms, 0.99):.1f} ms, "
                    f"{share_above(one.latencies_ms, SLOW_MS):.1%} slow, "
                    f"failed: {dict(one.failures) or None}, "
                    f"{one.instances} instances"
                )
    return [*(row for case, all_of_it in seen.items() for row in rows(case, all_of_it)), *quiet.rows()]


def rows(case: str, seen: Sequence[Repeat]) -> list[Row]:
    """Medians of the repeats; errors are added up."""
    values = {
        "slow_share": ([share_above(one.latencies_ms, SLOW_MS) for one in seen], "of calls > 100 ms"),
        "p50_ms": ([percentile(one.latencies_ms, 0.5) for one in seen], "ms"),
        "p99_ms": ([percentile(one.latencies_ms, 0.99) for one in seen], "ms"),
        "max_ms": ([max(one.latencies_ms) for one in seen], "ms"),
        "instances": ([float(one.instances) for one in seen], "at the end"),
    }
    found = [Row(case, metric, round(median(of), 4), unit) for metric, (of, unit) in values.items()]
    return [*found, Row(case, "errors", float(sum(sum(one.failures.values()) for one in seen)), "calls")]


def departures(quiet_s: float, ramp_s: float, full_s: float) -> list[float]:
    """Seconds at which calls leave: evenly at the quiet rate, then faster and faster through the ramp, then
    evenly at the full rate."""
    slope = (BURST_PER_S - QUIET_PER_S) / ramp_s
    quiet_calls = round(quiet_s * QUIET_PER_S)
    ramp_calls = round(ramp_s * (QUIET_PER_S + BURST_PER_S) / 2)
    quiet = [number / QUIET_PER_S for number in range(quiet_calls)]
    # Calls until u seconds into the ramp: QUIET_PER_S u + slope u² / 2; solved for u.
    ramp = [
        quiet_s + (math.sqrt(QUIET_PER_S**2 + 2 * slope * number) - QUIET_PER_S) / slope
        for number in range(ramp_calls)
    ]
    full = [quiet_s + ramp_s + number / BURST_PER_S for number in range(round(full_s * BURST_PER_S))]
    return quiet + ramp + full


def _burst(ours: BenchInstallation, target: Target, full_s: float) -> Repeat:
    checked_call(target)
    times = departures(QUIET_S, RAMP_S, full_s)
    outcomes = asyncio.run(_calls(target, times))
    instances = len(ours.instances(target.name))
    latencies = [
        end for at, end in zip(times, outcomes, strict=True) if at >= QUIET_S and isinstance(end, float)
    ]
    return Repeat(latencies, Counter(end for end in outcomes if isinstance(end, str)), instances)


async def _calls(target: Target, times: Sequence[float]) -> list[float | str]:
    """Milliseconds of each call; for one that was not answered rightly, what came instead."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {target.token}"}
    timeout = aiohttp.ClientTimeout(total=CALL_S_MAX)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
        started = time.perf_counter()
        tasks: list[asyncio.Task[float | str]] = []
        for at in times:
            if (wait_s := started + at - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            tasks.append(asyncio.create_task(_call(session, target.url, started + at)))
        return list(await asyncio.gather(*tasks))


async def _call(session: aiohttp.ClientSession, url: str, due: float) -> float | str:
    try:
        async with session.post(url, data=EVENT) as response:
            answer = await response.json()
    except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
        return type(exc).__name__
    if response.status == 200 and answer == RESULT:
        return (time.perf_counter() - due) * 1000
    code = answer.get("code") if isinstance(answer, dict) else None
    return f"{response.status} {code or 'wrong result'}"


if __name__ == "__main__":
    main()
