"""Errors of people's own code, told in one line with the rest below."""

from __future__ import annotations

import json
import re

from cloudlet.model.errors import FunctionError, FunctionLoadFailed, PlatformError

_TELLING = re.compile(r"(?:Uncaught )?[\w.]*(?:Error|Exception|Exit|Interrupt|Warning)\b")


def split_failure(error: PlatformError) -> tuple[str, str]:
    """One line that says what is wrong, and the details (a stack, a build log), which may be empty.

    A function's failure travels as JSON text with ``errorMessage`` and ``stackTrace``, a load failure as the
    stack itself, whose telling line is its last in Python and in the middle in Node.
    """
    if not isinstance(error, FunctionError):
        first, _, rest = error.message.partition("\n")
        return first, rest
    message, stack = _fields(error.message)
    text = message or stack
    first = _telling_line(text)
    details = stack or message
    if isinstance(error, FunctionLoadFailed):
        first = f"the function cannot be loaded: {first}"
    return first, details if details.strip() != text.strip() or "\n" in details else ""


def _fields(text: str) -> tuple[str, str]:
    try:
        value = json.loads(text)
    except ValueError:
        return "", text
    if not isinstance(value, dict) or "errorMessage" not in value:
        return "", text
    return str(value["errorMessage"]), str(value.get("stackTrace") or "")


def _telling_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return next((line for line in lines if _TELLING.match(line)), lines[0] if lines else "no message")
