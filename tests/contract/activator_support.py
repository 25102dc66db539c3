"""A running activator with a node whose instances are small HTTP servers on real unix sockets.

What an instance does with a call is said by the call's body: ``{"do": …}``. Nothing here sleeps: calls that
should take long wait until the test lets them go.
"""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import uvicorn
from aiohttp import web
from prometheus_client import CollectorRegistry

from cloudlet.dialects.errors import function_reply
from cloudlet.gateway.activator import Activator
from cloudlet.gateway.upstream import sendable
from cloudlet.model.app import Environment
from cloudlet.model.clock import Clock, SystemClock
from cloudlet.model.errors import FunctionLoadFailed
from cloudlet.model.function import Alias, FunctionConfig, Runtime, ScaleRule, Version
from cloudlet.model.ids import LATEST
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
from cloudlet.scheduler.fake import FakeEdge
from cloudlet.scheduler.loop import Scheduler
from cloudlet.scheduler.records import SchedulerOptions
from cloudlet.state.base import Snapshot

HELLO = Version("default", "hello", "v1", 1, FunctionConfig(timeout_s=5.0), "/code", 0.0)
LIMIT_S = 10.0
KEEP_ALIVE_S = 3600
"""Longer than any story: a connection that the server closes just now can break a call."""


def with_config(**changes: object) -> Version:
    """HELLO with another configuration."""
    return replace(HELLO, config=replace(HELLO.config, **changes))  # type: ignore[arg-type]


@dataclass(eq=False)
class StandIn:
    """An instance: one call at a time, or it counts an overlap."""

    status: InstanceStatus
    runner: web.AppRunner
    running: int = 0
    overlaps: int = 0
    served: list[str] = field(default_factory=list)


