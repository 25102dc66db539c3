"""The document actions of dialect A, as wx-server-sdk sends them (facts: wire-protocol 3.2, 4)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.dialects.rig import Rig, started

pytestmark = pytest.mark.anyio


class Database:
    """The SDK's side: Extended JSON texts in, Extended JSON texts out."""

    def __init__(self, rig: Rig, collection: str = "dishes") -> None:
        self._rig = rig
        self._collection = collection

    async def __call__(self, action: str, **parameters: Any) -> Any:
        texts = {
            name: json.dumps(value) if name in ("query", "order", "projection") else value
            for name, value in parameters.items()
        }
        body = {"action": f"database.{action}", "collectionName": self._collection, **texts}
        return await self._rig.from_inside(body)

    async def insert(self, *documents: Any) -> Any:
        return await self("insertDocument", data=[json.dumps(document) for document in documents])

    async def find(self, **parameters: Any) -> list[Any]:
        parameters.setdefault("queryType", "WHERE")
        answer = await self("getDocument", **parameters)
        assert "data" in answer, answer
        return [json.loads(text) for text in answer["data"]["list"]]


async def _database(rig: Rig) -> Database:
    database = Database(rig)
    assert set(await database("addCollection")) == {"requestId"}
    return database


def _int(value: int) -> dict[str, str]:
    return {"$numberInt": str(value)}


async def test_documents_come_back_as_they_went_in() -> None:
    async with started() as rig:
        database = await _database(rig)
        document = {
            "_id": "d1",
            "name": "宫保鸡丁",
            "price": {"$numberDouble": "28.5"},
            "stock": _int(30),
            "sold": {"$numberLong": "5000000000"},
            "at": {"$date": {"$numberLong": "1700000000123"}},
            "tags": ["hot", None, True],
            "place": {"type": "Point", "coordinates": [{"$numberDouble": "113.5"}, _int(23)]},
        }
        answer = await database.insert(document)
        assert answer["data"] == {"insertedIds": ["d1"]}
        assert await database.find(query={"_id": "d1"}, queryType="DOC") == [document]


async def test_object_ids_come_back_as_text() -> None:
    """Every SDK makes ``{}`` of an ObjectId, so upstream never sends one."""
    async with started() as rig:
        database = await _database(rig)
        reference = {"$oid": "0123456789abcdef01234567"}
        answer = await database.insert({"_id": reference, "refs": [reference, {"to": reference}]})
        assert answer["data"] == {"insertedIds": [reference["$oid"]]}
        text = reference["$oid"]
        expected = {"_id": text, "refs": [text, {"to": text}]}
        assert await database.find(query={"refs": reference}) == [expected]
        assert await database.find(query={"refs": text}) == []
        stages = [{"stageKey": "$match", "stageValue": json.dumps({"_id": reference})}]
        found = await database("aggregateDocuments", stages=stages)
        assert [json.loads(each) for each in found["data"]["list"]] == [expected]
        change = json.dumps({"$set": {"refs": reference}})
        found = await database("modifyAndReturnDoc", query={"_id": reference}, data=change)
        assert json.loads(found["data"]["doc"]) == {"_id": text, "refs": text}


async def test_what_is_written_as_it_was_counts_as_upstream_counts() -> None:
    """The SDK's own tests: a set and a find-and-modify count what was found, an update what it changed."""
    async with started() as rig:
        database = await _database(rig)
        await database.insert({"_id": "a", "n": _int(1)})
        same, found = json.dumps({"n": _int(1)}), {"query": {"_id": "a"}, "queryType": "DOC"}
        answer = await database("modifyDocument", **found, data=same, multi=False, merge=False, upsert=True)
        assert answer["data"] == {"updated": 1, "upsert_id": None}
        operators = json.dumps({"$set": {"n": _int(1)}})
        answer = await database("modifyDocument", **found, data=operators, multi=False, merge=True)
        assert answer["data"] == {"updated": 0, "upsert_id": None}
        answer = await database("modifyAndReturnDoc", query={"_id": "a"}, data=operators)
        assert answer["data"]["updated"] == 1


async def test_ids_are_made_and_server_dates_resolved() -> None:
    async with started() as rig:
        database = await _database(rig)
        answer = await database.insert(
            {"at": {"$tcb_server_date": {"offset": _int(1000)}}}, {"deep": [{"$tcb_server_date": {}}]}
        )
        first, second = answer["data"]["insertedIds"]
        assert first != second and len(first) == 32
        [document] = await database.find(query={"_id": first})
        assert document["at"] == {"$date": {"$numberLong": "1700000001000"}}


async def test_queries_filter_order_page_and_project() -> None:
    async with started() as rig:
        database = await _database(rig)
        await database.insert(*({"_id": f"d{n}", "n": _int(n), "kind": "ab"[n % 2]} for n in range(6)))
        found = await database.find(
            query={"kind": "a", "n": {"$gte": _int(1)}},
            order={"n": _int(-1)},
            offset=0,
            limit=1,
            projection={"n": _int(1), "_id": _int(0)},
        )
        assert found == [{"n": _int(4)}]
        assert [d["_id"] for d in await database.find(order={"n": _int(1)}, offset=4)] == ["d4", "d5"]
        assert len(await database.find()) == 6
        regex = {"$regularExpression": {"pattern": "^D[12]$", "options": "i"}}
        assert len(await database.find(query={"_id": regex})) == 2
        answer = await database("calculateDocument", query={"kind": "b"}, queryType="WHERE")
        assert answer["data"] == {"total": 3}
        assert (await database("calculateDocument"))["data"] == {"total": 6}


