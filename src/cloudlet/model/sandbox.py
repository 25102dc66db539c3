"""Cells, instances and nodes, as control and node speak of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from .function import Runtime, Version, VersionKey


class Rung(StrEnum):
    """How an instance is kept from its host and from others (weakest first)."""

    PROCESS = "process"
    NAMESPACES = "namespaces"
    GVISOR = "gvisor"
    MICROVM = "microvm"


class InstanceState(StrEnum):
    """The life of an instance, as its node sees it."""

    STARTING = "starting"
    READY = "ready"
    QUIESCED = "quiesced"
    ENDED = "ended"


class EndReason(StrEnum):
    """Why an instance ended."""

    STOPPED = "stopped"
    EXITED = "exited"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    LOAD_FAILED = "load_failed"


@dataclass(frozen=True, slots=True)
class StartTiming:
    """A cold start explained, in milliseconds."""

    sandbox_ms: float = 0.0
    """Making the cell and its runtime; 0 when it came from the pool."""
    load_ms: float = 0.0
    """Reading and evaluating the function's modules."""
    pooled: bool = False


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What control asks of a node: one instance of one version."""

    instance_id: str
    version: Version


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One instance as its node reports it."""

    instance_id: str
    version: VersionKey
    state: InstanceState
    socket_path: str
    """Unix socket on which the instance answers calls."""
    rung: Rung
    pid: int = 0
    started_at: float = 0.0
    timing: StartTiming = StartTiming()
    concurrency: int = 1
    timeout_s: float = 3.0
    memory_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One of the platform's own processes (edge, control, api) as it is now."""

    name: str
    pid: int
    """0 while it does not run."""
    ready: bool
    restarts: int


@dataclass(frozen=True, slots=True)
class NodeReport:
    """Everything a node holds: the truth from which control rebuilds itself."""

    node: str
    instances: tuple[InstanceStatus, ...]
    pools: Mapping[Runtime, int] = field(default_factory=dict)
    """Cells waiting, per runtime."""
    rung: Rung = Rung.PROCESS
    pid: int = 0
    """Of the node itself."""
    processes: tuple[ProcessStatus, ...] = ()
    """The platform's own processes on this machine."""


@dataclass(frozen=True, slots=True)
class InstanceEnded:
    """An event of a node: this instance is gone (its socket refuses connections by now)."""

    instance_id: str
    version: VersionKey
    reason: EndReason
    detail: str = ""


class NodeClient(Protocol):
    """The one way in which control reaches a node, through a local socket or a network alike.

    Every method raises NodeUnavailable when the node cannot be reached; nothing was done then, except
    where stated. All calls may be repeated.
    """

    async def start(self, request: StartRequest) -> InstanceStatus:
        """Return the READY instance. Raise FunctionLoadFailed (message and stack of the user's error) or
        Unavailable when no cell can be made. Repeating an instance id returns the instance that exists.
        A caller that is cancelled must `stop` the id: the start may have happened."""
        ...

    async def quiesce(self, instance_id: str) -> None:
        """Return when the instance refuses everything new; what runs goes on. Raise InstanceNotFound."""
        ...

    async def resume(self, instance_id: str) -> None:
        """Take a quiesced instance back into service. Raise InstanceNotFound."""
        ...

    async def stop(self, instance_id: str, grace_s: float) -> None:
        """End the instance: it may finish what runs for `grace_s` seconds, then it is killed.
        Unknown ids are fine."""
        ...

    async def report(self) -> NodeReport:
        """Everything the node holds now."""
        ...

    def events(self) -> AsyncIterator[NodeReport | InstanceEnded]:
        """First a report, then every end, in order, until the connection breaks (the iterator ends then)."""
        ...

    async def set_pool(self, runtime: Runtime, size: int) -> None:
        """Keep `size` cells of `runtime` waiting; they are refilled off the call path."""
        ...
