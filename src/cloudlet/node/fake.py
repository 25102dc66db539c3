"""The in-memory twin of a node: `NodeClient` under a virtual clock, with failures that a test orders."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from dataclasses import replace

from cloudlet.model.errors import (
    FunctionLoadFailed,
    InstanceNotFound,
    NodeUnavailable,
    PlatformError,
    Unavailable,
)
from cloudlet.model.function import Runtime
from cloudlet.model.sandbox import (
    EndReason,
    InstanceEnded,
    InstanceState,
    InstanceStatus,
    NodeReport,
    Rung,
    StartRequest,
    StartTiming,
)

from .hub import EventHub


class FakeNode:
    """A node without processes. Nothing takes time unless `delays` says so, and then only `advance` lets it
    pass.

    `delays` has seconds by operation (``start``, ``quiesce``, ``resume``, ``stop``); `calls` is what was
    asked, in order, as (operation, instance id)."""

    def __init__(self, name: str = "node", instances_max: int = 1000) -> None:
        self.delays: dict[str, float] = {}
        self.calls: list[tuple[str, str]] = []
        self._name = name
        self._instances_max = instances_max
        self._now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._sequence = 0
        self._statuses: dict[str, InstanceStatus] = {}
        self._starts: dict[str, asyncio.Task[InstanceStatus]] = {}
        self._stopped: set[str] = set()
        self._failures: dict[str, PlatformError] = {}
        self._busy_until: dict[str, float] = {}
        self._pools: dict[Runtime, int] = {}
        self._reachable = True
        self._hub = EventHub(self._report)

    # What a test orders.

    def advance(self, seconds: float) -> None:
        """Let virtual time pass; what was due meanwhile continues in its order when the loop runs next."""
        self._now += seconds
        while self._sleepers and self._sleepers[0][0] <= self._now:
            _, _, sleeper = heapq.heappop(self._sleepers)
            if not sleeper.done():
                sleeper.set_result(None)

    def fail_starts(self, function: str, error: PlatformError | None) -> None:
        """Starts of this function fail with `error` from now on; None: they work again."""
        if error is None:
            self._failures.pop(function, None)
        else:
            self._failures[function] = error

    def set_busy(self, instance_id: str, seconds: float) -> None:
        """The instance runs a call for this long: a stop waits for it as long as its grace allows."""
        self._busy_until[instance_id] = self._now + seconds

    def end(self, instance_id: str, reason: EndReason = EndReason.EXITED, detail: str = "") -> None:
        """The instance ends by itself."""
        self._end(instance_id, reason, detail)

    def partition(self) -> None:
        """The node cannot be reached: calls fail, event streams break. Its instances go on."""
        self._reachable = False
        self._hub.close()

    def heal(self) -> None:
        """The node can be reached again."""
        self._reachable = True
        self._hub = EventHub(self._report)

    # NodeClient.

    async def start(self, request: StartRequest) -> InstanceStatus:
        self._note("start", request.instance_id)
        task = self._starts.get(request.instance_id)
        if task is None:
            if request.instance_id in self._stopped:
                raise Unavailable("the instance was stopped before it was started")
            if len(self._starts) >= self._instances_max:
                raise Unavailable("the node is full")
            self._statuses[request.instance_id] = self._starting(request)
            task = asyncio.create_task(self._start(request))
            task.add_done_callback(_look_at)
            self._starts[request.instance_id] = task
        await asyncio.wait((task,))
        if task.cancelled():
            raise Unavailable("the instance was stopped while it was started")
        return self._statuses.get(request.instance_id, task.result())

    async def quiesce(self, instance_id: str) -> None:
        await self._move("quiesce", instance_id, InstanceState.QUIESCED)

    async def resume(self, instance_id: str) -> None:
        await self._move("resume", instance_id, InstanceState.READY)

    async def stop(self, instance_id: str, grace_s: float) -> None:
        self._note("stop", instance_id)
        self._stopped.add(instance_id)
        task = self._starts.get(instance_id)
        if task is None:
            return
        await asyncio.sleep(0)  # its first step comes before its cancellation
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
        busy_s = max(0.0, self._busy_until.get(instance_id, 0.0) - self._now)
        await self._sleep(max(self.delays.get("stop", 0.0), min(busy_s, grace_s)))
        self._end(instance_id, EndReason.STOPPED, "")

    async def report(self) -> NodeReport:
        self._note("report", "")
        return self._report()

    async def events(self) -> AsyncIterator[NodeReport | InstanceEnded]:
        self._note("events", "")
        async for event in self._hub.subscribe():
            yield event

    async def set_pool(self, runtime: Runtime, size: int) -> None:
        self._note("set_pool", runtime)
        self._pools[runtime] = size

    def _note(self, operation: str, instance_id: str) -> None:
        if not self._reachable:
            raise NodeUnavailable("the node cannot be reached")
        self.calls.append((operation, instance_id))

    def _report(self) -> NodeReport:
        return NodeReport(self._name, tuple(self._statuses.values()), dict(self._pools), Rung.PROCESS)

    def _starting(self, request: StartRequest) -> InstanceStatus:
        version = request.version
        return InstanceStatus(
            instance_id=request.instance_id,
            version=version.key,
            state=InstanceState.STARTING,
            socket_path=f"/fake/{request.instance_id}.sock",
            rung=Rung.PROCESS,
            pid=1,
            started_at=self._now,
            timing=StartTiming(pooled=self._pools.get(version.config.runtime, 0) > 0),
            concurrency=version.config.concurrency,
            timeout_s=version.config.timeout_s,
        )

    async def _start(self, request: StartRequest) -> InstanceStatus:
        instance_id = request.instance_id
        try:
            await self._sleep(self.delays.get("start", 0.0))
            if instance_id not in self._statuses:
                raise Unavailable("the instance has ended while it was started")
            failure = self._failures.get(request.version.function)
            if failure is not None:
                raise failure
            return self._set_state(instance_id, InstanceState.READY)
        except FunctionLoadFailed as exc:
            self._end(instance_id, EndReason.LOAD_FAILED, exc.message)
            raise
        except PlatformError as exc:
            self._end(instance_id, EndReason.EXITED, exc.message)
            raise
        except asyncio.CancelledError:
            self._end(instance_id, EndReason.STOPPED, "")
            raise

    async def _move(self, operation: str, instance_id: str, state: InstanceState) -> None:
        self._note(operation, instance_id)
        task = self._starts.get(instance_id)
        if task is not None:
            await asyncio.wait((task,))
            await self._sleep(self.delays.get(operation, 0.0))
        if instance_id not in self._statuses:
            raise InstanceNotFound(f"instance {instance_id} does not exist")
        self._set_state(instance_id, state)

    def _set_state(self, instance_id: str, state: InstanceState) -> InstanceStatus:
        status = self._statuses[instance_id] = replace(self._statuses[instance_id], state=state)
        return status

    def _end(self, instance_id: str, reason: EndReason, detail: str) -> None:
        status = self._statuses.pop(instance_id, None)
        self._starts.pop(instance_id, None)
        self._busy_until.pop(instance_id, None)
        if status is not None:
            self._hub.publish(InstanceEnded(instance_id, status.version, reason, detail))

    async def _sleep(self, seconds: float) -> None:
        """Virtual time; nothing at all still gives way to others once."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sequence += 1
        heapq.heappush(self._sleepers, (self._now + seconds, self._sequence, sleeper))
        await sleeper


def _look_at(task: asyncio.Task[InstanceStatus]) -> None:
    """A failed start whose callers all went away is nobody's to report."""
    if not task.cancelled():
        task.exception()
