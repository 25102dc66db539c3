"""What the rendering of the edge needs to know, gathered from the settings once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloudlet.settings import Paths, Settings

from .replies import LocalReply


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """What one client may ask of the edge. Durations in seconds."""

    headers_s: float = 10.0
    """A request's headers must have arrived by then (slow clients)."""
    request_s: float = 60.0
    """The whole request, body included, must have arrived by then: 6 MB at 100 kB/s."""
    idle_connection_s: float = 600.0
    stream_idle_s: float = 1000.0
    """Silence on a running call; longer than the longest function may run (900 s) plus its start."""
    headers_kb_max: int = 32
    headers_max: int = 100
    buffer_bytes: int = 1024 * 1024
    """What is held per connection while the other side is slower."""
    connections_max: int = 20_000
    heap_bytes_max: int = 2 * 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class EdgeFiles:
    """The files of the edge: plain JSON that anyone who may enter the run directory can read."""

    directory: Path
    admin_socket: Path
    """Envoy's own administration, used by the publisher only (mode 0600)."""

    @property
    def bootstrap(self) -> Path:
        return self.directory / "bootstrap.json"

    @property
    def clusters(self) -> Path:
        return self.directory / "clusters.json"

    @property
    def routes(self) -> Path:
        return self.directory / "routes.json"

    @property
    def keys(self) -> Path:
        return self.directory / "keys.json"

    @property
    def bans(self) -> Path:
        return self.directory / "bans.json"


@dataclass(frozen=True, slots=True)
class EdgeOptions:
    """Everything that is constant for the life of one Envoy process."""

    host: str
    port: int
    """0 = a free one; `admin.listening_port` tells which."""
    files: EdgeFiles
    activator_socket: Path
    api_socket: Path
    xds_socket: Path
    replies: tuple[LocalReply, ...] = ()
    trusted_hops: int = 0
    concurrency: int = 1
    limits: EdgeLimits = EdgeLimits()
    access_log: bool = False
    """Whether Envoy prints one JSON object for each call (``access_log.py``)."""

    @classmethod
    def of(
        cls,
        settings: Settings,
        paths: Paths,
        replies: tuple[LocalReply, ...],
        limits: EdgeLimits | None = None,
    ) -> EdgeOptions:
        return cls(
            host=settings.host,
            port=settings.port,
            files=EdgeFiles(paths.edge, paths.run / "envoy-admin.sock"),
            activator_socket=paths.activator_socket,
            api_socket=paths.api_socket,
            xds_socket=paths.xds_socket,
            replies=replies,
            trusted_hops=settings.trusted_hops,
            concurrency=settings.envoy_concurrency,
            limits=limits or EdgeLimits(),
            access_log=settings.access_log,
        )
