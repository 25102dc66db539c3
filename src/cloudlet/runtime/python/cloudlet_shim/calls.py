"""Calls: who runs, who waits, who is refused, and how each one is answered (contract, section 3).

Used by both threads. `_lock` guards every decision; replies are written and work is dispatched outside of it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Any, NamedTuple, Protocol

from .activity import ActivityPage
from .environment import Scope
from .identity import Caller, variables_of
from .output import Output
from .replies import (
    BUSY,
    BUSY_LAST,
    Reply,
    describe_error,
    exit_reply,
    failure_reply,
    invalid_reply,
    result_reply,
    timeout_reply,
    timeout_text,
)

EVENT_BYTES_MAX = 6 * 1024 * 1024
_WAITING_MAX = 64
_WAIT_S_MAX = 0.02
LINGER_S = 0.3
"""For so long after its last reply the process refuses calls that are on their way already."""
NEVER = float("inf")


class Answerable(Protocol):
    """The connection a call came on."""

    gone: bool
    """The caller has closed it."""

    def answer(self, data: bytes, close: bool = False) -> None:
        """Send the only answer, then close when told so; never raises, may be called from any thread."""
        ...


class Ending(NamedTuple):
    """How the process is to end, once nothing runs."""

    code: int
    not_before_s: float
    """CLOCK_MONOTONIC; 0 = at once."""
    orderly: bool
    """Whether the main thread can end it, as programs end; otherwise its code may be stuck."""


class Loaded:
    """A function that is ready to be called."""

    __slots__ = ("concurrency", "constants", "load_ms", "main", "name", "namespace", "platform", "timeout_ms")

    def __init__(self, main: Callable[..., Any], order: dict[str, Any], load_ms: float) -> None:
        self.main = main
        self.load_ms = load_ms
        self.concurrency = int(order["concurrency"])
        self.timeout_ms = float(order["timeout_ms"])
        self.constants: dict[str, Any] = order["context"]
        self.name = str(self.constants["function_name"])
        self.namespace = str(self.constants["namespace"])
        environment: dict[str, str] = order["environment"]
        self.platform = {name: environment[name] for name in _CONSTANT_NAMES if name in environment}
        """Variables of the platform that a context shows; no secrets, none of the user's."""


_CONSTANT_NAMES = (
    "TENCENTCLOUD_RUNENV",
    "TENCENTCLOUD_REGION",
    "SCF_NAMESPACE",
    "_SCF_TCB_LOG",
    "TCB_CONTEXT_CNFG",
)


class Call:
    """One request that was read completely."""

    __slots__ = ("body", "caller", "connection", "head_at_s", "size")

    def __init__(
        self, connection: Answerable, caller: Caller, body: bytes, size: int, head_at_s: float
    ) -> None:
        self.connection = connection
        self.caller = caller
        self.body = body
        self.size = size
        """Bytes that came; more than `body` when they were over the limit."""
        self.head_at_s = head_at_s


class Invocation:
    """A call that has a slot."""

    __slots__ = ("call", "deadline_s", "settled", "started_s", "variables")

    def __init__(self, call: Call, deadline_s: float) -> None:
        self.call = call
        self.started_s = 0.0
        """0 = the thread that will run it has not taken it up."""
        self.deadline_s = deadline_s
        self.variables: dict[str, str] = {}
        self.settled = False


