"""How the activator words an error that is not the function's own answer: dialect D, as the instance
contract does.

``x-cloudlet-error`` carries the stable code of the error tree, so that the platform's own callers get the
same class back; the edge takes the header away from what leaves the platform.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from cloudlet.model.errors import (
    BodyTooLarge,
    ConcurrencyExceeded,
    DepthExceeded,
    EnvironmentNotFound,
    FunctionError,
    FunctionLoadFailed,
    FunctionNotFound,
    FunctionTimeout,
    Internal,
    InvalidRequest,
    OutcomeUnknown,
    PlatformError,
    ResultTooLarge,
    Unavailable,
)

_TABLE: tuple[tuple[type[PlatformError], int, str], ...] = (
    (BodyTooLarge, 413, "INVALID_PARAM"),
    (InvalidRequest, 400, "INVALID_PARAM"),
    (EnvironmentNotFound, 404, "INVALIID_ENV"),
    (FunctionNotFound, 404, "FUNCTION_NOT_FOUND"),
    (DepthExceeded, 400, "FUNCTIONS_EXECUTE_FAIL"),
    (ConcurrencyExceeded, 429, "EXCEED_CONCURRENT_REQUEST_LIMIT"),
    (ResultTooLarge, 400, "FUNCTIONS_RESULT_TOO_LARGE"),
    (FunctionTimeout, 504, "FUNCTIONS_TIME_LIMIT_EXCEEDED"),
    (FunctionLoadFailed, 400, "FUNCTIONS_EXECUTE_FAIL"),
    (FunctionError, 500, "FUNCTIONS_EXECUTE_FAIL"),
    (Unavailable, 503, "SYS_ERR"),
    (OutcomeUnknown, 500, "SYS_ERR"),
    (PlatformError, 500, "SYS_ERR"),
)
"""First match wins. Codes are spelled as upstream spells them."""


class ErrorBody(msgspec.Struct):
    """The dialect D error object."""

    code: str = ""
    message: str = ""
    requestId: str = ""


def error_reply(error: PlatformError, request_id: str) -> tuple[int, bytes]:
    """Status and body for `error`."""
    status, code = next((status, code) for kind, status, code in _TABLE if isinstance(error, kind))
    message = error.message
    if isinstance(error, FunctionLoadFailed | DepthExceeded):
        message = failure_text(error.message)
    return status, msgspec.json.encode(ErrorBody(code, message, request_id))


def failure_text(message: str) -> str:
    """The JSON text that the vendors' SDKs expect as the message of a failed execution; a message that is
    one already (a load failure as the shim described it) stays as it is."""
    if message.startswith("{"):
        try:
            if "errorMessage" in msgspec.json.decode(message, type=dict[str, object]):
                return message
        except msgspec.DecodeError:
            pass
    fields = {"errorCode": 1, "errorMessage": message, "stackTrace": ""}
    return msgspec.json.encode(fields).decode()


def timeout_error(timeout_s: float) -> FunctionTimeout:
    """The dialect's words; the number without a needless fraction, as the shims print it."""
    return FunctionTimeout(f"Invoking task timed out after {timeout_s:g} seconds")


def error_for_code(code: str) -> type[PlatformError] | None:
    """The class with this stable code; None for a code that is not ours."""
    return _BY_CODE.get(code)


def _classes(kind: type[PlatformError]) -> Iterator[type[PlatformError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _classes(child)


_BY_CODE = {kind.code: kind for kind in _classes(PlatformError)}
# The root shares its code with the class that is raised.
_BY_CODE[Internal.code] = Internal
