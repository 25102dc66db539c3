"""Documents: over HTTP beside Parse Server, without HTTP beside bare SQLite, and what growth costs.

HTTP: through the edge with a session and a custom rule, 32 clients, writes durable. Parse Server has its
master key (it checks neither session nor rights), on the same PostgreSQL server as ours. Rounds are
interleaved, so that a busy moment of the machine meets every side.
"""

from __future__ import annotations

import argparse
import http.client
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bench.harness import notes
from bench.harness.documents import (
    ENVIRONMENTS,
    ROLES,
    answer_is_right,
    cpu_s,
    documents_installation,
)
from bench.harness.engine import engine_rows
from bench.harness.errors import BenchmarkFailed
from bench.harness.growth import growth_rows
from bench.harness.live import watch_rows
from bench.harness.postgres import postgres
from bench.harness.quiet import Quiet
from bench.harness.results import Row
from bench.harness.run import Progress, benchmark, time_limit
from bench.harness.stats import median, paired_ratio
from bench.harness.tools import need_wrk
from bench.harness.wrk import Load, Request, Requests, load_requests
from bench.peers.parse import parse_server

CLIENTS = 32
PEER = "parse-server"
PARTS = ("http", "engine", "watch", "growth")
MEASURE_S_MAX = 840
METRICS = (("calls_per_s", "ops_per_s", "ops/s"), ("p50_ms", "p50_ms", "ms"), ("p99_ms", "p99_ms", "ms"))


