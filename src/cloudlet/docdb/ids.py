"""Generated document ids."""

from __future__ import annotations

import secrets
from collections.abc import Callable


class IdSource:
    """32 hexadecimal digits that ascend with time: milliseconds, a counter, 64 random bits.

    Ascending ids keep the index on owner and id in order of insertion, and new entries next to each other.
    """

    def __init__(self, random_hex: Callable[[int], str] = secrets.token_hex) -> None:
        """``random_hex`` makes the random part: two digits for each byte asked for."""
        self._random_hex = random_hex
        self._last_ms = 0
        self._count = 0

    def next(self, now_ms: int) -> str:
        """A new id. A clock that goes back does not make ids go back."""
        if now_ms > self._last_ms:
            self._last_ms, self._count = now_ms, 0
        elif self._count < 0xFFFF:
            self._count += 1
        else:
            self._last_ms, self._count = self._last_ms + 1, 0
        return f"{self._last_ms & 0xFFFFFFFFFFFF:012x}{self._count:04x}{self._random_hex(8)}"
