"""A node, an edge and callers in virtual time around the real scheduler, with everything watched that must
hold."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from cloudlet.model.app import Environment
from cloudlet.model.errors import (
    FunctionLoadFailed,
    InstanceNotFound,
    NodeUnavailable,
    PlatformError,
    Unavailable,
)
from cloudlet.model.function import Alias, FunctionConfig, Runtime, ScaleRule, Version, VersionKey
from cloudlet.model.ids import LATEST
from cloudlet.model.invocation import CallRecord
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
from cloudlet.scheduler.bind import BindingRule
from cloudlet.scheduler.fake import FakeEdge
from cloudlet.scheduler.leases import Lease, Outcome
from cloudlet.scheduler.loop import Scheduler
from cloudlet.scheduler.records import SchedulerOptions
from cloudlet.scheduler.signals import EdgeTraffic
from cloudlet.state.base import Snapshot
from tests.property.virtual_time import VirtualClock

ENVIRONMENT = "default"


def make_version(function: str, digest: str = "v1", **config: object) -> Version:
    """A version with a short keep-alive."""
    settings: dict[str, object] = {"timeout_s": 3.0, "scale": ScaleRule(keep_alive_s=5.0)}
    settings.update(config)
    return Version(ENVIRONMENT, function, digest, 1, FunctionConfig(**settings), "/code", 0.0)  # type: ignore[arg-type]


def make_snapshot(*versions: Version, sequence: int = 1) -> Snapshot:
    aliases = tuple(Alias(v.environment, v.function, LATEST, v.digest, 0.0) for v in versions)
    return Snapshot(sequence, (Environment(ENVIRONMENT, 0.0),), versions, aliases)


@dataclass(eq=False)
class SimInstance:
    """An instance as it really is, whatever control believes."""

    instance_id: str
    version: Version
    socket_path: str
    state: InstanceState = InstanceState.STARTING
    running: int = 0
    stopping: bool = False
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the start has ended, well or not."""

    @property
    def status(self) -> InstanceStatus:
        return InstanceStatus(
            self.instance_id,
            self.version.key,
            self.state,
            self.socket_path,
            Rung.PROCESS,
            timing=StartTiming(1.0, 2.0),
            concurrency=self.version.config.concurrency,
            timeout_s=self.version.config.timeout_s,
        )


