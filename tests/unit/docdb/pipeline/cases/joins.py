"""Stages that read other collections."""

from __future__ import annotations

from typing import Any

from cloudlet.docdb.numeric import Long
from cloudlet.docdb.values import Regex
from tests.unit.docdb.pipeline.cases.kit import Refused

Case = tuple[Any, Any]

COLLECTIONS: dict[str, list[dict[str, Any]]] = {
    "orders": [
        {"_id": 1, "item": "a", "n": 2},
        {"_id": 2, "item": ["a", "b"], "n": 5},
        {"_id": 3, "item": None},
        {"_id": 4},
        {"_id": 5, "item": "zzz"},
    ],
    "stock": [
        {"_id": 10, "sku": "a", "have": 3},
        {"_id": 11, "sku": "b", "have": 9},
        {"_id": 12, "sku": None},
        {"_id": 13, "have": 1},
        {"_id": 14, "sku": ["b", "c"], "have": 4},
        {"_id": 15, "sku": Regex("a"), "have": 5},
    ],
    "people": [
        {"_id": 1, "name": "ann"},
        {"_id": 2, "name": "ben", "boss": "ann"},
        {"_id": 3, "name": "cat", "boss": "ben"},
        {"_id": 4, "name": "dan", "boss": ["ann", "cat"]},
    ],
}


def lookup(expected: Any, id: int | None = None, **spec: Any) -> Case:
    """The ids that are joined to one order (or a refusal)."""
    stages: list[dict[str, Any]] = [{"$match": {"_id": id}}] if id else []
    stages += [{"$lookup": {"from": "stock", "as": "j", **spec}}, {"$project": {"_id": 0, "j": "$j._id"}}]
    return stages, expected if isinstance(expected, Refused) else [{"j": expected}]


def by_sku(expected: Any, id: int, **more: Any) -> Case:
    return lookup(expected, id, localField="item", foreignField="sku", **more)


ENOUGH = {
    "let": {"want": "$n"},
    "pipeline": [{"$match": {"$expr": {"$gte": ["$have", "$$want"]}}}],
}


def graph(expected: Any, id: int, **more: Any) -> Case:
    spec = {
        "from": "people",
        "startWith": "$boss",
        "connectFromField": "boss",
        "connectToField": "name",
        "as": "up",
    }
    stages = [
        {"$match": {"_id": id}},
        {"$graphLookup": {**spec, **more}},
        {"$unwind": "$up"},
        {"$sort": {"up._id": 1}},
    ]
    stages += [{"$group": {"_id": None, "up": {"$push": "$up.name"}}}]
    return stages, expected if isinstance(expected, Refused) else [
        {"_id": None, "up": expected}
    ] if expected else []


