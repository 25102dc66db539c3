"""The statements of ``queries.sql`` and the names they are about."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Final

from cloudlet.model.ids import check_environment_name

FORMAT: Final = 1
"""The format of an environment's tables that this version reads and writes."""
CHANNEL: Final = "cloudlet_documents"

_NAME_MAX: Final = 40
"""PostgreSQL cuts names at 63 bytes, so a longer environment name is told apart by a hash."""


@dataclass(frozen=True, slots=True)
class Names:
    """Where one environment lives in the database."""

    schema: str
    quoted: str
    lock: int
    """The key of the lock that makes the environment's writers take turns."""


@lru_cache(maxsize=4096)
def names(environment: str) -> Names:
    """The names of an environment. Raises InvalidName."""
    check_environment_name(environment)
    digest = hashlib.blake2b(environment.encode(), digest_size=8).digest()
    short = environment if len(environment) <= _NAME_MAX else f"{environment[:_NAME_MAX]}_{digest.hex()}"
    schema = f"env_{short}"
    return Names(schema, f'"{schema}"', int.from_bytes(digest, "big", signed=True))


@lru_cache(maxsize=16_384)
def statement(name: str, at: Names, c: int = 0, x: int = 0, reverse: bool = False) -> str:
    """A statement for an environment, collection ``c`` and index ``x``; ``reverse`` reads backwards."""
    return _templates()[name].format(s=at.quoted, c=c, x=x, d="DESC" if reverse else "ASC", lock=at.lock)


@cache
def _templates() -> dict[str, str]:
    text = (resources.files("cloudlet.docdb.postgres") / "queries.sql").read_text()
    found = {}
    for block in text.split("-- name: ")[1:]:
        name, _description, body = block.split("\n", 2)
        found[name.strip()] = body.strip()
    return found
