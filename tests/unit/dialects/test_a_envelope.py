"""Bad input to ``POST /admin``: answered clearly, in the dialect, and nothing done."""

from __future__ import annotations

import json

import pytest

from cloudlet.dialects.a.envelope import BODY_BYTES_MAX, members_of
from cloudlet.model.errors import MalformedBody
from tests.unit.dialects.rig import call, started

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b'"text"',
        b"{",
        b'{"action":"x"',
        b'{"action":"x"}}',
        b'{"action":"x","action":"y"}',
        b'{"action":"x","a":1,"\\u0061":2}',
        b'{ "action": "x", "a": 1, "a": 1 }',
        b'{"action":"x","deep":{"a":1,"a":2} }',
        b'{"action":"\xff"}',
        b'{"action":"x","deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
async def test_what_is_not_one_clear_json_object_is_refused(body: bytes) -> None:
    async with started() as rig:
        answer = await rig.from_inside(body)
        assert answer["code"] == "INVALID_PARAM" and answer["requestId"]
        assert rig.invoker.calls == []


async def test_a_body_over_the_limit_is_refused_while_it_is_read() -> None:
    async with started() as rig:
        for headers in ({}, {"content-length": str(BODY_BYTES_MAX + 1)}):
            reply = await call(rig.edge, "POST", "/admin", b"x" * (BODY_BYTES_MAX + 1), headers)
            assert reply.status == 200 and reply.json["code"] == "INVALID_PARAM"
            assert "larger" in reply.json["message"]


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({}, "action"),
        ({"action": 7}, "action"),
        ({"action": "database.getDocument"}, "collectionName"),
        ({"action": "database.getDocument", "collectionName": 1}, "collectionName"),
        ({"action": "database.getDocument", "collectionName": "a", "limit": "ten"}, "limit"),
        ({"action": "functions.invokeFunction"}, "function_name"),
        ({"action": "nothing.like.this"}, "nothing.like.this"),
        ({"action": "x", "envName": ["default"]}, "envName"),
    ],
)
async def test_a_wrong_parameter_is_named(body: dict[str, object], names: str) -> None:
    async with started() as rig:
        answer = await rig.from_inside(body)
        assert answer["code"] == "INVALID_PARAM" and names in answer["message"]


async def test_only_post_is_taken() -> None:
    async with started() as rig:
        reply = await call(rig.edge, "GET", "/admin?env=default")
        assert reply.status == 200 and reply.json["code"] == "INVALID_PARAM"


async def test_a_body_that_arrives_in_pieces_is_one_body() -> None:
    async with started() as rig:
        body = json.dumps({"action": "nothing"}).encode()
        reply = await call(
            rig.inside, "POST", "/admin", body, {"authorization": "Credential=AKIDinstance/"}, 3
        )
        assert "nothing" in reply.json["message"]


async def test_our_own_faults_are_told_without_detail() -> None:
    async with started() as rig:
        rig.invoker.answer = RuntimeError("secret detail")
        answer = await rig.from_inside({"action": "functions.invokeFunction", "function_name": "hello"})
        assert answer["code"] == "SYS_ERR" and "secret" not in json.dumps(answer)


def test_whitespace_and_escapes_are_no_duplicates() -> None:
    body = '{ "action" : "x" , "名" : [1, 2], "q\\"uote": {"a": 1} }'.encode()
    assert set(members_of(body)) == {"action", "名", 'q"uote'}
    assert members_of(b"{}") == {}
    with pytest.raises(MalformedBody, match="twice"):
        members_of(b'{"a":1,"b":2,"a":3}')
