"""Environments and what belongs to a whole environment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Environment:
    """One tenant: its functions, documents, files and users are isolated from every other environment's."""

    name: str
    created_at: float
    aliases: tuple[str, ...] = ()
    """Other environment ids that projects use for this one (hard-coded ids of a former cloud)."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A key pair for a server-side SDK outside the platform (TC3 signatures)."""

    environment: str
    secret_id: str
    secret_key: str
    created_at: float
