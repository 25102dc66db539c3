"""The control process: activator, scheduler and the publisher of the edge.

It keeps nothing on disk. Killed and started again it reads the control records, adopts the instances
that the node reports, and the edge goes on with what it was told last.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from cloudlet.dialects.errors import edge_replies, function_reply
from cloudlet.gateway.activator import Activator
from cloudlet.gateway.envoy.command import write_initial
from cloudlet.gateway.envoy.options import EdgeOptions
from cloudlet.gateway.envoy.publisher import Publisher
from cloudlet.model.clock import SystemClock
from cloudlet.model.errors import StoreUnavailable, VersionNotFound
from cloudlet.model.function import Runtime, VersionKey
from cloudlet.node.client import SocketNodeClient
from cloudlet.observe.cpu import CpuMeter
from cloudlet.observe.metrics import LoopPauses, exposition
from cloudlet.scheduler.loop import Scheduler
from cloudlet.scheduler.records import SchedulerOptions
from cloudlet.serve.asgi import AsgiListener
from cloudlet.serve.control_link import ControlDoor
from cloudlet.serve.control_metrics import ControlMetrics
from cloudlet.serve.edge_link import EdgeLink
from cloudlet.serve.process import Listeners, ended
from cloudlet.serve.snapshots import Snapshots
from cloudlet.settings import Paths, Settings
from cloudlet.state.base import Snapshot
from cloudlet.state.sqlite import SqliteRecords

log = structlog.get_logger(__name__)

RECORDS_S_MAX = 20.0
"""api makes the control records when it starts for the first time; control waits for it."""
RECORDS_PACE_S = 0.02
DRAIN_S = 20.0
"""Calls in flight may finish for this long when the platform stops."""


async def run_control(settings: Settings, listeners: Listeners, stop: asyncio.Event) -> None:
    """Run until `stop` is set; calls in flight finish first. Listeners: ``activator``, ``control``."""
    paths = Paths(settings.data)
    clock = SystemClock()
    records = await _open_records(paths, stop)
    if records is None:
        return
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(records.close)
        options = EdgeOptions.of(settings, paths, tuple(edge_replies()))
        # What a former control process published is what the edge serves: it stays.
        write_initial(options, keep=True)
        publisher = Publisher(options)
        await publisher.start()
        stack.push_async_callback(publisher.close)
        edge = EdgeLink(publisher, records, clock)
        stack.push_async_callback(edge.close)
        node = SocketNodeClient(paths.node_socket)
        stack.push_async_callback(node.close)
        scheduler = Scheduler(node, edge, clock, _scheduler_options(settings), CpuMeter(clock).busy)
        stack.push_async_callback(scheduler.close)
        snapshots = Snapshots(paths.control_db)
        stack.callback(snapshots.close)
        registry = CollectorRegistry()
        pauses = asyncio.create_task(LoopPauses("control", registry).run())
        stack.push_async_callback(ended, pauses)
        control = _Control(records, snapshots, scheduler, edge, registry)
        door = AsgiListener(control.door().app(), listeners["control"])
        await door.start()
        stack.push_async_callback(door.close, 1.0)

        await scheduler.start()
        sequence = await control.begin()
        activator = Activator(scheduler, clock, registry, function_reply)
        stack.push_async_callback(activator.close)
        calls = AsgiListener(activator, listeners["activator"])
        await calls.start()
        stack.push_async_callback(calls.close, DRAIN_S)
        log.info("control_started", sequence=sequence)
        await stop.wait()


class _Control:
    """What api may ask of control."""

    def __init__(
        self,
        records: SqliteRecords,
        snapshots: Snapshots,
        scheduler: Scheduler,
        edge: EdgeLink,
        registry: CollectorRegistry,
    ) -> None:
        self._registry = registry
        self._metrics = ControlMetrics(registry, scheduler.status, lambda: edge.published)
        self._records = records
        self._snapshots = snapshots
        self._applying = asyncio.Lock()
        self._applied: Snapshot | None = None
        self._scheduler = scheduler
        self._edge = edge

    async def begin(self) -> int:
        """Adopt the records as they are, and have the edge take them as soon as it can; their sequence."""
        snapshot = await self._adopted(0)
        self._edge.keep_trying(snapshot)
        return snapshot.sequence

    def door(self) -> ControlDoor:
        return ControlDoor(self._prepare, self._publish, self._status, lambda: exposition(self._registry))

    async def _prepare(self, key: VersionKey) -> None:
        version = self._records.find_version(key)
        if version is None:
            raise VersionNotFound(f"there is no version {key}")
        await self._scheduler.prepare(version)

    async def _publish(self, sequence: int) -> None:
        with self._metrics.publication():
            await self._edge.publish(await self._adopted(sequence))

    async def _adopted(self, sequence: int) -> Snapshot:
        """The records of at least `sequence`, with which the scheduler works from now on."""
        # One after the other: an older snapshot must not be applied after a newer one.
        async with self._applying:
            snapshot = await self._snapshots.newest()
            if snapshot.sequence < sequence:
                raise StoreUnavailable(
                    f"control sees records {snapshot.sequence}, not yet {sequence}; try again"
                )
            if snapshot is not self._applied:
                self._scheduler.apply(snapshot)
                self._applied = snapshot
            return snapshot

    async def _status(self) -> dict[str, Any]:
        status = self._scheduler.status()
        answer: dict[str, Any] = msgspec.to_builtins(status)
        return answer | {"published": self._edge.published}


async def _open_records(paths: Paths, stop: asyncio.Event) -> SqliteRecords | None:
    """The records, once api has made them; None when `stop` is set before that."""
    deadline = asyncio.get_running_loop().time() + RECORDS_S_MAX
    while not stop.is_set():
        try:
            records = SqliteRecords.open_readonly(paths.control_db)
        except StoreUnavailable:
            if asyncio.get_running_loop().time() > deadline:
                raise
        else:
            if records.signing_keys():
                return records
            records.close()
        await asyncio.sleep(RECORDS_PACE_S)
    return None


def _scheduler_options(settings: Settings) -> SchedulerOptions:
    return SchedulerOptions(
        instances_max=settings.instances_max,
        concurrent_executions_max=settings.concurrent_executions_max,
        pools={Runtime.NODE24: settings.pool_node, Runtime.PYTHON3: settings.pool_python},
    )
