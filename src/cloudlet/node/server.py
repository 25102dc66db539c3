"""`NodeClient` on the node's unix socket (messages: `frames`)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from cloudlet.model.errors import Internal, InvalidParameter, PlatformError
from cloudlet.model.function import Runtime
from cloudlet.model.sandbox import InstanceEnded, NodeReport, StartRequest
from cloudlet.observe.metrics import exposition

from .frames import REQUEST_BYTES_MAX, FrameSplitter, FrameTooLong, Reply, Request, encoded, framed
from .instances import Instances
from .logs import LogQuery
from .runtimes import Runtimes
from .wire import ErrorBody, NodeEvent, RuntimeInfo

BACKLOG = 1024
SHUTDOWN_S = 2.0
UNDER_WAY_MAX = 2048
"""Requests of one connection under way; more are not read before some are answered."""
log: structlog.stdlib.BoundLogger = structlog.get_logger()
_Operation = tuple[Callable[[msgspec.Raw], Any], Callable[[Any], Awaitable[object]]]
"""How an argument is decoded, and what is done with it."""


class NodeServer:
    """Answers on `path` (mode 0600) from `start` to `close`."""

    def __init__(
        self, path: Path, instances: Instances, runtimes: Runtimes, registry: CollectorRegistry
    ) -> None:
        self._path = path
        self._operations = _Operations(instances, runtimes, registry)
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Raise OSError when the socket cannot be made."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(self._path))
            self._path.chmod(0o600)
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: _Connection(self._operations, self._connections), sock=listener, backlog=BACKLOG
            )
        except BaseException:
            listener.close()
            raise

    async def close(self) -> None:
        """Stop listening, let what runs finish for a moment. May be repeated."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        tasks = [task for connection in self._connections for task in connection.tasks]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=SHUTDOWN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for connection in tuple(self._connections):
            connection.close()
        self._path.unlink(missing_ok=True)


class _Operations:
    """What can be asked, by name."""

    def __init__(self, instances: Instances, runtimes: Runtimes, registry: CollectorRegistry) -> None:
        self.instances = instances
        self._runtimes = runtimes
        self._registry = registry
        self._table: dict[str, _Operation] = {
            "start": (_decoder(StartRequest), instances.start),
            "quiesce": (_decoder(str), instances.quiesce),
            "resume": (_decoder(str), instances.resume),
            "stop": (_decoder(tuple[str, float]), self._stop),
            "report": (_decoder(None), self._report),
            "metrics": (_decoder(None), self._metrics),
            "set_pool": (_decoder(tuple[Runtime, int]), self._set_pool),
            "ensure_runtime": (_decoder(Runtime), self._ensure_runtime),
            "logs": (_decoder(LogQuery), self._logs),
        }

    async def run(self, request: Request) -> object:
        """The result. Raise the error tree; InvalidParameter for what is no request."""
        found = self._table.get(request.operation)
        if found is None:
            raise InvalidParameter(f"the node knows no operation {request.operation[:64]!r}")
        decode, work = found
        try:
            argument = decode(request.body)
        except msgspec.MsgspecError as exc:
            raise InvalidParameter(f"not an argument of {request.operation}: {exc}") from exc
        return await work(argument)

    async def _stop(self, argument: tuple[str, float]) -> None:
        await self.instances.stop(*argument)

    async def _report(self, _: None) -> NodeReport:
        return self.instances.report()

    async def _metrics(self, _: None) -> bytes:
        return exposition(self._registry)

    async def _set_pool(self, argument: tuple[Runtime, int]) -> None:
        self.instances.set_pool(*argument)

    async def _ensure_runtime(self, runtime: Runtime) -> RuntimeInfo:
        return RuntimeInfo(str(await self._runtimes.ensure(runtime)), runtime.unpatched)

    async def _logs(self, query: LogQuery) -> object:
        for name in (query.environment, query.function):
            _check_name(name)
        return await self.instances.logs(query)


class _Connection(asyncio.Protocol):
    """One client. What it asked for is done even when it goes away meanwhile; only its stream of events
    ends."""

    def __init__(self, operations: _Operations, connections: set[_Connection]) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._operations = operations
        self._connections = connections
        self._splitter = FrameSplitter(REQUEST_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._streams: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # sockets have both directions
        self._writable.set()
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._transport = None
        self._writable.set()
        for stream in self._streams:
            stream.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._splitter.feed(data):
                self._begin(_request(message))
        except (FrameTooLong, msgspec.MsgspecError) as exc:
            log.warning("node_client_cut", reason=str(exc))
            self.close()

    def _begin(self, request: Request) -> None:
        is_stream = request.operation == "events"
        task = asyncio.create_task(self._tell_events(request) if is_stream else self._answer(request))
        if is_stream:
            self._streams.add(task)
        self.tasks.add(task)
        task.add_done_callback(self._finished)
        if len(self.tasks) >= UNDER_WAY_MAX and self._transport is not None:
            self._transport.pause_reading()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self._streams.discard(task)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    async def _answer(self, request: Request) -> None:
        """Errors of the tree become their code and message; others become `internal` and go to the log."""
        try:
            reply = Reply(request.number, encoded(await self._operations.run(request)))
        except PlatformError as exc:
            reply = Reply(request.number, error=ErrorBody(exc.code, exc.message))
        except Exception:
            log.exception("node_request_failed", operation=request.operation)
            reply = Reply(request.number, error=ErrorBody(Internal.code, Internal().message))
        self._write(reply)

    async def _tell_events(self, request: Request) -> None:
        """Until the hub ends the stream: the client learns of it by the end of the connection."""
        try:
            async with aclosing(self._operations.instances.events()) as events:  # type: ignore[type-var]
                async for event in events:
                    self._write(Reply(request.number, encoded(_wire(event))))
                    await self._writable.wait()
        finally:
            self.close()

    def _write(self, reply: Reply) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(framed(reply))


def _decoder(kind: object) -> Callable[[msgspec.Raw], Any]:
    return msgspec.msgpack.Decoder(kind).decode


def _wire(event: NodeReport | InstanceEnded) -> NodeEvent:
    return NodeEvent(report=event) if isinstance(event, NodeReport) else NodeEvent(ended=event)


def _check_name(text: str) -> None:
    """Names become parts of a path."""
    if not text or text in (".", "..") or "/" in text or "\0" in text:
        raise InvalidParameter("environment and function have to be named")


_request = msgspec.msgpack.Decoder(Request).decode
