"""Dialect D where it reaches api: what the edge did not route, calls from inside instances, signing in."""

from __future__ import annotations

from typing import Any

import pytest

from cloudlet.model import errors as e
from tests.unit.dialects.rig import INSTANCE, call, invocation_token, started

pytestmark = pytest.mark.anyio

USER = {
    "x-cloudlet-env": "default",
    "x-cloudlet-uid": "u1",
    "x-cloudlet-openid": "oA",
    "x-cloudlet-source": "wx_client",
    "x-request-id": "r1",
}


async def test_an_unknown_function_is_a_404_in_the_dialect() -> None:
    async with started() as rig:
        for name in ("nobody", "..", "__proto__", "a" * 61):
            reply = await call(rig.edge, "POST", f"/v1/functions/{name}", {}, USER)
            assert reply.status == 404 and reply.json["code"] == "FUNCTION_NOT_FOUND"
            assert reply.json["requestId"] == "r1"
        assert rig.invoker.calls == []


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/", "/v1/functions", "/v1/functions/", "/v1/functions/a/b", "/v1/x", "/"]
)
async def test_addresses_that_do_not_exist_are_a_404_in_the_dialect(path: str) -> None:
    async with started() as rig:
        reply = await call(rig.edge, "POST", path, {}, USER)
        assert reply.status == 404 and reply.json["code"] == "NOT_FOUND" and "message" in reply.json


async def test_another_environment_than_the_tokens_is_refused() -> None:
    async with started() as rig:
        await rig.deployed("hello")
        await rig.records.create_environment("shop")
        await rig.deployed("hello", "shop")
        for target, headers in (
            ("/v1/functions/hello", {"x-env": "shop"}),
            ("/v1/functions/hello?env=shop", {}),
            ("/v1/functions/hello?env=default&env=shop", {}),
        ):
            reply = await call(rig.edge, "POST", target, {}, {**USER, **headers})
            assert reply.status == 403 and reply.json["code"] == "INVALIID_ENV"
        assert rig.invoker.calls == []


async def test_a_function_the_edge_has_no_route_for_yet_is_called_once_with_the_users_identity() -> None:
    async with started() as rig:
        await rig.deployed("hello")
        await rig.records.set_environment_alias("prod-8gx", "default")
        reply = await call(
            rig.edge, "POST", "/v1/functions/hello?env=prod-8gx", {"a": 1}, {**USER, "x-env": "prod-8gx"}
        )
        assert reply.status == 200 and reply.json == {"ok": True}
        assert reply.headers["server-timing"] == "queue;dur=0.500"
        [made] = rig.invoker.calls
        assert (made.identity.openid, made.identity.uid, made.identity.admin) == ("oA", "u1", False)
        assert (made.body, made.request_id, made.source, made.depth) == (b'{"a":1}', "r1", "wx_client", 0)


async def test_without_a_verified_user_nobody_calls() -> None:
    async with started() as rig:
        await rig.deployed("hello")
        reply = await call(rig.edge, "POST", "/v1/functions/hello", {}, {"x-cloudlet-env": "default"})
        assert reply.status == 401 and reply.json["code"] == "UNAUTHENTICATED"
        assert rig.invoker.calls == []


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (e.FunctionFailed("{}"), 400, "FUNCTIONS_EXECUTE_FAIL"),
        (e.FunctionTimeout(), 504, "FUNCTIONS_TIME_LIMIT_EXCEEDED"),
        (e.ConcurrencyExceeded(), 429, "EXCEED_CONCURRENT_REQUEST_LIMIT"),
        (e.Unavailable(), 503, "SYS_ERR"),
    ],
)
async def test_failures_have_a_status(error: e.PlatformError, status: int, code: str) -> None:
    async with started() as rig:
        await rig.deployed("hello")
        rig.invoker.fail(error)
        reply = await call(rig.edge, "POST", "/v1/functions/hello", {}, USER)
        assert (reply.status, reply.json["code"]) == (status, code)


async def test_python_functions_call_others_with_their_session_token() -> None:
    async with started() as rig:
        await rig.deployed("other")
        token = invocation_token(o="oA", u="u1", c="wx_client", d=1)
        headers = {"authorization": f"Bearer {token}", "x-request-id": "made-up"}
        reply = await call(rig.inside, "POST", "/v1/functions/other", {"a": 1}, headers)
        assert reply.status == 200
        for authorization in (f"Bearer {INSTANCE.session_token}", ""):
            await call(rig.inside, "POST", "/v1/functions/other", {}, {"authorization": authorization})
        first, *others = rig.invoker.calls
        assert (first.identity.openid, first.source, first.depth) == ("oA", "wx_client,scf", 2)
        assert first.request_id != "made-up"
        assert [(c.identity.openid, c.depth) for c in others] == [("", 1), ("", 1)]
        bad = await call(rig.inside, "POST", "/v1/functions/other", {}, {"authorization": "Bearer x.y.z"})
        assert bad.status == 401


async def test_an_instance_cannot_pretend_to_be_the_edge() -> None:
    async with started() as rig:
        await rig.deployed("hello")
        await call(rig.inside, "POST", "/v1/functions/hello", {}, {**USER, "x-cloudlet-env": "shop"})
        [made] = rig.invoker.calls
        assert made.identity.openid == "" and made.identity.environment == "default"
        assert (await call(rig.inside, "POST", "/auth/v1/signin/anonymously", {})).status == 404


