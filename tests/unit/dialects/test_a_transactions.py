"""Transactions in dialect A, as the SDKs send them (facts: wire-protocol 3.2, api-surface 3.4)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.dialects.rig import Rig, started

pytestmark = pytest.mark.anyio

ENDING = "Please check your request, but if the problem persists, contact us."
CONFLICT = (
    "[ResourceUnavailable.TransactionConflict] Transaction is conflict, maybe resource operated by others. "
    + ENDING
)
NOT_FOUND = (
    "[ResourceUnavailable.TransactionNotExist] Transaction does not exist on the server, "
    "transaction must be commit or abort in 30 seconds. " + ENDING
)


class Program:
    """A program that uses an SDK: outside transactions, or inside one."""

    def __init__(self, rig: Rig, sdk: str = "tcb-node-sdk/3.18.3", transaction: str | None = None) -> None:
        self._rig = rig
        self._sdk = sdk
        self._transaction = transaction

    async def send(self, action: str, **parameters: Any) -> Any:
        body = {"action": f"database.{action}", **parameters}
        return await self._rig.from_inside(body, **{"x-sdk-version": self._sdk})

    async def start(self) -> Program:
        answer = await self.send("startTransaction")
        return Program(self._rig, self._sdk, answer["transactionId"])

    async def commit(self) -> Any:
        return await self.send("commitTransaction", transactionId=self._transaction)

    async def abort(self) -> Any:
        return await self.send("abortTransaction", transactionId=self._transaction)

    async def on(self, action: str, **parameters: Any) -> Any:
        return await self.send(action, collectionName="dishes", transactionId=self._transaction, **parameters)

    async def get(self, document_id: str) -> list[Any]:
        query = json.dumps({"_id": document_id})
        answer = await self.on("getDocument", queryType="DOC", multi=False, query=query)
        return [json.loads(text)["n"]["$numberInt"] for text in answer["data"]["list"]]

    async def set(self, document_id: str, number: int) -> Any:
        return await self.on(
            "modifyDocument",
            queryType="DOC",
            query=json.dumps({"_id": document_id}),
            data=json.dumps({"n": {"$numberInt": str(number)}}),
            multi=False,
            merge=False,
            upsert=True,
        )


async def filled(rig: Rig) -> Program:
    program = Program(rig)
    await program.on("addCollection")
    for name in ("a", "b"):
        await program.on("insertDocument", data=[json.dumps({"_id": name, "n": {"$numberInt": "1"}})])
    return program


async def test_every_action_takes_part_in_a_transaction() -> None:
    async with started() as rig:
        outside = await filled(rig)
        inside = await outside.start()
        answer = await inside.on("insertDocument", data=[json.dumps({"_id": "c", "n": {"$numberInt": "3"}})])
        assert answer["data"] == {"insertedIds": ["c"]}
        assert (await inside.set("a", 5))["data"] == {"updated": 1, "upsert_id": None}
        assert (await inside.set("d", 4))["data"]["upsert_id"] == "d"
        raised = {"query": json.dumps({"n": {"$gte": 4}}), "data": json.dumps({"$inc": {"n": 10}})}
        answer = await inside.on("modifyDocument", queryType="WHERE", multi=True, merge=True, **raised)
        assert answer["data"]["updated"] == 2
        answer = await inside.on(
            "modifyAndReturnDoc", query=json.dumps({"_id": "c"}), data=json.dumps({"$set": {"x": True}})
        )
        assert json.loads(answer["data"]["doc"])["x"] is True
        query = json.dumps({"_id": "b"})
        answer = await inside.on("removeDocument", query=query, queryType="DOC", multi=False)
        assert answer["data"] == {"deleted": 1}
        assert (await inside.on("calculateDocument"))["data"] == {"total": 3}
        assert [await inside.get(name) for name in "abcd"] == [["15"], [], ["3"], ["14"]]
        assert [await outside.get(name) for name in "abcd"] == [["1"], ["1"], [], []]
        assert set(await inside.commit()) == {"requestId"}
        assert [await outside.get(name) for name in "abcd"] == [["15"], [], ["3"], ["14"]]


async def test_an_abort_leaves_nothing_and_ends_it() -> None:
    async with started() as rig:
        outside = await filled(rig)
        inside = await outside.start()
        await inside.set("a", 9)
        assert set(await inside.abort()) == {"requestId"}
        assert await outside.get("a") == ["1"]
        for answer in (await inside.set("a", 9), await inside.commit()):
            assert (answer["code"], answer["message"]) == ("DATABASE_TRANSACTION_FAIL", NOT_FOUND)


async def test_a_conflict_has_upstreams_code_and_words() -> None:
    async with started() as rig:
        outside = await filled(rig)
        one, two = await outside.start(), await outside.start()
        await one.set("a", 2)
        for answer in (await two.set("a", 3), await two.set("b", 3), await two.commit()):
            assert (answer["code"], answer["message"]) == ("DATABASE_TRANSACTION_CONFLICT", CONFLICT)
        assert "code" not in await two.abort()
        assert "code" not in await one.commit()


async def test_wx_server_sdk_is_told_of_a_conflict_by_the_commit() -> None:
    async with started() as rig:
        await filled(rig)
        program = Program(rig, "wx-server-sdk/2.6.3")
        one, two = await program.start(), await program.start()
        await one.set("a", 2)
        assert (await two.set("a", 3))["data"]["updated"] == 1
        assert "code" not in await one.commit()
        assert (await two.commit())["code"] == "DATABASE_TRANSACTION_CONFLICT"
        assert await program.get("a") == ["2"]


@pytest.mark.parametrize("name", ["0" * 40, "x", "\0"])
async def test_an_unknown_id(name: str) -> None:
    async with started() as rig:
        await filled(rig)
        nobody = Program(rig, transaction=name)
        for answer in (await nobody.set("a", 3), await nobody.commit(), await nobody.abort()):
            assert (answer["code"], answer["message"]) == ("DATABASE_TRANSACTION_FAIL", NOT_FOUND)


async def test_a_commit_needs_an_id() -> None:
    async with started() as rig:
        wrong: object
        for wrong in (None, 5, {}):
            program = Program(rig)
            answer = await program.send("commitTransaction", transactionId=wrong)
            assert answer["code"] == "INVALID_PARAM"
