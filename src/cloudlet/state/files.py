"""The SQL that lives in files beside this module: named queries and numbered migrations. No database here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from cloudlet.model.errors import Internal

_NAME = re.compile(r"^-- ([a-z][a-z0-9_]*) --$", re.MULTILINE)
_MIGRATION = re.compile(r"(\d{4})_(pre|post)_[a-z0-9_]+\.sql\Z")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema. ``pre`` runs before a new program serves, ``post`` after the old one is gone;
    with one process that opens the file at start both moments are the same."""

    number: int
    name: str
    sql: str


@cache
def queries() -> Mapping[str, str]:
    """Every query of ``queries.sql`` by its name."""
    return parse_queries(files(__package__).joinpath("queries.sql").read_text())


@cache
def migrations() -> tuple[Migration, ...]:
    """Every migration in order; the numbers are 1, 2, 3 … without a gap."""
    found = []
    for entry in files(__package__).joinpath("migrations").iterdir():
        match = _MIGRATION.match(entry.name)
        if match:
            found.append(Migration(int(match[1]), entry.name, entry.read_text()))
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise Internal(f"migrations are not numbered without a gap: {[m.name for m in found]}")
    return tuple(found)


def parse_queries(text: str) -> dict[str, str]:
    """Split ``-- name --`` / ``-- description`` / SQL blocks. Raise Internal for a block without
    description."""
    found: dict[str, str] = {}
    parts = _NAME.split(text)
    for name, block in zip(parts[1::2], parts[2::2], strict=True):
        lines = block.strip().splitlines()
        if not lines or not lines[0].startswith("-- ") or len(lines) < 2:
            raise Internal(f"query {name!r} needs a line of description and a statement")
        if name in found:
            raise Internal(f"query {name!r} is there twice")
        found[name] = "\n".join(lines[1:])
    return found