async def _sign_in(
    rig: Any, target: str = "/auth/v1/signin/anonymously", body: Any = b"", **headers: str
) -> Any:
    return await call(rig.edge, "POST", target, body, headers)


async def test_anonymous_sign_in_refresh_profile_and_sign_out() -> None:
    async with started() as rig:
        reply = await _sign_in(rig, "/auth/v1/signin/anonymously?client_id=default", b"{}")
        assert reply.status == 200 and reply.headers["cache-control"] == "no-store"
        first = reply.json
        assert (
            first["token_type"] == "Bearer" and first["scope"] == "anonymous" and first["expires_in"] == 900
        )
        who = rig.auth.verify(first["access_token"]).identity
        assert who.anonymous and who.uid == first["sub"] and who.environment == "default"

        again = await call(
            rig.edge,
            "POST",
            "/auth/v1/token",
            {"client_id": "default", "grant_type": "refresh_token", "refresh_token": first["refresh_token"]},
            {"content-type": "text/plain;charset=UTF-8"},
        )
        assert again.status == 200 and again.json["sub"] == first["sub"]
        bearer = {"authorization": f"Bearer {again.json['access_token']}"}
        me = await call(rig.edge, "GET", "/auth/v1/user/me", b"", bearer)
        assert me.status == 200 and me.json["sub"] == first["sub"] and me.json["providers"] == []

        assert (await call(rig.edge, "POST", "/auth/v1/revoke", {}, bearer)).json == {}
        gone = await call(rig.edge, "GET", "/auth/v1/user/me", b"", bearer)
        assert gone.status == 401 and gone.json["error"] == "unauthenticated"
        assert rig.banned == [who.session_id]


async def test_a_used_refresh_token_is_an_invalid_grant() -> None:
    async with started() as rig:
        first = (await _sign_in(rig)).json
        body = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
        assert (await call(rig.edge, "POST", "/auth/v1/token", body)).status == 200
        for used in (body, {**body, "refresh_token": "nonsense"}):
            reply = await call(rig.edge, "POST", "/auth/v1/token", used)
            assert reply.status == 400 and reply.json["error"] == "invalid_grant"
            assert reply.json["error_description"]
        wrong = await call(rig.edge, "POST", "/auth/v1/token", {**body, "grant_type": "password"})
        assert wrong.json["error"] == "invalid_argument"


async def test_revoking_by_the_token_in_the_body() -> None:
    async with started() as rig:
        first = (await _sign_in(rig)).json
        assert (
            await call(rig.edge, "POST", "/auth/v1/revoke", {"token": first["access_token"]})
        ).status == 200
        with pytest.raises(e.Unauthenticated):
            rig.auth.verify(first["access_token"])
        assert (await call(rig.edge, "POST", "/auth/v1/revoke", {"token": "x"})).status == 401


async def test_the_environment_of_a_sign_in() -> None:
    async with started() as rig:
        await rig.records.create_environment("shop")
        await rig.records.set_environment_alias("shop-8gx", "shop")

        async def environment(target: str = "", body: Any = b"", **headers: str) -> str:
            reply = await _sign_in(rig, f"/auth/v1/signin/anonymously{target}", body, **headers)
            if reply.status != 200:
                return str(reply.json["error"])
            return rig.auth.verify(reply.json["access_token"]).identity.environment

        assert await environment() == "default"
        assert await environment("?client_id=shop") == "shop"
        assert await environment("?client_id=shop-8gx") == "shop"
        assert await environment(body={"client_id": "shop"}) == "shop"
        assert await environment(**{"x-env": "shop"}) == "shop"
        assert await environment(host="shop.example.com") == "shop"
        assert await environment(host="www.example.com") == "default"
        assert await environment(host="127.0.0.1:80") == "default"
        assert await environment("?client_id=shop", **{"x-env": "shop-8gx"}) == "shop"
        assert await environment("?client_id=shop", **{"x-env": "default"}) == "permission_denied"
        assert await environment("?client_id=nobody") == "not_found"


async def test_anonymous_sign_in_can_be_off() -> None:
    async with started(anonymous=False) as rig:
        reply = await _sign_in(rig)
        assert (
            reply.status == 403
            and reply.json["error"] == "permission_denied"
            and reply.json["error_code"] == 7
        )


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"client_id":7}', b"\xff", b"[" * 30_000])
async def test_bad_bodies_are_invalid_arguments(body: bytes) -> None:
    async with started() as rig:
        reply = await _sign_in(rig, body=body)
        assert reply.status == 400 and reply.json["error"] == "invalid_argument"


async def test_other_addresses_and_methods_below_auth() -> None:
    async with started() as rig:
        assert (await call(rig.edge, "POST", "/auth/v1/nothing", {})).json["error"] == "not_found"
        assert (await call(rig.edge, "GET", "/auth/v1/token")).status == 400
        assert (await call(rig.edge, "GET", "/auth/v1/user/me")).status == 401
        assert (await call(rig.edge, "POST", "/auth/v1/token", b"x" * 70_000)).status == 400


async def test_health() -> None:
    async with started() as rig:
        assert (await call(rig.edge, "GET", "/health")).json == {"status": "ok"}