class SimNode:
    """A node in virtual time. The named failures are consumed by the next start."""

    def __init__(self, edge: FakeEdge) -> None:
        self.edge = edge
        self.start_s = 0.05
        self.failures: list[str] = []
        self.instances: dict[str, SimInstance] = {}
        self.cells: dict[str, VersionKey] = {}
        self.away = False
        self.violations: list[str] = []
        self.log: list[tuple[str, str]] = []
        self.stopped: set[str] = set()
        self.pools: dict[Runtime, int] = {}
        self._streams: list[asyncio.Queue[InstanceEnded | None]] = []

    async def start(self, request: StartRequest) -> InstanceStatus:
        self._reach()
        known = self.instances.get(request.instance_id)
        if known is not None:
            await known.settled.wait()
            if known.state is not InstanceState.READY:
                raise Unavailable("it ended while starting")
            return known.status
        cell = self.cells.setdefault(request.instance_id, request.version.key)
        self._hold(cell == request.version.key, f"cell {request.instance_id} got a second version")
        self._hold(request.instance_id not in self.stopped, f"{request.instance_id} started after its stop")
        self.log.append(("start", request.instance_id))
        failure = self.failures.pop(0) if self.failures else ""
        if failure == "no_cell":
            raise Unavailable("no cell can be made")
        instance = SimInstance(request.instance_id, request.version, f"/run/{request.instance_id}.sock")
        self.instances[request.instance_id] = instance
        if failure == "never_ready":
            await asyncio.sleep(1e6)
        await asyncio.sleep(self.start_s * (20 if failure == "slow" else 1))
        if request.instance_id not in self.instances:
            raise Unavailable("stopped while starting")
        if failure == "load_failed":
            self.end(request.instance_id, EndReason.LOAD_FAILED)
            raise FunctionLoadFailed('{"errorCode":1,"errorMessage":"boom","stackTrace":"at x"}')
        instance.state = InstanceState.READY
        instance.settled.set()
        if failure == "dies_later":
            asyncio.get_running_loop().call_later(0.2, self.end, request.instance_id, EndReason.EXITED)
        return instance.status

    async def quiesce(self, instance_id: str) -> None:
        self._reach()
        await asyncio.sleep(0.1)
        instance = self._find(instance_id)
        instance.state = InstanceState.QUIESCED
        self.log.append(("quiesce", instance_id))

    async def resume(self, instance_id: str) -> None:
        self._reach()
        self._find(instance_id).state = InstanceState.READY

    async def stop(self, instance_id: str, grace_s: float) -> None:
        self._reach()
        self.stopped.add(instance_id)
        instance = self.instances.get(instance_id)
        if instance is None:
            return
        self._hold(
            not self.edge.uses(instance.socket_path), f"{instance_id} was stopped while the edge uses it"
        )
        instance.stopping = True
        self.log.append(("stop", instance_id))
        left = grace_s
        while instance.running and left > 0:
            await asyncio.sleep(0.05)
            left -= 0.05
        self.end(instance_id, EndReason.STOPPED)

    async def report(self) -> NodeReport:
        self._reach()
        return NodeReport("sim", tuple(one.status for one in self.instances.values()))

    async def events(self) -> AsyncIterator[NodeReport | InstanceEnded]:
        self._reach()
        queue: asyncio.Queue[InstanceEnded | None] = asyncio.Queue()
        self._streams.append(queue)
        try:
            yield await self.report()
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._streams.remove(queue)

    async def set_pool(self, runtime: Runtime, size: int) -> None:
        self._reach()
        self.pools[runtime] = size

    def end(self, instance_id: str, reason: EndReason) -> None:
        """The instance ends now, for whatever reason."""
        instance = self.instances.pop(instance_id, None)
        if instance is not None:
            instance.state = InstanceState.ENDED
            instance.gone.set()
            instance.settled.set()
            for queue in self._streams:
                queue.put_nowait(InstanceEnded(instance_id, instance.version.key, reason))

    def cut_streams(self) -> None:
        for queue in self._streams:
            queue.put_nowait(None)

    def serving(self) -> list[SimInstance]:
        return [one for one in self.instances.values() if one.state is InstanceState.READY]

    def _find(self, instance_id: str) -> SimInstance:
        instance = self.instances.get(instance_id)
        if instance is None:
            raise InstanceNotFound
        return instance

    def _reach(self) -> None:
        if self.away:
            raise NodeUnavailable

    def _hold(self, fact: bool, violation: str) -> None:
        if not fact:
            self.violations.append(violation)


@dataclass(slots=True)
class CallResult:
    """How a simulated call ended."""

    function: str
    outcome: str
    waited_s: float
    starts: int
    """How often it began to run."""


