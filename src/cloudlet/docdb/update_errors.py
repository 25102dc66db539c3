"""Why an update is refused: in MongoDB's words, with MongoDB's numbers, because programs look for both.

Numbers and names are those of MongoDB's public list of error codes ("Error Codes" of its manual).
"""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum
from typing import Final

from cloudlet.docdb.values import Value, date_to_ms, type_name
from cloudlet.model.errors import InvalidUpdate

_SHOWN_MAX: Final = 80
_SHOWN_DEPTH: Final = 3


class Code(IntEnum):
    """The errors of updates."""

    BadValue = 2
    FailedToParse = 9
    TypeMismatch = 14
    PathNotViable = 28
    CannotBackfillArray = 34
    ConflictingUpdateOperators = 40
    DollarPrefixedFieldName = 52
    NotSingleValueField = 54
    EmptyFieldName = 56
    ImmutableField = 66


def refused(code: Code, text: str) -> InvalidUpdate:
    """The error to raise."""
    error = InvalidUpdate(f"{text} ({code.name}, {code.value})")
    error.number = code.value
    return error


def shown(name: str, value: Value) -> str:
    """``{name: value}`` for a message, cut where it gets long."""
    return f"{{{name[:_SHOWN_MAX]}: {_text(value, _SHOWN_DEPTH)}}}"


def _text(value: Value, depth: int) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return f'"{value[:_SHOWN_MAX]}…"' if len(value) > _SHOWN_MAX else f'"{value}"'
    if isinstance(value, datetime):
        return f"new Date({date_to_ms(value)})"
    if isinstance(value, dict | list) and value and depth == 0:
        return "{…}" if isinstance(value, dict) else "[…]"
    if isinstance(value, dict):
        parts = [f"{name[:_SHOWN_MAX]}: {_text(item, depth - 1)}" for name, item in list(value.items())[:5]]
        return "{" + _joined(parts, len(value)) + "}"
    if isinstance(value, list):
        return "[" + _joined([_text(item, depth - 1) for item in value[:5]], len(value)) + "]"
    return type_name(value)


def _joined(parts: list[str], length: int) -> str:
    return ", ".join(parts if length == len(parts) else [*parts, "…"])
