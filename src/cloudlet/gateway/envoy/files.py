"""The edge's configuration as files: content-named versions, atomic replacement."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object, as the configuration of Envoy is written in."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """One xDS answer as file content.

    Its version is the SHA-256 of the resources: the version that Envoy reports tells whether *this content*
    is in effect, also after the publisher was restarted.
    """

    version: str
    content: bytes

    @classmethod
    def of(cls, resources: Sequence[Mapping[str, Any]]) -> Discovery:
        content = to_json(list(resources))
        version = hashlib.sha256(content).hexdigest()[:16]
        return cls(version, b'{"version_info":"%s","resources":%s}' % (version.encode(), content))


def to_json(value: Any) -> bytes:
    """Compact JSON with sorted keys: equal values give equal bytes. `msgspec.Raw` is taken as it is.

    Ten thousand functions are megabytes, and whoever waits for the interpreter waits for the encoder: the
    standard library's takes twenty times as long.
    """
    return msgspec.json.encode(value, order="sorted")


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader sees the old content or the new, never a part of it.

    Envoy reads a watched file again when something is *moved* to its name, therefore the temporary file
    and the rename. Nothing is synced to disk: the run directory does not outlive the machine.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
