"""``$$NOW`` in a filter: its expressions run where there is no clock, so the date is put in before."""

from __future__ import annotations

from typing import Final

from cloudlet.docdb.values import Document, Value, date_from_ms

_LOGICAL: Final = ("$and", "$or", "$nor")


def with_now(filter: Document, now_ms: int) -> Document:
    """A filter in whose ``$expr`` every ``$$NOW`` is this date; the filter itself if it has no ``$expr``."""
    made: Document | None = None
    for name, value in filter.items():
        if not name.startswith("$"):
            continue
        found: Value = value
        if name == "$expr":
            found = _bound(value, now_ms)
        elif name in _LOGICAL and type(value) is list:
            found = [with_now(item, now_ms) if type(item) is dict else item for item in value]
        if found != value:
            made = made or dict(filter)
            made[name] = found
    return filter if made is None else made


def _bound(value: Value, now_ms: int) -> Value:
    kind = type(value)
    if kind is str:
        return date_from_ms(now_ms) if value == "$$NOW" else value
    if kind is list:
        return [_bound(item, now_ms) for item in value]
    if kind is dict and "$literal" not in value:
        return {name: _bound(item, now_ms) for name, item in value.items()}
    return value
