"""Keeps the edge's view of early-bound versions equal to ours: binding first, then endpoints; the reverse
to leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import structlog

from cloudlet.model.clock import Clock
from cloudlet.model.errors import EdgeUnavailable
from cloudlet.model.function import VersionKey

from .signals import EdgeTraffic

log = structlog.get_logger(__name__)

RETRY_S = 0.1
RETRY_S_MAX = 2.0


class EndpointPublisher(Protocol):
    """The edge, as the scheduler needs it. All calls may be repeated and concern one version each; calls
    for one version never overlap. Each raises EdgeUnavailable when the edge did not acknowledge in time; it
    is unknown then what the edge uses, and the call will be repeated until it succeeds.

    Nothing is called before the node has reported: until then the edge keeps what it knows. A new control
    process begins with every version late-bound; the first routes it publishes must say so.
    """

    async def set_binding(self, version: VersionKey, early: bool) -> None:
        """Return when the version's calls take its own cluster (early: endpoints are those last set,
        otherwise none, which means the activator) or the activator's (late)."""
        ...

    async def set_endpoints(self, version: VersionKey, sockets: Sequence[str]) -> None:
        """Return when the edge has acknowledged exactly these sockets. An empty set is sent explicitly; for
        a version without a cluster it holds already."""
        ...

    async def traffic(self) -> Mapping[VersionKey, EdgeTraffic]:
        """Counters of the early-bound versions."""
        ...


@dataclass(eq=False, slots=True)
class _EdgeState:
    """What the edge was told about one version. `acked` is None while that is unknown."""

    acked: frozenset[str] | None = None
    bound: bool = False
    failures: int = 0
    retry_at: float = 0.0
    task: asyncio.Task[None] | None = None


class EdgeSync:
    """One worker per version and at most one at a time, so that a later set never overtakes an earlier one.

    `wanted(version)` gives the sockets that belong into the set, `early(version)` the binding;
    `acknowledged(version, sockets)` is called for each acknowledged set.
    """

    def __init__(
        self,
        edge: EndpointPublisher,
        clock: Clock,
        wanted: Callable[[VersionKey], frozenset[str]],
        early: Callable[[VersionKey], bool],
        acknowledged: Callable[[VersionKey, frozenset[str]], None],
    ) -> None:
        self._edge = edge
        self._clock = clock
        self._wanted = wanted
        self._early = early
        self._acknowledged = acknowledged
        self._states: dict[VersionKey, _EdgeState] = {}

    def sync(self, key: VersionKey, unknown: bool = False) -> None:
        """Bring the edge up to date. `unknown`: what it knows about the version may come from a control
        process before this one, so even an empty set must be acknowledged."""
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = _EdgeState(acked=None if unknown else frozenset())
        elif unknown:
            state.acked = None
        if state.task is None and self._clock.monotonic() >= state.retry_at and self._next(key, state):
            state.task = asyncio.create_task(self._work(key, state))

    def sync_all(self) -> None:
        """Try again what failed and forget what is done with."""
        for key, state in tuple(self._states.items()):
            self.sync(key)
            done = state.task is None and not state.bound and state.acked == frozenset()
            if done and not self._early(key):
                del self._states[key]

    def bound(self, key: VersionKey) -> bool:
        """Whether the edge sends the version's calls by itself."""
        state = self._states.get(key)
        return state is not None and state.bound

    @property
    def any_bound(self) -> bool:
        return any(state.bound for state in self._states.values())

    async def close(self) -> None:
        """Stop all workers. The edge keeps what it was told last."""
        tasks = [state.task for state in self._states.values() if state.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _next(self, key: VersionKey, state: _EdgeState) -> _Step | None:
        wanted, early = self._wanted(key), self._early(key)
        if early and not state.bound:
            return _Step.BIND
        if state.acked != wanted:
            return _Step.SEND
        return _Step.UNBIND if state.bound and not early and not wanted else None

    async def _work(self, key: VersionKey, state: _EdgeState) -> None:
        try:
            while (step := self._next(key, state)) is not None:
                await self._do(key, state, step)
            state.failures = 0
        except EdgeUnavailable as error:
            self._failed(key, state, error.message)
        except Exception as error:
            log.exception("endpoint_sync_crashed", version=str(key))
            self._failed(key, state, repr(error))
        finally:
            state.task = None

    def _failed(self, key: VersionKey, state: _EdgeState, error: str) -> None:
        state.failures += 1
        pause = min(RETRY_S_MAX, RETRY_S * 2.0 ** min(state.failures, 10))
        state.retry_at = self._clock.monotonic() + pause
        log.warning("endpoints_not_acknowledged", version=str(key), error=error, retry_s=pause)

    async def _do(self, key: VersionKey, state: _EdgeState, step: _Step) -> None:
        if step is _Step.SEND:
            wanted = self._wanted(key)
            # What a failed call leaves at the edge is not known: the set counts as unknown until
            # acknowledged.
            state.acked = None
            await self._edge.set_endpoints(key, sorted(wanted))
            state.acked = wanted
            self._acknowledged(key, wanted)
        else:
            early = step is _Step.BIND
            await self._edge.set_binding(key, early)
            state.bound = early
            log.info("binding_changed", version=str(key), early=early)


class _Step(Enum):
    """What a version's worker does next."""

    BIND = "bind"
    SEND = "send"
    UNBIND = "unbind"
