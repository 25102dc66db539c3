"""Names and identifiers: what is allowed, and how new ones are made."""

from __future__ import annotations

import re
import secrets
import uuid

from .errors import InvalidName

DEFAULT_ENVIRONMENT = "default"
LATEST = "$LATEST"

_ENVIRONMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}\Z")
_FUNCTION = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,59}\Z")
_COLLECTION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")
_RESERVED = frozenset({"__proto__", "constructor", "prototype"})


def check_environment_name(name: str) -> str:
    """Return `name` or raise InvalidName: letters, digits and ``-``, at most 63 characters."""
    if not _ENVIRONMENT.match(name):
        raise InvalidName(
            f"environment name {_shown(name)} is not allowed: use letters, digits and '-', at most 63"
        )
    return name


def check_function_name(name: str) -> str:
    """Return `name` or raise InvalidName: a letter, then letters, digits, ``_``, ``-``; at most 60 in all."""
    if not _FUNCTION.match(name) or name in _RESERVED:
        raise InvalidName(
            f"function name {_shown(name)} is not allowed: start with a letter, then letters, digits, "
            "'_' and '-', at most 60 characters"
        )
    return name


def check_collection_name(name: str) -> str:
    """Return `name` or raise InvalidName: letters, digits, ``_``, ``-``, ``.``; at most 64 characters."""
    if not _COLLECTION.match(name) or name in _RESERVED or ".." in name:
        raise InvalidName(
            f"collection name {_shown(name)} is not allowed: use letters, digits, '_', '-' and '.', "
            "at most 64 characters"
        )
    return name


def new_request_id() -> str:
    """A request id in the edge's form: a random UUID."""
    return str(uuid.uuid4())


def new_instance_id() -> str:
    """A short random id; short, because socket paths are limited to 107 bytes."""
    return secrets.token_hex(5)


def new_secret(prefix: str, size: int = 24) -> str:
    """A printable secret of `size` random bytes, with a prefix that says what it is."""
    return f"{prefix}{secrets.token_urlsafe(size)}"


def _shown(name: str) -> str:
    return repr(name if len(name) <= 40 else name[:40] + "…")