async def test_update_changes_all_that_match_and_a_doc_only_itself() -> None:
    async with started() as rig:
        database = await _database(rig)
        await database.insert(
            {"_id": "a", "n": _int(1)}, {"_id": "b", "n": _int(1)}, {"_id": "c", "n": _int(2)}
        )
        changed = json.dumps({"$inc": {"n": _int(10)}, "$set": {"m.x": "y"}})
        answer = await database(
            "modifyDocument", query={"n": _int(1)}, queryType="WHERE", data=changed, merge=True, upsert=False
        )
        assert answer["data"] == {"updated": 2, "upsert_id": None}
        answer = await database(
            "modifyDocument", query={"_id": "c"}, queryType="DOC", data=changed, multi=False, merge=True
        )
        assert answer["data"]["updated"] == 1
        [document] = await database.find(query={"_id": "c"})
        assert document == {"_id": "c", "n": _int(12), "m": {"x": "y"}}
        answer = await database(
            "modifyDocument", query={"_id": "zz"}, queryType="DOC", data=changed, merge=True
        )
        assert answer["data"]["updated"] == 0 and "code" not in answer


async def test_doc_set_replaces_or_creates() -> None:
    async with started() as rig:
        database = await _database(rig)
        how = {"queryType": "DOC", "multi": False, "merge": False, "upsert": True}
        created = await database("modifyDocument", query={"_id": "k"}, data=json.dumps({"v": "1"}), **how)
        assert created["data"] == {"updated": 0, "upsert_id": "k"}
        replaced = await database("modifyDocument", query={"_id": "k"}, data=json.dumps({"w": "2"}), **how)
        assert replaced["data"] == {"updated": 1, "upsert_id": None}
        assert await database.find(query={"_id": "k"}) == [{"_id": "k", "w": "2"}]


async def test_modify_and_return_gives_the_new_document() -> None:
    async with started() as rig:
        database = await _database(rig)
        await database.insert({"_id": "a", "stock": _int(1)})
        take = {
            "query": {"_id": "a", "stock": {"$gte": _int(1)}},
            "data": json.dumps({"$inc": {"stock": -1}}),
        }
        first = await database("modifyAndReturnDoc", **take)
        assert first["data"]["updated"] == 1
        assert json.loads(first["data"]["doc"]) == {"_id": "a", "stock": _int(0)}
        assert (await database("modifyAndReturnDoc", **take))["data"] == {"updated": 0, "doc": None}


async def test_remove_counts_what_went() -> None:
    async with started() as rig:
        database = await _database(rig)
        await database.insert(*({"_id": f"d{n}"} for n in range(4)))
        one = await database("removeDocument", query={"_id": "d0"}, queryType="DOC", multi=False)
        rest = await database("removeDocument", query={}, queryType="WHERE", multi=True)
        none = await database("removeDocument", query={"_id": "d0"}, queryType="DOC")
        assert [one["data"], rest["data"], none["data"]] == [{"deleted": 1}, {"deleted": 3}, {"deleted": 0}]


async def test_functions_see_documents_of_every_user() -> None:
    async with started() as rig:
        database = await _database(rig)
        await database.insert({"_id": "a", "_openid": "oA"}, {"_id": "b", "_openid": "oB"})
        assert len(await database.find()) == 2


async def test_errors_have_the_codes_and_texts_that_programs_look_for() -> None:
    async with started() as rig:
        missing = await Database(rig, "nowhere")("getDocument", query={})
        assert missing["code"] == "DATABASE_COLLECTION_NOT_EXIST"
        assert "database collection not exists" in missing["message"]
        assert "Db or Table not exist" in missing["message"]
        database = await _database(rig)
        await database.insert({"_id": "a"})
        double = await database.insert({"_id": "a"})
        assert double["code"] == "DATABASE_REQUEST_FAILED" and "E11000" in double["message"]
        assert (await database("addCollection"))["code"] == "DATABASE_REQUEST_FAILED"
        assert (await database("getDocument", query={"$where": "1"}))["code"] == "DATABASE_REQUEST_FAILED"
        assert (await database("modifyDocument", query={}, data='{"$nope":{"a":1}}'))["code"] == (
            "DATABASE_REQUEST_FAILED"
        )
        bad = {"action": "database.getDocument", "collectionName": "dishes", "query": "{not json"}
        assert (await rig.from_inside(bad))["code"] == "DATABASE_REQUEST_FAILED"
        deep = "[" * 5000 + "]" * 5000
        assert (await rig.from_inside({**bad, "query": deep}))["code"] == "DATABASE_REQUEST_FAILED"
        assert (await rig.from_inside({**bad, "query": "[]"}))["code"] == "DATABASE_REQUEST_FAILED"
        unknown = {**bad, "query": "{}", "transactionId": "t"}
        assert (await rig.from_inside(unknown))["code"] == "DATABASE_TRANSACTION_FAIL"


async def test_environments_do_not_see_each_other() -> None:
    async with started() as rig:
        await rig.records.create_environment("shop")
        database = await _database(rig)
        await database.insert({"_id": "a"})
        body = {"action": "database.getDocument", "collectionName": "dishes"}
        answer = await rig.from_outside(body, environment="shop", query="env=shop")
        assert answer["code"] == "DATABASE_COLLECTION_NOT_EXIST"
