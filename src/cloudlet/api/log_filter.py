"""Which lines of a log somebody wants to see. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cloudlet.model.errors import InvalidParameter
from cloudlet.node.wire import LogRecord

LEVELS = ("debug", "info", "warn", "error")
"""From the least to the worst."""
TEXT_CHARS_MAX = 1000


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Conditions on single lines."""

    level: str = LEVELS[0]
    """This level and worse ones."""
    text: str = ""
    """Must be part of the line, upper and lower case alike."""

    @classmethod
    def of(cls, level: str, text: str) -> LogFilter:
        """Empty texts are no condition. Raise InvalidParameter."""
        if level and level not in LEVELS:
            raise InvalidParameter(f"level must be one of {', '.join(LEVELS)}, not {level[:40]!r}")
        if len(text) > TEXT_CHARS_MAX:
            raise InvalidParameter(f"text may have {TEXT_CHARS_MAX} characters")
        return cls(level or LEVELS[0], text.casefold())

    @property
    def narrow(self) -> bool:
        """Whether there is any line that it leaves out."""
        return self.level != LEVELS[0] or bool(self.text)

    def keeps(self, record: LogRecord) -> bool:
        worse = record.level not in LEVELS or LEVELS.index(record.level) >= LEVELS.index(self.level)
        return worse and self.text in record.text.casefold()
