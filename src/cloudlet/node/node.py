"""The node, wired: cells, instances, watch, logs, the door to the api process and the node's own socket."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from cloudlet.model.clock import Clock
from cloudlet.model.sandbox import ProcessStatus
from cloudlet.observe.metrics import LoopPauses, Reader
from cloudlet.runtime import bundle
from cloudlet.sandbox.base import Driver
from cloudlet.settings import Paths

from .cells import CellMaker, Command
from .instances import Instances, NodeLimits
from .logs import LogStore
from .metrics import NodeMetrics, node_families
from .platform import PlatformServer
from .pools import Pools
from .runtimes import Runtimes
from .server import NodeServer
from .watch import Watch

STOP_GRACE_S = 5.0
log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class NodeParts:
    """What can be exchanged in a node."""

    driver: Driver
    clock: Clock
    command: Command = bundle.command
    processes: Callable[[], tuple[ProcessStatus, ...]] = tuple
    """The platform's own processes, for the node's report."""
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    """Where the node's metrics are; they are told on its socket."""


class Node:
    """Owns everything that runs functions on this machine.

    `start` raises OSError when a socket cannot be made; `close` ends every instance (grace, then kill) and
    leaves no process, socket or temporary directory. The driver is the caller's and closed after the node.
    One node per data directory: the caller holds the directory's lock, so what `start` finds in the run
    directory is stale.
    """

    def __init__(self, paths: Paths, parts: NodeParts, limits: NodeLimits) -> None:
        self.runtimes = Runtimes(paths.runtimes)
        self.logs = LogStore(paths.logs)
        self.platform = PlatformServer(paths.platform_socket)
        self._paths = paths
        self._parts = parts
        maker = CellMaker(parts.driver, self.runtimes, parts.command, paths.instances, parts.clock)
        self._pools = Pools(maker)
        self.instances = Instances(
            self._pools,
            self.platform,
            self.logs,
            paths.instances,
            parts.driver.rung,
            limits,
            parts.clock,
            parts.processes,
            NodeMetrics(parts.registry),
        )
        parts.registry.register(Reader(lambda: node_families(self.instances.report(), self._pools.targets())))
        self._pauses = LoopPauses("node", parts.registry)
        self._watch = Watch(parts.clock, lambda: (*self.instances.watched(), *self._pools.watched()))
        self._server = NodeServer(paths.node_socket, self.instances, self.runtimes, parts.registry)
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        prepare_directories(self._paths)
        try:
            self._stack.callback(self.logs.close)
            self.platform.start()
            self._stack.callback(self.platform.close)
            work = (self._pools.run(), self._watch.run(), self._pauses.run())
            self._tasks = [asyncio.create_task(each) for each in work]
            for task in self._tasks:
                task.add_done_callback(_report_failure)
            self._stack.push_async_callback(self._end_tasks)
            await self._server.start()
            self._stack.push_async_callback(self._server.close)
        except BaseException:
            await self._stack.aclose()
            raise
        log.info("node_ready", rung=self._parts.driver.rung, private_tmp=self._parts.driver.private_tmp)

    async def close(self, grace_s: float = STOP_GRACE_S) -> None:
        """May be repeated."""
        await self.instances.close(grace_s)
        await self._stack.aclose()
        shutil.rmtree(self._paths.instances, ignore_errors=True)
        with suppress(OSError):
            self._paths.run.rmdir()  # only when nobody else has anything in it

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _report_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        log.error("node_task_failed", exc_info=failure)


def prepare_directories(paths: Paths) -> None:
    """Make what cells are to see, before the first cell is made, and remove what a former node left."""
    shown_directories(paths)
    for directory in (paths.logs, paths.run):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if paths.instances.exists():
        shutil.rmtree(paths.instances)
    paths.instances.mkdir(mode=0o700)


def shown_directories(paths: Paths) -> tuple[Path, ...]:
    """What a sandbox driver has to keep visible for cells. Makes what is missing: a driver passes over it."""
    made = (paths.code, paths.cache, paths.runtimes)
    for directory in made:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return (*made, Path(bundle.__file__).parent)
