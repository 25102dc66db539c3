"""The life of one instance as control sees it: event in, (instance, actions) out. Nothing here waits.

::

    STARTING ──► READY ◄──► PUBLISHING ──► PUBLISHED ──► WITHDRAWING ──► READY
                   │             │              │              │
                   └─────────────┴─── LEAVE ────┴──────────────┘
                                       ▼
        QUIESCING ──► UNPUBLISHING (only when the edge may know it) ──► DRAINING ──► STOPPING ──► GONE

ENDED (the node says that the instance is gone) leads to GONE from everywhere. The order of leaving is the
promise: an endpoint that the edge has acknowledged is never stopped, because STOPPING is reached only from
DRAINING, and DRAINING of an exposed instance only by the edge's acknowledgement that the endpoint is out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias

from cloudlet.model.function import VersionKey
from cloudlet.model.sandbox import InstanceState, InstanceStatus, StartTiming


class Phase(StrEnum):
    """Where an instance is in its life."""

    STARTING = "starting"
    READY = "ready"
    """Serves late-bound calls; the edge does not know it."""
    PUBLISHING = "publishing"
    PUBLISHED = "published"
    """The edge has acknowledged it and sends calls by itself."""
    WITHDRAWING = "withdrawing"
    """Leaves the endpoint stream but stays in service (binding lost, or adopted after a restart of
    control)."""
    QUIESCING = "quiescing"
    UNPUBLISHING = "unpublishing"
    DRAINING = "draining"
    STOPPING = "stopping"
    GONE = "gone"


SERVING = frozenset({Phase.READY, Phase.PUBLISHING, Phase.PUBLISHED, Phase.WITHDRAWING})
"""Phases in which calls are leased to the instance."""
AT_THE_EDGE = frozenset({Phase.PUBLISHING, Phase.PUBLISHED})
"""Phases in which the edge sends calls to the instance by itself, or is about to."""
LEAVING = frozenset({Phase.QUIESCING, Phase.UNPUBLISHING, Phase.DRAINING, Phase.STOPPING})


class Event(StrEnum):
    """What can happen to an instance."""

    STARTED = "started"
    START_FAILED = "start_failed"
    PUBLISH = "publish"
    WITHDRAW = "withdraw"
    ENDPOINT_IN = "endpoint_in"
    """The edge acknowledged a set that contains the instance."""
    ENDPOINT_OUT = "endpoint_out"
    """The edge acknowledged a set that does not contain the instance."""
    LEAVE = "leave"
    QUIESCED = "quiesced"
    DRAINED = "drained"
    """No leased call runs on it any more."""
    STOPPED = "stopped"
    ENDED = "ended"


class Action(StrEnum):
    """What the executor must do now."""

    START = "start"
    SERVE = "serve"
    """Give calls to it."""
    SUSPEND = "suspend"
    """Give no new call to it."""
    SYNC_ENDPOINTS = "sync_endpoints"
    """The version's endpoint set has changed."""
    QUIESCE = "quiesce"
    AWAIT_DRAIN = "await_drain"
    STOP = "stop"
    FORGET = "forget"


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance: a cell that serves `version`, from its first moment to its end."""

    instance_id: str
    version: VersionKey
    phase: Phase = Phase.STARTING
    exposed: bool = False
    """The edge may send calls to it: true from the moment a set that contains it may have been sent until a
    set without it is acknowledged."""
    listed: bool = False
    """It belongs into its version's endpoint set. A published instance that leaves stays listed until it
    refuses everything new: quiesce first, then out of the stream."""
    socket_path: str = ""
    concurrency: int = 1
    timeout_s: float = 3.0
    timing: StartTiming = field(default_factory=StartTiming)


Step: TypeAlias = tuple[Instance, tuple[Action, ...]]


def transition(instance: Instance, event: Event) -> Step:
    """Apply `event`. Events that mean nothing in the present phase (late acknowledgements, repeated
    commands) change nothing and ask for nothing."""
    if event in (Event.ENDED, Event.START_FAILED):
        return _gone(instance)
    row = _TABLE.get((instance.phase, event))
    if row is None:
        return instance, ()
    after = replace(
        instance,
        phase=row.phase,
        exposed=instance.exposed if row.exposed is None else row.exposed,
        listed=instance.listed if row.listed is None else row.listed,
    )
    if after.phase is Phase.UNPUBLISHING and not after.exposed:
        return replace(after, phase=Phase.DRAINING), (Action.AWAIT_DRAIN,)
    return after, row.actions


def due(instance: Instance) -> tuple[Action, ...]:
    """What the phase is waiting for: repeated by the loop when an earlier attempt failed."""
    return _DUE.get(instance.phase, ())


def adopt(status: InstanceStatus) -> Step:
    """Take over what a node reports and nobody here started. The edge may know it from the control process
    before, so it counts as exposed until a set without it is acknowledged. What was being taken away goes
    on being taken away; a start nobody waits for is asked for again (the node answers with the same
    instance)."""
    known = learned(Instance(status.instance_id, status.version), status)
    if status.state is InstanceState.STARTING:
        return replace(known, phase=Phase.STARTING), (Action.START,)
    if status.state is InstanceState.READY:
        return replace(known, phase=Phase.WITHDRAWING, exposed=True), (Action.SERVE, Action.SYNC_ENDPOINTS)
    if status.state is InstanceState.QUIESCED:
        return replace(known, phase=Phase.UNPUBLISHING, exposed=True), (Action.SYNC_ENDPOINTS,)
    return replace(known, phase=Phase.GONE), ()


def learned(instance: Instance, status: InstanceStatus) -> Instance:
    """`instance` with what its node says about it."""
    return replace(
        instance,
        socket_path=status.socket_path,
        concurrency=max(1, status.concurrency),
        timeout_s=status.timeout_s,
        timing=status.timing,
    )


def _gone(instance: Instance) -> Step:
    if instance.phase is Phase.GONE:
        return instance, ()
    sync = (Action.SYNC_ENDPOINTS,) if instance.exposed else ()
    return replace(instance, phase=Phase.GONE, exposed=False, listed=False), (Action.FORGET, *sync)


@dataclass(frozen=True, slots=True)
class _Row:
    """What an event leads to; None leaves a field as it is."""

    phase: Phase
    actions: tuple[Action, ...] = ()
    exposed: bool | None = None
    listed: bool | None = None


_LEAVE = _Row(Phase.QUIESCING, (Action.SUSPEND, Action.QUIESCE))
_WITHDRAW = _Row(Phase.WITHDRAWING, (Action.SYNC_ENDPOINTS,), listed=False)

_TABLE: dict[tuple[Phase, Event], _Row] = {
    (Phase.STARTING, Event.STARTED): _Row(Phase.READY, (Action.SERVE,)),
    (Phase.READY, Event.PUBLISH): _Row(Phase.PUBLISHING, (Action.SYNC_ENDPOINTS,), exposed=True, listed=True),
    (Phase.PUBLISHING, Event.ENDPOINT_IN): _Row(Phase.PUBLISHED),
    (Phase.PUBLISHING, Event.WITHDRAW): _WITHDRAW,
    (Phase.PUBLISHED, Event.WITHDRAW): _WITHDRAW,
    (Phase.WITHDRAWING, Event.ENDPOINT_OUT): _Row(Phase.READY, exposed=False),
    (Phase.READY, Event.LEAVE): _LEAVE,
    (Phase.PUBLISHING, Event.LEAVE): _LEAVE,
    (Phase.PUBLISHED, Event.LEAVE): _LEAVE,
    (Phase.WITHDRAWING, Event.LEAVE): _LEAVE,
    (Phase.QUIESCING, Event.QUIESCED): _Row(Phase.UNPUBLISHING, (Action.SYNC_ENDPOINTS,), listed=False),
    (Phase.UNPUBLISHING, Event.ENDPOINT_OUT): _Row(Phase.DRAINING, (Action.AWAIT_DRAIN,), exposed=False),
    (Phase.DRAINING, Event.DRAINED): _Row(Phase.STOPPING, (Action.STOP,)),
    (Phase.STOPPING, Event.STOPPED): _Row(Phase.GONE, (Action.FORGET,)),
}

_DUE: dict[Phase, tuple[Action, ...]] = {
    Phase.QUIESCING: (Action.QUIESCE,),
    Phase.DRAINING: (Action.AWAIT_DRAIN,),
    Phase.STOPPING: (Action.STOP,),
}
