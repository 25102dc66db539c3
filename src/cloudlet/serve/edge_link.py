"""Between the scheduler and the edge's publisher: one picture of what should be at the edge, kept true.

The scheduler says which versions are early-bound and where their instances listen; the control records say
which functions, keys and bans there are. Here they meet, and what the edge could not take yet is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from cloudlet.auth.keys import jwks
from cloudlet.gateway.envoy.keys import PublicKey
from cloudlet.gateway.envoy.publisher import Publisher
from cloudlet.gateway.envoy.structure import EdgeModel
from cloudlet.model.clock import Clock
from cloudlet.model.errors import EdgeUnavailable
from cloudlet.model.function import VersionKey
from cloudlet.scheduler.signals import EdgeTraffic
from cloudlet.state.base import ControlRecords, Snapshot

log = structlog.get_logger(__name__)

RETRY_S = 0.2
RETRY_S_MAX = 2.0


class EdgeLink:
    """Implements `scheduler.endpoints.EndpointPublisher`, and publishes control records."""

    def __init__(self, publisher: Publisher, records: ControlRecords, clock: Clock) -> None:
        self._publisher = publisher
        self._records = records
        self._clock = clock
        self._snapshot: Snapshot | None = None
        self._building = asyncio.Lock()
        self._early: set[VersionKey] = set()
        self._published = -1
        """Sequence of the records that the edge works with."""
        self._keys: frozenset[str] = frozenset()
        self._bans: frozenset[str] = frozenset()
        self._retry: asyncio.Task[None] | None = None

    @property
    def published(self) -> int:
        """Sequence of the control records that the edge has confirmed; -1 before the first."""
        return self._published

    async def publish(self, snapshot: Snapshot) -> None:
        """Return once the edge works with these records. Raise EdgeUnavailable; it goes on being tried."""
        self._snapshot = snapshot
        try:
            await self._publish()
        except EdgeUnavailable:
            self._try_again()
            raise

    def keep_trying(self, snapshot: Snapshot) -> None:
        """Publish these records as soon as the edge can take them (it may not have been started yet)."""
        self._snapshot = snapshot
        self._try_again()

    async def set_binding(self, version: VersionKey, early: bool) -> None:
        """See EndpointPublisher."""
        if early:
            self._early.add(version)
        else:
            self._early.discard(version)
        if self._snapshot is not None:
            await self._want()
            await self._publisher.settle()

    async def set_endpoints(self, version: VersionKey, sockets: Sequence[str]) -> None:
        """See EndpointPublisher."""
        await self._publisher.set_endpoints(version, sockets)

    async def traffic(self) -> Mapping[VersionKey, EdgeTraffic]:
        """See EndpointPublisher."""
        counted = await self._publisher.stats()
        return {
            key: EdgeTraffic(
                # A refused call is tried twice.
                calls_total=one.rq_total - one.retries,
                active=one.rq_active,
                retries_total=one.retries,
                p95_s=None if one.rq_time_p95_ms is None else one.rq_time_p95_ms / 1000,
            )
            for key, one in counted.items()
        }

    async def close(self) -> None:
        """Stop trying. The edge keeps what it has."""
        if self._retry is not None:
            self._retry.cancel()
            await asyncio.gather(self._retry, return_exceptions=True)

    async def _publish(self) -> None:
        snapshot = self._snapshot
        if snapshot is None:
            return
        await self._publish_sessions()
        await self._want()
        await self._publisher.settle()
        self._published = max(self._published, snapshot.sequence)

    async def _want(self) -> None:
        """Make the newest picture: off the loop, because it grows with the number of functions, and one after
        the other, so that an older picture never comes after a newer one."""
        async with self._building:
            if self._snapshot is not None:
                early = frozenset(self._early)
                self._publisher.want(await asyncio.to_thread(EdgeModel.of, self._snapshot, early))

    async def _publish_sessions(self) -> None:
        keys = self._records.signing_keys()
        kids = frozenset(key.kid for key in keys)
        if kids != self._keys:
            found = jwks(keys)["keys"]
            if not isinstance(found, list):
                raise TypeError("a key set holds a list of keys")
            await self._publisher.set_keys([PublicKey.of_jwk(key) for key in found])
            self._keys = kids
        bans = frozenset(self._records.revoked_sessions(self._clock.now()))
        if bans != self._bans:
            await self._publisher.set_bans(bans)
            self._bans = bans

    def _try_again(self) -> None:
        if self._retry is None or self._retry.done():
            self._retry = asyncio.create_task(self._until_published(), name="edge-publish")

    async def _until_published(self) -> None:
        pause = RETRY_S
        while True:
            try:
                await self._publish()
            except EdgeUnavailable as error:
                log.info("edge_not_ready", error=error.message, retry_s=pause)
                await asyncio.sleep(pause)
                pause = min(RETRY_S_MAX, pause * 2)
            else:
                return
