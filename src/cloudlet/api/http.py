"""What every admin route shares: reading JSON with a limit, and answering, errors included."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from cloudlet.api.errors import error_body, status_of
from cloudlet.api.ports import AdminServices
from cloudlet.model.errors import BodyTooLarge, Internal, InvalidParameter, MalformedBody, PlatformError
from cloudlet.model.ids import new_request_id

BODY_BYTES_MAX = 16 * 1024 * 1024
JSON = "application/json"

Answer = tuple[int, Any] | Response
Handler = Callable[[AdminServices, Request], Awaitable[Answer]]
Endpoint = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")

log = structlog.get_logger(__name__)


def endpoint(services: AdminServices, handler: Handler) -> Endpoint:
    """A route's function: `handler` returns a status and a value for JSON, or a response; its errors become
    answers."""

    async def answer(request: Request) -> Response:
        request_id = new_request_id()
        try:
            result = await handler(services, request)
        except PlatformError as error:
            return _json(status_of(error), error_body(error, request_id))
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:
            log.exception("request_failed", request_id=request_id, path=request.url.path[:200])
            return _json(500, error_body(Internal(), request_id))
        if isinstance(result, Response):
            return result
        status, value = result
        return _json(status, msgspec.json.encode(value))

    return answer


async def body_of(request: Request, kind: type[T], bytes_max: int = BODY_BYTES_MAX) -> T:
    """The body as `kind`; an empty body counts as ``{}``. Raise BodyTooLarge, MalformedBody,
    InvalidParameter."""
    body = await raw_body(request, bytes_max)
    try:
        return msgspec.json.decode(body if body.strip() else b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise InvalidParameter(str(error)) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(f"the body is not a JSON object: {error}") from error


async def raw_body(request: Request, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """Raise BodyTooLarge as soon as the limit is passed."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise BodyTooLarge(f"the body is larger than {bytes_max} bytes")
    return bytes(body)


def number(request: Request, name: str, default: float, lowest: float, highest: float) -> float:
    """A number of the query. Raise InvalidParameter outside its bounds."""
    text = request.query_params.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError as error:
        raise InvalidParameter(f"{name} must be a number, not {text[:40]!r}") from error
    if not lowest <= value <= highest:
        raise InvalidParameter(f"{name} must be between {lowest:g} and {highest:g}")
    return value


def environment_of(services: AdminServices, request: Request) -> str:
    """The environment of the path, aliases resolved. Raise EnvironmentNotFound."""
    return services.records.resolve_environment(request.path_params["env"]).name


def _json(status: int, body: bytes) -> Response:
    return Response(body, status, media_type=JSON)
