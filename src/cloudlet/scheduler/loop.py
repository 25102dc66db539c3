"""Observe, plan, act: the scheduler's loop and its face to the rest of control."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from cloudlet.model.clock import Clock
from cloudlet.model.errors import (
    FunctionLoadFailed,
    FunctionNotFound,
    PlatformError,
    ShuttingDown,
    Unavailable,
)
from cloudlet.model.function import Version, VersionKey
from cloudlet.model.invocation import CallRecord
from cloudlet.model.sandbox import EndReason, InstanceEnded, NodeClient, NodeReport, StartTiming
from cloudlet.state.base import Snapshot

from .autoscale import desired_count, remembered
from .bind import decide_binding
from .catalog import EMPTY, Catalog
from .endpoints import EdgeSync, EndpointPublisher
from .fleet import Fleet, FleetHooks
from .leases import Lease, Leases
from .lifecycle import AT_THE_EDGE, SERVING, Event, Instance, Phase
from .node_watch import NodeWatch
from .plan import InstanceView, Limits, Plan, VersionView, make_plan, may_start_first
from .queue import Ticket
from .records import Backoff, SchedulerOptions, VersionRecord, after_failure
from .signals import EdgeTraffic
from .status import SchedulerStatus, VersionStatus

log = structlog.get_logger(__name__)

TIMER_SLACK_S = 0.005
"""Event loops fire timers a little early."""
AFTER_S = 0.001
"""When an instance has changed, the log is written and the next look taken this much later: the call that
waits for the instance gets it first."""


class Scheduler:
    """Runs versions on a node: as many instances as calls need, late-bound calls leased one by one,
    early-bound ones left to the edge.

    Nothing is started, ended or published before both the node's report and the first snapshot are there;
    calls may come earlier, they wait. All methods belong to one event loop.
    """

    def __init__(
        self,
        node: NodeClient,
        edge: EndpointPublisher,
        clock: Clock,
        options: SchedulerOptions,
        cpu_busy: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._node = node
        self._publisher = edge
        self._clock = clock
        self._options = options
        self._cpu_busy = cpu_busy
        self._catalog = Catalog(EMPTY)
        self._records: dict[VersionKey, VersionRecord] = {}
        self._wake = asyncio.Event()
        self._waking: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._attention: set[VersionKey] = set()
        self._gone_listeners: list[Callable[[str, str], None]] = []
        self._leases = Leases(
            clock,
            options.concurrent_executions_max,
            on_need=self._needed,
            on_drained=lambda instance_id: self._fleet.feed(instance_id, Event.DRAINED),
            on_broken=lambda _: self._wake.set(),
        )
        self._fleet = Fleet(
            node,
            self._leases,
            clock,
            options,
            FleetHooks(
                endpoints_changed=lambda key, unknown: self._edge.sync(key, unknown),
                started=self._started,
                start_failed=self._start_failed,
                changed=self._wake_soon,
                gone=self._gone,
                find_version=self._find_version,
            ),
        )
        self._edge = EdgeSync(edge, clock, self._fleet.published, self._wants_early, self._fleet.acknowledged)

        self._watch = NodeWatch(node, clock, options, self._fleet.settled_ids, self._compare, self._ended)

    # -- life

    async def start(self) -> None:
        """Begin; returns when the node has reported once (it is waited for as long as it takes)."""
        self._watch.start()
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._read_edge())]
        await self._watch.reported.wait()

    async def close(self) -> None:
        """Answer waiting calls with ShuttingDown and let go. Instances stay with the node and endpoints
        with the edge: the next control process takes them over."""
        self._leases.close(ShuttingDown())
        for record in self._records.values():
            _answer_prepared(record, ShuttingDown())
        if self._waking is not None:
            self._waking.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._watch.close()
        await self._edge.close()
        await self._fleet.close()

    def apply(self, snapshot: Snapshot) -> None:
        """Work with these control records from now on. Only what changed is looked at: one deploy among
        thousands of functions costs what one function costs."""
        self._catalog = Catalog(snapshot)
        now = self._clock.monotonic()
        for key, version in self._catalog.versions.items():
            record = self._records.get(key)
            if record is None:
                self._records[key] = VersionRecord(key, version, live=True)
            elif record.live and record.version == version:
                continue
            else:
                if not record.live:
                    record.hold_until = min(record.hold_until, now + version.config.scale.keep_alive_s)
                record.version, record.live = version, True
            self._attention.add(key)
        for key, record in self._records.items():
            if key in self._catalog.versions:
                continue
            record.live = False
            if not self._catalog.has_function(key.environment, key.function):
                self._leases.fail_waiting(key, FunctionNotFound())
            self._attention.add(key)
        self._wake.set()

    async def prepare(self, version: Version, limit_s: float = 60.0) -> StartTiming:
        """The start check of a version that no alias points to yet: return once an instance of it is ready,
        and keep that instance for a while. Raise FunctionLoadFailed (message and stack of the user's
        error), or Unavailable when no instance could be made within `limit_s`."""
        record = self._record(version)
        ready = [one for one in self._fleet.of(version.key) if one.phase in SERVING]
        record.hold_until = self._clock.monotonic() + self._options.prepare_hold_s
        if ready:
            return ready[0].timing
        self._attention.add(version.key)
        record.backoff = Backoff()
        future: asyncio.Future[StartTiming] = asyncio.get_running_loop().create_future()
        record.prepared.append(future)
        self._wake.set()
        try:
            async with asyncio.timeout(limit_s):
                return await future
        except TimeoutError as error:
            record.hold_until = 0.0
            raise Unavailable(f"no instance of {version.key} became ready in {limit_s:g} s") from error
        except FunctionLoadFailed:
            record.hold_until = 0.0
            raise
        finally:
            if future in record.prepared:
                record.prepared.remove(future)

    # -- calls

    def resolve(self, environment: str, function: str, digest: str = "") -> Version:
        """See Catalog.resolve. Raise Unavailable before the first snapshot: nothing is known then."""
        if self._catalog.sequence < 0:
            raise Unavailable("the platform is starting; nothing was started, try again")
        return self._catalog.resolve(environment, function, digest)

    def early(self, version: Version) -> bool:
        """Whether the edge sends the version's calls to its instances by itself (and comes here when none
        takes one, with a short clock)."""
        return self._edge.bound(version.key)

    def ticket(self, deadline: float) -> Ticket:
        """A place in line for a new call, answered by `deadline` (monotonic seconds)."""
        return self._leases.ticket(deadline)

    def try_acquire(self, version: Version, ticket: Ticket) -> Lease | None:
        """A free instance at once, or None: `acquire` then. Counts the call as arrived; raises like
        `acquire`."""
        record = self._record(version)
        record.meter.arrived(self._clock.monotonic())
        lease = self._leases.try_acquire(version.key, ticket)
        if lease is None:
            self._raise_known_failure(record)
            self._start_first(record)
        return lease

    async def acquire(self, version: Version, ticket: Ticket, again: bool = False) -> Lease:
        """The next free instance in the call's turn; `again` after a refusal. Raise ConcurrencyExceeded,
        FunctionLoadFailed, FunctionNotFound (deleted meanwhile), Unavailable."""
        record = self._record(version)
        try:
            return await self._leases.acquire(version.key, ticket, again)
        except PlatformError:
            # A call that waited in vain because no instance could be made should say so.
            if ticket.deadline - TIMER_SLACK_S <= self._clock.monotonic():
                self._raise_start_failure(record)
            raise

    def record(self, call: CallRecord) -> None:
        """A late-bound call ended: what the scaling and binding decisions learn from."""
        known = self._records.get(call.version)
        if known is not None:
            known.meter.finished(call.duration_s, call.elapsed_s, call.failed)

    async def end_reason(self, instance_id: str, limit_s: float) -> EndReason | None:
        """Why an instance ended, waiting for the news at most `limit_s`."""
        return await self._fleet.end_reason(instance_id, limit_s)

    def on_gone(self, listener: Callable[[str, str], None]) -> None:
        """`listener(instance id, socket path)` is called for each instance that is gone."""
        self._gone_listeners.append(listener)

    def status(self) -> SchedulerStatus:
        """What runs now. Versions nobody calls and nothing runs of are left out."""
        versions = tuple(self._version_status(self._records[key]) for key in sorted(self._active()))
        return SchedulerStatus(
            self._watch.connected, self._catalog.sequence, sum(1 for _ in self._fleet.instances), versions
        )

    # -- observe, plan, act

    async def _run(self) -> None:
        await self._watch.reported.wait()
        while True:
            self._wake.clear()
            began = self._clock.monotonic()
            if self._catalog.sequence >= 0:
                try:
                    self._look()
                except Exception:
                    # One bad look must not end scaling for everybody; the next one starts from the facts
                    # again.
                    log.exception("scheduler_look_failed")
            # However often it is woken, looking takes at most half of this process's time.
            await asyncio.sleep(self._clock.monotonic() - began)
            try:
                pace_s = self._options.waiting_pace_s if self._leases.any_waiting else self._options.pace_s
                async with asyncio.timeout(pace_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _look(self) -> None:
        now = self._clock.monotonic()
        active = self._active()
        by_version: dict[VersionKey, list[Instance]] = {key: [] for key in active}
        for instance in self._fleet.instances:
            by_version.setdefault(instance.version, []).append(instance)
        views = tuple(self._observe(self._records[key], by_version[key], now) for key in sorted(by_version))
        limits = Limits(self._options.instances_max, self._options.starts_at_once)
        self._act(make_plan(views, limits, now))
        self._fleet.repeat()
        self._edge.sync_all()
        self._tidy(views, now)

    def _observe(self, record: VersionRecord, instances: list[Instance], now: float) -> VersionView:
        counts = self._leases.counts(record.key)
        serving = sum(1 for one in instances if one.phase in SERVING)
        starting = sum(1 for one in instances if one.phase is Phase.STARTING)
        published = sum(1 for one in instances if one.phase in AT_THE_EDGE)
        early = self._edge.bound(record.key)
        if not early:
            record.meter.forget_edge()
        signals = record.meter.signals(
            running=counts.running,
            running_peak=counts.running_peak,
            oldest_s=now - counts.running_since if counts.running else 0.0,
            waiting=counts.waiting,
            serving=serving,
            published=published,
            refusing=counts.refusing,
            starting=starting,
            early=early,
            cpu_busy=self._cpu_busy(),
            now=now,
        )
        if early and (not signals.edge_fresh or signals.edge_active or signals.edge_calls_per_s):
            record.edge_busy_at = now
        rule = record.rule if record.live else replace(record.rule, instances_min=0, keep_alive_s=0.0)
        decision = desired_count(signals, rule, record.concurrency, record.scale, now)
        record.scale, record.desired, record.burst = decision.state, decision.count, decision.burst
        self._decide_binding(record, serving, now)
        return VersionView(
            key=record.key,
            desired=decision.count,
            live=record.live,
            held=now < record.hold_until,
            early=record.binding.early,
            spread=decision.spread,
            rule=rule,
            waiting=counts.waiting,
            waiting_since=counts.waiting_since,
            start_after=record.backoff.retry_at if record.version else now + 1.0,
            burst=decision.burst,
            instances=tuple(self._instance_view(one, record) for one in instances),
        )

    def _decide_binding(self, record: VersionRecord, serving: int, now: float) -> None:
        """The edge gets a cluster only while instances run: a version at zero starts late-bound again, and
        is early-bound again at once if its measured calls still say so."""
        if not serving or not record.live:
            record.binding = replace(record.binding, early=False)
            return
        before = record.binding
        record.binding = decide_binding(before, record.meter.binding(), self._options.binding, now)
        if before.early and not record.binding.early:
            record.meter.forget_calls()

    def _act(self, plan: Plan) -> None:
        for instance_id in plan.leave:
            self._fleet.feed(instance_id, Event.LEAVE)
        for instance_id in plan.withdraw:
            self._fleet.feed(instance_id, Event.WITHDRAW)
        for instance_id in plan.publish:
            self._fleet.feed(instance_id, Event.PUBLISH)
        for key in plan.start:
            version = self._records[key].version
            if version is not None:
                self._fleet.start(version)

    async def _read_edge(self) -> None:
        """Beside the loop, so that a slow edge delays no cold call."""
        while True:
            await asyncio.sleep(self._options.edge_pace_s)
            if not self._edge.any_bound:
                continue
            try:
                async with asyncio.timeout(self._options.edge_pace_s):
                    traffic = await self._publisher.traffic()
            except (PlatformError, TimeoutError) as error:
                log.warning("edge_traffic_unknown", error=str(error) or "no answer in time")
                continue
            now = self._clock.monotonic()
            for key, record in self._records.items():
                if self._edge.bound(key):
                    # A version that is not mentioned was not called.
                    record.meter.edge(traffic.get(key, EdgeTraffic(0, 0, 0)), now)

    def _tidy(self, views: tuple[VersionView, ...], now: float) -> None:
        """Let go of versions of which nothing is left, and forget those that no alias points to."""
        for view in views:
            record = self._records[view.key]
            if view.instances or view.waiting or self._needs_attention(record, now):
                self._attention.add(view.key)
                continue
            if self._leases.drop(view.key):
                self._attention.discard(view.key)
                if not record.live:
                    del self._records[view.key]

    def _compare(self, report: NodeReport, asked: frozenset[str]) -> None:
        now = self._clock.monotonic()
        counts: dict[VersionKey, int] = {}
        for status in report.instances:
            self._records.setdefault(status.version, VersionRecord(status.version))
        for instance in self._fleet.reconcile(report, asked):
            counts[instance.version] = counts.get(instance.version, 0) + 1
        for key, count in counts.items():
            record = self._records[key]
            if not record.scale.peaks:
                record.scale = remembered(count, now)

    def _ended(self, event: InstanceEnded) -> None:
        self._fleet.ended(event.instance_id, event.reason)
        self._wake.set()

    def _start_first(self, record: VersionRecord) -> None:
        """A call has come and nothing of its version is there: it needs an instance whatever the signals
        say, so the start does not wait for the next look, which decides about everything else."""
        now = self._clock.monotonic()
        ready = self._watch.reported.is_set() and record.live and now >= record.backoff.retry_at
        limits = Limits(self._options.instances_max, self._options.starts_at_once)
        phases = [(one.version, one.phase) for one in self._fleet.instances]
        if ready and record.version and may_start_first(record.key, phases, limits):
            self._fleet.start(record.version)

    # -- hooks

    def _wake_soon(self) -> None:
        """Look after a moment: what has changed may have given an instance to a call, which goes first."""
        if self._waking is None:
            self._waking = asyncio.get_running_loop().call_later(AFTER_S, self._wake_now)

    def _wake_now(self) -> None:
        self._waking = None
        self._wake.set()

    def _needed(self, key: VersionKey) -> None:
        self._attention.add(key)
        self._wake.set()

    def _started(self, instance: Instance, duration_s: float) -> None:
        record = self._records.get(instance.version)
        if record is None:
            return
        record.meter.started(duration_s)
        record.backoff = Backoff()
        for future in record.prepared:
            if not future.done():
                future.set_result(instance.timing)
        asyncio.get_running_loop().call_later(AFTER_S, _tell_ready, instance, duration_s)

    def _start_failed(self, key: VersionKey, error: PlatformError) -> None:
        record = self._records.get(key)
        if record is None:
            return
        record.backoff = after_failure(record.backoff, error, self._clock.monotonic())
        log.warning("start_failed", version=str(key), error=error.code, failures=record.backoff.failures)
        if isinstance(error, FunctionLoadFailed):
            _answer_prepared(record, error)
            if not any(one.phase in SERVING for one in self._fleet.of(key)):
                self._leases.fail_waiting(key, error)

    def _gone(self, instance_id: str, socket_path: str) -> None:
        for listener in self._gone_listeners:
            listener(instance_id, socket_path)

    def _find_version(self, key: VersionKey) -> Version | None:
        record = self._records.get(key)
        return record.version if record else None

    def _wants_early(self, key: VersionKey) -> bool:
        record = self._records.get(key)
        return record is not None and record.binding.early

    # -- helpers

    def _record(self, version: Version) -> VersionRecord:
        record = self._records.get(version.key)
        if record is None:
            record = self._records[version.key] = VersionRecord(version.key)
        record.version = version
        return record

    def _active(self) -> set[VersionKey]:
        """Versions worth a look: those with instances or calls, and those that asked for attention.
        Functions that nobody uses cost nothing here, however many there are."""
        keys = {instance.version for instance in self._fleet.instances} | self._leases.versions()
        return (keys | self._attention) & self._records.keys()

    def _needs_attention(self, record: VersionRecord, now: float) -> bool:
        wanted = record.desired > 0 or bool(record.prepared) or now < record.hold_until
        return wanted or self._edge.bound(record.key)

    def _instance_view(self, one: Instance, record: VersionRecord) -> InstanceView:
        """The edge does not tell which instance it called last: while it calls the version, none is
        idle."""
        idle_since = self._leases.idle_since(one.instance_id)
        return InstanceView(
            one.instance_id,
            one.phase,
            self._leases.running(one.instance_id),
            max(idle_since, record.edge_busy_at) if one.exposed else idle_since,
            self._leases.broken(one.instance_id),
        )

    def _raise_known_failure(self, record: VersionRecord) -> None:
        """A version that just failed to load answers at once, until its next try is due."""
        error = record.backoff.error
        if not isinstance(error, FunctionLoadFailed) or self._clock.monotonic() >= record.backoff.retry_at:
            return
        if not any(one.phase in SERVING for one in self._fleet.of(record.key)):
            raise FunctionLoadFailed(error.message)

    def _raise_start_failure(self, record: VersionRecord) -> None:
        error = record.backoff.error
        if error is not None and not any(one.phase in SERVING for one in self._fleet.of(record.key)):
            raise type(error)(error.message)

    def _version_status(self, record: VersionRecord) -> VersionStatus:
        counts = self._leases.look(record.key)
        phases: dict[str, int] = {}
        for one in self._fleet.of(record.key):
            phases[one.phase.value] = phases.get(one.phase.value, 0) + 1
        return VersionStatus(
            environment=record.key.environment,
            function=record.key.function,
            digest=record.key.digest,
            live=record.live,
            early=self._edge.bound(record.key),
            desired=record.desired,
            running=counts.running,
            waiting=counts.waiting,
            phases=phases,
            error=record.backoff.error.message if record.backoff.error else "",
        )


def _tell_ready(instance: Instance, duration_s: float) -> None:
    log.info(
        "instance_ready",
        instance=instance.instance_id,
        version=str(instance.version),
        start_ms=round(duration_s * 1000, 1),
    )


def _answer_prepared(record: VersionRecord, error: PlatformError) -> None:
    for future in record.prepared:
        if not future.done():
            future.set_exception(error)
