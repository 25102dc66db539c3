"""The activator: takes calls that no instance may get unasked, and gives each to an instance that is free.

An ASGI application. What it sends on is the instance contract (``runtime/contract.md`` 3), what it answers
by itself is worded by the dialect that the wiring hands in, with ``x-cloudlet-error`` as the contract has it
(the edge takes it away from what leaves the platform). A call is started at most once: it goes to another
instance only after a refusal or when nothing could be sent, never after its bytes left.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import structlog
from multidict import CIMultiDict, CIMultiDictProxy
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cloudlet.model import invocation as wire
from cloudlet.model.clock import Clock
from cloudlet.model.errors import (
    BodyTooLarge,
    ConcurrencyExceeded,
    DepthExceeded,
    FunctionExited,
    FunctionNotFound,
    FunctionOutOfMemory,
    FunctionTimeout,
    Internal,
    InvalidParameter,
    PlatformError,
)
from cloudlet.model.function import Version
from cloudlet.model.ids import new_request_id
from cloudlet.model.invocation import CallRecord
from cloudlet.model.sandbox import EndReason
from cloudlet.scheduler.leases import Lease, Outcome
from cloudlet.scheduler.loop import Scheduler
from cloudlet.scheduler.queue import Ticket

from .errors import ErrorReply, timeout_error
from .timing import merged, parsed, stages
from .upstream import Answer, Broken, NotSent, OutOfTime, Refused, Upstreams

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = structlog.get_logger(__name__)

WAIT_S_MAX = 60.0
"""A call may wait this long for an instance; the edge's route for late-bound versions allows for it."""
EDGE_SLACK_S = 0.05
"""The edge's clock for one try of an early-bound version is the function's timeout and this much."""
ANSWER_SLACK_S = 0.02
"""We answer this much before the edge's clock would."""
CLOCK_SLACK_S = 0.05
"""Our clock runs out this much after the function's, so that the shim can answer first."""
END_NEWS_S = 0.5
"""How long we wait for the node to tell why a connection ended: it knows once the process is gone, which
takes a large one some time."""
DISCARDED_BYTES_MAX = 64 * 1024 * 1024
BODY_BYTES_TOTAL_MAX = 256 * 1024 * 1024
"""Bodies held for waiting and running calls, all functions together."""

_FUNCTION_PATH = "/v1/functions/"
_ATTEMPT = "x-envoy-attempt-count"
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
    }
)
_NOT_FORWARDED = _HOP_BY_HOP | {"host", "content-length", wire.TIMEOUT_MS, wire.BOUND, wire.QUEUED_US}
_NOT_RETURNED = _HOP_BY_HOP | {"server-timing", wire.BUSY, wire.FINAL}
_EXITING = frozenset({FunctionTimeout.code, FunctionExited.code, FunctionOutOfMemory.code})
"""Answers after which the instance's process ends (contract 3)."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it arrived."""

    version: Version
    headers: CIMultiDict[str]
    target: str
    """Path and query."""
    body: bytes
    request_id: str
    arrived_at: float
    answer_by: float
    """Monotonic seconds: the caller's clock runs out then."""
    wait_until: float


class ActivatorMetrics:
    """The activator's numbers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls = Counter(
            "cloudlet_activator_calls_total",
            "Calls the activator answered, by outcome: ok, or the code of the error",
            ["outcome"],
            registry=registry,
        )
        self.wait = Histogram(
            "cloudlet_activator_wait_seconds",
            "Time from a call's arrival until an instance took it",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=registry,
        )
        self.cold = Counter(
            "cloudlet_activator_cold_calls_total",
            "Calls that waited for an instance to start",
            registry=registry,
        )
        self.body_bytes = Gauge(
            "cloudlet_activator_body_bytes",
            "Events held for calls that wait or run",
            registry=registry,
        )


class Activator:
    """The ASGI application; `error_reply` words what it answers by itself. `close` it after the server has
    stopped."""

    def __init__(
        self, scheduler: Scheduler, clock: Clock, registry: CollectorRegistry, error_reply: ErrorReply
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._error_reply = error_reply
        self._metrics = ActivatorMetrics(registry)
        self._metrics.body_bytes.set_function(lambda: self._body_bytes)
        self._upstreams = Upstreams()
        self._body_bytes = 0
        scheduler.on_gone(lambda _, socket_path: self._upstreams.forget(socket_path))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def close(self) -> None:
        await self._upstreams.close()

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = CIMultiDict((k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"])
        request_id = headers.get(wire.REQUEST_ID) or new_request_id()
        headers[wire.REQUEST_ID] = request_id
        reply = _Reply(send, request_id, self._error_reply)
        held = 0
        try:
            body = await self._read_body(receive)
            held = len(body)
            call = self._admit(scope, headers, body, request_id)
            await self._run(call, receive, reply)
            outcome = reply.error or "ok"
        except _Gone:
            outcome = "caller_gone"
        except PlatformError as error:
            outcome = error.code
            await reply.fail(error)
        except Exception:
            log.exception("activator_failed", request_id=request_id)
            outcome = Internal.code
            await reply.fail(Internal())
        finally:
            self._body_bytes -= held
        self._metrics.calls.labels(outcome).inc()

    async def _read_body(self, receive: Receive) -> bytes:
        """The whole event: it may have to be sent to a second instance. Counted against the total on
        return. One that is too large is read to its end and thrown away: a client that still writes would
        see a broken connection instead of the answer."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            part = message.get("body", b"")
            size += len(part)
            if size <= wire.EVENT_BYTES_MAX:
                parts.append(part)
            else:
                parts.clear()
            last = not message.get("more_body", False)
            if size > wire.EVENT_BYTES_MAX and (last or size > DISCARDED_BYTES_MAX):
                raise BodyTooLarge("the event is larger than 6 MB")
            if last:
                break
        if self._body_bytes + size > BODY_BYTES_TOTAL_MAX:
            raise ConcurrencyExceeded("too many large events are waiting; try again")
        self._body_bytes += size
        return b"".join(parts)

    def _admit(self, scope: Scope, headers: CIMultiDict[str], body: bytes, request_id: str) -> Call:
        """Everything that can be known before an instance is needed. Raise the error tree."""
        now = self._clock.monotonic()
        version = self._scheduler.resolve(
            headers.get(wire.ENVIRONMENT, ""), _function(scope, headers), headers.get(wire.VERSION, "")
        )
        depth = headers.get(wire.DEPTH, "0")
        if not depth.isdigit():
            raise InvalidParameter(f"{wire.DEPTH} must be a number")
        if int(depth) > wire.DEPTH_MAX:
            raise DepthExceeded(f"functions call functions more than {wire.DEPTH_MAX} deep")
        headers[wire.ENVIRONMENT] = version.environment
        headers[wire.FUNCTION] = version.function
        headers[wire.VERSION] = version.digest
        allowed_s, wait_s = time_allowed(
            version.config.timeout_s, headers.get(_ATTEMPT), self._scheduler.early(version)
        )
        query = scope.get("query_string", b"").decode("latin-1")
        path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        return Call(
            version=version,
            headers=headers,
            target=f"{path}?{query}" if query else path,
            body=body,
            request_id=request_id,
            arrived_at=now,
            answer_by=now + allowed_s,
            wait_until=now + wait_s,
        )

    async def _run(self, call: Call, receive: Receive, reply: _Reply) -> None:
        """Give the call to instances until one of them takes it. Bounded by the ticket: refusals are paced,
        and after its deadline no lease is granted."""
        ticket = self._scheduler.ticket(call.wait_until)
        lease = self._scheduler.try_acquire(call.version, ticket)
        if lease is None:
            lease = await self._wait(call, ticket, receive, again=False)
        while not await self._forward(call, lease, reply):
            lease = await self._wait(call, ticket, receive, again=True)
        self._metrics.wait.observe(max(0.0, lease.granted_at - call.arrived_at))
        if lease.cold is not None:
            self._metrics.cold.inc()

    async def _wait(self, call: Call, ticket: Ticket, receive: Receive, again: bool) -> Lease:
        """Stand in line; leave it when the caller goes away."""
        me = asyncio.current_task()
        if me is None:
            raise Internal("a call was given to the activator outside of a task")
        gone = asyncio.create_task(_cancel_when_gone(receive, me))
        try:
            return await self._scheduler.acquire(call.version, ticket, again)
        except asyncio.CancelledError:
            if _has_cancelled(gone) and me.uncancel() == 0:
                raise _Gone from None
            raise
        finally:
            gone.cancel()

    async def _forward(self, call: Call, lease: Lease, reply: _Reply) -> bool:
        """Send the call to the leased instance and pass its answer on; the lease is finished here, whatever
        happens. False when nothing was started and the call may go to another instance."""
        sent_at = self._clock.monotonic()
        left_s = max(0.001, call.answer_by - sent_at)
        run_s = min(call.version.config.timeout_s, left_s)
        limit_s = min(run_s + CLOCK_SLACK_S, left_s)
        try:
            answer = await self._upstreams.send(
                lease.socket_path, call.target, _outgoing(call, sent_at, run_s), call.body, limit_s
            )
        except Refused:
            lease.finish(Outcome.REFUSED)
            return False
        except NotSent as error:
            log.warning("instance_unreachable", instance=lease.instance_id, error=repr(error.__cause__))
            lease.finish(Outcome.BROKEN)
            return False
        except (OutOfTime, Broken) as error:
            lease.finish(Outcome.BROKEN)
            self._measured(call, sent_at, failed=True)
            if isinstance(error, OutOfTime):
                raise timeout_error(call.version.config.timeout_s) from error
            raise await self._ended(call, lease) from error
        except BaseException:
            # Given up in the middle: what the instance does with the call is not known any more.
            lease.finish(Outcome.BROKEN)
            raise
        await self._pass_on(call, lease, answer, reply, sent_at, limit_s)
        return True

    async def _pass_on(
        self, call: Call, lease: Lease, answer: Answer, reply: _Reply, sent_at: float, limit_s: float
    ) -> None:
        """Pass the answer on. A whole answer frees the instance first: it does not wait for a slow
        reader."""
        head = answer.head
        reply.error = head.headers.get(wire.ERROR, "")
        last = head.closes or reply.error in _EXITING
        timing = merged(head.headers.getall("server-timing", []), stages(lease, call.arrived_at, sent_at))
        outcome = Outcome.BROKEN
        try:
            if answer.rest is None:
                outcome = Outcome.BROKEN if last else Outcome.DONE
            else:
                await reply.begin(head.status, head.headers, timing)
                async with asyncio.timeout(max(0.001, sent_at + limit_s - self._clock.monotonic())):
                    async for chunk in answer.rest:
                        await reply.chunk(chunk)
                outcome = Outcome.BROKEN if last else Outcome.DONE
        except (Broken, TimeoutError) as error:
            # The answer has begun, so it can only be cut.
            log.warning("answer_cut", request_id=call.request_id, error=repr(error))
            reply.error = FunctionExited.code if isinstance(error, Broken) else FunctionTimeout.code
            return
        finally:
            lease.finish(outcome)
            self._measured(call, sent_at, bool(reply.error), handler_s(head.headers))
        if answer.body is not None:
            await reply.begin(head.status, head.headers, timing)
        await reply.end(answer.body or b"")

    async def _ended(self, call: Call, lease: Lease) -> PlatformError:
        """The connection ended after the call was sent. It is never sent again; the node may know why it
        ended."""
        left_s = call.answer_by - self._clock.monotonic()
        reason = await self._scheduler.end_reason(lease.instance_id, max(0.0, min(END_NEWS_S, left_s)))
        if reason is EndReason.OUT_OF_MEMORY:
            return FunctionOutOfMemory()
        if reason is EndReason.TIMEOUT:
            return timeout_error(call.version.config.timeout_s)
        return FunctionExited()

    def _measured(self, call: Call, sent_at: float, failed: bool, said_s: float = math.inf) -> None:
        """Tell the scheduler how long the call took. Our own clock includes the time in which we were busy
        with other calls; what the instance said is believed where it is less. A function that lies there
        gets fewer instances and calls that are refused: it harms nobody but itself."""
        elapsed_s = self._clock.monotonic() - sent_at
        duration_s = min(elapsed_s, said_s)
        started_at = self._clock.now() - elapsed_s
        self._scheduler.record(CallRecord(call.version.key, started_at, duration_s, elapsed_s, failed))


