"""Documents in dialect D, as js-sdk sends them through the edge (facts: wire-protocol 3.6)."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from cloudlet.docdb.base import Preset
from cloudlet.model.access import Access
from cloudlet.model.errors import StoreUnavailable
from tests.unit.dialects.rig import Reply, Rig, call, started

pytestmark = pytest.mark.anyio

DATABASE = "/v1/database/instances/(default)/databases/(default)"
DOCUMENTS = f"{DATABASE}/collections/notes/documents"


def user(openid: str) -> dict[str, str]:
    return {
        "x-cloudlet-env": "default",
        "x-cloudlet-uid": f"u-{openid}",
        "x-cloudlet-openid": openid,
        "x-cloudlet-login-type": "WECHAT",
        "x-request-id": "r1",
    }


class Client:
    """A mini program of one user; `notes` is PRIVATE unless told otherwise."""

    def __init__(self, rig: Rig, openid: str = "oA") -> None:
        self._rig = rig
        self._headers = user(openid)

    async def raw(self, method: str, target: str, body: Any = b"", **headers: str) -> Reply:
        return await call(self._rig.edge, method, target, body, {**self._headers, **headers})

    async def __call__(self, method: str, target: str, body: Any = b"") -> Any:
        reply = await self.raw(method, target, body)
        assert reply.status == 200, reply.json
        return reply.json

    async def list(self, **fields: Any) -> Any:
        texts = {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()
        }
        return await self("GET", f"{DOCUMENTS}?{urlencode(texts)}")


async def _notes(rig: Rig, preset: Preset = Preset.PRIVATE) -> None:
    await rig.documents.create_collection("default", "notes", preset)


async def test_documents_are_added_listed_and_belong_to_their_creator() -> None:
    async with started() as rig:
        await _notes(rig)
        mine, others = Client(rig), Client(rig, "oB")
        data = [{"_id": "a", "n": 1, "at": {"$date": 1700000000123}}, {"_id": "b", "n": 2}]
        assert await mine("POST", DOCUMENTS, {"data": data}) == {"insertedIds": ["a", "b"]}
        assert await others("POST", DOCUMENTS, {"data": [{"_id": "c", "n": 3}]}) == {"insertedIds": ["c"]}
        found = await mine.list(
            query={"n": {"$gte": {"$numberInt": "1"}}},
            order=[{"field": "n", "direction": "desc"}],
            offset=0,
            limit=100,
        )
        assert found == {
            "offset": 0,
            "limit": 100,
            "list": [
                {"_id": "b", "n": 2, "_openid": "oA"},
                {"_id": "a", "n": 1, "at": {"$date": 1700000000123}, "_openid": "oA"},
            ],
        }
        assert await mine.list(projection={"n": 1, "_id": 0}, query={"_id": "a"}) == {
            "offset": 0,
            "limit": 100,
            "list": [{"n": 1}],
        }
        assert await mine.list(count="true") == {"total": 2}
        assert await mine.list(count="true", query={"n": 2}) == {"total": 1}


async def test_one_document_by_its_address() -> None:
    async with started() as rig:
        await _notes(rig)
        mine = Client(rig)
        await mine("POST", DOCUMENTS, {"data": [{"_id": "a/ö", "n": 1}]})
        address = f"{DOCUMENTS}/{quote('a/ö', safe='')}"
        assert (await mine("GET", address))["n"] == 1
        assert await Client(rig, "oB")("GET", address) is None
        assert (await mine.raw("GET", f"{DOCUMENTS}/a/b")).status == 404
        encoded = DOCUMENTS.replace("(", "%28").replace(")", "%29")
        assert (await mine("GET", encoded))["limit"] == 100


async def test_updates_change_what_is_the_callers() -> None:
    async with started() as rig:
        await _notes(rig, Preset.READONLY)
        mine, others = Client(rig), Client(rig, "oB")
        await mine("POST", DOCUMENTS, {"data": [{"_id": "a", "n": 1}, {"_id": "b", "n": 1}]})
        change = {"query": {"n": 1}, "data": {"$inc": {"n": 1}}, "multi": True}
        assert await others("PATCH", DOCUMENTS, change) == {"matched": 0, "updated": 0, "upsert_id": None}
        assert await mine("PATCH", DOCUMENTS, change) == {"matched": 2, "updated": 2, "upsert_id": None}
        one = {"query": {"_id": "a"}, "data": {"$set": {"at": {"$date": {"offset": 0}}}}, "multi": False}
        assert (await mine("PATCH", DOCUMENTS, one))["updated"] == 1
        assert (await others.list(query={"_id": "a"}))["list"][0]["at"] == {"$date": 1700000000000}


async def test_set_is_a_bare_document_with_upsert() -> None:
    async with started() as rig:
        await _notes(rig)
        mine = Client(rig)
        wanted = {"query": {"_id": "k"}, "multi": False, "upsert": True, "replaceMode": False}
        made = await mine("PATCH", DOCUMENTS, {**wanted, "data": {"v": 1}})
        assert made == {"matched": 0, "updated": 0, "upsert_id": "k"}
        assert (await mine("PATCH", DOCUMENTS, {**wanted, "data": {"w": 2}}))["updated"] == 1
        assert await mine("GET", f"{DOCUMENTS}/k") == {"_id": "k", "w": 2, "_openid": "oA"}
        reply = await mine.raw("PATCH", DOCUMENTS, {"query": {"_id": "k"}, "data": {"w": 3}})
        assert reply.status == 400 and reply.json["code"] == "DATABASE_REQUEST_FAILED"


async def test_removing_counts_what_went() -> None:
    async with started() as rig:
        await _notes(rig)
        mine, others = Client(rig), Client(rig, "oB")
        await mine("POST", DOCUMENTS, {"data": [{"n": 1}, {"n": 1}, {"n": 2}]})
        remove = {"query": {"n": 1}, "multi": True}
        assert await others("POST", f"{DOCUMENTS}/remove", remove) == {"deleted": 0}
        assert await mine("POST", f"{DOCUMENTS}/remove", remove) == {"deleted": 2}


async def test_a_pipeline_sees_what_a_query_would() -> None:
    async with started() as rig:
        await _notes(rig)
        await Client(rig)("POST", DOCUMENTS, {"data": [{"n": 1}, {"n": 2}]})
        await Client(rig, "oB")("POST", DOCUMENTS, {"data": [{"n": 40}]})
        pipeline = [{"$group": {"_id": None, "sum": {"$sum": "$n"}}}]
        found = await Client(rig)("POST", f"{DOCUMENTS}/aggregations", {"pipeline": pipeline})
        assert found == {"list": [{"_id": None, "sum": 3}]}


async def test_a_custom_rule_refuses_with_the_databases_code() -> None:
    async with started() as rig:
        await _notes(rig)
        await rig.documents.set_rule("default", "notes", '{"read": "doc._openid == auth.openid"}')
        reply = await Client(rig).raw("GET", f"{DOCUMENTS}?query=%7B%7D")
        assert reply.status == 403 and reply.json["code"] == "DATABASE_PERMISSION_DENIED"
        assert reply.json["requestId"] == "r1" == reply.headers["x-request-id"]
        assert (await Client(rig).list(query={"_openid": "{openid}"}))["list"] == []


async def test_users_make_no_collections_and_no_transactions() -> None:
    async with started() as rig:
        for target, body in (
            (f"{DATABASE}/collections", {"collectionName": "x"}),
            (f"{DATABASE}/transactions", b""),
        ):
            reply = await Client(rig).raw("POST", target, body)
            assert reply.status == 403 and reply.json["code"] == "DATABASE_PERMISSION_DENIED"


async def test_a_function_works_on_documents_of_all_in_a_transaction() -> None:
    async with started() as rig:
        assert (
            await call(rig.inside, "POST", f"{DATABASE}/collections", {"collectionName": "notes"})
        ).json == {}
        started_reply = await call(rig.inside, "POST", f"{DATABASE}/transactions")
        transaction = started_reply.json["transactionId"]
        insert = {"data": [{"_id": "a"}], "transactionId": transaction}
        assert (await call(rig.inside, "POST", DOCUMENTS, insert)).status == 200
        read = f"{DOCUMENTS}/a"
        assert (await call(rig.inside, "GET", read)).json is None
        assert (await call(rig.inside, "GET", f"{read}?transactionId={transaction}")).json == {"_id": "a"}
        commit = f"{DATABASE}/transactions/{transaction}/commit"
        assert (await call(rig.inside, "POST", commit)).json == {}
        assert (await call(rig.inside, "GET", read)).json == {"_id": "a"}
        reply = await call(rig.inside, "POST", commit.replace("commit", "rollback"))
        assert reply.status == 404 and reply.json["code"] == "DATABASE_TRANSACTION_FAIL"


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "code"),
    [
        ("GET", f"{DOCUMENTS}?limit=-1", b"", 400, "INVALID_PARAM"),
        ("GET", f"{DOCUMENTS}?offset=1e3", b"", 400, "INVALID_PARAM"),
        ("GET", f"{DOCUMENTS}?query=%7B", b"", 400, "DATABASE_REQUEST_FAILED"),
        ("GET", f"{DOCUMENTS}?query=[]", b"", 400, "DATABASE_REQUEST_FAILED"),
        ("GET", f"{DOCUMENTS}?query=%7B%7D&query=%7B%7D", b"", 400, "INVALID_PARAM"),
        ("GET", f"{DOCUMENTS}?" + "a=1&" * 200, b"", 400, "INVALID_PARAM"),
        ("GET", f"{DOCUMENTS}?order=%7B%7D", b"", 400, "DATABASE_REQUEST_FAILED"),
        (
            "GET",
            f"{DOCUMENTS}?order=" + quote('[{"field":"n","direction":"up"}]'),
            b"",
            400,
            "DATABASE_REQUEST_FAILED",
        ),
        ("POST", DOCUMENTS, b"", 400, "INVALID_PARAM"),
        ("POST", DOCUMENTS, b'{"data":', 400, "INVALID_PARAM"),
        ("POST", DOCUMENTS, b'{"data":' + b"[" * 5000 + b"]" * 5000 + b"}", 400, "INVALID_PARAM"),
        ("POST", DOCUMENTS, {"data": "text"}, 400, "DATABASE_REQUEST_FAILED"),
        ("PATCH", DOCUMENTS, {"data": [], "query": {}}, 400, "DATABASE_REQUEST_FAILED"),
        ("PATCH", DOCUMENTS, {"data": {"$set": {"a": 1}}, "multi": "yes"}, 400, "INVALID_PARAM"),
        ("DELETE", DOCUMENTS, b"", 400, "INVALID_PARAM"),
        ("GET", f"{DATABASE}/collections/none/documents", b"", 404, "DATABASE_COLLECTION_NOT_EXIST"),
        ("POST", f"{DATABASE}/commands", {"commands": []}, 404, "NOT_FOUND"),
        ("GET", DOCUMENTS.replace("(default)", "x", 1), b"", 404, "NOT_FOUND"),
    ],
)
async def test_what_is_wrong_is_said_in_the_dialect(
    method: str, target: str, body: Any, status: int, code: str
) -> None:
    async with started() as rig:
        await _notes(rig)
        reply = await Client(rig).raw(method, target, body)
        assert (reply.status, reply.json["code"]) == (status, code)
        assert reply.json["message"] and reply.json["requestId"] == "r1"


async def test_nobody_and_another_environment_are_refused() -> None:
    async with started() as rig:
        await _notes(rig)
        await rig.records.create_environment("shop")
        assert (await call(rig.edge, "GET", DOCUMENTS)).status == 401
        for target, headers in ((DOCUMENTS, {"x-env": "shop"}), (f"{DOCUMENTS}?env=shop", {})):
            reply = await Client(rig).raw("GET", target, **headers)
            assert reply.status == 403 and reply.json["code"] == "INVALIID_ENV"


async def test_what_the_store_cannot_do_is_said_without_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    async with started() as rig:
        await _notes(rig)

        async def fail(*_: object) -> None:
            raise StoreUnavailable("the disk is full")

        monkeypatch.setattr(rig.documents, "find", fail)
        reply = await Client(rig).raw("GET", DOCUMENTS)
        assert reply.status == 503 and reply.json["code"] == "SYS_ERR"

        async def crash(*_: object) -> None:
            raise ZeroDivisionError("secret")

        monkeypatch.setattr(rig.documents, "find", crash)
        reply = await Client(rig).raw("GET", DOCUMENTS)
        assert reply.status == 500 and b"secret" not in reply.body


async def test_more_than_the_sdks_limit_is_clamped() -> None:
    async with started() as rig:
        await _notes(rig)
        await rig.documents.insert(Access("default", openid="oA"), "notes", [{"n": n} for n in range(150)])
        assert len((await Client(rig).list())["list"]) == 100
        found = await Client(rig).list(limit=5000)
        assert found["limit"] == 1000 and len(found["list"]) == 150
