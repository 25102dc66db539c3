"""Who may call ``POST /admin``, and as whom."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.dialects.rig import INSTANCE, NOW, Rig, call, invocation_token, sign, started

pytestmark = pytest.mark.anyio

INVOKE: dict[str, Any] = {
    "action": "functions.invokeFunction",
    "function_name": "hello",
    "request_data": "{}",
}


async def test_a_signed_caller_from_outside_acts_as_the_server_side() -> None:
    async with started() as rig:
        answer = await rig.from_outside({**INVOKE, "envName": "default"})
        assert answer["data"] == {"response_data": '{"ok":true}'}
        [made] = rig.invoker.calls
        assert made.identity.admin and made.identity.environment == "default" and made.identity.openid == ""
        assert made.depth == 0 and made.source == ""


async def test_without_a_good_signature_nothing_happens_outside() -> None:
    async with started() as rig:
        credential = await rig.records.credential("default")
        query = "env=default&seqId=1"
        good = sign(INVOKE, credential.secret_id, credential.secret_key, query)
        for headers in (
            {},
            {"authorization": "Bearer abc"},
            {
                **good,
                "authorization": good["authorization"].replace(credential.secret_id, INSTANCE.secret_id),
            },
            {**good, "x-timestamp": "1"},
            sign(INVOKE, credential.secret_id, "wrong", query),
            sign({**INVOKE, "function_name": "other"}, credential.secret_id, credential.secret_key, query),
        ):
            reply = await call(rig.edge, "POST", f"/admin?{query}", INVOKE, headers)
            assert reply.status == 200 and reply.json["code"] == "SIGN_PARAM_INVALID", headers
        assert rig.invoker.calls == []


async def test_a_captured_request_expires() -> None:
    async with started() as rig:
        rig.clock.at = NOW + 601
        answer = await rig.from_outside(INVOKE)
        assert answer["code"] == "SIGN_PARAM_INVALID" and "expired" in answer["message"]


async def test_outside_the_word_about_a_user_is_not_taken() -> None:
    async with started() as rig:
        token = invocation_token(o="oVictim", u="u1", d=0)
        await rig.from_outside({**INVOKE, "wxCloudApiToken": token, "tcb_sessionToken": token})
        assert rig.invoker.calls[0].identity.openid == "" and rig.invoker.calls[0].identity.uid == ""


async def test_without_an_environment_the_credentials_own_is_meant() -> None:
    async with started() as rig:
        await rig.records.create_environment("shop")
        await rig.from_outside(INVOKE, environment="shop", query="seqId=1")
        assert rig.invoker.calls[0].identity.environment == "shop"


async def test_aliases_are_the_same_environment_and_others_are_refused() -> None:
    async with started() as rig:
        await rig.records.create_environment("shop")
        await rig.records.set_environment_alias("prod-8gx", "default")
        await rig.from_outside({**INVOKE, "envName": "prod-8gx"}, query="env=prod-8gx")
        assert rig.invoker.calls[0].identity.environment == "default"
        for body, query in (
            ({**INVOKE, "envName": "shop"}, "env=default"),
            (INVOKE, "env=shop"),
            (INVOKE, "env=default&env=shop"),
            ({**INVOKE, "envName": "nobody-has-this"}, ""),
        ):
            assert (await rig.from_outside(body, query=query))["code"] == "INVALIID_ENV"
            assert (await rig.from_inside(body, f"/admin?{query}"))["code"] == "INVALIID_ENV"
        assert len(rig.invoker.calls) == 1


async def test_the_users_identity_is_kept_over_a_nested_call() -> None:
    async with started() as rig:
        token = invocation_token(
            r="r1", u="u1", o="oA", a="wx1", n="un1", l="WECHAT", s="s1", c="wx_client", d=2, i="1.2.3.4"
        )
        for name in ("wxCloudApiToken", "tcb_sessionToken"):
            await rig.from_inside({**INVOKE, name: token})
        for made in rig.invoker.calls:
            who = made.identity
            assert (who.openid, who.uid, who.appid, who.unionid) == ("oA", "u1", "wx1", "un1")
            assert (who.login_type, who.session_id, who.environment) == ("WECHAT", "s1", "default")
            assert (made.source, made.depth, made.client_ip) == ("wx_client,scf", 3, "1.2.3.4")


async def test_a_function_without_a_user_calls_for_itself() -> None:
    async with started() as rig:
        await rig.from_inside(INVOKE)
        await rig.from_inside({**INVOKE, "envName": "", "tcb_sessionToken": "", "wxCloudApiToken": ""})
        for made in rig.invoker.calls:
            assert made.identity.openid == "" and made.identity.admin
            assert (made.source, made.depth) == ("scf", 1)


async def test_a_token_cannot_choose_the_environment_or_smuggle_headers() -> None:
    async with started() as rig:
        await rig.from_inside({**INVOKE, "wxCloudApiToken": invocation_token(e="shop", env="shop", o="oA")})
        assert rig.invoker.calls[0].identity.environment == "default"
        for bad in (
            invocation_token(o="a\r\nx-cloudlet-env: shop"),
            invocation_token(o="x" * 300),
            invocation_token(d=-5),
            invocation_token(o=7),
            "###",
            "AAAA",
            "x" * 5000,
        ):
            answer = await rig.from_inside({**INVOKE, "wxCloudApiToken": bad})
            assert answer["code"] == "UNAUTHENTICATED"
        assert len(rig.invoker.calls) == 1


async def test_a_foreign_credential_inside_is_checked_in_full_and_counts_as_outside() -> None:
    async with started() as rig:
        await rig.records.create_environment("shop")
        shop = await rig.records.credential("shop")
        body = {**INVOKE, "envName": "shop", "wxCloudApiToken": invocation_token(o="oA")}
        query = "env=shop"
        good = sign(body, shop.secret_id, shop.secret_key, query)
        reply = await call(rig.inside, "POST", f"/admin?{query}", body, good)
        assert reply.json["data"] and rig.invoker.calls[0].identity.environment == "shop"
        assert rig.invoker.calls[0].identity.openid == ""
        bad = sign(body, shop.secret_id, "wrong", query)
        reply = await call(rig.inside, "POST", f"/admin?{query}", body, bad)
        assert reply.json["code"] == "SIGN_PARAM_INVALID"
        reply = await call(rig.inside, "POST", f"/admin?{query}", body)
        assert reply.json["code"] == "SIGN_PARAM_INVALID"


async def test_the_edges_request_id_is_kept_and_an_instances_is_not() -> None:
    async with started() as rig:
        reply = await call(rig.edge, "POST", "/admin", {"action": "x"}, {"x-request-id": "from-edge"})
        assert reply.json["requestId"] == "from-edge"
        answer = await rig.from_inside(INVOKE, **{"x-request-id": "made-up"})
        assert answer["requestId"] != "made-up" == "made-up"
        assert rig.invoker.calls[0].request_id == answer["requestId"]


async def test_source_chains_stay_short() -> None:
    async with started() as rig:
        chain = ",".join(["scf"] * 200)
        await _invoke_with(rig, c=chain[:200])
        assert len(rig.invoker.calls[0].source) <= 256
        assert rig.invoker.calls[0].source.endswith("scf")


async def _invoke_with(rig: Rig, **fields: Any) -> None:
    await rig.from_inside({**INVOKE, "wxCloudApiToken": invocation_token(**fields)})
