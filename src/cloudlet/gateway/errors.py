"""What the activator and its clients share about errors. The words and statuses are the dialects'."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cloudlet.model.errors import FunctionTimeout, PlatformError

ErrorReply = Callable[[PlatformError, str], tuple[int, bytes]]
"""Status and body for an error and a request id, in dialect D (``dialects/errors.py``)."""


class ErrorBody(msgspec.Struct):
    """The dialect D error object."""

    code: str = ""
    message: str = ""
    requestId: str = ""


def timeout_error(timeout_s: float) -> FunctionTimeout:
    """The dialect's words; the number without a needless fraction, as the shims print it."""
    return FunctionTimeout(f"Invoking task timed out after {timeout_s:g} seconds")