class StandInNode:
    """A NodeClient that really listens."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.instances: dict[str, StandIn] = {}
        self.load_error: str = ""
        self.requests: list[web.Request] = []
        self.began: asyncio.Queue[str] = asyncio.Queue()
        """Names of the calls that began to run."""
        self.go: dict[str, asyncio.Event] = {}
        self.refuse = 0
        """So many calls are refused first."""
        self._events: list[asyncio.Queue[InstanceEnded]] = []

    async def start(self, request: StartRequest) -> InstanceStatus:
        if self.load_error:
            raise FunctionLoadFailed(self.load_error)
        path = self.directory / f"{request.instance_id}.sock"
        application = web.Application(client_max_size=0)
        runner = web.AppRunner(application, shutdown_timeout=0.0)
        config = request.version.config
        status = InstanceStatus(
            request.instance_id,
            request.version.key,
            InstanceState.READY,
            str(path),
            Rung.PROCESS,
            timing=StartTiming(sandbox_ms=3.0, load_ms=7.0),
            concurrency=config.concurrency,
            timeout_s=config.timeout_s,
        )
        instance = StandIn(status, runner)

        async def serve(call: web.Request) -> web.StreamResponse:
            return await self._serve(instance, call)

        application.router.add_route("*", "/{tail:.*}", serve)
        await runner.setup()
        await web.UnixSite(runner, str(path)).start()
        self.instances[request.instance_id] = instance
        return status

    async def quiesce(self, instance_id: str) -> None:
        return None

    async def resume(self, instance_id: str) -> None:
        return None

    async def stop(self, instance_id: str, grace_s: float) -> None:
        await self.end(instance_id, EndReason.STOPPED)

    async def report(self) -> NodeReport:
        return NodeReport("test", tuple(one.status for one in self.instances.values()))

    async def events(self) -> AsyncIterator[NodeReport | InstanceEnded]:
        queue: asyncio.Queue[InstanceEnded] = asyncio.Queue()
        self._events.append(queue)
        yield await self.report()
        while True:
            yield await queue.get()

    async def set_pool(self, runtime: Runtime, size: int) -> None:
        return None

    async def end(self, instance_id: str, reason: EndReason) -> None:
        instance = self.instances.pop(instance_id, None)
        if instance is not None:
            await instance.runner.cleanup()
            for queue in self._events:
                queue.put_nowait(InstanceEnded(instance_id, instance.status.version, reason))

    async def close(self) -> None:
        for event in self.go.values():
            event.set()
        for instance_id in tuple(self.instances):
            await self.end(instance_id, EndReason.STOPPED)

    async def _serve(self, instance: StandIn, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self.refuse:
            self.refuse -= 1
            return web.Response(status=503, headers={"x-cloudlet-busy": "1"})
        self.requests.append(request)
        event = json.loads(body or b"{}")
        instance.running += 1
        instance.overlaps += instance.running > 1
        instance.served.append(event.get("name", ""))
        try:
            return await self._behave(instance, request, event)
        finally:
            instance.running -= 1

    async def _behave(
        self, instance: StandIn, request: web.Request, event: dict[str, str]
    ) -> web.StreamResponse:
        name = event.get("name", "")
        match event.get("do", "echo"):
            case "wait":
                self.began.put_nowait(name)
                await self.go.setdefault(name, asyncio.Event()).wait()
            case "die":
                reason = EndReason(event.get("reason", EndReason.EXITED))
                status = self.instances.pop(instance.status.instance_id).status
                for queue in self._events:
                    queue.put_nowait(InstanceEnded(status.instance_id, status.version, reason))
                assert request.transport is not None
                request.transport.abort()
                await instance.runner.cleanup()
            case "fail":
                error = {
                    "code": "FUNCTIONS_EXECUTE_FAIL",
                    "message": '{"errorMessage":"no"}',
                    "requestId": "r",
                }
                return web.json_response(error, status=400, headers={"x-cloudlet-error": "function_failed"})
            case "exit":
                error = {"code": "FUNCTIONS_EXECUTE_FAIL", "message": "exited", "requestId": "r"}
                return web.json_response(error, status=400, headers={"x-cloudlet-error": "function_exited"})
            case "stream":
                return await self._stream(request, name)
        return web.json_response({"name": name}, headers={"server-timing": "handler;dur=1.5"})

    async def _stream(self, request: web.Request, name: str) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
        reply.enable_chunked_encoding()
        await reply.prepare(request)
        await reply.write(b"first\n")
        await self.go.setdefault(name, asyncio.Event()).wait()
        await reply.write(b"second\n")
        await reply.write_eof()
        return reply


@dataclass
class System:
    """Everything a test may look at."""

    node: StandInNode
    edge: FakeEdge
    scheduler: Scheduler
    activator: Activator
    registry: CollectorRegistry
    path: Path
    client: aiohttp.ClientSession

    async def post(
        self, event: object, *, function: str = "hello", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one call."""
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        sent = {"x-cloudlet-env": "default", "x-request-id": "r-1"} | (headers or {})
        url = f"http://activator/v1/functions/{function}"
        async with self.client.post(url, data=sendable(body), headers=sent) as response:
            got = {name.lower(): value for name, value in response.headers.items()}
            return response.status, got, await response.read()

    def waiting(self) -> int:
        return sum(version.waiting for version in self.scheduler.status().versions)

    def running(self) -> int:
        return sum(version.running for version in self.scheduler.status().versions)


@asynccontextmanager
async def running_system(
    versions: Sequence[Version] = (HELLO,),
    options: SchedulerOptions | None = None,
    clock: Clock | None = None,
    make_node: Callable[[Path], StandInNode] | None = None,
    edge: FakeEdge | None = None,
) -> AsyncIterator[System]:
    """The activator on a real socket, served by uvicorn, in front of the real scheduler. On a virtual loop
    `clock` must be a virtual one."""
    clock = clock or SystemClock()
    registry = CollectorRegistry()
    with tempfile.TemporaryDirectory(prefix="act-") as name:
        directory = Path(name)
        node = (make_node or StandInNode)(directory)
        edge = edge or FakeEdge()
        scheduler = Scheduler(node, edge, clock, options or SchedulerOptions(pace_s=0.01))
        aliases = tuple(Alias(v.environment, v.function, LATEST, v.digest, 0.0) for v in versions)
        scheduler.apply(Snapshot(1, (Environment("default", 0.0),), tuple(versions), aliases))
        activator = Activator(scheduler, clock, registry, function_reply)
        path = directory / "activator.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        config = uvicorn.Config(
            activator,
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await scheduler.start()
            async with aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path=str(path), limit=0)
            ) as client:
                yield System(node, edge, scheduler, activator, registry, path, client)
        finally:
            await node.close()
            server.should_exit = True
            server.force_exit = True
            await serving
            await scheduler.close()
            await activator.close()
            await node.close()


__all__ = [
    "HELLO",
    "LIMIT_S",
    "ScaleRule",
    "StandIn",
    "StandInNode",
    "System",
    "running_system",
    "with_config",
]
