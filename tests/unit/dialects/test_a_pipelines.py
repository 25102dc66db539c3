"""Aggregation pipelines of dialect A (facts: wire-protocol 3.2, 4.4, 4.5)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.dialects.rig import Rig, started

pytestmark = pytest.mark.anyio


async def call(rig: Rig, action: str, **parameters: Any) -> Any:
    return await rig.from_inside({"action": f"database.{action}", "collectionName": "dishes", **parameters})


async def aggregate(rig: Rig, *stages: dict[str, Any]) -> Any:
    """As the SDK sends it: each stage's value as a text of its own."""
    sent = [
        {"stageKey": key, "stageValue": json.dumps(value)} for stage in stages for key, value in stage.items()
    ]
    return await call(rig, "aggregateDocuments", stages=sent)


async def filled(rig: Rig, count: int) -> None:
    await call(rig, "addCollection")
    documents = [
        json.dumps({"_id": f"{i:03}", "n": {"$numberInt": str(i)}, "k": "ab"[i % 2]}) for i in range(count)
    ]
    await call(rig, "insertDocument", data=documents)


async def test_results_are_texts_of_extended_json() -> None:
    async with started() as rig:
        await filled(rig, 6)
        answer = await aggregate(
            rig,
            {"$match": {"n": {"$gt": {"$numberInt": "1"}}}},
            {"$group": {"_id": "$k", "s": {"$sum": "$n"}, "a": {"$avg": "$n"}}},
            {"$sort": {"_id": 1}},
        )
        assert [json.loads(text) for text in answer["data"]["list"]] == [
            {"_id": "a", "s": {"$numberInt": "6"}, "a": {"$numberDouble": "3.0"}},
            {"_id": "b", "s": {"$numberInt": "8"}, "a": {"$numberDouble": "4.0"}},
        ]


@pytest.mark.parametrize(
    ("stages", "count"),
    [
        ([], 20),
        ([{"$sort": {"n": 1}}], 20),
        ([{"$limit": 30}], 30),
        ([{"$limit": 100}], 35),
        ([{"$group": {"_id": "$n"}}], 20),
    ],
)
async def test_twenty_rows_unless_a_limit_is_given(stages: list[dict[str, Any]], count: int) -> None:
    async with started() as rig:
        await filled(rig, 35)
        assert len((await aggregate(rig, *stages))["data"]["list"]) == count


async def test_errors_name_the_stage() -> None:
    async with started() as rig:
        await filled(rig, 1)
        answer = await aggregate(rig, {"$nope": {}})
        assert answer["code"] == "DATABASE_REQUEST_FAILED"
        assert "Unrecognized pipeline stage name: '$nope'" in answer["message"]
        answer = await call(rig, "aggregateDocuments", stages=[{"stageKey": "$match", "stageValue": "{"}])
        assert answer["code"] == "DATABASE_REQUEST_FAILED"


async def test_a_pipeline_in_a_transaction_is_refused() -> None:
    async with started() as rig:
        await filled(rig, 1)
        answer = await call(rig, "aggregateDocuments", stages=[], transactionId="t")
        assert answer["code"] == "INVALID_PARAM"
