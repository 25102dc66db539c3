"""Closed-loop load with wrk: so many connections, each with one call at a time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from .errors import BenchmarkFailed

SCRIPT = Path(__file__).with_name("post.lua")
REQUESTS_SCRIPT = Path(__file__).with_name("requests.lua")
ANSWER_S_MAX = 10


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers ``{"num1", "num2"}`` with ``{"sum"}``."""

    name: str
    url: str
    token: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk saw."""

    calls_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    """Calls without an answer, and answers with status 400 or above."""
    answered: int = 0


class _Summary(msgspec.Struct):
    requests: int
    duration_us: int
    p50_us: int
    p99_us: int
    connect: int
    read: int
    write: int
    status: int
    timeout: int


def load(wrk: str, target: Target, body: str, connections: int, seconds: int) -> Load:
    """Call `target` for `seconds`. Raise BenchmarkFailed when nothing was answered."""
    environment = {**os.environ, "BENCH_BODY": body}
    if target.token:
        # Not on the command line, which every user of the machine can read.
        environment["BENCH_TOKEN"] = target.token
    return _run(wrk, SCRIPT, target.name, target.url, environment, connections, seconds)


@dataclass(frozen=True, slots=True)
class Request:
    """One request made before the load begins. Neither tabs nor line ends in any of it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: str = ""

    def line(self) -> str:
        given = "|".join(f"{name}: {value}" for name, value in self.headers.items())
        return f"{self.method}\t{self.path}\t{given}\t{self.body}\n"


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests to one system, written to `file`: they hold tokens, which a command line would show."""

    name: str
    url: str
    file: Path
    first: Request

    @classmethod
    def written(cls, name: str, url: str, file: Path, requests: Sequence[Request]) -> Requests:
        file.write_text("".join(request.line() for request in requests))
        file.chmod(0o600)
        return cls(name, url, file, requests[0])


def load_requests(wrk: str, requests: Requests, connections: int, seconds: int) -> Load:
    """Send the requests in turn for `seconds`. Raise BenchmarkFailed when nothing was answered."""
    environment = {**os.environ, "BENCH_REQUESTS": str(requests.file)}
    return _run(wrk, REQUESTS_SCRIPT, requests.name, requests.url, environment, connections, seconds)


def _run(
    wrk: str,
    script: Path,
    name: str,
    url: str,
    environment: Mapping[str, str],
    connections: int,
    seconds: int,
) -> Load:
    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={ANSWER_S_MAX}s"]
    try:
        done = subprocess.run(
            [*command, "-s", str(script), url],
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds + 3 * ANSWER_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise BenchmarkFailed(f"wrk did not end while it called {name}") from exc
    if done.returncode != 0:
        raise BenchmarkFailed(f"wrk could not call {name}: {(done.stderr or done.stdout).strip()}")
    return parse(done.stdout)


def parse(output: str) -> Load:
    """Read the line that our script made wrk print. Raise BenchmarkFailed when it is not there, or counts no
    answer."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise BenchmarkFailed(f"wrk printed no summary: {output.strip()[-300:]}")
    summary = msgspec.json.decode(lines[-1], type=_Summary)
    if summary.requests == 0:
        raise BenchmarkFailed("no call was answered")
    errors = summary.connect + summary.read + summary.write + summary.status + summary.timeout
    return Load(
        summary.requests / (summary.duration_us / 1e6),
        summary.p50_us / 1000,
        summary.p99_us / 1000,
        errors,
        summary.requests,
    )
