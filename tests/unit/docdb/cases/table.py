"""The form of the tables: per operator, what matches and what does not, after a page of MongoDB's manual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MANUAL = "https://www.mongodb.com/docs/manual/"
MISSING: dict[str, Any] = {}
"""The document that has nothing."""


@dataclass(frozen=True)
class Case:
    """One filter, one document, and whether it matches."""

    filter: dict[str, Any]
    document: dict[str, Any]
    matches: bool


@dataclass(frozen=True)
class Table:
    """What one operator (or rule) means."""

    name: str
    page: str
    """The manual's page, below ``MANUAL``."""
    cases: tuple[Case, ...]


def table(name: str, page: str, *groups: list[Case]) -> Table:
    """A table of several groups of cases."""
    return Table(name, page, tuple(case for group in groups for case in group))


def yes(filter: dict[str, Any], *values: Any) -> list[Case]:
    """Documents ``{"a": value}`` that match; a MISSING stands for the document without ``a``."""
    return [Case(filter, _document(value), True) for value in values]


def no(filter: dict[str, Any], *values: Any) -> list[Case]:
    """Documents ``{"a": value}`` that do not match."""
    return [Case(filter, _document(value), False) for value in values]


def whole(filter: dict[str, Any], document: dict[str, Any], matches: bool) -> list[Case]:
    """One case on a document of any form."""
    return [Case(filter, document, matches)]


def _document(value: Any) -> dict[str, Any]:
    return {} if value is MISSING else {"a": value}
