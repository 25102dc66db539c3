"""How the platform calls functions itself (nested calls, command line, triggers): through the activator."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import msgspec
from multidict import CIMultiDict
from yarl import URL

from cloudlet.model import invocation as wire
from cloudlet.model.errors import (
    FunctionFailed,
    Internal,
    OutcomeUnknown,
    PlatformError,
    Unavailable,
    error_class,
)
from cloudlet.model.function import TIMEOUT_S_MAX
from cloudlet.model.ids import check_function_name
from cloudlet.model.invocation import Invocation, InvocationResult

from .errors import ErrorBody
from .timing import parsed
from .upstream import sendable

LIMIT_S = TIMEOUT_S_MAX + 65.0
"""Longer than the activator ever takes: the longest function and the longest wait."""
CONNECTIONS_MAX = 1000
CONNECT_S_MAX = 5.0


class HttpInvoker:
    """`model.invocation.Invoker` over the activator's socket. Use as an async context manager, or `close`
    it.

    Never repeats a call by itself: what may be repeated is told by the error (`retriable`).
    """

    def __init__(self, activator_socket: Path) -> None:
        self._socket = str(activator_socket)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def invoke(self, invocation: Invocation) -> InvocationResult:
        """Call the function with the caller's identity. Raise InvalidName, FunctionNotFound,
        EnvironmentNotFound, FunctionError (FunctionFailed with the JSON text of the user's error),
        ConcurrencyExceeded, DepthExceeded, BodyTooLarge, Unavailable (nothing was started) or
        OutcomeUnknown (the activator went away meanwhile)."""
        name = check_function_name(invocation.function)
        try:
            async with self._client().post(
                URL(f"http://activator/v1/functions/{name}", encoded=True),
                data=sendable(invocation.body),
                headers=_headers(invocation),
                allow_redirects=False,
            ) as response:
                body = await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unavailable("the activator does not answer; nothing was started, try again") from error
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise OutcomeUnknown("the activator went away; the call may or may not have run") from error
        code = response.headers.get(wire.ERROR, "")
        if code or response.status >= 400:
            raise _error(code, response.status, body)
        timing = parsed(", ".join(response.headers.getall("server-timing", [])))
        request_id = response.headers.get(wire.REQUEST_ID, invocation.request_id)
        return InvocationResult(body, request_id, timing)

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path=self._socket, limit=CONNECTIONS_MAX),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=LIMIT_S, sock_connect=CONNECT_S_MAX),
                skip_auto_headers=("user-agent", "accept", "accept-encoding"),
            )
        return self._session


def _headers(invocation: Invocation) -> CIMultiDict[str]:
    who = invocation.identity
    pairs = {
        "content-type": "application/json",
        wire.REQUEST_ID: invocation.request_id,
        wire.ENVIRONMENT: who.environment,
        wire.FUNCTION: invocation.function,
        wire.UID: who.uid,
        wire.OPENID: who.openid,
        wire.APPID: who.appid,
        wire.UNIONID: who.unionid,
        wire.LOGIN_TYPE: who.login_type,
        wire.SESSION_ID: who.session_id,
        wire.SOURCE: invocation.source,
        wire.DEPTH: str(invocation.depth) if invocation.depth else "",
        wire.CLIENT_IP: invocation.client_ip,
    }
    return CIMultiDict((name, value) for name, value in pairs.items() if value)


def _error(code: str, status: int, body: bytes) -> PlatformError:
    """The error of the tree that the reply stands for."""
    try:
        said = msgspec.json.decode(body, type=ErrorBody).message
    except (msgspec.DecodeError, msgspec.ValidationError):
        said = ""
    if code:
        return error_class(code)(said or None)
    if status == 503:
        return Unavailable(said or None)
    return FunctionFailed(said or None) if status < 500 else Internal(said or None)
