"""``/auth/v1``: the sign-in endpoints of the web SDK and of HTTP callers (facts: wire-protocol 2.4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import structlog

from cloudlet.auth.service import AuthService, Session
from cloudlet.auth.tokens import AccessToken
from cloudlet.dialects.d.environment import requested_environment
from cloudlet.dialects.errors import oauth_error
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
from cloudlet.model.errors import (
    Internal,
    InvalidParameter,
    InvalidRequest,
    MalformedBody,
    NotFound,
    PlatformError,
    Unauthenticated,
)
from cloudlet.state.base import EnvironmentRecords

PREFIX = "/auth"
BODY_BYTES_MAX = 64 * 1024
NO_STORE = (b"cache-control", b"no-store")

log = structlog.get_logger(__name__)
T = TypeVar("T")


class _SignIn(msgspec.Struct, frozen=True):
    client_id: str = ""
    provider_token: str = ""


class _Refresh(msgspec.Struct, frozen=True):
    grant_type: str = ""
    refresh_token: str = ""
    client_id: str = ""


class _Revoke(msgspec.Struct, frozen=True):
    token: str = ""


_Handler = Callable[[Request, bytes], Awaitable[dict[str, Any]]]


class AuthApp:
    """The ASGI application below ``/auth``."""

    def __init__(self, auth: AuthService, records: EnvironmentRecords) -> None:
        self._auth = auth
        self._records = records
        self._routes: dict[tuple[str, str], _Handler] = {
            ("POST", "/v1/signin/anonymously"): self._sign_in_anonymously,
            ("POST", "/v1/token"): self._refresh,
            ("POST", "/v1/revoke"): self._revoke,
            ("POST", "/v1/user/signout"): self._revoke,
            ("GET", "/v1/user/me"): self._me,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = request_of(scope, trusted_id=True)
        path = request.path.removeprefix(PREFIX)
        status = 200
        try:
            handler = self._handler(request.method, path)
            answer = await handler(request, await read_body(request, receive, BODY_BYTES_MAX))
            body = msgspec.json.encode(answer)
        except ClientGone:
            return
        except PlatformError as error:
            status, body = oauth_error(error, grant=path == "/v1/token")
        except Exception:
            log.exception("request_failed", request_id=request.request_id, path=request.path[:200])
            status, body = oauth_error(Internal())
        await send_reply(send, status, body, [NO_STORE])

    def _handler(self, method: str, path: str) -> _Handler:
        handler = self._routes.get((method, path))
        if handler is None:
            if any(known == path for _, known in self._routes):
                raise InvalidRequest(f"{method} is not possible on this address")
            raise NotFound(f"there is no {path[:80]!r} here")
        return handler

    async def _sign_in_anonymously(self, request: Request, body: bytes) -> dict[str, Any]:
        wanted = _decode(body, _SignIn)
        if wanted.provider_token:
            raise InvalidParameter("signing in with a provider token is not supported")
        environment = self._environment(request, wanted.client_id)
        return _credentials(await self._auth.sign_in_anonymously(environment))

    async def _refresh(self, request: Request, body: bytes) -> dict[str, Any]:
        wanted = _decode(body, _Refresh)
        if wanted.grant_type != "refresh_token":
            raise InvalidParameter("the grant type must be refresh_token")
        environment = self._environment(request, wanted.client_id)
        return _credentials(await self._auth.refresh(environment, wanted.refresh_token))

    async def _revoke(self, request: Request, body: bytes) -> dict[str, Any]:
        """Ends the session of the Bearer token, or of the access token in the body."""
        wanted = _decode(body, _Revoke)
        token = self._auth.verify(_bearer(request) or wanted.token)
        await self._auth.revoke(token.identity)
        return {}

    async def _me(self, request: Request, _body: bytes) -> dict[str, Any]:
        token = self._token(request)
        user = self._auth.user(token.identity)
        providers = [{"id": user.appid or "wechat", "provider_user_id": user.openid}] if user.openid else []
        return {
            "sub": user.uid,
            "name": "",
            "username": "",
            "picture": "",
            "phone_number": "",
            "email": "",
            "gender": "",
            "created_at": user.created_at,
            "providers": providers,
            "groups": [],
        }

    def _token(self, request: Request) -> AccessToken:
        token = _bearer(request)
        if not token:
            raise Unauthenticated
        return self._auth.verify(token)

    def _environment(self, request: Request, client_id: str) -> str:
        named = [client_id, *query_values(request.query, "client_id"), *query_values(request.query, "env")]
        return requested_environment(self._records, request, *named)


def _decode(body: bytes, kind: type[T]) -> T:
    """Whatever the content type says: browsers send JSON as text/plain to spare a preflight."""
    if not body.strip():
        body = b"{}"
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidParameter(str(error)) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(f"the body is not a JSON object: {error}") from error


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _credentials(session: Session) -> dict[str, Any]:
    return {
        "token_type": "Bearer",
        "access_token": session.access_token,
        "refresh_token": session.refresh_token,
        "expires_in": session.expires_in_s,
        "sub": session.user.uid,
        "scope": "anonymous" if session.user.login_type == "ANONYMOUS" else "user",
        "groups": [],
    }
