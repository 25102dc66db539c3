"""From the bytes that an instance prints to lines, pure (``runtime/contract.md`` section 6)."""

from __future__ import annotations

from dataclasses import dataclass

LINE_BYTES_MAX = 32 * 1024
LEVELS = frozenset({"debug", "info", "warn", "error"})
REQUEST_ID_CHARS_MAX = 64
_FRAME = b"\x1e"


@dataclass(frozen=True, slots=True)
class Line:
    """One printed line; without a frame it belongs to no request."""

    text: str
    level: str = "info"
    request_id: str = ""


class LineSplitter:
    """Cuts a stream into lines of at most LINE_BYTES_MAX; what is longer loses its rest. Holds at most one
    line."""

    def __init__(self) -> None:
        self._partial = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines completed by `data`, without their line feeds."""
        *complete, rest = data.split(b"\n")
        lines = []
        for part in complete:
            self._append(part)
            lines.append(bytes(self._partial))
            self._partial.clear()
        self._append(rest)
        return lines

    def finish(self) -> list[bytes]:
        """What is left at the end of the stream."""
        rest = bytes(self._partial)
        self._partial.clear()
        return [rest] if rest else []

    def _append(self, part: bytes) -> None:
        self._partial += part[: LINE_BYTES_MAX - len(self._partial)]


def parse_line(raw: bytes, default_level: str) -> Line:
    """A framed line's parts, or the whole line at `default_level`. A frame that is not the contract's is
    text."""
    if raw.startswith(_FRAME):
        parts = raw[1:].decode(errors="replace").split("\x1f", 2)
        if len(parts) == 3 and _is_request_id(parts[0]) and parts[1] in LEVELS:
            return Line(parts[2], parts[1], parts[0])
    return Line(raw.decode(errors="replace").rstrip("\r"), default_level)


def _is_request_id(text: str) -> bool:
    return len(text) <= REQUEST_ID_CHARS_MAX and text.isascii() and text.isprintable()


class TokenBucket:
    """How much may pass: `rate` a second on average, `burst` at once. Time (seconds, monotonic) is handed
    in."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = now

    def take(self, amount: float, now: float) -> bool:
        """Take `amount` if it is there."""
        self._refill(now)
        if self._level < amount:
            return False
        self._level -= amount
        return True

    def spend(self, amount: float, now: float) -> float:
        """Take `amount` even into debt; return the seconds after which the debt is paid."""
        self._refill(now)
        self._level -= amount
        return max(0.0, -self._level / self._rate)

    def _refill(self, now: float) -> None:
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
