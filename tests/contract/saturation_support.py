"""The activator with everything around it that decides who waits when there are more calls than instances:
instances that refuse what they cannot start soon, and an edge that calls them by itself.

Both are stand-ins; how the real ones behave is tested in ``test_runtime.py`` and
``tests/integration/test_edge_calls.py``. All of it runs in virtual time, real sockets included: what is
written to a socket of the same process is there to be read at once, so time moves only when everybody waits.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from cloudlet.model.clock import Clock
from cloudlet.model.function import Version, VersionKey
from cloudlet.model.sandbox import InstanceStatus, StartRequest
from cloudlet.scheduler.fake import FakeEdge
from cloudlet.scheduler.signals import EdgeTraffic, percentile
from tests.contract.activator_support import StandIn, StandInNode, System, running_system
from tests.property.virtual_time import VirtualClock

START_S = 0.1
"""A cold start, a slow one."""
QUEUED_S_MAX = 0.02
"""What has not started by then is refused (``runtime/contract.md`` 3)."""
_BUSY = "x-cloudlet-busy"


@dataclass(frozen=True, slots=True)
class Held:
    """How one call went, in seconds of the story."""

    status: int
    instance: str
    began: float
    ended: float
    took: float
    """As its caller saw it."""


@dataclass(eq=False, slots=True)
class _Gate:
    """One instance: its only slot, and whether its thread is free to read, to refuse and to start."""

    slot: asyncio.Lock = field(default_factory=asyncio.Lock)
    awake: asyncio.Event = field(default_factory=asyncio.Event)


class BusyNode(StandInNode):
    """Its instances take ``{"ms": …, "spin": …}``: a call waits that long, or holds up its whole process."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._gates: dict[str, _Gate] = {}

    async def start(self, request: StartRequest) -> InstanceStatus:
        gate = self._gates[request.instance_id] = _Gate()
        gate.awake.set()
        await asyncio.sleep(START_S)
        return await super().start(request)

    async def _serve(self, instance: StandIn, request: web.Request) -> web.StreamResponse:
        gate = self._gates[instance.status.instance_id]
        await gate.awake.wait()  # while a call spins nothing is read
        event = json.loads(await request.read())
        try:
            async with asyncio.timeout(QUEUED_S_MAX):
                await gate.slot.acquire()
        except TimeoutError:
            await gate.awake.wait()  # its timer is late, too
            return web.Response(status=503, headers={_BUSY: "1"})
        try:
            return await self._hold(instance, gate, event)
        finally:
            gate.awake.set()
            gate.slot.release()

    async def _hold(self, instance: StandIn, gate: _Gate, event: Mapping[str, float]) -> web.StreamResponse:
        instance.running += 1
        instance.overlaps += instance.running > 1
        began = asyncio.get_running_loop().time()
        if event.get("spin"):
            gate.awake.clear()
        await asyncio.sleep(event["ms"] / 1000)
        instance.running -= 1
        ended = asyncio.get_running_loop().time()
        return web.json_response(
            {"instance": instance.status.instance_id, "began": began, "ended": ended},
            headers={"server-timing": f"handler;dur={(ended - began) * 1000}"},
        )


class MeteredEdge(FakeEdge):
    """Counts what it sends by itself, as Envoy does."""

    def __init__(self) -> None:
        super().__init__(ack_s=0.005)
        self.calls = self.retries = 0
        self.active: dict[str, int] = {}
        self._times: list[float] = []

    async def traffic(self) -> Mapping[VersionKey, EdgeTraffic]:
        p95_s = percentile(sorted(self._times), 0.95)
        self._times.clear()
        counted = EdgeTraffic(self.calls, sum(self.active.values()), self.retries, p95_s)
        return dict.fromkeys(self.early, counted)

    def ended(self, socket_path: str, took: float) -> None:
        self.active[socket_path] -= 1
        self._times.append(took)


class Story:
    """A version under more calls than it has instances."""

    def __init__(self, system: System, edge: MeteredEdge, version: Version, seed: int) -> None:
        self.system = system
        self._edge = edge
        self._version = version
        self._chance = random.Random(seed)
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    @property
    def early(self) -> bool:
        """Whether the edge calls the version by itself now."""
        return self._version.key in self._edge.early and bool(self._endpoints())

    async def call(self, **event: float) -> Held:
        """One call through the edge: to an instance if the version is bound to it, else to the activator."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        status, body = await (self._direct(event) if self.early else self._late(event, attempt=1))
        held = json.loads(body) if status == 200 else {"instance": "", "began": 0.0, "ended": 0.0}
        return Held(status, took=loop.time() - asked, **held)

    async def earn_early_binding(self) -> None:
        while not self.early:
            await self.call(ms=2)

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    def _endpoints(self) -> list[str]:
        return sorted(self._edge.endpoints.get(self._version.key, ()))

    async def _direct(self, event: Mapping[str, float]) -> tuple[int, bytes]:
        """The emptier of two, as Envoy chooses; what it refuses goes to the activator, once."""
        loop, edge, sockets = asyncio.get_running_loop(), self._edge, self._endpoints()
        began = loop.time()
        two = self._chance.sample(sockets, min(2, len(sockets)))
        chosen = min(two, key=lambda path: edge.active.get(path, 0))
        edge.active[chosen] = edge.active.get(chosen, 0) + 1
        edge.calls += 1
        try:
            url = "http://instance/v1/functions/hello"
            async with self._session(chosen).post(url, json=event) as response:
                if _BUSY not in response.headers:
                    return response.status, await response.read()
            edge.retries += 1
            return await self._late(event, attempt=2)
        finally:
            edge.ended(chosen, loop.time() - began)

    async def _late(self, event: Mapping[str, float], attempt: int) -> tuple[int, bytes]:
        status, _, body = await self.system.post(event, headers={"x-envoy-attempt-count": str(attempt)})
        return status, body

    def _session(self, socket_path: str) -> aiohttp.ClientSession:
        if socket_path not in self._sessions:
            connector = aiohttp.UnixConnector(path=socket_path, limit=0)
            self._sessions[socket_path] = aiohttp.ClientSession(connector=connector)
        return self._sessions[socket_path]


@asynccontextmanager
async def story(version: Version, seed: int = 0, clock: Clock | None = None) -> AsyncIterator[Story]:
    """For the loop of ``virtual_time``."""
    edge = MeteredEdge()
    clock = clock or VirtualClock()
    async with running_system((version,), clock=clock, make_node=BusyNode, edge=edge) as system:
        told = Story(system, edge, version, seed)
        try:
            yield told
        finally:
            await told.close()
            await asyncio.sleep(0)


def p95_s(calls: list[Held]) -> float:
    """Of the time that callers saw."""
    return percentile(sorted(call.took for call in calls), 0.95) or math.inf