class Calls:
    """Runs a loaded function's invocations.

    It is accepting, quiesced (refuses everything new), or ending (refuses everything new, for good).
    """

    def __init__(
        self,
        loaded: Loaded,
        scope: Scope,
        output: Output,
        dispatch: Callable[[Invocation], None],
        wake: Callable[[], None],
    ) -> None:
        """`dispatch` hands an invocation to a thread that runs it; `wake` rouses the network thread."""
        self._loaded = loaded
        self._scope = scope
        self._output = output
        self._dispatch = dispatch
        self._wake = wake
        self._activity = ActivityPage()
        self._lock = Lock()
        self._running: list[Invocation] = []
        self._waiting: deque[Call] = deque()
        self._accepting = True
        self._answers_due = 0
        """Invocations that are settled and whose answer is not sent yet."""
        self._retired_until_s = 0.0
        """When a process that must not serve another caller will be gone; 0 = it may."""
        self.ending: Ending | None = None
        """Set once the process is to end; the network thread sees to it when nothing runs."""
        self.alarm_s = NEVER
        """When the network thread must call `tick` at the latest. Written by that thread only."""

    # --- the network thread

    def arrived(self, call: Call) -> None:
        """A request was read completely."""
        problem = self._problem_of(call)
        started: Invocation | None = None
        refused = False
        with self._lock:
            now = monotonic()
            if not self._accepting:
                refused = True
            elif problem is None:
                if len(self._running) < self._loaded.concurrency and not self._waiting:
                    started = self._take_slot(call, now)
                elif len(self._waiting) >= _WAITING_MAX or now - call.head_at_s >= _WAIT_S_MAX:
                    refused = True
                else:
                    self._waiting.append(call)
                    self.alarm_s = min(self.alarm_s, call.head_at_s + _WAIT_S_MAX)
        if refused:
            self._refuse(call)
        elif problem is not None:
            call.connection.answer(problem.encode())
        elif started is not None:
            self._dispatch(started)
        # Whether it runs or waits, it cannot be over its time before this.
        self.alarm_s = min(self.alarm_s, now + self._timeout_s(call.caller))

    def tick(self, now: float) -> None:
        """Refuse who waited too long, answer who is over its time, and set the next alarm."""
        with self._lock:
            refused = self._pop_waiting(now)
            late = [running for running in self._running if running.deadline_s <= now]
            deadlines = [running.deadline_s for running in self._running if running.deadline_s > now]
            if self._waiting:
                deadlines.append(self._waiting[0].head_at_s + _WAIT_S_MAX)
            self.alarm_s = min(deadlines, default=NEVER)
        for call in refused:
            self._refuse(call)
        for invocation in late:
            self._timed_out(invocation)

    def quiesce(self) -> None:
        with self._lock:
            self._accepting = False
            refused = self._pop_waiting(NEVER)
        for call in refused:
            self._refuse(call)

    def resume(self) -> None:
        with self._lock:
            self._accepting = self.ending is None

    @property
    def idle(self) -> bool:
        """Nothing runs and everything is answered."""
        with self._lock:
            return not self._running and not self._answers_due

    # --- any thread

    def leave(self) -> None:
        """The node ends the instance: refuse everything new, for a while also what is on its way; the process
        ends with 0 when nothing runs."""
        self._end(Ending(0, monotonic() + LINGER_S, orderly=True))

    def retire(self, exit_code: int, orderly: bool) -> None:
        """The process must not serve another caller: the state of the function's code is unknown. The replies
        from now on are its last ones. The activity page shows when it will be gone: the node sees to it."""
        with self._lock:
            if not self._retired_until_s:
                self._retired_until_s = monotonic() + LINGER_S
                self._activity.publish(self._earliest_deadline())
        self._end(Ending(exit_code, self._retired_until_s, orderly))

    def exit_all(self, exit_code: int) -> None:
        """The function ends its process: answer all of its callers."""
        self.retire(exit_code, orderly=True)
        for invocation in list(self._running):
            self.settle(invocation, exit_reply(exit_code, invocation.call.caller.request_id))

    def _end(self, ending: Ending) -> None:
        """The first one counts."""
        if self.ending is None:
            self.ending = ending
        self.quiesce()
        self._wake()

    # --- the thread that runs an invocation

    def begin(self, invocation: Invocation) -> tuple[Any, dict[str, Any]] | None:
        """Start the clock and return the handler's arguments; None when there is nothing to run."""
        call = invocation.call
        caller = call.caller
        try:
            event = _parse(call.body) if call.body else {}
        except (ValueError, RecursionError) as error:
            text = f"the event is not valid JSON: {error}"
            self.settle(invocation, invalid_reply(400, "malformed_body", text, caller.request_id))
            return None
        call.body = b""
        if caller.openid and isinstance(event, dict):
            event["userInfo"] = {"appId": caller.appid, "openId": caller.openid}
        invocation.variables = variables_of(caller, self._loaded.namespace)
        now = monotonic()
        with self._lock:
            if invocation.settled:
                return None
            invocation.started_s = now
            invocation.deadline_s = now + self._timeout_s(caller)
            self._activity.started += 1
            self._activity.publish(self._earliest_deadline())
        self._scope.enter(invocation)
        return event, self._context(invocation)

    def returned(self, invocation: Invocation, result: Any) -> None:
        request_id = invocation.call.caller.request_id
        reply = result_reply(result, request_id)
        if reply.error:
            self._output.emit("error", reply.body.decode(), request_id)
        self.settle(invocation, reply)

    def failed(self, invocation: Invocation, error: BaseException) -> None:
        request_id = invocation.call.caller.request_id
        described = describe_error(error)
        if not invocation.settled:
            self._output.emit("error", str(described["stackTrace"] or described["errorMessage"]), request_id)
        self.settle(invocation, failure_reply("function_failed", described, request_id))

    def settle(self, invocation: Invocation, reply: Reply) -> None:
        """End an invocation: exactly one reply, then its slot is free. Later ones for it change nothing."""
        self._output.flush()
        with self._lock:
            if invocation.settled:
                return
            invocation.settled = True
            self._answers_due += 1
            self._running.remove(invocation)
            if invocation.started_s:
                self._activity.publish(self._earliest_deadline())
            timing = self._timing(invocation) if invocation.started_s else ""
        self._scope.leave(invocation)
        invocation.call.connection.answer(reply.encode(timing, final=self._retired_until_s > 0))
        with self._lock:
            self._answers_due -= 1
        self._advance()
        if self.ending is not None:
            self._wake()

    # --- within

    def _advance(self) -> None:
        """Give a free slot to the first who waits, unless that one has waited too long."""
        if not self._waiting:
            return
        with self._lock:
            now = monotonic()
            refused = self._pop_waiting(now)
            started = []
            while self._waiting and len(self._running) < self._loaded.concurrency:
                call = self._waiting.popleft()
                if not call.connection.gone:
                    started.append(self._take_slot(call, now))
        for call in refused:
            self._refuse(call)
        for invocation in started:
            self._dispatch(invocation)

    def _take_slot(self, call: Call, now: float) -> Invocation:
        """The time counts from here until `begin` sets it exactly: no busy thread may hide a late call."""
        invocation = Invocation(call, now + self._timeout_s(call.caller))
        self._running.append(invocation)
        return invocation

    def _refuse(self, call: Call) -> None:
        if self._retired_until_s:
            call.connection.answer(BUSY_LAST, close=True)
        else:
            call.connection.answer(BUSY)

    def _pop_waiting(self, now: float) -> list[Call]:
        refused = []
        while self._waiting and now - self._waiting[0].head_at_s >= _WAIT_S_MAX:
            refused.append(self._waiting.popleft())
        return refused

    def _problem_of(self, call: Call) -> Reply | None:
        caller = call.caller
        if caller.problem:
            return invalid_reply(400, "invalid_request", caller.problem, caller.request_id)
        if caller.function and caller.function != self._loaded.name:
            text = f"this instance serves {self._loaded.name}, not {caller.function}"
            return invalid_reply(400, "invalid_request", text, caller.request_id)
        if call.size > EVENT_BYTES_MAX:
            text = f"the event is {call.size} bytes, the limit is {EVENT_BYTES_MAX}"
            return invalid_reply(413, "body_too_large", text, caller.request_id)
        return None

    def _timed_out(self, invocation: Invocation) -> None:
        """Its code may go on for ever, so nobody may share the process with it: answer and retire."""
        request_id = invocation.call.caller.request_id
        timeout_ms = self._loaded.timeout_ms
        self._output.emit("error", timeout_text(timeout_ms), request_id)
        self.retire(1, orderly=False)
        self.settle(invocation, timeout_reply(timeout_ms, request_id))

    def _timeout_s(self, caller: Caller) -> float:
        if caller.timeout_ms and not caller.problem:
            return int(caller.timeout_ms) / 1000
        return self._loaded.timeout_ms / 1000

    def _earliest_deadline(self) -> float:
        begun = [running.deadline_s for running in self._running if running.started_s]
        return min(begun, default=self._retired_until_s)

    def _timing(self, invocation: Invocation) -> str:
        handler = f"handler;dur={(monotonic() - invocation.started_s) * 1000:.3f}"
        load_ms, self._loaded.load_ms = self._loaded.load_ms, 0.0
        return f"load;dur={load_ms:.3f}, {handler}" if load_ms else handler

    def _context(self, invocation: Invocation) -> dict[str, Any]:
        request_id = invocation.call.caller.request_id
        shown = self._loaded.platform | invocation.variables
        return self._loaded.constants | {
            "callbackWaitsForEmptyEventLoop": True,
            "time_limit_in_ms": round(self._loaded.timeout_ms),
            "request_id": request_id,
            "requestId": request_id,
            "environ": ";".join([f"{name}={value}" for name, value in shown.items()]),
            "environment": _encode(shown),
        }


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _parse(body: bytes) -> Any:
    """Raise ValueError (UnicodeDecodeError is one) or RecursionError."""
    return _decode(body.decode("utf-8"))
