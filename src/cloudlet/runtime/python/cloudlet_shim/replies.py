"""What is answered, and how failures are worded (contract, section 3). Nothing here decides when."""

from __future__ import annotations

import json
import os
from types import TracebackType
from typing import Any

RESULT_BYTES_MAX = 1024 * 1024
_ERROR_TEXT_CHARS_MAX = 16 * 1024
_SHIM_DIRECTORY = os.path.dirname(os.path.abspath(__file__)) + os.sep

_REASONS = {200: "OK", 400: "Bad Request", 413: "Payload Too Large", 504: "Gateway Timeout"}

_encode_result = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode

BUSY = b"HTTP/1.1 503 Service Unavailable\r\nx-cloudlet-busy: 1\r\ncontent-length: 0\r\n\r\n"
"""Not started: the edge may give the call to another instance. With a body it would close the connection."""
BUSY_LAST = BUSY[:-2] + b"connection: close\r\n\r\n"
"""The same, from a process that is about to end."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
UNREADABLE = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"

Description = dict[str, int | str]


class Reply:
    """Status, body and the code of the failure (empty = success)."""

    __slots__ = ("body", "error", "status")

    def __init__(self, status: int, body: bytes, error: str = "") -> None:
        self.status = status
        self.body = body
        self.error = error

    def encode(self, timing: str = "", final: bool = False) -> bytes:
        """The bytes of the answer. `timing`: value of ``server-timing``, empty = none; `final`: it is
        the last reply of a process."""
        head = (
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(self.body)}\r\n"
        )
        if timing:
            head += f"server-timing: {timing}\r\n"
        if self.error:
            head += f"x-cloudlet-error: {self.error}\r\n"
        if final:
            head += "x-cloudlet-final: 1\r\n"
        return head.encode("latin-1") + b"\r\n" + self.body


def result_reply(result: Any, request_id: str) -> Reply:
    """The reply for a handler's result; a failure when it cannot be sent."""
    try:
        body = _encode(result)
    except Exception as error:
        described = describe_error(error, "function result is not JSON: ")
        return failure_reply("function_failed", described, request_id)
    if len(body) <= RESULT_BYTES_MAX:
        return Reply(200, body)
    text = f"function result is {len(body)} bytes, the limit is {RESULT_BYTES_MAX}"
    return _error_reply(400, "result_too_large", "FUNCTIONS_RESULT_TOO_LARGE", text, request_id)


def failure_reply(error: str, description: Description, request_id: str) -> Reply:
    """The handler failed in a way that its author must see."""
    return _error_reply(400, error, "FUNCTIONS_EXECUTE_FAIL", _encode_text(description), request_id)


def exit_reply(exit_code: object, request_id: str) -> Reply:
    message = f"function exited with code {exit_code} before it answered"
    described: Description = {"errorCode": 1, "errorMessage": message, "stackTrace": ""}
    return failure_reply("function_exited", described, request_id)


def timeout_reply(version_timeout_ms: float, request_id: str) -> Reply:
    text = timeout_text(version_timeout_ms)
    return _error_reply(504, "function_timeout", "FUNCTIONS_TIME_LIMIT_EXCEEDED", text, request_id)


def timeout_text(version_timeout_ms: float) -> str:
    return f"Invoking task timed out after {version_timeout_ms / 1000:.9g} seconds"


def invalid_reply(status: int, error: str, text: str, request_id: str) -> Reply:
    """The call itself is wrong."""
    return _error_reply(status, error, "INVALID_PARAM", text, request_id)


def describe_error(error: BaseException, prefix: str = "") -> Description:
    """What a function raised, as the vendors' clouds describe it, without the shim's own frames."""
    import traceback

    try:
        frames = _users_frames(error.__traceback__)
        message = "".join(traceback.format_exception_only(type(error), error)).strip()
        stack = "".join(traceback.format_exception(type(error), error, frames))
    except Exception:
        message, stack = f"{type(error).__name__} that cannot be shown", ""
    return {"errorCode": 1, "errorMessage": _cut(prefix + message), "stackTrace": _cut(stack)}


def _users_frames(frames: TracebackType | None) -> TracebackType | None:
    """Skip the frames of the shim and of the import system, which come first."""
    rest = frames
    while rest is not None and _is_ours(rest.tb_frame.f_code.co_filename):
        rest = rest.tb_next
    return rest


def _is_ours(filename: str) -> bool:
    return filename.startswith((_SHIM_DIRECTORY, "<frozen importlib")) or filename.endswith(
        "/importlib/__init__.py"
    )


def _error_reply(status: int, error: str, code: str, message: str, request_id: str) -> Reply:
    body = _encode_text({"code": code, "message": message, "requestId": request_id})
    return Reply(status, body.encode("utf-8", "replace"), error)


def _encode(value: Any) -> bytes:
    try:
        return _encode_result(value).encode("utf-8")
    except UnicodeEncodeError:
        return _encode_ascii(value).encode("ascii")  # Half a surrogate pair has no UTF-8, but has an escape.


def _encode_text(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _cut(text: str) -> str:
    return text if len(text) <= _ERROR_TEXT_CHARS_MAX else text[:_ERROR_TEXT_CHARS_MAX] + "…"
