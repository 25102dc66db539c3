"""``POST /admin``: reads the envelope, lets the entrance say who calls, and hands over to the service of
the action."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import structlog

from cloudlet.dialects.a.actions import Action, Call
from cloudlet.dialects.a.envelope import BODY_BYTES_MAX, Envelope, Members, envelope_of, members_of
from cloudlet.dialects.callers import Caller
from cloudlet.dialects.errors import error_body
from cloudlet.dialects.http import (
    ClientGone,
    Receive,
    Request,
    Scope,
    Send,
    read_body,
    request_of,
    send_reply,
)
from cloudlet.model.errors import Internal, InvalidRequest, PlatformError, UnknownAction

log = structlog.get_logger(__name__)
_encoder = msgspec.json.Encoder()


class Entrance(Protocol):
    """Says who calls, or raises."""

    def caller(self, request: Request, envelope: Envelope, members: Members) -> Caller: ...


class AdminApp:
    """The ASGI application of dialect A. Every answer is HTTP 200; a ``code`` in it means failure."""

    def __init__(self, actions: Mapping[str, Action], entrance: Entrance, trusted_id: bool) -> None:
        self._actions = actions
        self._entrance = entrance
        self._trusted_id = trusted_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = request_of(scope, self._trusted_id)
        action = ""
        try:
            body = await read_body(request, receive, BODY_BYTES_MAX)
            if request.method != "POST":
                raise InvalidRequest("this address takes POST requests only")
            members = members_of(body)
            envelope = envelope_of(body)
            action = envelope.action
            caller = self._entrance.caller(request, envelope, members)
            answer = await self._run(
                Call(action, body, caller, request.request_id, request.headers.get("x-sdk-version", ""))
            )
            reply = _encoder.encode({"requestId": request.request_id, **answer})
        except ClientGone:
            return
        except PlatformError as error:
            reply = error_body(error, request.request_id, action.partition(".")[0])
        except Exception:
            log.exception("request_failed", request_id=request.request_id, action=action[:80])
            reply = error_body(Internal(), request.request_id)
        await send_reply(send, 200, reply)

    async def _run(self, call: Call) -> dict[str, Any]:
        handler = self._actions.get(call.action)
        if handler is None:
            raise UnknownAction(f"the action {call.action[:80]!r} is not known")
        return await handler(call)
