"""Envoy's own answers in the caller's dialect: the platform's table, through a real Envoy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from cloudlet.dialects.errors import edge_replies
from cloudlet.gateway.envoy.options import EdgeLimits
from tests.integration.edge_support import Edge, Reply, running_edge

pytestmark = pytest.mark.anyio

FUNCTION = "/v1/functions/add"


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    limits = EdgeLimits(headers_s=0.3, request_s=0.3)
    async with running_edge(limits, replies=edge_replies()) as started:
        yield started


async def _expired(edge: Edge, path: str) -> Reply:
    return await edge.call(path, headers=edge.bearer(exp=time.time() - 5))


async def _no_token(edge: Edge, path: str) -> Reply:
    return await edge.call(path, headers={})


async def _banned(edge: Edge, path: str) -> Reply:
    await edge.publisher.set_bans(["s1"])
    return await edge.call(path)


async def _bad_path(edge: Edge, path: str) -> Reply:
    return await edge.raw(f"POST {path}/a%2fb HTTP/1.1\nhost: x\ncontent-length: 0\n\n")


async def _slow(edge: Edge, path: str) -> Reply:
    authorization = edge.bearer()["authorization"] if path.startswith("/v1") else "none"
    return await edge.raw(
        f"POST {path} HTTP/1.1\nhost: x\nauthorization: {authorization}\ncontent-length: 9\n\n"
    )


async def _large(edge: Edge, path: str) -> Reply:
    token = edge.token()
    return await edge.raw(
        f"POST {path} HTTP/1.1\nhost: x\nauthorization: Bearer {token}\ncontent-length: 99000000\n\n"
    )


async def _api_away(edge: Edge, path: str) -> Reply:
    await edge.api.stop()
    await edge.activator.stop()
    return await edge.call(path)


async def _upstream_dies(edge: Edge, path: str) -> Reply:
    async def die(request: web.Request, body: bytes) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.close()
        return web.Response()

    edge.api.answer = edge.activator.answer = die
    return await edge.call(path)


Cause = Callable[[Edge, str], Awaitable[Reply]]


@pytest.mark.parametrize(
    ("cause", "path", "status", "code"),
    [
        (_no_token, FUNCTION, 401, "UNAUTHENTICATED"),
        (_expired, FUNCTION, 401, "ACCESS_TOKEN_EXPIRED"),
        (_banned, FUNCTION, 401, "UNAUTHENTICATED"),
        (_bad_path, FUNCTION, 400, "INVALID_PARAM"),
        (_bad_path, "/admin", 200, "INVALID_PARAM"),
        (_bad_path, "/web", 200, "INVALID_PARAM"),
        (_slow, FUNCTION, 408, "SERVER_TIMEOUT"),
        (_slow, "/admin", 200, "SERVER_TIMEOUT"),
        (_slow, "/web", 200, "SERVER_TIMEOUT"),
        (_large, FUNCTION, 413, "INVALID_PARAM"),
        (_large, "/v1/database", 413, "INVALID_PARAM"),
        (_large, "/admin", 200, "INVALID_PARAM"),
        (_large, "/web", 200, "INVALID_PARAM"),
        (_api_away, FUNCTION, 503, "SYS_ERR"),
        (_api_away, "/auth/v1/token", 503, "SYS_ERR"),
        (_api_away, "/admin", 200, "SYS_ERR"),
        (_api_away, "/web", 200, "SYS_ERR"),
        (_upstream_dies, FUNCTION, 400, "FUNCTIONS_EXECUTE_FAIL"),
        (_upstream_dies, "/v1/database", 500, "SYS_ERR"),
        (_upstream_dies, "/admin", 200, "SYS_ERR"),
    ],
)
async def test_a_refusal_of_the_edge_has_the_shape_of_the_dialect(
    edge: Edge, cause: Cause, path: str, status: int, code: str
) -> None:
    await edge.serve_late()
    reply = await cause(edge, path)
    assert reply.status == status
    assert set(reply.json) == {"code", "message", "requestId"}
    assert reply.json["code"] == code
    assert reply.json["message"]
    # A path that is refused while it is read has no id yet, neither in the body nor in the header.
    assert reply.json["requestId"] == reply.headers.get("x-request-id")
    assert reply.json["requestId"] or cause is _bad_path
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", [FUNCTION, "/admin", "/web"])
async def test_headers_that_are_too_large_are_refused_before_the_path_is_known(edge: Edge, path: str) -> None:
    reply = await edge.raw(f"POST {path} HTTP/1.1\nhost: x\nx-long: {'x' * 40_000}\n\n")
    assert (reply.status, reply.json["code"]) == (431, "INVALID_PARAM")


async def test_the_text_of_a_timeout_is_exact(edge: Edge) -> None:
    gate = asyncio.Event()

    async def hang(request: web.Request, body: bytes) -> web.StreamResponse:
        await gate.wait()
        return web.Response()

    await edge.serve_early(await edge.instance(answer=hang), timeout_s=0.2)
    try:
        reply = await edge.call()
    finally:
        gate.set()
    assert reply.status == 504
    assert reply.json["code"] == "FUNCTIONS_TIME_LIMIT_EXCEEDED"
    assert reply.json["message"] == "Invoking task timed out after 0.2 seconds"
