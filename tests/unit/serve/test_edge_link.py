"""What should be at the edge: made beside the event loop, and never older after newer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import cast

import pytest

from cloudlet.gateway.envoy.keys import PublicKey
from cloudlet.gateway.envoy.publisher import Publisher
from cloudlet.gateway.envoy.structure import EdgeModel
from cloudlet.model.clock import SystemClock
from cloudlet.model.function import FunctionConfig, VersionKey
from cloudlet.serve.edge_link import EdgeLink
from cloudlet.state.memory import MemoryRecords

pytestmark = pytest.mark.anyio


class Recorder:
    """Remembers what was wanted; everything is in effect at once."""

    def __init__(self) -> None:
        self.wanted: list[EdgeModel] = []
        self.settled = 0

    def want(self, model: EdgeModel) -> None:
        self.wanted.append(model)

    async def settle(self) -> None:
        self.settled += 1

    async def set_keys(self, keys: Sequence[PublicKey]) -> None:
        """There are none in these tests."""

    async def set_bans(self, sessions: Collection[str]) -> None:
        """There are none in these tests."""


def key(number: int) -> VersionKey:
    return VersionKey("default", f"f{number}", "a" * 16)


async def test_overlapping_publications_end_with_the_newest_picture() -> None:
    records, publisher = MemoryRecords(SystemClock()), Recorder()
    edge = EdgeLink(cast(Publisher, publisher), records, SystemClock())
    snapshots = []
    for number in range(5):
        await records.add_version(key(number), FunctionConfig(), "/code", 1.0)
        await records.point_alias(key(number), "$LATEST", 1.0)
        snapshots.append(records.snapshot())
    await asyncio.gather(*(edge.publish(snapshot) for snapshot in snapshots))
    sizes = [len(model.functions) for model in publisher.wanted]
    assert sizes == sorted(sizes) and sizes[-1] == 5
    assert publisher.settled == 5
    assert edge.published == records.sequence()
    await edge.close()


async def test_a_binding_changes_the_newest_picture() -> None:
    records, publisher = MemoryRecords(SystemClock()), Recorder()
    edge = EdgeLink(cast(Publisher, publisher), records, SystemClock())
    await edge.set_binding(key(0), True)
    assert publisher.wanted == [], "nothing is known of the functions yet"
    await records.add_version(key(0), FunctionConfig(), "/code", 1.0)
    await records.point_alias(key(0), "$LATEST", 1.0)
    await edge.publish(records.snapshot())
    assert publisher.wanted[-1].early == {key(0)}
    await edge.set_binding(key(0), False)
    assert publisher.wanted[-1].early == frozenset()
    await edge.close()
