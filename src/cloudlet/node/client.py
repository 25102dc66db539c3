"""`NodeClient` for other processes, over the node's unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec

from cloudlet.model.errors import NodeUnavailable
from cloudlet.model.function import Runtime
from cloudlet.model.sandbox import InstanceEnded, InstanceStatus, NodeReport, StartRequest

from .logs import LogQuery
from .wire import ErrorBody, LogRecord, NodeEvent, RuntimeInfo, error_from_body

CONNECTIONS_MAX = 256
CONNECT_TIMEOUT_S = 2.0
KEEP_ALIVE_S = 30.0
ANSWER_TIMEOUT_S = 1000.0
"""The longest answer is a stop whose instance finishes a call of 900 seconds."""
LINE_BYTES_MAX = 8 * 1024 * 1024
"""An event line holds a report of all instances."""


class HttpNodeClient:
    """A node by its socket. Used as ``async with``, or closed with `close`; one per process is enough.

    Raises what `NodeClient` says; when a connection breaks while a request is under way it is
    NodeUnavailable too, and then, and only then, the request may have been carried out (all of them may be
    repeated)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> HttpNodeClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def start(self, request: StartRequest) -> InstanceStatus:
        body = msgspec.json.encode(request)
        return msgspec.json.decode(await self._call("PUT", "/instances", body=body), type=InstanceStatus)

    async def quiesce(self, instance_id: str) -> None:
        await self._call("POST", f"/instances/{instance_id}/quiesce")

    async def resume(self, instance_id: str) -> None:
        await self._call("POST", f"/instances/{instance_id}/resume")

    async def stop(self, instance_id: str, grace_s: float) -> None:
        await self._call("DELETE", f"/instances/{instance_id}", {"grace_s": repr(grace_s)})

    async def report(self) -> NodeReport:
        return msgspec.json.decode(await self._call("GET", "/report"), type=NodeReport)

    async def metrics(self) -> bytes:
        """The node's metrics in the text form."""
        return await self._call("GET", "/metrics")

    async def events(self) -> AsyncIterator[NodeReport | InstanceEnded]:
        decoder = msgspec.json.Decoder(NodeEvent)
        async with self._request("GET", "/events", {}, None, None) as response:
            try:
                async for line in response.content:
                    event = decoder.decode(line)
                    if event.report is not None:
                        yield event.report
                    elif event.ended is not None:
                        yield event.ended
            except (aiohttp.ClientError, OSError, msgspec.DecodeError, ValueError):
                return  # the connection broke, perhaps inside a line: the contract's end of the iterator

    async def set_pool(self, runtime: Runtime, size: int) -> None:
        await self._call("PUT", f"/pools/{runtime}", {"size": str(size)})

    async def ensure_runtime(self, runtime: Runtime) -> RuntimeInfo:
        """Fetch an interpreter if it is not there. Raise Unavailable with the reason."""
        return msgspec.json.decode(await self._call("PUT", f"/runtimes/{runtime}"), type=RuntimeInfo)

    async def logs(self, query: LogQuery) -> list[LogRecord]:
        """The latest matching lines of a function, oldest first."""
        parameters = {
            "environment": query.environment,
            "function": query.function,
            "request_id": query.request_id,
            "since": repr(query.since),
            "limit": str(query.limit),
        }
        return msgspec.json.decode(await self._call("GET", "/logs", parameters), type=list[LogRecord])

    async def _call(
        self, method: str, path: str, parameters: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> bytes:
        async with self._request(method, path, parameters or {}, body, ANSWER_TIMEOUT_S) as response:
            try:
                return await response.read()
            except (aiohttp.ClientError, OSError, TimeoutError) as exc:
                raise NodeUnavailable(f"the node at {self._path} did not answer: {exc}") from exc

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, parameters: Mapping[str, str], body: bytes | None, total_s: float | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=total_s, connect=CONNECT_TIMEOUT_S)
        url = f"http://node{path}"
        try:
            response = await self._open().request(method, url, params=parameters, data=body, timeout=timeout)
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise NodeUnavailable(f"the node at {self._path} does not answer: {exc}") from exc
        async with response:
            if response.status >= 400:
                raise error_from_body(await _refusal(response))
            yield response

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.UnixConnector(
                str(self._path), limit=CONNECTIONS_MAX, keepalive_timeout=KEEP_ALIVE_S
            )
            self._session = aiohttp.ClientSession(connector=connector, read_bufsize=LINE_BYTES_MAX)
        return self._session


async def _refusal(response: aiohttp.ClientResponse) -> ErrorBody:
    try:
        return msgspec.json.decode(await response.read(), type=ErrorBody)
    except (aiohttp.ClientError, OSError, msgspec.DecodeError):
        return ErrorBody("node_unavailable", f"the node answered with status {response.status}")
