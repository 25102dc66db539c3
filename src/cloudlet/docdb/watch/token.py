"""The text by which a later watch goes on where an earlier one of the same query ended.

It is no secret and proves nothing: who comes with it may ask the query anyway, and a wrong one only costs its
owner an ``init``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from cloudlet.docdb.body import encode_value
from cloudlet.docdb.sort import Sort, sort_value
from cloudlet.docdb.values import Document

_TEXT_MAX: Final = 120
_DIGITS_MAX: Final = 18


@dataclass(frozen=True, slots=True)
class Token:
    """After which change, after how many events, with how many documents, of which query."""

    seq: int
    event: int
    documents: int
    digest: str

    def text(self) -> str:
        """The form that ``parse_token`` reads."""
        return f"{self.seq}.{self.event}.{self.documents}.{self.digest}"


def parse_token(text: str) -> Token | None:
    """None for what is no token."""
    parts = text.split(".") if len(text) <= _TEXT_MAX else []
    if len(parts) != 4 or not all(_is_number(part) for part in parts[:3]):
        return None
    return Token(int(parts[0]), int(parts[1]), int(parts[2]), parts[3])


def digest_of(number: int, conditions: Sequence[Document], sort: Sort, limit: int | None, hides: bool) -> str:
    """Names a query of the collection with this number; ``hides``: its documents are not shown whole."""
    text = encode_value([number, list(conditions), sort_value(sort), limit, hides])
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX
