"""The one table from our errors to the codes and statuses of the dialects (facts: wire-protocol 3.5, 3.6).

Dialects A, B and C answer HTTP 200 with ``{code, message, requestId}``; D the same object with a status.
The sign-in endpoints say ``{error, error_code, error_description}``. Codes are spelled as upstream spells
them (``INVALIID_ENV``, ``DATABASE_INVALID_OPERRATOR``), because SDKs compare them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from cloudlet.gateway.envoy.replies import TIMEOUT_TEXT, LocalReply
from cloudlet.model import errors as e


@dataclass(frozen=True, slots=True)
class Wire:
    """How one error looks to a client."""

    code: str
    status: int
    """Of dialect D."""
    by_service: dict[str, str] = field(default_factory=dict)
    """Other codes for the services ``database``, ``functions``, ``storage``, ``auth``."""
    text: str = ""
    """Takes the place of the message: upstream's own words, which programs (and its SDK's tests) compare."""
    needed_text: str = ""
    """Put before a message that lacks it: texts that real programs look for."""
    promise: tuple[str, str] = ("", "")
    """Words that a message must have, and what is put after one that lacks them: both say ``SYS_ERR``, and
    where the status is always 200 only the message tells whether the call may be repeated."""
    as_failure: bool = False
    """The message is the JSON text by which SDKs describe a failed execution (facts: wire-protocol 3.1)."""


_CHECK = "Please check your request, but if the problem persists, contact us."

_TABLE: dict[type[e.PlatformError], Wire] = {
    e.PlatformError: Wire("SYS_ERR", 500),
    e.Internal: Wire("SYS_ERR", 500),
    # The request
    e.InvalidRequest: Wire("INVALID_PARAM", 400),
    e.BodyTooLarge: Wire("INVALID_PARAM", 413),
    e.InvalidFilter: Wire("DATABASE_REQUEST_FAILED", 400),
    e.InvalidUpdate: Wire("DATABASE_REQUEST_FAILED", 400),
    e.InvalidProjection: Wire("DATABASE_REQUEST_FAILED", 400),
    e.InvalidSort: Wire("DATABASE_REQUEST_FAILED", 400),
    e.InvalidDocument: Wire("DATABASE_REQUEST_FAILED", 400),
    # The caller
    e.Unauthenticated: Wire("UNAUTHENTICATED", 401),
    e.TokenExpired: Wire("ACCESS_TOKEN_EXPIRED", 401),
    e.SignatureInvalid: Wire("SIGN_PARAM_INVALID", 401),
    e.PermissionDenied: Wire(
        "PERMISSION_DENIED",
        403,
        {
            "database": "DATABASE_PERMISSION_DENIED",
            "storage": "STORAGE_EXCEED_AUTHORITY",
            "functions": "FUNCTIONS_REQUEST_FAIL",
        },
    ),
    e.EnvironmentMismatch: Wire("INVALIID_ENV", 403),
    # What is not there
    e.NotFound: Wire("NOT_FOUND", 404),
    e.EnvironmentNotFound: Wire("INVALIID_ENV", 404),
    e.FunctionNotFound: Wire("FUNCTION_NOT_FOUND", 404),
    e.VersionNotFound: Wire("FUNCTION_NOT_FOUND", 404),
    e.CollectionNotFound: Wire(
        "DATABASE_COLLECTION_NOT_EXIST",
        404,
        needed_text="database collection not exists: Db or Table not exist",
    ),
    e.DocumentNotFound: Wire("DATABASE_REQUEST_FAILED", 404),
    e.TransactionNotFound: Wire(
        "DATABASE_TRANSACTION_FAIL",
        404,
        text="[ResourceUnavailable.TransactionNotExist] Transaction does not exist on the server, "
        f"transaction must be commit or abort in 30 seconds. {_CHECK}",
    ),
    # What is in the way
    e.Conflict: Wire("CONFLICT", 409),
    e.AlreadyExists: Wire("ALREADY_EXISTS", 409, {"database": "DATABASE_REQUEST_FAILED"}),
    e.DuplicateKey: Wire("DATABASE_REQUEST_FAILED", 409),
    e.RevisionConflict: Wire(
        "DATABASE_TRANSACTION_CONFLICT",
        409,
        text="[ResourceUnavailable.TransactionConflict] Transaction is conflict, maybe resource operated by "
        f"others. {_CHECK}",
    ),
    e.ChangesPruned: Wire("DATABASE_REQUEST_FAILED", 409),
    # Limits
    e.LimitExceeded: Wire("EXCEED_REQUEST_LIMIT", 429),
    e.RateLimited: Wire("EXCEED_REQUEST_LIMIT", 429),
    e.ConcurrencyExceeded: Wire("EXCEED_CONCURRENT_REQUEST_LIMIT", 429),
    e.DepthExceeded: Wire("FUNCTIONS_EXECUTE_FAIL", 400, as_failure=True),
    e.ResultTooLarge: Wire("FUNCTIONS_RESULT_TOO_LARGE", 400, {"database": "DATABASE_REQUEST_FAILED"}),
    e.QueryTooCostly: Wire("DATABASE_REQUEST_FAILED", 400),
    # The function's own fault
    e.FunctionError: Wire("FUNCTIONS_EXECUTE_FAIL", 400, as_failure=True),
    e.FunctionTimeout: Wire("FUNCTIONS_TIME_LIMIT_EXCEEDED", 504),
    # Ours
    e.Unavailable: Wire("SYS_ERR", 503, promise=("nothing was", "nothing was changed, try again")),
    e.OutcomeUnknown: Wire(
        "SYS_ERR", 500, promise=("may or may not have", "it may or may not have happened, read first")
    ),
}

_OAUTH: dict[type[e.PlatformError], tuple[str, int, int]] = {
    # error, error_code (the numbers of gRPC, as upstream), HTTP status
    e.PlatformError: ("internal", 13, 500),
    e.InvalidRequest: ("invalid_argument", 3, 400),
    e.Unauthenticated: ("unauthenticated", 16, 401),
    e.PermissionDenied: ("permission_denied", 7, 403),
    e.NotFound: ("not_found", 5, 404),
    e.Conflict: ("already_exists", 6, 409),
    e.LimitExceeded: ("resource_exhausted", 8, 429),
    e.Unavailable: ("unavailable", 14, 503),
}


def wire_of(error: e.PlatformError) -> Wire:
    """The row of the nearest class above `error` that has one."""
    return next(_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE)


def error_body(error: e.PlatformError, request_id: str, service: str = "") -> bytes:
    """The error object of all four dialects."""
    wire = wire_of(error)
    message = wire.text or error.message
    if wire.needed_text not in message:
        message = f"{wire.needed_text}: {message}"
    words, ending = wire.promise
    if words not in message:
        message = f"{message}; {ending}"
    if wire.as_failure:
        message = failure_text(message)
    return msgspec.json.encode(
        {
            "code": wire.by_service.get(service, wire.code),
            "message": message,
            "requestId": request_id,
        }
    )


def function_reply(error: e.PlatformError, request_id: str) -> tuple[int, bytes]:
    """HTTP status and body for a call of a function in dialect D."""
    return wire_of(error).status, error_body(error, request_id, "functions")


def failure_text(message: str) -> str:
    """The description of a failed execution; a message that is one already (from a shim) stays as it is."""
    if message.startswith("{"):
        try:
            if "errorMessage" in msgspec.json.decode(message, type=dict[str, object]):
                return message
        except msgspec.MsgspecError:
            pass
    fields = {"errorCode": 1, "errorMessage": message, "stackTrace": ""}
    return msgspec.json.encode(fields).decode()


def oauth_error(error: e.PlatformError, *, grant: bool = False) -> tuple[int, bytes]:
    """HTTP status and body for the sign-in endpoints. With `grant` a refused token is ``invalid_grant``, on
    which clients sign out."""
    name, number, status = next(_OAUTH[kind] for kind in type(error).__mro__ if kind in _OAUTH)
    if grant and isinstance(error, e.Unauthenticated):
        name, status = "invalid_grant", 400
    return status, msgspec.json.encode(
        {"error": name, "error_code": number, "error_description": error.message}
    )


def edge_replies() -> list[LocalReply]:
    """What Envoy says by itself, in the dialect of the path. The first row that fits wins."""
    rows: list[LocalReply] = []
    for prefix, as_ok in (("/admin", True), ("/web", True), ("", False)):
        rows.extend(
            LocalReply(prefix, status, flags, 200 if as_ok else http_status, code, message, details)
            for status, flags, http_status, code, message, details in _edge_rows()
        )
    # The function rows hold for their own paths only.
    return [*_function_rows(), *rows]


_RESTARTING = "the service is restarting; nothing was started, try again"
_OVERLOADED = "the edge is overloaded; nothing was started, try again"
_EdgeRow = tuple[int, tuple[str, ...], int, str, str, str]


def _function_rows() -> Iterator[LocalReply]:
    path = "/v1/functions/"
    yield LocalReply(path, 504, (), 504, "FUNCTIONS_TIME_LIMIT_EXCEEDED", TIMEOUT_TEXT)
    gone = e.FunctionExited()
    wire, text = wire_of(gone), failure_text(gone.message)
    for status, flags in ((503, ("UC", "UR")), (502, ())):
        yield LocalReply(path, status, flags, wire.status, wire.code, text)


def _edge_rows() -> Iterator[_EdgeRow]:
    """Envoy's status, its flags, our status, code, message, Envoy's details."""
    yield 401, (), 401, "ACCESS_TOKEN_EXPIRED", e.TokenExpired().message, "Jwt_is_expired"
    yield 401, (), 401, "UNAUTHENTICATED", e.Unauthenticated().message, ""
    yield 403, (), 401, "UNAUTHENTICATED", "the session has been ended", "rbac_access_denied"
    yield 403, (), 403, "PERMISSION_DENIED", e.PermissionDenied().message, ""
    yield 400, (), 400, "INVALID_PARAM", "the request is not valid HTTP or its path is not allowed", ""
    yield 404, (), 404, "NOT_FOUND", e.NotFound().message, ""
    yield 408, (), 408, "SERVER_TIMEOUT", "the request did not arrive in time", ""
    yield 413, (), 413, "INVALID_PARAM", e.BodyTooLarge().message, ""
    yield 429, (), 429, "EXCEED_REQUEST_LIMIT", e.RateLimited().message, ""
    yield 431, (), 431, "INVALID_PARAM", "the request's headers are too large", ""
    # Only what certainly did not reach anybody may be tried again.
    yield 503, ("UF", "UH", "NC", "UO"), 503, "SYS_ERR", _RESTARTING, ""
    yield 503, ("OM",), 503, "SYS_ERR", _OVERLOADED, ""
    yield 503, (), 500, "SYS_ERR", e.OutcomeUnknown().message, ""
    yield 502, (), 500, "SYS_ERR", e.OutcomeUnknown().message, ""
    yield 504, (), 504, "SERVER_TIMEOUT", "the service did not answer in time; read before trying again", ""
