"""Single calls, timed as a client sees them: connection, request, whole answer."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from cloudlet.gateway.timing import parsed

from .errors import BenchmarkFailed
from .wrk import Target

EVENT = '{"num1":1,"num2":2}'
RESULT = {"sum": 3}
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered call."""

    status: int
    result: object
    latency_ms: float
    stages: dict[str, float]
    """``Server-Timing``: stage → milliseconds."""


def call(target: Target) -> Answer:
    """Raise OSError when nobody answers."""
    parts = urlsplit(target.url)
    headers = {"content-type": "application/json"}
    if target.token:
        headers["authorization"] = f"Bearer {target.token}"
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    started = time.perf_counter()
    try:
        connection.request("POST", parts.path or "/", EVENT, headers)
        response = connection.getresponse()
        body = response.read()
        latency_ms = (time.perf_counter() - started) * 1000
    finally:
        connection.close()
    timing = ", ".join(response.headers.get_all("server-timing", []))
    try:
        result = json.loads(body)
    except ValueError:
        result = body.decode(errors="replace")
    return Answer(response.status, result, latency_ms, parsed(timing))


def checked_call(target: Target) -> Answer:
    """A call whose answer must be right. Raise BenchmarkFailed otherwise."""
    try:
        answer = call(target)
    except (OSError, http.client.HTTPException) as exc:
        raise BenchmarkFailed(f"{target.name} does not answer: {exc!r}") from exc
    if answer.status != 200 or answer.result != RESULT:
        raise BenchmarkFailed(f"{target.name} answered {answer.status}: {str(answer.result)[:300]}")
    return answer
