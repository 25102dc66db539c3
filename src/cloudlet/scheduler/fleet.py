"""All instances, and the commands their lives ask for. Decides nothing: `lifecycle` and `plan` do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import structlog

from cloudlet.model.clock import Clock
from cloudlet.model.errors import FunctionError, InstanceNotFound, Internal, PlatformError, Unavailable
from cloudlet.model.function import Version, VersionKey
from cloudlet.model.ids import new_instance_id
from cloudlet.model.sandbox import (
    EndReason,
    InstanceState,
    InstanceStatus,
    NodeClient,
    NodeReport,
    StartRequest,
)

from .leases import ColdStart, Leases
from .lifecycle import (
    Action,
    Event,
    Instance,
    Phase,
    Step,
    adopt,
    due,
    learned,
    transition,
)
from .records import SchedulerOptions

log = structlog.get_logger(__name__)

COMMAND_PAUSE_S = 0.25
"""A command that failed because the node was away is repeated after this time."""
ENDS_KEPT = 256
"""Ended instances whose reason is remembered, for the calls that ran on them."""


@dataclass(frozen=True, slots=True)
class FleetHooks:
    """Whom the fleet tells what happened."""

    endpoints_changed: Callable[[VersionKey, bool], None]
    """(version, unknown): see EdgeSync.sync."""
    started: Callable[[Instance, float], None]
    """(instance, seconds the start took)."""
    start_failed: Callable[[VersionKey, PlatformError], None]
    changed: Callable[[], None]
    gone: Callable[[str, str], None]
    """(instance id, socket path)."""
    find_version: Callable[[VersionKey], Version | None]


class Fleet:
    """Instances by id. Each has at most one node command running."""

    def __init__(
        self, node: NodeClient, leases: Leases, clock: Clock, options: SchedulerOptions, hooks: FleetHooks
    ) -> None:
        self._node = node
        self._leases = leases
        self._clock = clock
        self._options = options
        self._hooks = hooks
        self._instances: dict[str, Instance] = {}
        self._commands: dict[str, asyncio.Task[None]] = {}
        self._retry_at: dict[str, float] = {}
        self._cold: dict[str, ColdStart] = {}
        self._ends: dict[str, EndReason | None] = {}
        """None: gone, and the node has not said why (yet)."""
        self._end_waiters: dict[str, list[asyncio.Future[EndReason]]] = {}

    @property
    def instances(self) -> Iterable[Instance]:
        return self._instances.values()

    def of(self, key: VersionKey) -> list[Instance]:
        return [one for one in self._instances.values() if one.version == key]

    def find(self, instance_id: str) -> Instance | None:
        return self._instances.get(instance_id)

    def start(self, version: Version) -> str:
        """Begin a start; the hooks tell how it ended."""
        instance = Instance(
            new_instance_id(),
            version.key,
            concurrency=version.config.concurrency,
            timeout_s=version.config.timeout_s,
        )
        self._instances[instance.instance_id] = instance
        self._command(instance.instance_id, self._start(instance.instance_id, version))
        return instance.instance_id

    def feed(self, instance_id: str, event: Event) -> None:
        """Something happened to an instance. Unknown ids are fine: events may come late."""
        instance = self._instances.get(instance_id)
        if instance is not None:
            self._settle(transition(instance, event))

    def repeat(self) -> None:
        """Ask again for what the phases are waiting for and no command is running for."""
        now = self._clock.monotonic()
        for instance in tuple(self._instances.values()):
            idle = instance.instance_id not in self._commands
            if idle and now >= self._retry_at.get(instance.instance_id, 0.0):
                self._act(instance, due(instance))

    def reconcile(self, report: NodeReport, asked_at: frozenset[str]) -> list[Instance]:
        """Compare with what the node holds: adopt what is unknown, end what is missing. `asked_at` are the
        ids that were in service when the report was asked for; younger ones may be missing from it. Return
        what was adopted."""
        reported = {status.instance_id for status in report.instances}
        for instance_id in asked_at - reported:
            self._missing(instance_id)
        adopted = []
        for status in report.instances:
            known = status.instance_id in self._instances or status.instance_id in self._ends
            if not known and status.state is not InstanceState.ENDED:
                adopted.append(self._adopt(status))
        return adopted

    def settled_ids(self) -> frozenset[str]:
        """Instances the node must know by now."""
        return frozenset(
            one.instance_id for one in self._instances.values() if one.phase is not Phase.STARTING
        )

    def ended(self, instance_id: str, reason: EndReason) -> None:
        """The node says that the instance is gone, and why."""
        self._missing(instance_id)
        self._ends[instance_id] = reason
        for future in self._end_waiters.pop(instance_id, ()):
            if not future.done():
                future.set_result(reason)

    async def end_reason(self, instance_id: str, limit_s: float) -> EndReason | None:
        """Why the instance ended, waiting for the news at most `limit_s`."""
        told = self._ends.get(instance_id)
        if told is not None:
            return told
        future: asyncio.Future[EndReason] = asyncio.get_running_loop().create_future()
        waiters = self._end_waiters.setdefault(instance_id, [])
        waiters.append(future)
        try:
            async with asyncio.timeout(limit_s):
                return await future
        except TimeoutError:
            return None
        finally:
            if future in waiters:
                waiters.remove(future)
            if not waiters and self._end_waiters.get(instance_id) is waiters:
                del self._end_waiters[instance_id]

    def acknowledged(self, key: VersionKey, sockets: frozenset[str]) -> None:
        """The edge uses exactly these endpoints of the version."""
        for instance in self.of(key):
            inside = instance.socket_path in sockets
            self.feed(instance.instance_id, Event.ENDPOINT_IN if inside else Event.ENDPOINT_OUT)

    def published(self, key: VersionKey) -> frozenset[str]:
        """The version's endpoint set."""
        return frozenset(one.socket_path for one in self.of(key) if one.listed)

    async def close(self) -> None:
        """Stop all commands. The instances stay where they are: the node keeps them for the next control
        process."""
        tasks = tuple(self._commands.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _adopt(self, status: InstanceStatus) -> Instance:
        instance, actions = adopt(status)
        log.info(
            "instance_adopted", instance=status.instance_id, version=str(status.version), state=status.state
        )
        self._instances[status.instance_id] = instance
        self._act(instance, actions)
        return instance

    def _settle(self, step: Step) -> None:
        instance, actions = step
        if actions or instance != self._instances.get(instance.instance_id):
            self._instances[instance.instance_id] = instance
            self._act(instance, actions)
            self._hooks.changed()

    def _act(self, instance: Instance, actions: tuple[Action, ...]) -> None:
        for action in actions:
            self._do(instance, action)

    def _do(self, instance: Instance, action: Action) -> None:
        instance_id = instance.instance_id
        match action:
            case Action.START:
                self._restart(instance)
            case Action.SERVE:
                self._serve(instance)
            case Action.SUSPEND:
                self._leases.suspend(instance_id)
            case Action.SYNC_ENDPOINTS:
                # For an exposed instance the set is sent even when it looks unchanged: its exposure ends
                # with an acknowledgement only.
                self._hooks.endpoints_changed(instance.version, instance.exposed)
            case Action.QUIESCE:
                self._command(instance_id, self._quiesce(instance_id))
            case Action.AWAIT_DRAIN:
                if self._leases.running(instance_id) == 0:
                    self.feed(instance_id, Event.DRAINED)
            case Action.STOP:
                self._command(instance_id, self._stop(instance))
            case Action.FORGET:
                self._forget(instance)

    def _serve(self, instance: Instance) -> None:
        cold = self._cold.pop(instance.instance_id, None)
        self._leases.serve(
            instance.instance_id, instance.version, instance.socket_path, instance.concurrency, cold
        )

    def _missing(self, instance_id: str) -> None:
        """The node does not have the instance any more. Its event, which may still be under way, says why."""
        self._remember_end(instance_id)
        instance = self._instances.get(instance_id)
        if instance is not None and instance.phase is not Phase.STARTING:
            # The end of a start is the start's own answer: it carries the error.
            self.feed(instance_id, Event.ENDED)

    def _remember_end(self, instance_id: str) -> None:
        self._ends.setdefault(instance_id, None)
        while len(self._ends) > ENDS_KEPT:
            del self._ends[next(iter(self._ends))]

    def _forget(self, instance: Instance) -> None:
        self._instances.pop(instance.instance_id, None)
        self._retry_at.pop(instance.instance_id, None)
        self._leases.forget(instance.instance_id)
        # A report that was under way may still name it: remembered, so that it is not adopted as a
        # stranger.
        self._remember_end(instance.instance_id)
        self._hooks.gone(instance.instance_id, instance.socket_path)

    def _restart(self, instance: Instance) -> None:
        """A start that a former control process asked for: take its answer over, or end what nobody
        wants."""
        version = self._hooks.find_version(instance.version)
        if version is not None:
            self._command(instance.instance_id, self._start(instance.instance_id, version))
        else:
            self._command(instance.instance_id, self._give_up(instance.instance_id))

    def _command(self, instance_id: str, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(self._guard(instance_id, work))
        self._commands[instance_id] = task

    async def _guard(self, instance_id: str, work: Awaitable[None]) -> None:
        """Run one command; a node that is away is tried again by `repeat`."""
        me = asyncio.current_task()
        try:
            await work
        except (PlatformError, TimeoutError) as error:
            self._retry_at[instance_id] = self._clock.monotonic() + COMMAND_PAUSE_S
            log.warning("node_command_failed", instance=instance_id, error=str(error) or "no answer in time")
        except Exception:
            self._retry_at[instance_id] = self._clock.monotonic() + COMMAND_PAUSE_S
            log.exception("node_command_crashed", instance=instance_id)
        finally:
            if self._commands.get(instance_id) is me:
                del self._commands[instance_id]
            self._hooks.changed()

    async def _start(self, instance_id: str, version: Version) -> None:
        issued_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._options.start_s_max):
                status = await self._node.start(StartRequest(instance_id, version))
        except Exception as error:
            if not isinstance(error, PlatformError | TimeoutError):
                log.exception("start_crashed", instance=instance_id, version=str(version.key))
            clean = isinstance(error, FunctionError) or await self._clean_up(instance_id)
            self.feed(instance_id, Event.START_FAILED)
            if not clean:
                # It may live on: the next comparison with the node's report adopts it, and it leaves in
                # order.
                self._ends.pop(instance_id, None)
            self._hooks.start_failed(version.key, _start_error(error))
            return
        ready_at = self._clock.monotonic()
        instance = self._instances.get(instance_id)
        if instance is None or instance_id in self._ends:
            self.feed(instance_id, Event.ENDED)
            return
        self._cold[instance_id] = ColdStart(issued_at, ready_at, status.timing)
        self._instances[instance_id] = learned(instance, status)
        self._hooks.started(self._instances[instance_id], ready_at - issued_at)
        self._done(instance_id, Event.STARTED)

    async def _clean_up(self, instance_id: str) -> bool:
        """The start may have happened although its answer did not arrive. Whether it is surely gone now."""
        try:
            async with asyncio.timeout(self._options.node_call_s_max):
                await self._node.stop(instance_id, 0.0)
        except (PlatformError, TimeoutError) as error:
            log.warning("failed_start_not_cleaned_up", instance=instance_id, error=str(error))
            return False
        return True

    async def _give_up(self, instance_id: str) -> None:
        if await self._clean_up(instance_id):
            self.feed(instance_id, Event.ENDED)

    async def _quiesce(self, instance_id: str) -> None:
        try:
            async with asyncio.timeout(self._options.quiesce_s_max):
                await self._node.quiesce(instance_id)
        except InstanceNotFound:
            self._missing(instance_id)
            return
        except TimeoutError:
            # Its event loop is blocked by user code. Out of the endpoint stream it gets nothing new anyway.
            log.warning("instance_does_not_quiesce", instance=instance_id)
        self._done(instance_id, Event.QUIESCED)

    async def _stop(self, instance: Instance) -> None:
        broken = self._leases.broken(instance.instance_id)
        grace_s = 0.0 if broken else instance.timeout_s
        async with asyncio.timeout(grace_s + self._options.stop_slack_s):
            await self._node.stop(instance.instance_id, grace_s)
        self._done(instance.instance_id, Event.STOPPED)

    def _done(self, instance_id: str, event: Event) -> None:
        """A command ended well. Its own task no longer counts, so that the next phase may start its
        command."""
        self._commands.pop(instance_id, None)
        self.feed(instance_id, event)


def _start_error(error: Exception) -> PlatformError:
    if isinstance(error, PlatformError):
        return error
    if not isinstance(error, TimeoutError):
        return Internal("the instance could not be started")
    return Unavailable("the instance did not become ready in time; nothing was started, try again")
