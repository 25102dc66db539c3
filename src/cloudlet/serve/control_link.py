"""How api speaks to control: three small calls over ``control.sock``.

Both halves are here, so that the words on the wire stand side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloudlet.model.errors import EdgeUnavailable, Internal, PlatformError, Unavailable, error_class
from cloudlet.model.function import Version, VersionKey
from cloudlet.observe.metrics import CONTENT_TYPE

log = structlog.get_logger()

PREPARE_S_MAX = 90.0
"""A start check may load slow modules, and control may be restarting."""
PUBLISH_S_MAX = 30.0


class ControlLink:
    """The client half: `functions.ports.ControlClient`, and the status for people."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None

    async def prepare(self, version: Version) -> None:
        """Return once an instance of `version` has loaded. Raise FunctionLoadFailed or Unavailable."""
        key = version.key
        await self._call(
            "/prepare",
            {"environment": key.environment, "function": key.function, "digest": key.digest},
            PREPARE_S_MAX,
        )

    async def publish(self, sequence: int) -> None:
        """Return once control and the edge work with records of at least `sequence`.

        Raise EdgeUnavailable.
        """
        try:
            await self._call("/publish", {"sequence": sequence}, PUBLISH_S_MAX)
        except EdgeUnavailable:
            raise
        except Unavailable as error:
            raise EdgeUnavailable(error.message) from error

    async def status(self) -> dict[str, Any]:
        """What control knows now, for ``cloudlet status``. Raise Unavailable."""
        return await self._call("/status", {}, 5.0)

    async def metrics(self) -> bytes:
        """Control's metrics in the text form. Raise Unavailable."""
        try:
            async with self._open().get(
                "http://control/metrics", timeout=aiohttp.ClientTimeout(total=5.0), raise_for_status=True
            ) as reply:
                return await reply.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _no_answer(error) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self._socket), limit=64)
            )
        return self._session

    async def _call(self, path: str, body: dict[str, Any], limit_s: float) -> dict[str, Any]:
        try:
            async with self._open().post(
                f"http://control{path}",
                data=msgspec.json.encode(body),
                timeout=aiohttp.ClientTimeout(total=limit_s),
            ) as reply:
                answer: dict[str, Any] = msgspec.json.decode(await reply.read(), type=dict)
                status = reply.status
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as error:
            raise _no_answer(error) from error
        if status != 200:
            raise error_class(str(answer.get("code")))(str(answer.get("message")))
        return answer


def _no_answer(error: Exception) -> Unavailable:
    return Unavailable(f"control does not answer ({type(error).__name__}); try again")


class ControlDoor:
    """The server half: hands the calls to three functions of the control process."""

    def __init__(
        self,
        prepare: Callable[[VersionKey], Awaitable[None]],
        publish: Callable[[int], Awaitable[None]],
        status: Callable[[], Awaitable[dict[str, Any]]],
        metrics: Callable[[], bytes],
    ) -> None:
        self._prepare = prepare
        self._publish = publish
        self._status = status
        self._metrics = metrics

    def app(self) -> Starlette:
        """The application to serve on ``control.sock``."""
        return Starlette(
            routes=[
                Route("/prepare", self._answer(self._on_prepare), methods=["POST"]),
                Route("/publish", self._answer(self._on_publish), methods=["POST"]),
                Route("/status", self._answer(self._on_status), methods=["POST"]),
                Route("/metrics", self._on_metrics, methods=["GET"]),
            ]
        )

    async def _on_prepare(self, body: dict[str, Any]) -> dict[str, Any]:
        await self._prepare(VersionKey(body["environment"], body["function"], body["digest"]))
        return {}

    async def _on_publish(self, body: dict[str, Any]) -> dict[str, Any]:
        await self._publish(int(body["sequence"]))
        return {}

    async def _on_metrics(self, _request: Request) -> Response:
        return Response(self._metrics(), media_type=CONTENT_TYPE)

    async def _on_status(self, _body: dict[str, Any]) -> dict[str, Any]:
        return await self._status()

    @staticmethod
    def _answer(
        handle: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                body = msgspec.json.decode(await request.body(), type=dict)
                answer, status = await handle(body), 200
            except PlatformError as error:
                answer, status = {"code": error.code, "message": error.message}, 409
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("control_call_failed", path=request.url.path)
                answer, status = {"code": Internal.code, "message": Internal().message}, 500
            return Response(msgspec.json.encode(answer), status, media_type="application/json")

        return endpoint
