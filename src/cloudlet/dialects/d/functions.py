"""``POST /v1/functions/{name}`` where the edge did not route it, and from inside instances.

The edge sends warm calls past us. What arrives here from it was not started: the function is unknown, it
was deployed this moment and the edge does not have the route yet, or the request names another environment
than its token.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from cloudlet.dialects.callers import (
    Caller,
    InstanceIdentity,
    caller_of_edge,
    caller_of_token,
    check_environment,
)
from cloudlet.dialects.errors import error_body, wire_of
from cloudlet.dialects.http import (
    ClientGone,
    Receive,
    Request,
    Scope,
    Send,
    query_values,
    read_body,
    request_of,
    send_reply,
)
from cloudlet.dialects.names import known_name
from cloudlet.model.errors import (
    FunctionNotFound,
    Internal,
    InvalidRequest,
    NotFound,
    PlatformError,
    Unauthenticated,
)
from cloudlet.model.invocation import EVENT_BYTES_MAX, Invocation, InvocationResult, Invoker
from cloudlet.state.base import ControlRecords

PREFIX = "/v1/functions/"

FindCaller = Callable[[Request], Caller]
log = structlog.get_logger(__name__)


class FunctionsApp:
    """The ASGI application for everything below ``/v1``. `caller` says who calls, or raises."""

    def __init__(
        self, invoker: Invoker, records: ControlRecords, caller: FindCaller, trusted_id: bool
    ) -> None:
        self._invoker = invoker
        self._records = records
        self._caller = caller
        self._trusted_id = trusted_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = request_of(scope, self._trusted_id)
        service = "functions" if request.path.startswith(PREFIX) else ""
        headers: list[tuple[bytes, bytes]] = []
        status = 200
        try:
            result = await self._answer(request, receive)
            body = result.body
            headers.append((b"server-timing", _server_timing(result)))
        except ClientGone:
            return
        except PlatformError as error:
            status, body = wire_of(error).status, error_body(error, request.request_id, service)
        except Exception:
            log.exception("request_failed", request_id=request.request_id, path=request.path[:200])
            status, body = 500, error_body(Internal(), request.request_id)
        await send_reply(send, status, body, [*headers, (b"x-request-id", request.request_id.encode())])

    async def _answer(self, request: Request, receive: Receive) -> InvocationResult:
        name = request.path.removeprefix(PREFIX)
        if not request.path.startswith(PREFIX) or not name or "/" in name:
            raise NotFound(f"there is no {request.path[:80]!r} here")
        if request.method != "POST":
            raise InvalidRequest("functions are called with POST")
        caller = self._caller(request)
        environment = caller.identity.environment
        check_environment(
            self._records, environment, request.headers.get("x-env", ""), *query_values(request.query, "env")
        )
        self._check_exists(environment, known_name(name))
        body = await read_body(request, receive, EVENT_BYTES_MAX)
        return await self._invoker.invoke(
            Invocation(
                identity=caller.identity,
                function=name,
                body=body,
                request_id=request.request_id,
                source=caller.source,
                depth=caller.depth,
                client_ip=caller.client_ip,
            )
        )

    def _check_exists(self, environment: str, function: str) -> None:
        """Before the body is read: an unknown function costs nothing."""
        if not self._records.versions(environment, function):
            raise FunctionNotFound(f"function {function!r} does not exist")


def edge_caller(request: Request) -> Caller:
    """The caller whose token the edge verified. Raise Unauthenticated."""
    caller = caller_of_edge(request.headers)
    if caller is None:
        raise Unauthenticated
    return caller


def instance_caller(instance: InstanceIdentity) -> FindCaller:
    """Callers on an instance's socket: the Bearer token is the invocation token that the function was given
    (``TCB_SESSIONTOKEN``); without one the function calls for itself."""

    def find(request: Request) -> Caller:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme and scheme.lower() != "bearer":
            raise Unauthenticated("calls from inside a function carry TCB_SESSIONTOKEN as a Bearer token")
        return caller_of_token(token.strip(), instance)

    return find


def _server_timing(result: InvocationResult) -> bytes:
    return ", ".join(f"{stage};dur={ms:.3f}" for stage, ms in result.timing.items()).encode(
        "latin-1", "replace"
    )
