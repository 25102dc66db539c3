"""A real Envoy with stand-ins behind it, on loopback and unix sockets only."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloudlet.gateway.envoy.admin import AdminClient
from cloudlet.gateway.envoy.command import argv, write_initial
from cloudlet.gateway.envoy.keys import PublicKey
from cloudlet.gateway.envoy.options import EdgeFiles, EdgeLimits, EdgeOptions
from cloudlet.gateway.envoy.publisher import Publisher
from cloudlet.gateway.envoy.replies import TIMEOUT_TEXT, LocalReply
from cloudlet.gateway.envoy.structure import EdgeEnvironment, EdgeFunction, EdgeModel
from cloudlet.model.function import VersionKey

ENVIRONMENT = "env-1"
ADD = VersionKey(ENVIRONMENT, "add", "d1d1d1d1d1d1d1d1")
RESTARTING = "the service is restarting; nothing was started, try again"
DIED = "the function's process ended before it answered"

REPLIES = (
    LocalReply("/admin", 503, ("UF", "UH", "NC"), 200, "SYS_ERR", RESTARTING),
    LocalReply("/admin", 0, (), 200, "SYS_ERR", "%LOCAL_REPLY_BODY%"),
    LocalReply("/web", 0, (), 200, "SYS_ERR", "%LOCAL_REPLY_BODY%"),
    LocalReply("/v1/", 401, (), 401, "ACCESS_TOKEN_EXPIRED", "the token has expired", "Jwt_is_expired"),
    LocalReply("", 401, (), 401, "UNAUTHENTICATED", "sign in first"),
    LocalReply("", 403, (), 403, "PERMISSION_DENIED", "this session has ended"),
    LocalReply("", 408, (), 408, "SERVER_TIMEOUT", "the request did not arrive in time"),
    LocalReply("", 413, (), 413, "INVALID_PARAM", "the body is larger than the limit"),
    LocalReply("", 431, (), 431, "INVALID_PARAM", "the headers are larger than the limit"),
    LocalReply("/v1/functions/", 503, ("UC",), 500, "FUNCTIONS_EXECUTE_FAIL", DIED),
    LocalReply("", 503, ("UF", "UH", "NC"), 503, "SYS_ERR", RESTARTING),
    LocalReply("/v1/functions/", 504, (), 504, "FUNCTIONS_TIME_LIMIT_EXCEEDED", TIMEOUT_TEXT),
    LocalReply("", 400, (), 400, "INVALID_PARAM", "the request is not valid HTTP"),
)

Answer = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Call:
    """A request as an upstream saw it."""

    path: str
    headers: Mapping[str, list[str]]
    body: bytes


async def echo(request: web.Request, body: bytes) -> web.StreamResponse:
    return web.json_response({"bytes": len(body)})


async def busy(request: web.Request, body: bytes) -> web.StreamResponse:
    """The refusal of a call that has not started (``runtime/contract.md`` 3)."""
    return web.Response(status=503, headers={"x-cloudlet-busy": "1", "content-length": "0"})


@dataclass
class Upstream:
    """Something behind the edge: an instance, the activator or api."""

    socket: Path
    answer: Answer = echo
    calls: list[Call] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    async def start(self) -> Upstream:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, keepalive_timeout=3600, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket)).start()
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self.socket.unlink(missing_ok=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): request.headers.getall(name) for name in request.headers}
        self.calls.append(Call(request.path_qs, headers, body))
        return await self.answer(request, body)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Edge:
    """Envoy, its publisher, and stand-ins for the activator and api."""

    def __init__(
        self, directory: Path, limits: EdgeLimits, trusted_hops: int, replies: Sequence[LocalReply]
    ) -> None:
        self.directory = directory
        files = EdgeFiles(directory / "edge", directory / "envoy.sock")
        self.options = EdgeOptions(
            host="127.0.0.1",
            port=0,
            files=files,
            activator_socket=directory / "act.sock",
            api_socket=directory / "api.sock",
            xds_socket=directory / "xds.sock",
            replies=tuple(replies),
            trusted_hops=trusted_hops,
            limits=limits,
        )
        self.activator = Upstream(self.options.activator_socket)
        self.api = Upstream(self.options.api_socket)
        self.publisher = Publisher(self.options, limit_s=10, ack_limit_s=10)
        self.admin = AdminClient(files.admin_socket)
        self.signing_key = ec.generate_private_key(ec.SECP256R1())
        self.port = 0
        self.process: asyncio.subprocess.Process | None = None
        self._instances: list[Upstream] = []
        self._session: aiohttp.ClientSession | None = None

    @property
    def public_pem(self) -> str:
        encoded = self.signing_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return encoded.decode()

    async def start(self) -> None:
        await self.activator.start()
        await self.api.start()
        write_initial(self.options, keep=False)
        await self.publisher.start()
        await self.start_envoy()
        await self.publisher.set_keys([PublicKey.of_pem("k1", self.public_pem)])
        self._session = aiohttp.ClientSession(auto_decompress=False)

    async def start_envoy(self) -> None:
        log = (self.directory / "envoy.log").open("ab")
        with log:
            self.process = await asyncio.create_subprocess_exec(
                *argv(self.options), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        await self.admin.wait_ready(20)
        self.port = await self.admin.listening_port()

    async def stop_envoy(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
            self.process = None

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
        await self.stop_envoy()
        await self.publisher.close()
        await self.admin.close()
        for upstream in (*self._instances, self.activator, self.api):
            await upstream.stop()

    async def instance(self, name: str = "i1", answer: Answer = echo) -> Upstream:
        upstream = await Upstream(self.directory / f"{name}.sock", answer).start()
        self._instances.append(upstream)
        return upstream

    async def serve_late(self, timeout_s: float = 3.0) -> None:
        """`add` of `env-1`, bound by the activator."""
        await self.publisher.publish(model(timeout_s, early=False))

    async def serve_early(self, *instances: Upstream, timeout_s: float = 3.0) -> None:
        """`add` of `env-1` at these instances."""
        await self.publisher.set_endpoints(ADD, [str(instance.socket) for instance in instances])
        await self.publisher.publish(model(timeout_s, early=True))

    def token(self, **changes: Any) -> str:
        """A session token; `changes` replace claims, None removes one."""
        now = time.time()
        claims = {
            "iss": "cloudlet",
            "iat": now,
            "exp": now + 600,
            "env": ENVIRONMENT,
            "sub": "u1",
            "openid": "o1",
            "appid": "wx1",
            "unionid": "n1",
            "login_type": "WECHAT",
            "sid": "s1",
            "src": "wx_client",
        } | changes
        present = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(present, self.signing_key, algorithm="ES256", headers={"kid": "k1"})

    def bearer(self, **changes: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token(**changes)}"}

    async def call(
        self,
        path: str = "/v1/functions/add",
        body: bytes = b'{"a":1}',
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> Reply:
        """A call with a good token unless `headers` are given."""
        if self._session is None:
            raise RuntimeError("the edge is not started")
        sent = self.bearer() if headers is None else dict(headers)
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self._session.request(method, url, data=io.BytesIO(body), headers=sent) as reply:
            return Reply(reply.status, {k.lower(): v for k, v in reply.headers.items()}, await reply.read())

    async def raw(self, head: str, body: bytes = b"") -> Reply:
        """A request exactly as written, on a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(head.replace("\n", "\r\n").encode() + body)
            async with asyncio.timeout(20):
                status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
                pairs = (line.split(": ", 1) for line in lines if line)
                headers = {name.lower(): value for name, value in pairs}
                content = await reader.readexactly(int(headers.get("content-length", "0")))
            return Reply(int(status_line.split()[1]), headers, content)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def model(timeout_s: float = 3.0, *, early: bool, aliases: tuple[str, ...] = ("old-id",)) -> EdgeModel:
    function = EdgeFunction(ADD.environment, ADD.function, ADD.digest, timeout_s, early)
    return EdgeModel((EdgeEnvironment(ENVIRONMENT, aliases),), (function,))


@contextlib.asynccontextmanager
async def running_edge(
    limits: EdgeLimits | None = None, trusted_hops: int = 0, replies: Sequence[LocalReply] = REPLIES
) -> AsyncIterator[Edge]:
    """A started edge without functions. Everything is ended, also when the test fails."""
    directory = Path(tempfile.mkdtemp(prefix="edge-"))
    edge = Edge(directory, limits or EdgeLimits(), trusted_hops, replies)
    try:
        await edge.start()
        yield edge
    finally:
        await edge.stop()
        shutil.rmtree(directory, ignore_errors=True)