def time_allowed(timeout_s: float, attempt: str | None, early: bool) -> tuple[float, float]:
    """(seconds until the call must be answered, seconds it may wait for an instance), from its arrival.

    A late-bound call may wait long and then run for its whole timeout. A call of an early-bound version
    comes with the edge's clock for one try, which is hardly longer than the timeout: it waits at most half
    of it, and what runs gets what is left. Calls without the edge's attempt counter come from the platform
    itself.
    """
    if attempt is None or (attempt == "1" and not early):
        return timeout_s + WAIT_S_MAX, WAIT_S_MAX - CLOCK_SLACK_S
    allowed = timeout_s + EDGE_SLACK_S - ANSWER_SLACK_S
    return allowed, allowed / 2


def handler_s(headers: CIMultiDictProxy[str]) -> float:
    """How long the handler ran, as the instance said; infinite when it said nothing."""
    for value in headers.getall("server-timing", []):
        said_ms = parsed(value).get("handler", -1.0)
        if said_ms >= 0:
            return said_ms / 1000
    return math.inf


class _Gone(Exception):
    """The caller went away before its call was given to an instance."""


class _Reply:
    """The answer to one caller. A caller that went away is no error: what was started runs to its end."""

    def __init__(self, send: Send, request_id: str, error_reply: ErrorReply) -> None:
        self._send = send
        self._request_id = request_id
        self._error_reply = error_reply
        self._begun = False
        self.error = ""
        """Code of the error that was answered."""

    async def begin(self, status: int, headers: CIMultiDictProxy[str], timing: str) -> None:
        pairs = [
            (name.lower().encode("latin-1"), value.encode("utf-8", "surrogateescape"))
            for name, value in headers.items()
            if name.lower() not in _NOT_RETURNED
        ]
        pairs.append((b"server-timing", timing.encode()))
        if wire.REQUEST_ID not in headers:
            pairs.append((wire.REQUEST_ID.encode(), self._request_id.encode("latin-1")))
        await self._start(status, pairs)

    async def chunk(self, body: bytes) -> None:
        await self._give({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        await self._give({"type": "http.response.body", "body": body, "more_body": False})

    async def fail(self, error: PlatformError) -> None:
        """Answer with an error; an answer that has begun stays cut instead."""
        if self._begun:
            return
        status, body = self._error_reply(error, self._request_id)
        await self._start(
            status,
            [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (wire.ERROR.encode(), error.code.encode()),
                (wire.REQUEST_ID.encode(), self._request_id.encode("latin-1")),
            ],
        )
        await self.end(body)

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._begun = True
        await self._give({"type": "http.response.start", "status": status, "headers": headers})

    async def _give(self, message: MutableMapping[str, Any]) -> None:
        try:
            await self._send(message)
        except OSError as error:
            log.debug("caller_gone", request_id=self._request_id, error=repr(error))


def _function(scope: Scope, headers: CIMultiDict[str]) -> str:
    """The function routed to; the platform's own callers name it in the path only."""
    routed = headers.get(wire.FUNCTION)
    if routed:
        return routed
    path: str = scope["path"]
    if not path.startswith(_FUNCTION_PATH):
        raise FunctionNotFound("no function is named by this path")
    return path.removeprefix(_FUNCTION_PATH)


def _outgoing(call: Call, sent_at: float, run_s: float) -> CIMultiDict[str]:
    """Headers for the instance. Repeated ones stay repeated: the shim refuses two identities."""
    headers = CIMultiDict(
        (name, value)
        for name, value in call.headers.items()
        if name.lower() not in _NOT_FORWARDED and not name.lower().startswith("x-envoy-")
    )
    headers[wire.TIMEOUT_MS] = str(max(1, int(run_s * 1000)))
    headers[wire.BOUND] = "late"
    headers[wire.QUEUED_US] = str(int(max(0.0, sent_at - call.arrived_at) * 1_000_000))
    return headers


async def _cancel_when_gone(receive: Receive, call: asyncio.Task[object]) -> None:
    """Cancel the task of a call when its caller goes away."""
    while (await receive())["type"] != "http.disconnect":
        continue
    call.cancel()


def _has_cancelled(watch: asyncio.Task[None]) -> bool:
    return watch.done() and not watch.cancelled() and watch.exception() is None


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing to set up: whoever made the scheduler starts and ends it."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