class World:
    """The scheduler with a simulated node and edge. `violations` must stay empty."""

    def __init__(self, seed: int = 0, **options: object) -> None:
        self.random = random.Random(seed)
        self.clock = VirtualClock()
        self.edge = FakeEdge(ack_s=0.003)
        self.node = SimNode(self.edge)
        settings: dict[str, object] = {
            "binding": BindingRule(calls_min=10, pause_s=2.0),
            "report_pace_s": 5.0,
        }
        settings.update(options)
        self.options = SchedulerOptions(**settings)  # type: ignore[arg-type]
        self.scheduler = self._control()
        self.snapshot = make_snapshot()
        self.results: list[CallResult] = []
        self.calls: list[asyncio.Task[None]] = []

    def _control(self) -> Scheduler:
        return Scheduler(self.node, self.edge, self.clock, self.options)

    @property
    def violations(self) -> list[str]:
        return self.node.violations

    async def begin(self, *versions: Version) -> None:
        self.deploy(*versions)
        await self.scheduler.start()

    def deploy(self, *versions: Version) -> None:
        self.snapshot = make_snapshot(*versions, sequence=self.snapshot.sequence + 1)
        self.scheduler.apply(self.snapshot)

    async def restart_control(self) -> None:
        """Control dies with its waiting calls; the next one starts from nothing but the node's report."""
        await self.scheduler.close()
        self.scheduler = self._control()
        self.scheduler.apply(self.snapshot)
        await self.scheduler.start()
        # The first routes that a new control process publishes are late-bound: it has earned nothing yet. The
        # clusters go with them, and the endpoints of those versions of which nothing was taken over.
        running = {instance.version.key for instance in self.node.instances.values()}
        for key in self.edge.early - running:
            self.edge.endpoints.pop(key, None)
        self.edge.early.clear()

    def call(self, function: str, duration_s: float, patience_s: float = 10.0) -> asyncio.Task[None]:
        task = asyncio.create_task(self._call(function, duration_s, patience_s))
        self.calls.append(task)
        return task

    async def settle(self) -> None:
        """Until every call has ended; TimeoutError when one never does."""
        async with asyncio.timeout(600):
            await asyncio.gather(*self.calls, return_exceptions=True)
        self.calls.clear()

    async def _call(self, function: str, duration_s: float, patience_s: float) -> None:
        began = self.clock.monotonic()
        result = CallResult(function, "", 0.0, 0)
        try:
            result.outcome = await self._try(function, duration_s, began + patience_s, result)
        except PlatformError as error:
            result.outcome = error.code
            result.waited_s = self.clock.monotonic() - began
        except asyncio.CancelledError:
            result.outcome = "cancelled"
            raise
        finally:
            self.results.append(result)
            self._hold(result.starts <= 1, f"a call of {function} began {result.starts} times")
            self._hold(result.waited_s <= patience_s + 0.01, f"a call waited {result.waited_s:.3f} s")

    async def _try(self, function: str, duration_s: float, deadline: float, result: CallResult) -> str:
        began = self.clock.monotonic()
        version = self.scheduler.resolve(ENVIRONMENT, function)
        if direct := self._direct(version.key):
            return await self._run(direct, duration_s, result)
        scheduler = self.scheduler
        ticket = scheduler.ticket(deadline)
        lease = scheduler.try_acquire(version, ticket) or await scheduler.acquire(version, ticket)
        while True:
            result.waited_s = self.clock.monotonic() - began
            instance = self.node.instances.get(lease.instance_id)
            self._check_lease(lease, version, instance)
            if instance is None or instance.state is not InstanceState.READY:
                lease.finish(Outcome.BROKEN)
            elif instance.running >= instance.version.config.concurrency:
                lease.finish(Outcome.REFUSED)
            else:
                return await self._leased(scheduler, lease, instance, duration_s, result)
            lease = await scheduler.acquire(version, ticket, again=True)

    async def _leased(
        self, scheduler: Scheduler, lease: Lease, instance: SimInstance, duration_s: float, result: CallResult
    ) -> str:
        sent_at = self.clock.monotonic()
        outcome = "broken"
        try:
            outcome = await self._run(instance, duration_s, result)
        finally:
            lease.finish(Outcome.DONE if outcome == "ok" else Outcome.BROKEN)
            took = self.clock.monotonic() - sent_at
            scheduler.record(CallRecord(lease.version, sent_at, took, took, outcome != "ok"))
        return outcome

    async def _run(self, instance: SimInstance, duration_s: float, result: CallResult) -> str:
        result.starts += 1
        instance.running += 1
        try:
            async with asyncio.timeout(duration_s):
                await instance.gone.wait()
        except TimeoutError:
            return "ok"
        finally:
            instance.running -= 1
        return "broken"

    def _direct(self, key: VersionKey) -> SimInstance | None:
        """The edge's own way: an acknowledged endpoint that is not busy; otherwise the activator."""
        sockets = self.edge.endpoints.get(key)
        if key not in self.edge.early or not sockets:
            return None
        before = self.edge.counters.get(key, EdgeTraffic(0, 0, 0))
        chosen = self.random.choice(sorted(sockets))
        instance = next((one for one in self.node.instances.values() if one.socket_path == chosen), None)
        taken = (
            instance is not None
            and instance.state is InstanceState.READY
            and instance.running < instance.version.config.concurrency
        )
        self._hold(
            instance is None or not instance.stopping, f"the edge called {chosen}, which is being stopped"
        )
        retries = before.retries_total + (0 if taken else 1)
        self.edge.counters[key] = EdgeTraffic(before.calls_total + 1, 0, retries, 0.005)
        return instance if taken else None

    def _check_lease(self, lease: Lease, version: Version, instance: SimInstance | None) -> None:
        self._hold(lease.version == version.key, "a lease of another version")
        self._hold(lease.instance_id not in self.node.stopped, f"{lease.instance_id} leased after its stop")
        if instance is not None:
            quiesced = instance.state is InstanceState.QUIESCED
            self._hold(not quiesced, f"{lease.instance_id} was leased although quiesced")
            self._hold(instance.version.key == version.key, f"{lease.instance_id} serves another version")

    def _hold(self, fact: bool, violation: str) -> None:
        if not fact:
            self.violations.append(violation)
