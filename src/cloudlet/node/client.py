"""`NodeClient` for other processes, over the node's unix socket (messages: `frames`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from cloudlet.model.errors import InvalidParameter, NodeUnavailable
from cloudlet.model.function import Runtime
from cloudlet.model.sandbox import InstanceEnded, InstanceStatus, NodeReport, StartRequest

from .frames import (
    LENGTH_BYTES,
    REPLY_BYTES_MAX,
    REQUEST_BYTES_MAX,
    FrameSplitter,
    FrameTooLong,
    Reply,
    Request,
    encoded,
    framed,
    length_of,
)
from .logs import LogQuery
from .wire import LogRecord, NodeEvent, RuntimeInfo, error_from_body

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 1000.0
"""The longest answer is a stop whose instance finishes a call of 900 seconds."""
REQUESTS_MAX = 1024
"""Requests of one client under way; more than an installation has instances."""
T = TypeVar("T")


class SocketNodeClient:
    """A node by its socket. Used as ``async with``, or closed with `close`; one per process is enough. All
    requests share one connection, each stream of events has its own.

    Raises what `NodeClient` says; when the connection breaks while a request is under way it is
    NodeUnavailable too, and then, and only then, the request may have been carried out (all of them may be
    repeated)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> SocketNodeClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._link is not None:
            await self._link.close()
            self._link = None

    async def start(self, request: StartRequest) -> InstanceStatus:
        return await self._ask("start", request, InstanceStatus)

    async def quiesce(self, instance_id: str) -> None:
        await self._ask("quiesce", instance_id, None)

    async def resume(self, instance_id: str) -> None:
        await self._ask("resume", instance_id, None)

    async def stop(self, instance_id: str, grace_s: float) -> None:
        await self._ask("stop", (instance_id, grace_s), None)

    async def report(self) -> NodeReport:
        return await self._ask("report", None, NodeReport)

    async def metrics(self) -> bytes:
        """The node's metrics in the text form."""
        return await self._ask("metrics", None, bytes)

    async def events(self) -> AsyncIterator[NodeReport | InstanceEnded]:
        reader, writer = await self._open_stream()
        try:
            while True:
                event = await _next_event(reader)
                if event.report is not None:
                    yield event.report
                elif event.ended is not None:
                    yield event.ended
        except (asyncio.IncompleteReadError, OSError, FrameTooLong, msgspec.MsgspecError):
            return  # the connection broke, perhaps inside a message: the contract's end of the iterator
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def set_pool(self, runtime: Runtime, size: int) -> None:
        await self._ask("set_pool", (runtime, size), None)

    async def ensure_runtime(self, runtime: Runtime) -> RuntimeInfo:
        """Fetch an interpreter if it is not there. Raise Unavailable with the reason."""
        return await self._ask("ensure_runtime", runtime, RuntimeInfo)

    async def logs(self, query: LogQuery) -> list[LogRecord]:
        """The latest matching lines of a function, oldest first."""
        return await self._ask("logs", query, list[LogRecord])

    async def _ask(self, operation: str, argument: object, kind: type[T] | None) -> T:
        link = self._link
        if link is None or link.closed:
            link = await self._connected()
        reply = await link.ask(operation, encoded(argument))
        if reply.error is not None:
            raise error_from_body(reply.error)
        return msgspec.msgpack.decode(reply.body, type=kind)

    async def _connected(self) -> _Link:
        async with self._connecting:
            if self._link is None or self._link.closed:
                loop = asyncio.get_running_loop()
                try:
                    async with asyncio.timeout(CONNECT_TIMEOUT_S):
                        _, self._link = await loop.create_unix_connection(
                            lambda: _Link(self._path), str(self._path)
                        )
                except (OSError, TimeoutError) as exc:
                    raise self._away(exc) from exc
            return self._link

    async def _open_stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(str(self._path))
        except (OSError, TimeoutError) as exc:
            raise self._away(exc) from exc
        writer.write(framed(Request(0, "events")))
        return reader, writer

    def _away(self, exc: Exception) -> NodeUnavailable:
        return NodeUnavailable(f"the node at {self._path} does not answer: {exc}")


class _Link(asyncio.Protocol):
    """One connection for requests and their replies. Ends once and is not opened again."""

    def __init__(self, path: Path) -> None:
        self.closed = False
        self._path = path
        self._transport: asyncio.Transport | None = None
        self._splitter = FrameSplitter(REPLY_BYTES_MAX)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._number = 0
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ask(self, operation: str, body: msgspec.Raw) -> Reply:
        """Send and wait. Raise NodeUnavailable when the connection ends before the reply is there."""
        if self.closed or self._transport is None:
            raise self._broken()
        if len(self._waiting) >= REQUESTS_MAX:
            raise NodeUnavailable(f"{REQUESTS_MAX} requests to the node are under way, the limit")
        self._number += 1
        message = framed(Request(self._number, operation, body))
        if len(message) > REQUEST_BYTES_MAX:
            raise InvalidParameter("the request is too large")
        number = self._number
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        self._transport.write(message)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await waiting
        except TimeoutError as exc:
            raise NodeUnavailable(f"the node at {self._path} did not answer in time") from exc
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            await self._gone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # sockets have both directions

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._splitter.feed(data):
                reply = _reply.decode(message)
                waiting = self._waiting.get(reply.number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)
        except (FrameTooLong, msgspec.MsgspecError):
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(self._broken())
        if not self._gone.done():
            self._gone.set_result(None)

    def _broken(self) -> NodeUnavailable:
        return NodeUnavailable(f"the node at {self._path} did not answer: the connection ended")


_reply: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_event: msgspec.msgpack.Decoder[NodeEvent] = msgspec.msgpack.Decoder(NodeEvent)


async def _next_event(reader: asyncio.StreamReader) -> NodeEvent:
    length = length_of(await reader.readexactly(LENGTH_BYTES), REPLY_BYTES_MAX)
    return _event.decode(_reply.decode(await reader.readexactly(length)).body)
