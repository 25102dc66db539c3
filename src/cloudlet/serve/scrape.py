"""One page with the metrics of all processes, for ``GET /metrics`` of the admin interface.

Whoever does not answer is missing on the page and named by ``cloudlet_observe_source_up``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog
from prometheus_client import CollectorRegistry, Gauge

from cloudlet.model.errors import PlatformError
from cloudlet.observe.metrics import exposition

SOURCE_S_MAX = 2.0
"""A process that takes longer counts as away: collectors give up after ten seconds as a rule."""

Source = Callable[[], Awaitable[bytes]]

log = structlog.get_logger(__name__)


class Scrape:
    """`registry` is this process's own; `sources` are the other processes. Families never overlap, because
    each name begins with its room."""

    def __init__(self, registry: CollectorRegistry, sources: Mapping[str, Source]) -> None:
        self._registry = registry
        self._sources = sources
        self._up = Gauge(
            "cloudlet_observe_source_up",
            "1 for each process whose metrics are on this page, 0 for one that did not answer",
            ["source"],
            registry=registry,
        )
        self._asking = asyncio.Lock()

    async def __call__(self) -> bytes:
        """The page. One scrape at a time; never raises for a process that is away."""
        async with self._asking:
            pages = await asyncio.gather(*(self._page(name) for name in self._sources))
            return b"".join((exposition(self._registry), *pages))

    async def _page(self, name: str) -> bytes:
        try:
            async with asyncio.timeout(SOURCE_S_MAX):
                page = await self._sources[name]()
        except (PlatformError, TimeoutError) as error:
            log.info("metrics_source_away", source=name, error=str(error) or "no answer in time")
            self._up.labels(name).set(0)
            return b""
        self._up.labels(name).set(1)
        return page
