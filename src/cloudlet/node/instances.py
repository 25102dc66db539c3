"""All instances of a node: the working half of `NodeClient`, without the wire."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from cloudlet.model.clock import Clock
from cloudlet.model.errors import InstanceNotFound, PlatformError, ShuttingDown, Unavailable
from cloudlet.model.function import TIMEOUT_S_MAX, Runtime
from cloudlet.model.sandbox import (
    EndReason,
    InstanceEnded,
    InstanceState,
    InstanceStatus,
    NodeReport,
    ProcessStatus,
    Rung,
    StartRequest,
)

from .cells import kind_of
from .hub import EventHub
from .instance import Instance
from .logs import LogQuery, LogStore
from .metrics import NodeMetrics
from .platform import PlatformServer, open_door
from .pools import Pools
from .watch import Watched
from .wire import LogRecord

STOPPED_IDS_MAX = 1024
TOLD_AFTER_S = 0.001
"""The line about a start is written this much later: the start's answer comes first, a call waits for it."""
log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class NodeLimits:
    """What a node is called and how much it takes on."""

    name: str = "node"
    instances_max: int = 200


class Instances:
    """Starts, stops and reports instances. `directory` holds their sockets.

    Each instance has one task that brings it up, serves it and takes it down; a caller that goes away does
    not disturb it. An instance ends only in that task, so an end is published exactly once.
    """

    def __init__(
        self,
        pools: Pools,
        platform: PlatformServer,
        logs: LogStore,
        directory: Path,
        rung: Rung,
        limits: NodeLimits,
        clock: Clock,
        processes: Callable[[], tuple[ProcessStatus, ...]] = tuple,
        metrics: NodeMetrics | None = None,
    ) -> None:
        """`processes` tells of the platform's own processes, for the report."""
        self._metrics = metrics or NodeMetrics()
        self._pools = pools
        self._platform = platform
        self._logs = logs
        self._directory = directory
        self._rung = rung
        self._limits = limits
        self._clock = clock
        self._processes = processes
        self._lives: dict[str, _Life] = {}
        self._stopped: OrderedDict[str, None] = OrderedDict()
        self._closing = False
        self._hub = EventHub(self.report)

    async def start(self, request: StartRequest) -> InstanceStatus:
        life = self._lives.get(request.instance_id) or self._begin(request)
        await asyncio.shield(life.ready)
        if life.instance.state is InstanceState.ENDED:
            raise Unavailable(f"instance {request.instance_id} has ended")
        return life.instance.status()

    async def quiesce(self, instance_id: str) -> None:
        await (await self._running(instance_id)).talk("quiesce", "quiesced", InstanceState.QUIESCED)

    async def resume(self, instance_id: str) -> None:
        await (await self._running(instance_id)).talk("resume", "resumed", InstanceState.READY)

    async def stop(self, instance_id: str, grace_s: float) -> None:
        # Remembered, because the start of a caller that gave up may arrive after its stop.
        self._stopped[instance_id] = None
        if len(self._stopped) > STOPPED_IDS_MAX:
            self._stopped.popitem(last=False)
        life = self._lives.get(instance_id)
        if life is not None:
            await self._end(life, max(0.0, min(grace_s, TIMEOUT_S_MAX)))

    def report(self) -> NodeReport:
        statuses = tuple(life.instance.status() for life in self._lives.values())
        return NodeReport(
            self._limits.name,
            statuses,
            dict(self._pools.sizes()),
            self._rung,
            os.getpid(),
            self._processes(),
        )

    def events(self) -> AsyncIterator[NodeReport | InstanceEnded]:
        return self._hub.subscribe()

    def set_pool(self, runtime: Runtime, size: int) -> None:
        self._pools.set_size(runtime, size)

    async def logs(self, query: LogQuery) -> list[LogRecord]:
        """The latest matching lines, what was printed a moment ago included."""
        for life in self._lives.values():
            version, pump = life.instance.version, life.instance.pump
            asked = version.environment == query.environment and version.function == query.function
            if asked and pump is not None:
                pump.drain()
        return await self._logs.query(query)

    def watched(self) -> Iterable[Watched]:
        """What the watch looks at."""
        return [life.instance.watched for life in self._lives.values() if life.instance.watched is not None]

    async def close(self, grace_s: float) -> None:
        """End every instance and every subscription; nothing can be started any more."""
        self._closing = True
        await asyncio.gather(*(self._end(life, grace_s) for life in tuple(self._lives.values())))
        self._hub.close()

    def _begin(self, request: StartRequest) -> _Life:
        if self._closing:
            raise ShuttingDown()
        if request.instance_id in self._stopped:
            raise Unavailable(f"instance {request.instance_id} was stopped before it was started")
        if len(self._lives) >= self._limits.instances_max:
            raise Unavailable(f"this node runs {self._limits.instances_max} instances, which is its limit")
        instance = Instance(request.instance_id, request.version, self._rung, self._clock, self._logs)
        life = self._lives[request.instance_id] = _Life(instance)
        life.task = asyncio.create_task(self._live(life))
        return life

    async def _live(self, life: _Life) -> None:
        instance = life.instance
        failure: PlatformError = Unavailable("the instance has ended")
        try:
            await self._bring_up(instance)
            life.settle(None)
            await instance.serve()
        except asyncio.CancelledError:
            # Only `_end` cancels, and only an instance that is being started.
            instance.condemn(EndReason.STOPPED, "")
            failure = Unavailable("the instance was stopped while it was started")
        except PlatformError as exc:
            failure = exc
            instance.condemn(EndReason.EXITED, exc.message)
        except OSError as exc:
            failure = Unavailable(f"no instance can be made: {exc}")
            instance.condemn(EndReason.EXITED, failure.message)
        finally:
            # Who waits for the start hears of its failure when nothing is left of the instance.
            await self._take_down(life)
            life.settle(failure)

    async def _bring_up(self, instance: Instance) -> None:
        version = instance.version
        blank, pooled = await self._pools.take(kind_of(version.config))
        instance.attach(blank, pooled)
        listener = blank.cell.platform_listener()
        door = open_door(instance.instance_id, version.environment, version.function, listener)
        try:
            await instance.load(door)
        finally:
            # While the cell loads, because a call waits for it: who comes to the door before api holds it
            # waits in its backlog. The door closes with the instance, loaded or not.
            self._platform.add(door)
        instance.show(self._directory / f"{instance.instance_id}.sock")
        await instance.until_loaded()
        asyncio.get_running_loop().call_later(
            TOLD_AFTER_S, self._tell_ready, instance.status(), version.config.runtime
        )

    def _tell_ready(self, status: InstanceStatus, runtime: Runtime) -> None:
        self._metrics.started(runtime, status.timing)
        log.info(
            "instance_ready",
            instance=status.instance_id,
            version=str(status.version),
            pid=status.pid,
            pooled=status.timing.pooled,
            sandbox_ms=round(status.timing.sandbox_ms, 1),
            load_ms=round(status.timing.load_ms, 1),
        )

    async def _take_down(self, life: _Life) -> None:
        instance = life.instance
        try:
            ended = await instance.finish()
            self._platform.remove(instance.instance_id)
            self._metrics.ended(ended.reason)
            log.info("instance_ended", instance=ended.instance_id, reason=ended.reason, detail=ended.detail)
        finally:
            del self._lives[instance.instance_id]
        self._hub.publish(ended)
        await instance.release()

    async def _end(self, life: _Life, grace_s: float) -> None:
        """May be called by several at once; each kills when its own grace is over."""
        await asyncio.sleep(
            0
        )  # a task that is cancelled before its first step would never take anything down
        if life.instance.state is InstanceState.STARTING:
            if not life.stopping and life.task is not None:
                life.stopping = True
                life.task.cancel()
        else:
            await life.instance.ask_to_end()
        killer = asyncio.get_running_loop().call_later(grace_s, life.instance.kill)
        if life.task is not None:
            await asyncio.wait((life.task,))
        killer.cancel()

    async def _running(self, instance_id: str) -> Instance:
        """The instance, once it has been started."""
        life = self._lives.get(instance_id)
        if life is None:
            raise InstanceNotFound(f"instance {instance_id} does not exist")
        try:
            await asyncio.shield(life.ready)
        except PlatformError as exc:
            raise InstanceNotFound(f"instance {instance_id} does not exist") from exc
        return life.instance


@dataclass(slots=True)
class _Life:
    """An instance with its task and the answer for those who wait for its start."""

    instance: Instance
    ready: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    task: asyncio.Task[None] | None = None
    stopping: bool = False

    def settle(self, failure: PlatformError | None) -> None:
        if self.ready.done():
            return
        if failure is None:
            self.ready.set_result(None)
        else:
            self.ready.set_exception(failure)
            self.ready.exception()  # the caller may have gone away
