"""What the doctor says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

Repair = Callable[[], None]
"""Changes something safely. Raises OSError or an error of the platform when it cannot."""


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, with less speed, room or protection than it could."""
    PROBLEM = "problem"
    """Something does not work, or will not."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do."""

    check: str
    """Name of the check, e.g. ``disk-sync``; stable."""
    level: Level
    text: str
    fix: str = ""
    """A command or a sentence; empty when nothing has to be done."""
    repair: Repair | None = None
    """Does the fix, where that is safe."""


def ok(check: str, text: str) -> Finding:
    return Finding(check, Level.OK, text)


def warning(check: str, text: str, fix: str, repair: Repair | None = None) -> Finding:
    return Finding(check, Level.WARNING, text, fix, repair)


def problem(check: str, text: str, fix: str, repair: Repair | None = None) -> Finding:
    return Finding(check, Level.PROBLEM, text, fix, repair)
