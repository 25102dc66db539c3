"""One file of the edge: replaced, and waited for until Envoy says that it is in effect."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from cloudlet.model.errors import EdgeUnavailable

from . import bans, keys
from .admin import AdminClient
from .bootstrap import STAT_PREFIX
from .files import Discovery, replace_file
from .options import EdgeFiles
from .structure import ROUTE_CONFIGURATION

_POLL_MIN_S = 0.002
_POLL_MAX_S = 0.05

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EdgeFile:
    """A file and the prefix of the statistics in which Envoy tells about it."""

    path: Path
    statistics: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock, compare=False)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What Envoy says about a file."""

    version: str
    refused: int


class Installer:
    """Knows the four files that change. One installation per file at a time."""

    def __init__(self, files: EdgeFiles, admin: AdminClient, limit_s: float) -> None:
        self._admin = admin
        self._limit_s = limit_s
        self.clusters = EdgeFile(files.clusters, "cluster_manager.cds")
        self.routes = EdgeFile(files.routes, f"http.{STAT_PREFIX}.rds.{ROUTE_CONFIGURATION}")
        self.keys = EdgeFile(files.keys, f"extension_config_discovery.http_filter.{keys.FILTER_NAME}")
        self.bans = EdgeFile(files.bans, f"extension_config_discovery.http_filter.{bans.FILTER_NAME}")

    async def install(self, file: EdgeFile, resources: Sequence[Mapping[str, Any]]) -> bool:
        """Return when these resources are in effect: False if they were already.

        Raise EdgeUnavailable when Envoy refuses them (the file is then put back as it was, because Envoy
        would not start with it) or does not confirm within the limit (the file stays: Envoy takes it when it
        is back).
        """
        async with file.lock:
            wanted = await asyncio.to_thread(Discovery.of, resources)
            previous = await asyncio.to_thread(_read, file.path)
            before = await self._seen(file)
            if before is not None and before.version == wanted.version and previous == wanted.content:
                return False
            await asyncio.to_thread(replace_file, file.path, wanted.content)
            if not await self._taken(file, wanted.version, before.refused if before else 0):
                if previous is not None:
                    await asyncio.to_thread(replace_file, file.path, previous)
                log.error("edge_file_refused", file=file.path.name)
                raise EdgeUnavailable(f"the edge refused its new {file.path.name}")
            return True

    async def _taken(self, file: EdgeFile, version: str, refused_before: int) -> bool:
        """True once this version is in effect, False once Envoy has refused something more than before."""
        deadline = time.monotonic() + self._limit_s
        pause_s = _POLL_MIN_S
        while time.monotonic() < deadline:
            seen = await self._seen(file)
            if seen is not None and seen.version == version:
                return True
            if seen is not None and seen.refused > refused_before:
                return False
            await asyncio.sleep(pause_s)
            pause_s = min(_POLL_MAX_S, 1.5 * pause_s)
        raise EdgeUnavailable(f"the edge has not taken its new {file.path.name} within {self._limit_s:g} s")

    async def _seen(self, file: EdgeFile) -> _Seen | None:
        """None while Envoy cannot be reached (it may be starting)."""
        prefix = file.statistics
        pattern = rf"^{prefix}\.(version_text|update_rejected|update_failure)$"
        try:
            values = await self._admin.stats(pattern)
        except EdgeUnavailable:
            return None
        refused = (values.get(f"{prefix}.{name}", 0) for name in ("update_rejected", "update_failure"))
        return _Seen(str(values.get(f"{prefix}.version_text", "")), sum(refused))


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
