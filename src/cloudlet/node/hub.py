"""What the node tells those who listen: a report first, then every end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import structlog

from cloudlet.model.sandbox import InstanceEnded, NodeReport

BEHIND_MAX = 1024
"""Events that a subscriber may be behind before it is cut (it subscribes again and gets a new report)."""
log: structlog.stdlib.BoundLogger = structlog.get_logger()


class EventHub:
    """Hands events to every subscriber, without ever waiting for one."""

    def __init__(self, report: Callable[[], NodeReport]) -> None:
        self._report = report
        self._queues: set[asyncio.Queue[InstanceEnded | None]] = set()
        self._closed = False

    def publish(self, ended: InstanceEnded) -> None:
        """Tell all; a subscriber that is too far behind is cut."""
        for queue in tuple(self._queues):
            if queue.qsize() >= BEHIND_MAX:
                log.warning("event_subscriber_cut", behind=queue.qsize())
                self._cut(queue)
            else:
                queue.put_nowait(ended)

    async def subscribe(self) -> AsyncIterator[NodeReport | InstanceEnded]:
        """The report of this moment, then what happens after it, in order, until cut or closed."""
        if self._closed:
            return
        queue: asyncio.Queue[InstanceEnded | None] = asyncio.Queue(BEHIND_MAX + 1)
        self._queues.add(queue)
        try:
            yield self._report()
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._queues.discard(queue)

    def close(self) -> None:
        """Every subscription ends after what was published so far."""
        self._closed = True
        for queue in tuple(self._queues):
            self._cut(queue)

    def _cut(self, queue: asyncio.Queue[InstanceEnded | None]) -> None:
        self._queues.discard(queue)
        queue.put_nowait(None)