@dataclass(slots=True)
class Measured:
    """By (operation, system), one value per round: loads, and processor time per call in µs of all processes
    of the system, its database included; of ours also by role."""

    loads: dict[tuple[str, str], list[Load]] = field(default_factory=lambda: defaultdict(list))
    cpu_us: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    role_us: dict[tuple[str, str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def rows(self) -> list[Row]:
        """A case for each engine of ours and operation: ours, then the peer."""
        found: list[Row] = []
        for engine in ENVIRONMENTS:
            for operation in notes.OPERATIONS:
                if (operation, engine) in self.loads:
                    found += self._case(f"{engine}-{operation}", operation, engine)
        return found

    def _case(self, case: str, operation: str, engine: str) -> Iterator[Row]:
        ours, theirs = self.loads[operation, engine], self.loads.get((operation, PEER), [])
        for attribute, metric, unit in METRICS:
            mine = [getattr(each, attribute) for each in ours]
            yield from _pair(case, metric, unit, mine, [getattr(each, attribute) for each in theirs])
        used, others = self.cpu_us[operation, engine], self.cpu_us.get((operation, PEER), [])
        yield from _pair(case, "cpu_us", "µs per call", used, others)
        yield Row(case, "errors", float(sum(each.errors for each in ours)), "calls")
        for role in ROLES:
            part = median(self.role_us[operation, engine, role])
            yield Row(f"{case}-cpu", f"{role}_us", round(part, 1), "µs per call")


def _pair(case: str, metric: str, unit: str, ours: Sequence[float], theirs: Sequence[float]) -> Iterator[Row]:
    yield Row(case, metric, round(median(ours), 3), unit)
    if theirs:
        yield Row(case, metric, round(median(theirs), 3), unit, PEER, round(paired_ratio(ours, theirs), 3))


@dataclass(frozen=True, slots=True)
class Sides:
    """What is called, by (operation, system), and the processes of each system and of our roles."""

    requests: Mapping[tuple[str, str], Requests]
    processes: Mapping[str, Callable[[], list[int]]]
    roles: Mapping[str, int]

    def roles_s(self) -> dict[str, float]:
        return {role: cpu_s([pid]) for role, pid in self.roles.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each run of wrk")
    parser.add_argument("--ours", action="store_true", help="leave Parse Server out")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure a part, write no results")
    parser.add_argument("--documents", type=int, default=1_000_000, help="most documents of the growth table")
    options = parser.parse_args()
    parts = tuple(options.only or PARTS)

    def measure() -> Sequence[Row]:
        progress, rows = Progress(), list[Row]()
        with time_limit(MEASURE_S_MAX):
            if "http" in parts:
                rows += over_http(options.rounds, options.seconds, not options.ours, progress)
            with _folder() as work:
                if "engine" in parts:
                    rows += engine_rows(work, options.rounds, progress)
                if "watch" in parts:
                    rows += watch_rows(work, progress)
                if "growth" in parts:
                    rows += growth_rows(work, options.documents, progress)
        return rows

    benchmark("documents", measure, whole=parts == PARTS and not options.ours)


def over_http(rounds: int, seconds: int, with_peer: bool, progress: Callable[[str], None]) -> list[Row]:
    wrk = need_wrk()
    with ExitStack() as stack:
        work = stack.enter_context(_folder())
        database = stack.enter_context(postgres())
        ours = stack.enter_context(documents_installation(work, database))
        sides = {
            (operation, engine): _written(work, operation, engine, ours.url, requests)
            for engine, environment in ENVIRONMENTS.items()
            for tokens in [ours.tokens(environment)]
            for operation in notes.OPERATIONS
            for requests in [notes.our_requests(operation, tokens)]
        }
        roles = {role: ours.pid(role) for role in ROLES}
        processes: dict[str, Callable[[], list[int]]] = {
            "sqlite": lambda: [*roles.values()],
            "postgres": lambda: [*roles.values(), *database.processes()],
        }
        if with_peer:
            peer = stack.enter_context(parse_server(database, work))
            for operation in notes.OPERATIONS:
                requests = notes.parse_requests(operation, peer.key)
                sides[operation, PEER] = _written(work, operation, PEER, peer.url, requests)
            processes[PEER] = lambda: [peer.pid, *database.processes()]
        progress("installed and loaded")
        version = Row("machine", "postgres", float(database.version), "major version")
        return [*_rounds(wrk, Sides(sides, processes, roles), rounds, seconds, progress), version]


def _rounds(
    wrk: str,
    sides: Sides,
    rounds: int,
    seconds: int,
    progress: Callable[[str], None],
) -> list[Row]:
    measured, quiet = Measured(), Quiet()
    for (operation, system), requests in sides.requests.items():
        _check(operation, system, requests)
        load_requests(wrk, requests, CLIENTS, 1)
    progress("warmed up")
    for number in range(rounds):
        for operation in notes.OPERATIONS:
            seen = []
            for system in (*ENVIRONMENTS, PEER):
                if (operation, system) not in sides.requests:
                    continue
                requests = sides.requests[operation, system]
                quiet.wait()
                before, roles = cpu_s(sides.processes[system]()), sides.roles_s()
                one = load_requests(wrk, requests, CLIENTS, seconds)
                used = cpu_s(sides.processes[system]()) - before
                measured.loads[operation, system].append(one)
                measured.cpu_us[operation, system].append(used / one.answered * 1e6)
                for role, now in sides.roles_s().items():
                    per_call_us = (now - roles[role]) / one.answered * 1e6
                    measured.role_us[operation, system, role].append(per_call_us)
                seen.append(f"{system} {one.calls_per_s:,.0f} ({one.p99_ms:.1f} ms)")
            progress(f"round {number + 1} {operation}: {', '.join(seen)}")
    for (operation, system), requests in sides.requests.items():
        _check(operation, system, requests)
    return [*measured.rows(), *quiet.rows()]


def _written(work: Path, operation: str, system: str, url: str, requests: Sequence[Request]) -> Requests:
    return Requests.written(f"{system}-{operation}", url, work / f"{system}-{operation}.requests", requests)


def _check(operation: str, system: str, requests: Requests) -> None:
    """One call whose answer must be right. Raise BenchmarkFailed otherwise."""
    first, parts = requests.first, urlsplit(requests.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request(first.method, first.path, first.body or None, dict(first.headers))
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as exc:
        raise BenchmarkFailed(f"{requests.name} does not answer: {exc!r}") from exc
    finally:
        connection.close()
    if answer.status >= 400 or not answer_is_right(operation, system != PEER, body):
        raise BenchmarkFailed(f"{requests.name} answered {answer.status}: {body[:300]!r}")


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cloudlet-bench-") as folder:
        yield Path(folder)


if __name__ == "__main__":
    main()