TABLES: dict[str, dict[str, list[Case]]] = {
    "orders": {
        # mongodb.com/docs/manual/reference/operator/aggregation/lookup
        "$lookup": [
            by_sku([10], 1),
            by_sku([10, 11, 14], 2),
            by_sku([12, 13], 3),
            by_sku([12, 13], 4),
            by_sku([], 5),
            by_sku([11], 2, **ENOUGH),
            by_sku([10], 1, pipeline=[]),
            by_sku([11], 2, pipeline=[{"$sort": {"have": -1}}, {"$limit": 1}]),
            lookup([10, 11, 14, 15], 1, **ENOUGH),
            lookup([11, 15], 2, **ENOUGH),
            lookup([10, 11], 1, pipeline=[{"$limit": 2}]),
            lookup([10, 11, 12, 13, 14, 15], 3, pipeline=[]),
            lookup([], 1, **{**ENOUGH, "from": "nowhere"}),
            lookup([], 1, localField="item", foreignField="sku", **{"from": "nowhere"}),
            lookup([10], 1, let={"i": "$item"}, pipeline=[{"$match": {"$expr": {"$eq": ["$sku", "$$i"]}}}]),
            lookup([13], 4, let={"i": "$item"}, pipeline=[{"$match": {"$expr": {"$eq": ["$sku", "$$i"]}}}]),
            lookup(
                [11],
                2,
                let={"i": "$item", "n": "$n"},
                pipeline=[
                    {"$match": {"$expr": {"$and": [{"$in": ["$sku", "$$i"]}, {"$gt": ["$have", "$$n"]}]}}}
                ],
            ),
            lookup(Refused("Use of undefined variable: nobody"), 1, pipeline=[{"$set": {"x": "$$nobody"}}]),
            lookup(Refused("both or neither of 'localField' and 'foreignField'"), 1, localField="a"),
            lookup(Refused("requires either 'pipeline' or both"), 1),
            lookup(Refused("Unrecognized argument to $lookup: x"), 1, x=1),
            lookup(
                Refused("$out is not allowed inside the pipeline of $lookup"), 1, pipeline=[{"$out": "x"}]
            ),
            lookup(Refused("with 'let' needs a 'pipeline'"), 1, localField="a", foreignField="b", let={}),
        ],
        # …/aggregation/unionWith
        "$unionWith": [
            ([{"$project": {"n": 1}}, {"$limit": 1}, {"$unionWith": "people"}, {"$count": "c"}], [{"c": 5}]),
            (
                [
                    {"$match": {"_id": 1}},
                    {"$unionWith": {"coll": "stock", "pipeline": [{"$match": {"sku": "b"}}]}},
                    {"$project": {"_id": 1}},
                ],
                [{"_id": 1}, {"_id": 11}, {"_id": 14}],
            ),
            (
                [{"$match": {"_id": 9}}, {"$unionWith": {"coll": "people", "pipeline": [{"$count": "c"}]}}],
                [{"c": 4}],
            ),
            ([{"$match": {"_id": 1}}, {"$unionWith": "nowhere"}, {"$count": "c"}], [{"c": 1}]),
            ([{"$unionWith": "orders"}, {"$sortByCount": "$_id"}, {"$limit": 1}], [{"_id": 1, "count": 2}]),
            (
                [{"$unionWith": {"coll": "people", "pipeline": [{"$unionWith": "people"}]}}, {"$count": "c"}],
                [{"c": 13}],
            ),
            (
                [
                    {"$limit": 1},
                    {"$unionWith": {"coll": "people", "pipeline": []}},
                    {"$sort": {"_id": -1}},
                    {"$limit": 1},
                    {"$project": {"name": 1}},
                ],
                [{"_id": 4, "name": "dan"}],
            ),
            (
                [
                    {"$match": {"_id": 1}},
                    {
                        "$lookup": {
                            "from": "stock",
                            "as": "j",
                            "pipeline": [{"$limit": 1}, {"$unionWith": "people"}],
                        }
                    },
                    {"$project": {"c": {"$size": "$j"}}},
                ],
                [{"_id": 1, "c": 5}],
            ),
            ([{"$unionWith": {"pipeline": []}}], Refused("Missing 'coll' parameter to $unionWith")),
            ([{"$unionWith": 5}], Refused("$unionWith")),
            (
                [{"$unionWith": {"coll": "x", "pipeline": [{"$merge": "y"}]}}],
                Refused("$merge is not allowed inside the pipeline of $unionWith"),
            ),
            ([{"$unionWith": {"coll": "x", "pipeline": 1}}], Refused("must be an array of stages")),
        ],
    },
    "people": {
        # …/aggregation/graphLookup
        "$graphLookup": [
            graph([], 1),
            graph(["ann"], 2),
            graph(["ann", "ben"], 3),
            graph(["ann", "ben", "cat"], 4),
            graph(["ben"], 3, maxDepth=0),
            graph(["ann", "cat"], 4, maxDepth=0),
            graph(["ann", "ben", "cat"], 4, maxDepth=Long(1)),
            graph(["ben"], 3, restrictSearchWithMatch={"name": {"$ne": "ann"}}),
            graph(["cat"], 4, startWith="cat", maxDepth=0),
            graph([], 4, startWith="$nope"),
            (
                [
                    {"$match": {"_id": 3}},
                    {
                        "$graphLookup": {
                            "from": "people",
                            "startWith": "$boss",
                            "connectFromField": "boss",
                            "connectToField": "name",
                            "as": "up",
                            "depthField": "d",
                        }
                    },
                    {"$unwind": "$up"},
                    {"$sort": {"up.d": 1}},
                    {"$project": {"_id": 0, "n": "$up.name", "d": "$up.d"}},
                ],
                [{"n": "ben", "d": Long(0)}, {"n": "ann", "d": Long(1)}],
            ),
            graph(Refused("maxDepth requires a nonnegative argument"), 3, maxDepth=-1),
            graph(Refused("Unrecognized argument to $graphLookup: x"), 3, x=1),
            graph(Refused("must be an object (code 40185)"), 3, restrictSearchWithMatch=1),
        ],
    },
}
