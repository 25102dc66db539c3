"""How cases are written: an expression, a document, and what comes out or how it is refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cloudlet.docdb.values import MISSING

__all__ = ["DOC", "MISSING", "NOW", "Refused", "at"]

NOW = datetime(2027, 1, 15, 8, 30, 15, 250_000, tzinfo=UTC)

DOC: dict[str, Any] = {
    "_id": 7,
    "n": 5,
    "f": 2.5,
    "s": "héllo",
    "t": True,
    "z": None,
    "d": datetime(2024, 2, 29, 23, 5, 9, 45_000, tzinfo=UTC),
    "l": [1, 2, 3],
    "e": [],
    "mix": [1, "a", None, [2], {"x": 1}],
    "o": {"x": 1, "y": {"z": 2}},
    "lo": [{"x": 1}, {"x": 2, "y": 3}, 4, [{"x": 5}], {"y": 6}],
}
"""What expressions are evaluated on unless a case says otherwise."""


@dataclass(frozen=True)
class Refused:
    """The case is refused; the message holds this text."""

    text: str


def at(text: str) -> datetime:
    """A date in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
