"""What a caller sees of the edge, through a real Envoy."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from cloudlet.gateway.envoy.options import EdgeLimits
from tests.integration.edge_support import ADD, DIED, RESTARTING, Edge, Upstream, busy, running_edge

pytestmark = pytest.mark.anyio


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with running_edge() as started:
        yield started


async def test_a_call_with_a_token_reaches_the_instance_with_the_callers_identity(edge: Edge) -> None:
    instance = await edge.instance()
    await edge.serve_early(instance)

    reply = await edge.call()

    assert (reply.status, reply.json) == (200, {"bytes": 7})
    (call,) = instance.calls
    seen = {name: call.headers[name] for name in call.headers if name.startswith("x-cloudlet-")}
    assert seen == {
        "x-cloudlet-env": ["env-1"],
        "x-cloudlet-uid": ["u1"],
        "x-cloudlet-openid": ["o1"],
        "x-cloudlet-appid": ["wx1"],
        "x-cloudlet-unionid": ["n1"],
        "x-cloudlet-login-type": ["WECHAT"],
        "x-cloudlet-sid": ["s1"],
        "x-cloudlet-source": ["wx_client"],
        "x-cloudlet-function": ["add"],
        "x-cloudlet-version": [ADD.digest],
        "x-cloudlet-timeout-ms": ["3000"],
        "x-cloudlet-client-ip": ["127.0.0.1"],
    }
    assert "authorization" not in call.headers
    assert call.body == b'{"a":1}'
    assert call.headers["x-request-id"] == [reply.headers["x-request-id"]]


async def test_what_only_the_platform_may_set_is_removed_from_outside(edge: Edge) -> None:
    instance = await edge.instance()
    await edge.serve_early(instance)
    spoofed = {
        "x-cloudlet-openid": "somebody",
        "X-Cloudlet-Depth": "3",
        "x-cloudlet-queued-us": "1",
        "x-envoy-retry-on": "5xx",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-request-id": "mine",
        "x-forwarded-for": "1.2.3.4",
        "x-real-ip": "1.2.3.4",
    }

    await edge.call(headers=edge.bearer(openid=None) | spoofed)

    (call,) = instance.calls
    for name in ("x-cloudlet-openid", "x-cloudlet-depth", "x-cloudlet-queued-us", "x-envoy-retry-on"):
        assert name not in call.headers
    assert call.headers["x-request-id"] != ["mine"]
    assert "1.2.3.4" not in str(call.headers["x-forwarded-for"])
    assert "x-real-ip" not in call.headers


async def test_reply_headers_that_are_ours_stay_inside(edge: Edge) -> None:
    async def answer(request: web.Request, body: bytes) -> web.StreamResponse:
        headers = {"x-cloudlet-error": "function_failed", "x-other": "1", "server-timing": "handler;dur=1.5"}
        return web.json_response({}, status=400, headers=headers)

    await edge.serve_early(await edge.instance(answer=answer))

    reply = await edge.raw(_request(edge, "/v1/functions/add"))

    assert reply.status == 400
    assert reply.headers["x-other"] == "1"
    assert not [name for name in reply.headers if name.startswith(("x-cloudlet-", "x-envoy-"))]
    # The raw reader keeps the last line of a repeated header: the edge's own.
    assert reply.headers["server-timing"].startswith("edge;dur=")
    assert reply.headers["server"] == "cloudlet"


async def test_tokens_that_prove_nothing_are_refused_in_the_dialect(edge: Edge) -> None:
    instance = await edge.instance()
    await edge.serve_early(instance)
    good = edge.token()
    head, claims, signature = good.split(".")
    other = jwt.encode({"iss": "cloudlet", "exp": time.time() + 60, "env": "env-1"}, _fresh_key(), "ES256")
    hs256 = jwt.api_jws.PyJWS().encode(
        json.dumps({"iss": "cloudlet", "exp": int(time.time()) + 60, "env": "env-1"}).encode(),
        b"a secret of thirty-two bytes or more",
        "HS256",
        headers={"kid": "k1"},
    )
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT","kid":"k1"}').rstrip(b"=").decode()
    refused = {
        "missing": None,
        "forged": f"{head}.{claims[:-2]}AA.{signature}",
        "alg none": f"{none}.{claims}.",
        "alg none with a signature": f"{none}.{claims}.{signature}",
        "no signature": f"{head}.{claims}.",
        "symmetric": hs256,
        "foreign key": other,
        "foreign issuer": edge.token(iss="elsewhere"),
        "without end": edge.token(exp=None),
        "not a token": "x",
    }
    for name, token in refused.items():
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        reply = await edge.call(headers=headers)
        assert reply.status == 401, name
        assert reply.headers["content-type"] == "application/json", name
        request_id = reply.headers["x-request-id"]
        expected = {"code": "UNAUTHENTICATED", "message": "sign in first", "requestId": request_id}
        assert reply.json == expected, name
    expired = await edge.call(headers=edge.bearer(exp=time.time() - 5))
    assert (expired.status, expired.json["code"]) == (401, "ACCESS_TOKEN_EXPIRED")
    in_query = await edge.call(path=f"/v1/functions/add?access_token={good}", headers={})
    assert in_query.status == 401
    assert not instance.calls
    assert not edge.api.calls


def _fresh_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


async def test_two_tokens_are_nobody(edge: Edge) -> None:
    await edge.serve_late()
    one, two = edge.token(sid="s1"), edge.token(sid="s2")
    for extra in (
        f"authorization: Bearer {one}\nauthorization: Bearer {two}\n",
        f"authorization: Bearer {one}, Bearer {two}\n",
    ):
        reply = await edge.raw(f"POST /v1/functions/add HTTP/1.1\nhost: x\n{extra}content-length: 0\n\n")
        assert reply.status == 401
    assert not edge.activator.calls


async def test_signing_in_and_signed_calls_need_no_token(edge: Edge) -> None:
    await edge.serve_late()
    for path in ("/auth/v1/signin/anonymously", "/admin?env=env-1", "/web?env=env-1", "/"):
        reply = await edge.call(path=path, headers={"authorization": "TC3-HMAC-SHA256 Credential=1"})
        assert reply.status == 200
        call = edge.api.calls[-1]
        assert call.path == path
        assert call.headers["authorization"] == ["TC3-HMAC-SHA256 Credential=1"]
        assert "x-cloudlet-uid" not in call.headers
    await edge.call(path="/auth/v1/user/me", headers=edge.bearer())
    assert edge.api.calls[-1].headers["x-cloudlet-uid"] == ["u1"]
    assert "authorization" in edge.api.calls[-1].headers
    await edge.call(path="/auth/v1/token", headers=edge.bearer(exp=time.time() - 5))
    assert "x-cloudlet-uid" not in edge.api.calls[-1].headers


@pytest.mark.parametrize(
    "path",
    [
        "/v1/functions/add2",
        "/v1/functions/ad",
        "/v1/functions/Add",
        "/v1/functions/add/",
        "/v1/functions/add/..",
        "/v1/functions/add/sub",
        "/v1/functions/add/..;/x",
        "/v1/functions/__proto__",
        "/v1/functions/",
        "/v1/functions/add%00",
        "/v1/database/add",
        "/elsewhere/../v1/functions/add/../other",
    ],
)
async def test_a_path_that_names_no_function_goes_to_api_or_nowhere(edge: Edge, path: str) -> None:
    await edge.serve_late()
    reply = await edge.raw(_request(edge, path))
    assert not edge.activator.calls
    if edge.api.calls:
        assert reply.status == 200
        assert ".." not in edge.api.calls[0].path.replace("..;", "")
    else:
        assert (reply.status, reply.json["code"]) == (400, "INVALID_PARAM")


@pytest.mark.parametrize("path", ["/v1//functions///add", "/v1/functions/x/../add", "/v1/functions/add?a=b"])
async def test_the_same_path_written_otherwise_is_the_same_function(edge: Edge, path: str) -> None:
    await edge.serve_late()
    reply = await edge.raw(_request(edge, path))
    assert reply.status == 200
    assert edge.activator.calls[0].path.startswith("/v1/functions/add")


@pytest.mark.parametrize("path", ["/v1%2ffunctions%2fadd", "/v1/functions/x%2f..%2fadd", "/v1%5cfunctions"])
async def test_an_escaped_slash_is_refused(edge: Edge, path: str) -> None:
    await edge.serve_late()
    reply = await edge.raw(_request(edge, path))
    assert (reply.status, reply.json["code"]) == (400, "INVALID_PARAM")
    assert not edge.activator.calls
    assert not edge.api.calls


def _request(edge: Edge, path: str, extra: str = "") -> str:
    token = edge.token()
    return f"POST {path} HTTP/1.1\nhost: x\nauthorization: Bearer {token}\n{extra}content-length: 0\n\n"


async def test_an_absolute_target_is_understood(edge: Edge) -> None:
    await edge.serve_late()
    assert (await edge.raw(_request(edge, "http://elsewhere/v1/functions/add"))).status == 200
    assert len(edge.activator.calls) == 1


async def test_the_environment_of_the_token_decides(edge: Edge) -> None:
    await edge.serve_late()
    for environment in ("env-2", "ENV-1", "", None):
        await edge.call(headers=edge.bearer(env=environment))
    assert len(edge.api.calls) == 4
    assert not edge.activator.calls


@pytest.mark.parametrize(
    ("query", "header", "agrees"),
    [
        ("", "", True),
        ("?env=env-1", "", True),
        ("?env=old-id&x=1", "", True),
        ("?x=1&env=env-1", "env-1", True),
        ("", "old-id", True),
        ("?env=", "", True),
        ("?notenv=other", "", True),
        ("?x=?env", "", True),
        ("?env=other", "", False),
        ("?x=1&env=env-10", "", False),
        ("", "other", False),
        ("", "ENV-1", False),
        ("?env=env-1", "other", False),
    ],
)
async def test_a_request_that_names_another_environment_goes_to_api(
    edge: Edge, query: str, header: str, agrees: bool
) -> None:
    await edge.serve_late()
    headers = edge.bearer() | ({"x-env": header} if header else {})
    await edge.call(path=f"/v1/functions/add{query}", headers=headers)
    assert (len(edge.activator.calls), len(edge.api.calls)) == ((1, 0) if agrees else (0, 1))


@pytest.mark.parametrize("size", [0, 100, 1024 * 1024])
async def test_a_refused_call_is_repeated_once_at_the_activator_with_its_whole_body(
    edge: Edge, size: int
) -> None:
    instance = await edge.instance(answer=busy)
    await edge.serve_early(instance)
    body = bytes(index % 251 for index in range(size))

    reply = await edge.call(body=body)

    assert reply.status == 200
    assert len(instance.calls) == 1
    (call,) = edge.activator.calls
    assert call.body == body
    assert call.headers["x-envoy-attempt-count"] == ["2"]
    assert call.headers["x-cloudlet-version"] == [ADD.digest]
    assert call.headers["x-cloudlet-openid"] == ["o1"]
    stats = await edge.publisher.stats()
    assert stats[ADD].retries == 1


async def test_a_busy_activator_is_not_asked_again(edge: Edge) -> None:
    instance = await edge.instance(answer=busy)
    edge.activator.answer = busy
    await edge.serve_early(instance)
    reply = await edge.call()
    assert reply.status == 503
    assert (len(instance.calls), len(edge.activator.calls)) == (1, 1)


async def test_large_and_chunked_bodies_are_late_bound_and_larger_ones_refused(edge: Edge) -> None:
    instance = await edge.instance()
    await edge.serve_early(instance)
    megabyte = 1024 * 1024

    assert (await edge.call(body=b"x" * (megabyte + 1))).status == 200
    chunked = _request(edge, "/v1/functions/add").replace("content-length: 0", "transfer-encoding: chunked")
    assert (await edge.raw(chunked, b"3\r\nabc\r\n0\r\n\r\n")).status == 200
    assert (await edge.call(body=b"x" * 6 * megabyte)).status == 200
    assert [len(call.body) for call in edge.activator.calls] == [megabyte + 1, 3, 6 * megabyte]
    assert not instance.calls

    too_large = _request(edge, "/v1/functions/add").replace(
        "content-length: 0", f"content-length: {64 * megabyte + 1}"
    )
    reply = await edge.raw(too_large)
    assert (reply.status, reply.json["code"]) == (413, "INVALID_PARAM")
    # api reads it to its end before it says so: a client that still writes would not see the answer.
    assert (await edge.call(body=b"x" * (6 * megabyte + 1))).status == 200
    assert [len(call.body) for call in edge.api.calls] == [6 * megabyte + 1]
    assert len(edge.activator.calls) == 3


async def test_dead_and_missing_instances_do_not_lose_the_call(edge: Edge) -> None:
    dead = Upstream(edge.directory / "dead.sock")
    await edge.serve_early(dead)
    assert (await edge.call()).status == 200
    assert len(edge.activator.calls) == 1

    await edge.publisher.set_endpoints(ADD, [])
    assert (await edge.call()).status == 200
    assert len(edge.activator.calls) == 2


async def test_a_call_whose_instance_dies_is_not_repeated(edge: Edge) -> None:
    async def die(request: web.Request, body: bytes) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.close()
        return web.Response()

    instance = await edge.instance(answer=die)
    await edge.serve_early(instance)
    reply = await edge.call()
    assert (reply.status, reply.json["code"], reply.json["message"]) == (500, "FUNCTIONS_EXECUTE_FAIL", DIED)
    assert len(instance.calls) == 1
    assert not edge.activator.calls


@pytest.mark.parametrize(("timeout_s", "text"), [(0.5, "0.5"), (1.0, "1")])
async def test_the_edges_clock_answers_with_the_versions_timeout_and_does_not_repeat(
    edge: Edge, timeout_s: float, text: str
) -> None:
    released = asyncio.Event()

    async def hang(request: web.Request, body: bytes) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    instance = await edge.instance(answer=hang)
    await edge.serve_early(instance, timeout_s=timeout_s)
    try:
        reply = await edge.call()
    finally:
        released.set()
    assert reply.status == 504
    assert reply.json == {
        "code": "FUNCTIONS_TIME_LIMIT_EXCEEDED",
        "message": f"Invoking task timed out after {text} seconds",
        "requestId": reply.headers["x-request-id"],
    }
    assert len(instance.calls) == 1
    assert not edge.activator.calls


async def test_without_the_activator_or_api_the_caller_may_try_again(edge: Edge) -> None:
    await edge.serve_late()
    await edge.activator.stop()
    await edge.api.stop()
    late = await edge.call()
    assert (late.status, late.json["code"], late.json["message"]) == (503, "SYS_ERR", RESTARTING)
    unknown = await edge.call(path="/v1/other")
    assert (unknown.status, unknown.json["message"]) == (503, RESTARTING)
    signed = await edge.call(path="/admin", headers={})
    assert (signed.status, signed.json["code"], signed.json["message"]) == (200, "SYS_ERR", RESTARTING)


async def test_a_banned_session_is_refused_on_an_open_connection(edge: Edge) -> None:
    await edge.serve_late()
    assert (await edge.call()).status == 200
    await edge.publisher.set_bans(["s1"])
    reply = await edge.call()
    assert (reply.status, reply.json["code"]) == (403, "PERMISSION_DENIED")
    assert (await edge.call(headers=edge.bearer(sid="s2"))).status == 200
    assert (await edge.call(headers=edge.bearer(sid="s1,s2"))).status == 403
    await edge.publisher.set_bans([])
    assert (await edge.call()).status == 200


async def test_browsers_may_call_from_anywhere(edge: Edge) -> None:
    await edge.serve_late()
    preflight = {
        "origin": "https://page.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-sdk-version",
    }
    for path in ("/v1/functions/add", "/auth/v1/signin/anonymously", "/web"):
        reply = await edge.call(path=path, method="OPTIONS", body=b"", headers=preflight)
        assert reply.status == 200
        assert reply.headers["access-control-allow-origin"] == "https://page.example"
        assert "POST" in reply.headers["access-control-allow-methods"]
        assert "authorization" in reply.headers["access-control-allow-headers"]
    assert not edge.api.calls
    answered = await edge.call(headers=edge.bearer() | {"origin": "https://page.example"})
    assert answered.headers["access-control-allow-origin"] == "https://page.example"
    refused = await edge.call(headers={"origin": "https://page.example"})
    assert refused.status == 401
    assert refused.headers["access-control-allow-origin"] == "https://page.example"


async def test_a_function_cannot_be_upgraded_to(edge: Edge) -> None:
    await edge.serve_late()
    upgrade = "connection: upgrade\nupgrade: websocket\n"
    reply = await edge.raw(_request(edge, "/v1/functions/add", upgrade))
    assert reply.status == 403
    assert not edge.activator.calls


async def test_headers_have_a_limit(edge: Edge) -> None:
    reply = await edge.raw(_request(edge, "/v1/functions/add", f"x-long: {'x' * 40_000}\n"))
    assert (reply.status, reply.json["code"]) == (431, "INVALID_PARAM")
    many = "".join(f"x-{number}: 1\n" for number in range(200))
    assert (await edge.raw(_request(edge, "/v1/functions/add", many))).status == 431


async def test_slow_clients_are_sent_away() -> None:
    async with running_edge(EdgeLimits(headers_s=0.2, request_s=0.3)) as edge:
        await edge.serve_late()
        reply = await edge.raw(
            _request(edge, "/v1/functions/add").replace("content-length: 0", "content-length: 9")
        )
        assert (reply.status, reply.json["code"]) == (408, "SERVER_TIMEOUT")
        reply = await edge.raw("POST /v1/functions/add HTTP/1.1\nhost: x\n")
        assert reply.status == 408
        assert not edge.activator.calls


async def test_behind_a_trusted_proxy_its_request_id_and_client_address_count() -> None:
    async with running_edge(trusted_hops=1) as edge:
        await edge.serve_late()
        headers = edge.bearer() | {
            "x-forwarded-for": "9.9.9.9, 203.0.113.7",
            "x-request-id": "given-by-proxy",
        }
        await edge.call(headers=headers)
        (call,) = edge.activator.calls
        assert call.headers["x-cloudlet-client-ip"] == ["203.0.113.7"]
        assert call.headers["x-request-id"] == ["given-by-proxy"]


async def test_connections_over_the_limit_are_refused() -> None:
    async with running_edge(EdgeLimits(connections_max=2)) as edge:
        opened = [await asyncio.open_connection("127.0.0.1", edge.port) for _ in range(3)]
        try:
            async with asyncio.timeout(10):
                assert await opened[2][0].read() == b""
                opened[0][1].write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                assert (await opened[0][0].readline()).startswith(b"HTTP/1.1 200")
        finally:
            for _, writer in opened:
                writer.close()
