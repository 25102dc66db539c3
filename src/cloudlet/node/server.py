"""`NodeClient` over HTTP on the node's unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from cloudlet.model.errors import Internal, InvalidParameter, PlatformError
from cloudlet.model.function import Runtime
from cloudlet.model.sandbox import NodeReport, StartRequest
from cloudlet.observe.metrics import CONTENT_TYPE, exposition

from .instances import Instances
from .logs import LogQuery
from .runtimes import Runtimes
from .wire import ErrorBody, NodeEvent, RuntimeInfo

REQUEST_BYTES_MAX = 1024 * 1024
BACKLOG = 1024
SHUTDOWN_S = 2
KEEP_ALIVE_S = 120
"""Longer than any client keeps an idle connection, so that none is closed under a request."""
_STATUSES = {
    "instance_not_found": 404,
    "function_load_failed": 422,
    "invalid_parameter": 400,
    "internal": 500,
}
_encode = msgspec.json.Encoder().encode
log: structlog.stdlib.BoundLogger = structlog.get_logger()
Handler = Callable[[Request], Awaitable[Response]]


class NodeServer:
    """Answers on `path` (mode 0600) from `start` to `close`."""

    def __init__(
        self, path: Path, instances: Instances, runtimes: Runtimes, registry: CollectorRegistry
    ) -> None:
        self._path = path
        self._app = _app(_Handlers(instances, runtimes, registry))
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raise OSError when the socket cannot be made."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(self._path))
            self._path.chmod(0o600)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
        config = uvicorn.Config(
            self._app,
            lifespan="off",
            log_config=None,
            access_log=False,
            ws="none",
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve([listener]))

    async def close(self) -> None:
        """Stop listening, let what runs finish for a moment. May be repeated."""
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        await self._task
        self._server = self._task = None
        self._path.unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """uvicorn without its hands on the signals: the process belongs to the node, not to one of its
    servers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Handlers:
    """One method per route."""

    def __init__(self, instances: Instances, runtimes: Runtimes, registry: CollectorRegistry) -> None:
        self._instances = instances
        self._runtimes = runtimes
        self._registry = registry

    async def start(self, request: Request) -> Response:
        try:
            wanted = msgspec.json.decode(await _body(request), type=StartRequest)
        except msgspec.DecodeError as exc:
            raise InvalidParameter(f"not a start request: {exc}") from exc
        return _json(await self._instances.start(wanted))

    async def quiesce(self, request: Request) -> Response:
        await self._instances.quiesce(request.path_params["instance"])
        return Response(status_code=204)

    async def resume(self, request: Request) -> Response:
        await self._instances.resume(request.path_params["instance"])
        return Response(status_code=204)

    async def stop(self, request: Request) -> Response:
        await self._instances.stop(request.path_params["instance"], _number(request, "grace_s", 0.0))
        return Response(status_code=204)

    async def report(self, request: Request) -> Response:
        return _json(self._instances.report())

    async def metrics(self, request: Request) -> Response:
        return Response(exposition(self._registry), media_type=CONTENT_TYPE)

    async def events(self, request: Request) -> Response:
        return StreamingResponse(self._event_lines(), media_type="application/x-ndjson")

    async def set_pool(self, request: Request) -> Response:
        self._instances.set_pool(_runtime(request), int(_number(request, "size", 0)))
        return Response(status_code=204)

    async def ensure_runtime(self, request: Request) -> Response:
        runtime = _runtime(request)
        interpreter = await self._runtimes.ensure(runtime)
        return _json(RuntimeInfo(str(interpreter), runtime.unpatched))

    async def logs(self, request: Request) -> Response:
        parameters = request.query_params
        query = LogQuery(
            environment=_name(parameters.get("environment", "")),
            function=_name(parameters.get("function", "")),
            request_id=parameters.get("request_id", ""),
            since=_number(request, "since", 0.0),
            limit=int(_number(request, "limit", 100)),
        )
        return _json(await self._instances.logs(query))

    async def _event_lines(self) -> AsyncIterator[bytes]:
        async for event in self._instances.events():
            wire = NodeEvent(report=event) if isinstance(event, NodeReport) else NodeEvent(ended=event)
            yield _encode(wire) + b"\n"


def _app(handlers: _Handlers) -> Starlette:
    routes = [
        ("PUT", "/instances", handlers.start),
        ("POST", "/instances/{instance}/quiesce", handlers.quiesce),
        ("POST", "/instances/{instance}/resume", handlers.resume),
        ("DELETE", "/instances/{instance}", handlers.stop),
        ("GET", "/report", handlers.report),
        ("GET", "/metrics", handlers.metrics),
        ("GET", "/events", handlers.events),
        ("PUT", "/pools/{runtime}", handlers.set_pool),
        ("PUT", "/runtimes/{runtime}", handlers.ensure_runtime),
        ("GET", "/logs", handlers.logs),
    ]
    return Starlette(routes=[Route(path, _answering(each), methods=[verb]) for verb, path, each in routes])


def _answering(handler: Handler) -> Handler:
    """Errors of the tree become their code and message; others become `internal` and go to the log."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except PlatformError as exc:
            return _error(exc)
        except Exception:
            log.exception("node_request_failed", path=request.url.path)
            return _error(Internal())

    return answer


def _error(exc: PlatformError) -> Response:
    body = _encode(ErrorBody(exc.code, exc.message))
    return Response(body, _STATUSES.get(exc.code, 503), media_type="application/json")


def _json(value: object) -> Response:
    return Response(_encode(value), media_type="application/json")


async def _body(request: Request) -> bytes:
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > REQUEST_BYTES_MAX:
            raise InvalidParameter("the request is too large")
    return bytes(chunks)


def _number(request: Request, name: str, default: float) -> float:
    text = request.query_params.get(name)
    try:
        return default if text is None else float(text)
    except ValueError as exc:
        raise InvalidParameter(f"{name} is not a number") from exc


def _runtime(request: Request) -> Runtime:
    try:
        return Runtime(request.path_params["runtime"])
    except ValueError as exc:
        raise InvalidParameter("no such runtime") from exc


def _name(text: str) -> str:
    """Names become parts of a path."""
    if not text or text in (".", "..") or "/" in text or "\0" in text:
        raise InvalidParameter("environment and function have to be named")
    return text
