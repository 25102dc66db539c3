"""Which version a rollback goes to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudlet.model.errors import VersionNotFound
from cloudlet.model.function import Version


@dataclass(frozen=True, slots=True)
class Rollback:
    """What was served before a rollback and what is served after it; equal when nothing had to be done."""

    former: Version
    now: Version


def rollback_target(versions: Sequence[Version], current: Version, number: int | None) -> Version:
    """The version with this number; without one the newest that is older than the current.

    Raise VersionNotFound.
    """
    known = ", ".join(str(version.number) for version in sorted(versions, key=_number)) or "none"
    if number is not None:
        for version in versions:
            if version.number == number:
                return version
        raise VersionNotFound(f"function {current.function!r} has no version {number}; it has: {known}")
    older = [version for version in versions if version.number < current.number]
    if not older:
        raise VersionNotFound(
            f"function {current.function!r} serves version {current.number} and has none before it; "
            f"name one with --to (it has: {known})"
        )
    return max(older, key=_number)


def _number(version: Version) -> int:
    return version.number
