"""Listens to the node and compares with its report now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from cloudlet.model.clock import Clock
from cloudlet.model.errors import PlatformError
from cloudlet.model.sandbox import InstanceEnded, NodeClient, NodeReport

from .records import SchedulerOptions

log = structlog.get_logger(__name__)

RECONNECT_S = 0.05
RECONNECT_S_MAX = 2.0


class NodeWatch:
    """The node's event stream, with a bounded reconnect, and a full report every `report_pace_s`.

    `known()` gives the ids the node must know when asked now; `compare(report, known)` is called for every
    report, `ended(event)` for every end.
    """

    def __init__(
        self,
        node: NodeClient,
        clock: Clock,
        options: SchedulerOptions,
        known: Callable[[], frozenset[str]],
        compare: Callable[[NodeReport, frozenset[str]], None],
        ended: Callable[[InstanceEnded], None],
    ) -> None:
        self._node = node
        self._clock = clock
        self._options = options
        self._known = known
        self._compare = compare
        self._ended = ended
        self._tasks: list[asyncio.Task[None]] = []
        self.connected = False
        self.reported = asyncio.Event()
        """Set by the first report."""

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._ask())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                known = self._known()
                async for event in self._node.events():
                    failures = 0
                    await self._hear(event, known)
            except (PlatformError, TimeoutError) as error:
                log.warning("node_away", error=str(error) or "no answer in time")
            except Exception:
                log.exception("node_stream_failed")
            self.connected = False
            failures += 1
            await asyncio.sleep(min(RECONNECT_S_MAX, RECONNECT_S * 2.0 ** min(failures, 10)))

    async def _hear(self, event: NodeReport | InstanceEnded, known: frozenset[str]) -> None:
        if isinstance(event, InstanceEnded):
            log.info(
                "instance_ended",
                instance=event.instance_id,
                version=str(event.version),
                reason=event.reason,
                detail=event.detail,
            )
            self._ended(event)
            return
        self._compare(event, known)
        self.connected = True
        self.reported.set()
        for runtime, size in self._options.pools.items():
            async with asyncio.timeout(self._options.node_call_s_max):
                await self._node.set_pool(runtime, size)

    async def _ask(self) -> None:
        """The stream tells every end; this finds what went wrong in between, such as a start nobody waited
        for."""
        while True:
            await asyncio.sleep(self._options.report_pace_s)
            if not self.connected:
                continue
            try:
                known = self._known()
                async with asyncio.timeout(self._options.node_call_s_max):
                    report = await self._node.report()
            except (PlatformError, TimeoutError) as error:
                log.warning("node_report_failed", error=str(error) or "no answer in time")
            else:
                self._compare(report, known)
