"""An in-memory edge: the twin of EndpointPublisher, with failures that have names."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from cloudlet.model.errors import EdgeUnavailable
from cloudlet.model.function import VersionKey

from .signals import EdgeTraffic


class FakeEdge:
    """Acknowledges after `ack_s`. `refusals` counts down: so many calls fail first, half of them after the
    edge took the change (an acknowledgement that got lost)."""

    def __init__(self, ack_s: float = 0.0) -> None:
        self.ack_s = ack_s
        self.refusals = 0
        self.endpoints: dict[VersionKey, frozenset[str]] = {}
        """What the edge uses now."""
        self.early: set[VersionKey] = set()
        self.counters: dict[VersionKey, EdgeTraffic] = {}
        self.changes: list[tuple[str, VersionKey, tuple[str, ...] | bool]] = []
        """Every change that took effect, in order."""

    async def set_binding(self, version: VersionKey, early: bool) -> None:
        await self._travel()
        if early:
            self.early.add(version)
        else:
            self.early.discard(version)
            self.counters.pop(version, None)
        self.changes.append(("binding", version, early))

    async def set_endpoints(self, version: VersionKey, sockets: Sequence[str]) -> None:
        lost = self.refusals % 2 == 1
        if not lost:
            await self._travel()
        self.endpoints[version] = frozenset(sockets)
        self.changes.append(("endpoints", version, tuple(sockets)))
        if lost:
            await self._travel()

    async def traffic(self) -> Mapping[VersionKey, EdgeTraffic]:
        return dict(self.counters)

    def uses(self, socket_path: str) -> bool:
        """Whether the edge may send a call to this socket."""
        return any(socket_path in sockets for sockets in self.endpoints.values())

    async def _travel(self) -> None:
        await asyncio.sleep(self.ack_s)
        if self.refusals > 0:
            self.refusals -= 1
            raise EdgeUnavailable
