"""Stages: a pipeline over some documents, and what comes out or how it is refused."""

from __future__ import annotations

import math
from typing import Any

from cloudlet.docdb.numeric import Decimal128, Long
from tests.unit.docdb.pipeline.cases.kit import NOW, Refused

Case = tuple[Any, list[dict[str, Any]], Any]

ONE: list[dict[str, Any]] = [
    {"_id": 1, "a": 1, "b": {"x": 1, "y": 2}, "l": [{"x": 1, "y": 2}, 3, {"y": 4}], "z": None}
]
NUMBERS: list[dict[str, Any]] = [{"_id": i, "n": i} for i in range(5)]
SALES: list[dict[str, Any]] = [
    {"_id": 1, "item": "a", "qty": 2, "tags": ["x", "y"]},
    {"_id": 2, "item": "b", "qty": 2.5, "tags": []},
    {"_id": 3, "item": "a", "qty": None},
    {"_id": 4, "item": None, "qty": "many", "tags": ["y"]},
    {"_id": 5, "qty": 10, "tags": "z"},
]


def one(stage: dict[str, Any], expected: Any, documents: list[dict[str, Any]] = ONE) -> Case:
    return ([stage], documents, expected)


def group(spec: Any, expected: Any, documents: list[dict[str, Any]] = SALES) -> Case:
    return ([{"$group": spec}], documents, expected)


def total(accumulator: Any, expected: Any, documents: list[dict[str, Any]] = SALES) -> Case:
    """One accumulator over everything."""
    if not isinstance(expected, Refused):
        expected = [{"_id": None, "r": expected}]
    return ([{"$group": {"_id": None, "r": accumulator}}], documents, expected)


TABLES: dict[str, list[Case]] = {
    # mongodb.com/docs/manual/reference/operator/aggregation/project
    "$project": [
        one({"$project": {"a": 1}}, [{"_id": 1, "a": 1}]),
        one({"$project": {"a": True, "_id": 0}}, [{"a": 1}]),
        one({"$project": {"b.x": 1, "_id": False}}, [{"b": {"x": 1}}]),
        one({"$project": {"b": {"x": 1}, "_id": 0}}, [{"b": {"x": 1}}]),
        one({"$project": {"l.x": 1, "_id": 0}}, [{"l": [{"x": 1}, {}]}]),
        one({"$project": {"a.x": 1, "_id": 0}}, [{}]),
        one({"$project": {"nope": 1, "z": 1}}, [{"_id": 1, "z": None}]),
        one({"$project": {"l": 0, "b": 0}}, [{"_id": 1, "a": 1, "z": None}]),
        one(
            {"$project": {"l.y": 0, "b": {"x": 0}, "z": 0}},
            [{"_id": 1, "a": 1, "b": {"y": 2}, "l": [{"x": 1}, 3, {}]}],
        ),
        one({"$project": {"_id": 0}}, [{key: value for key, value in ONE[0].items() if key != "_id"}]),
        one({"$project": {"_id": 1}}, [{"_id": 1}]),
        one({"$project": {"s": {"$add": ["$a", 1]}}}, [{"_id": 1, "s": 2}]),
        one(
            {"$project": {"a": 1, "s": "$b.y", "c": "text", "n": {"$literal": 5}}},
            [{"_id": 1, "a": 1, "s": 2, "c": "text", "n": 5}],
        ),
        one({"$project": {"s": "$nope", "t": ["$a", "$nope"], "_id": 0}}, [{"t": [1, None]}]),
        one({"$project": {"a": {"$cond": [True, "$$REMOVE", 1]}, "_id": 0}}, [{}]),
        one({"$project": {"b.n": "$a", "b.x": 1, "_id": 0}}, [{"b": {"x": 1, "n": 1}}]),
        one({"$project": {"l.n": "$a", "_id": 0}}, [{"l": [{"n": 1}, {"n": 1}, {"n": 1}]}]),
        one({"$project": {"new.deep": "$a", "_id": "$b.x"}}, [{"new": {"deep": 1}, "_id": 1}]),
        one(
            {"$project": {"a": 1, "b": 0}}, Refused("Cannot do exclusion on field b in inclusion projection")
        ),
        one({"$project": {}}, Refused("must have at least one field (code 51272)")),
        one({"$project": {"a": 1, "a.b": 1}}, Refused("Path collision at a.b")),
        one({"$project": {"a.b": 1, "a": 1}}, Refused("Path collision at a (")),
        one({"$project": {"a": {}}}, Refused("An empty sub-projection is not a valid value")),
        one({"$project": {"a": {"$nope": 1}}}, Refused("Unrecognized expression '$nope'")),
        one({"$project": "a"}, Refused("must be an object (code 15969)")),
    ],
    # …/aggregation/addFields, set, unset
    "$addFields $set $unset": [
        one({"$addFields": {"c": 1}}, [{**ONE[0], "c": 1}]),
        one({"$set": {"a": {"$add": ["$a", 1]}}}, [{**ONE[0], "a": 2}]),
        one({"$addFields": {"b.z": 3}}, [{**ONE[0], "b": {"x": 1, "y": 2, "z": 3}}]),
        one({"$addFields": {"b": {"x": 9}}}, [{**ONE[0], "b": {"x": 9, "y": 2}}]),
        one({"$addFields": {"a.k": 1}}, [{**ONE[0], "a": {"k": 1}}]),
        one(
            {"$addFields": {"l.k": True}},
            [{**ONE[0], "l": [{"x": 1, "y": 2, "k": True}, {"k": True}, {"y": 4, "k": True}]}],
        ),
        one({"$addFields": {"a": "$$REMOVE", "n": "$nope"}}, [{k: v for k, v in ONE[0].items() if k != "a"}]),
        one({"$addFields": {"e": {}}}, [{**ONE[0], "e": {}}]),
        one({"$set": {"z": "$a", "a": "$z"}}, [{**ONE[0], "z": 1, "a": None}]),
        one({"$addFields": {}}, Refused("must have at least one field (code 40177)")),
        one({"$addFields": [1]}, Refused("must be an object, got array")),
        one({"$set": {"a": {"$add": ["$b", 1]}}}, Refused("not object (code 16554)")),
        one({"$unset": "b"}, [{k: v for k, v in ONE[0].items() if k != "b"}]),
        one(
            {"$unset": ["b.x", "l.y", "nope", "z"]},
            [{"_id": 1, "a": 1, "b": {"y": 2}, "l": [{"x": 1}, 3, {}]}],
        ),
        one({"$unset": []}, Refused("must be a string or an array of strings")),
        one({"$unset": {"a": 1}}, Refused("must be a string or an array of strings")),
    ],
    # …/aggregation/match
    "$match": [
        one({"$match": {"n": {"$gt": 2}}}, NUMBERS[3:], NUMBERS),
        one({"$match": {}}, NUMBERS, NUMBERS),
        one({"$match": {"$expr": {"$gt": ["$n", 3]}}}, NUMBERS[4:], NUMBERS),
        one({"$match": {"n": {"$lt": 3}, "$expr": {"$gte": ["$n", 2]}}}, NUMBERS[2:3], NUMBERS),
        one(
            {"$match": {"$or": [{"n": 0}, {"$expr": {"$eq": ["$n", 4]}}]}}, [NUMBERS[0], NUMBERS[4]], NUMBERS
        ),
        one({"$match": {"$and": [{"n": 1}, {"$expr": True}]}}, NUMBERS[1:2], NUMBERS),
        one({"$match": {"$nor": [{"n": {"$lt": 4}}, {"$expr": False}]}}, NUMBERS[4:], NUMBERS),
        one({"$match": {"$expr": {"$eq": ["$n", {"$literal": 2}]}}}, NUMBERS[2:3], NUMBERS),
        one({"$match": {"$expr": {"$lt": ["$$NOW", "$n"]}}}, [], NUMBERS),
        one({"$match": {"$expr": {"$eq": ["$item", None]}}}, [SALES[3]], SALES),
        one({"$match": {"$expr": {"$eq": ["$tags", ["y"]]}}}, [SALES[3]], SALES),
        one({"$match": {"tags": "y"}}, [SALES[0], SALES[3]], SALES),
        one({"$match": {"n": {"$nope": 1}}}, Refused("unknown operator: $nope"), NUMBERS),
        one({"$match": {"$expr": {"$nope": 1}}}, Refused("Unrecognized expression '$nope'"), NUMBERS),
        one({"$match": 5}, Refused("must be an expression in an object (code 15959)"), NUMBERS),
    ],
    # …/aggregation/sort, limit, skip, count, sample
    "$sort $limit $skip $count": [
        one({"$sort": {"n": -1}}, NUMBERS[::-1], NUMBERS),
        one({"$sort": {"qty": 1, "_id": -1}}, [SALES[2], SALES[0], SALES[1], SALES[4], SALES[3]], SALES),
        one({"$sort": {"tags": 1}}, [SALES[1], SALES[2], SALES[0], SALES[3], SALES[4]], SALES),
        one({"$sort": {}}, Refused("at least one sort key (code 15976)")),
        one({"$sort": {"a": 2}}, Refused("must be 1 or -1")),
        one({"$sort": "a"}, Refused("(code 15973)")),
        one({"$limit": 2}, NUMBERS[:2], NUMBERS),
        one({"$limit": Long(9)}, NUMBERS, NUMBERS),
        one({"$limit": 0}, Refused("expected a positive integer, found: 0 (code 15958)")),
        one({"$limit": 1.5}, Refused("(code 15958)")),
        one({"$limit": "1"}, Refused("(code 15958)")),
        one({"$skip": 3}, NUMBERS[3:], NUMBERS),
        one({"$skip": 0.0}, NUMBERS, NUMBERS),
        one({"$skip": -1}, Refused("expected a non-negative integer, found: -1 (code 15956)")),
        ([{"$skip": 1}, {"$limit": 3}, {"$skip": 1}, {"$limit": 5}], NUMBERS, NUMBERS[2:4]),
        ([{"$limit": 3}, {"$sort": {"n": -1}}, {"$limit": 1}], NUMBERS, [NUMBERS[2]]),
        ([{"$limit": 2}, {"$skip": 5}], NUMBERS, []),
        (
            [{"$sort": {"n": -1}}, {"$match": {"n": {"$gt": 1}}}, {"$limit": 2}],
            NUMBERS,
            [NUMBERS[4], NUMBERS[3]],
        ),
        one({"$count": "total"}, [{"total": 5}], NUMBERS),
        one({"$count": "total"}, [], []),
        one({"$count": ""}, Refused("must be a non-empty string (code 40156)")),
        one({"$count": "$a"}, Refused("(code 40158)")),
        one({"$sample": {"size": -1}}, Refused("(code 28747)")),
        ([{"$sample": {"size": 3}}, {"$count": "c"}], NUMBERS, [{"c": 3}]),
        ([{"$sample": {"size": 30}}, {"$count": "c"}], NUMBERS, [{"c": 5}]),
    ],
    # …/aggregation/unwind
    "$unwind": [
        one(
            {"$unwind": "$tags"},
            [{**SALES[0], "tags": "x"}, {**SALES[0], "tags": "y"}, {**SALES[3], "tags": "y"}, SALES[4]],
            SALES,
        ),
        (
            [{"$unwind": {"path": "$tags", "preserveNullAndEmptyArrays": True}}, {"$project": {"tags": 1}}],
            SALES,
            [
                {"_id": 1, "tags": "x"},
                {"_id": 1, "tags": "y"},
                {"_id": 2},
                {"_id": 3},
                {"_id": 4, "tags": "y"},
                {"_id": 5, "tags": "z"},
            ],
        ),
        (
            [{"$unwind": {"path": "$tags", "includeArrayIndex": "at"}}, {"$project": {"at": 1}}],
            SALES,
            [
                {"_id": 1, "at": Long(0)},
                {"_id": 1, "at": Long(1)},
                {"_id": 4, "at": Long(0)},
                {"_id": 5, "at": None},
            ],
        ),
        one({"$unwind": {"path": "$z", "preserveNullAndEmptyArrays": True}}, ONE),
        one({"$unwind": "$z"}, []),
        one({"$unwind": "$nope"}, []),
        one({"$unwind": "$b.x"}, ONE),
        one(
            {"$unwind": "$o.l"},
            [{"o": {"l": 1, "k": 0}}, {"o": {"l": 2, "k": 0}}],
            [{"o": {"l": [1, 2], "k": 0}}],
        ),
        one({"$unwind": "$a.b"}, [], [{"a": [{"b": [1]}]}]),
        one({"$unwind": "$a"}, [{"a": [1]}, {"a": 2}], [{"a": [[1], 2]}]),
        one(
            {"$unwind": {"path": "$l", "includeArrayIndex": "m.i"}},
            [{"l": 5, "m": {"i": Long(0)}}],
            [{"l": [5]}],
        ),
        one({"$unwind": "tags"}, Refused("should be prefixed with a '$': tags (code 28818)")),
        one({"$unwind": {}}, Refused("no path specified")),
        one({"$unwind": {"path": "$a", "x": 1}}, Refused("unrecognized option to $unwind stage: x")),
        one({"$unwind": {"path": "$a", "includeArrayIndex": "$i"}}, Refused("(code 28810)")),
        one({"$unwind": 5}, Refused("either a string or an object")),
    ],
    # …/aggregation/group
    "$group": [
        group(
            {"_id": "$item", "c": {"$sum": 1}},
            [{"_id": "a", "c": 2}, {"_id": "b", "c": 1}, {"_id": None, "c": 2}],
        ),
        group({"_id": None, "q": {"$sum": "$qty"}}, [{"_id": None, "q": 14.5}]),
        group({"_id": None}, [], []),
        group({"_id": 1}, [{"_id": 1}]),
        group(
            {"_id": {"i": "$item"}},
            [{"_id": {"i": "a"}}, {"_id": {"i": "b"}}, {"_id": {"i": None}}, {"_id": {}}],
        ),
        group(
            {"_id": {"$type": "$qty"}},
            [{"_id": "int"}, {"_id": "double"}, {"_id": "null"}, {"_id": "string"}],
        ),
        group(
            {"_id": "$tags"}, [{"_id": ["x", "y"]}, {"_id": []}, {"_id": None}, {"_id": ["y"]}, {"_id": "z"}]
        ),
        group(
            {"_id": "$k"},
            [{"_id": 1}, {"_id": True}, {"_id": "1"}],
            [{"k": 1}, {"k": 1.0}, {"k": True}, {"k": "1"}, {"k": Long(1)}],
        ),
        group({"_id": "$k"}, [{"_id": math.nan}], [{"k": math.nan}, {"k": Decimal128("NaN")}]),
        group(
            {"_id": "$k"},
            [{"_id": {"a": 1, "b": 2}}, {"_id": {"b": 2, "a": 1}}],
            [{"k": {"a": 1, "b": 2}}, {"k": {"b": 2, "a": 1}}],
        ),
        group({"_id": {"$add": ["$_id", "$qty"]}}, Refused("not string"), SALES),
        group({"c": {"$sum": 1}}, Refused("must include an _id (code 15955)")),
        group({"_id": None, "c": 5}, Refused("The field 'c' must be an accumulator object (code 40234)")),
        group({"_id": None, "c": {"$nope": 1}}, Refused("unknown group operator '$nope'")),
        group({"_id": None, "a.b": {"$sum": 1}}, Refused("cannot contain '.' (code 40235)")),
        group({"_id": None, "c": {"$sum": 1, "$avg": 1}}, Refused("must specify one accumulator")),
        group("x", Refused("(code 15947)")),
    ],
    # …/aggregation/sum, avg, min, max, first, last, push, addToSet, stdDevPop, mergeObjects, count, top …
    "accumulators": [
        total({"$sum": 1}, 5),
        total({"$sum": "$nope"}, 0),
        total({"$sum": ["$qty"]}, 14.5),
        total({"$sum": "$tags"}, 0),
        total({"$avg": "$qty"}, 14.5 / 3),
        total({"$avg": "$item"}, None),
        total({"$min": "$qty"}, 2),
        total({"$max": "$qty"}, "many"),
        total({"$min": "$nope"}, None),
        total({"$max": "$tags"}, ["y"]),
        total({"$first": "$item"}, "a"),
        total({"$last": "$item"}, None),
        total({"$first": "$nope"}, None),
        total({"$push": "$item"}, ["a", "b", "a", None]),
        total({"$push": {"i": "$_id"}}, [{"i": i} for i in range(1, 6)]),
        total({"$addToSet": "$item"}, ["a", "b", None]),
        total({"$addToSet": "$tags"}, [["x", "y"], [], ["y"], "z"]),
        total({"$stdDevPop": "$_id"}, math.sqrt(2)),
        total({"$stdDevSamp": "$_id"}, math.sqrt(2.5)),
        total({"$stdDevSamp": "$item"}, None),
        total(
            {"$mergeObjects": "$o"},
            {"a": 1, "b": 3},
            [{"o": {"a": 1, "b": 2}}, {}, {"o": None}, {"o": {"b": 3}}],
        ),
        total({"$mergeObjects": "$item"}, Refused("$mergeObjects requires object inputs")),
        total({"$count": {}}, 5),
        total({"$count": 1}, Refused("$count takes no arguments")),
        total({"$firstN": {"input": "$_id", "n": 2}}, [1, 2]),
        total({"$lastN": {"input": "$item", "n": 2}}, [None, None]),
        total({"$maxN": {"input": "$qty", "n": 2}}, ["many", 10]),
        total({"$minN": {"input": "$qty", "n": 2}}, [2, 2.5]),
        total({"$top": {"output": "$_id", "sortBy": {"_id": -1}}}, 5),
        total(
            {"$bottomN": {"output": ["$_id", "$item"], "sortBy": {"_id": -1}, "n": 2}}, [[2, "b"], [1, "a"]]
        ),
        total({"$topN": {"output": "$qty", "sortBy": {"_id": 1}, "n": 3}}, [2, 2.5, None]),
        total({"$firstN": {"input": "$_id", "n": "$_id"}}, Refused("'n' of $firstN must be a constant")),
        total({"$sum": [1, 2]}, Refused("The $sum accumulator is a unary operator (code 40237)")),
        total({"$sum": "$n"}, float(2**63), [{"n": 2**62}, {"n": 2**62}]),
        total({"$sum": "$n"}, Long(3), [{"n": Long(1)}, {"n": 2}]),
        total({"$sum": "$n"}, Decimal128("0.3"), [{"n": Decimal128("0.1")}, {"n": Decimal128("0.2")}]),
        total({"$sum": "$n"}, 1.0, [{"n": 0.1}] * 10),
    ],
    # …/aggregation/bucket
    "$bucket": [
        one(
            {"$bucket": {"groupBy": "$n", "boundaries": [0, 2, 5]}},
            [{"_id": 0, "count": 2}, {"_id": 2, "count": 3}],
            NUMBERS,
        ),
        one(
            {"$bucket": {"groupBy": "$n", "boundaries": [0, 2], "default": "rest"}},
            [{"_id": 0, "count": 2}, {"_id": "rest", "count": 3}],
            NUMBERS,
        ),
        one(
            {
                "$bucket": {
                    "groupBy": "$n",
                    "boundaries": [3, 9],
                    "default": -1,
                    "output": {"s": {"$sum": "$n"}},
                }
            },
            [{"_id": -1, "s": 3}, {"_id": 3, "s": 7}],
            NUMBERS,
        ),
        one(
            {"$bucket": {"groupBy": {"$mod": ["$n", 2]}, "boundaries": [0, 1, 2]}},
            [{"_id": 0, "count": 3}, {"_id": 1, "count": 2}],
            NUMBERS,
        ),
        one(
            {"$bucket": {"groupBy": "$item", "boundaries": ["a", "b", "c"], "default": None}},
            [{"_id": None, "count": 2}, {"_id": "a", "count": 2}, {"_id": "b", "count": 1}],
            SALES,
        ),
        one(
            {"$bucket": {"groupBy": "$n", "boundaries": [0, 3]}},
            Refused("could not find a bucket for an input"),
            NUMBERS,
        ),
        one(
            {"$bucket": {"groupBy": "$n", "boundaries": [0]}},
            Refused("at least 2 values, but found 1 (code 40192)"),
        ),
        one({"$bucket": {"groupBy": "$n", "boundaries": [2, 1]}}, Refused("must be sorted")),
        one(
            {"$bucket": {"groupBy": "$n", "boundaries": [1, "a"]}},
            Refused("must have the same type (code 40193)"),
        ),
        one({"$bucket": {"groupBy": "$n", "boundaries": [1, "$n"]}}, Refused("constant values")),
        one(
            {"$bucket": {"groupBy": "$n", "boundaries": 5}}, Refused("must be an array, but found type: int")
        ),
        one({"$bucket": {"groupBy": "n", "boundaries": [0, 1]}}, Refused("$-prefixed path or an expression")),
        one({"$bucket": {"groupBy": "$n", "boundaries": [0, 9], "default": 4}}, Refused("(code 40199)")),
        one({"$bucket": {"boundaries": [0, 9]}}, Refused("Missing 'groupBy' parameter to $bucket")),
    ],
    # …/aggregation/bucketAuto
    "$bucketAuto": [
        one(
            {"$bucketAuto": {"groupBy": "$n", "buckets": 2}},
            [{"_id": {"min": 0, "max": 3}, "count": 3}, {"_id": {"min": 3, "max": 4}, "count": 2}],
            NUMBERS,
        ),
        one(
            {"$bucketAuto": {"groupBy": "$n", "buckets": 9}},
            [{"_id": {"min": i, "max": min(i + 1, 4)}, "count": 1} for i in range(5)],
            NUMBERS,
        ),
        one(
            {"$bucketAuto": {"groupBy": "$n", "buckets": 1, "output": {"s": {"$sum": "$n"}}}},
            [{"_id": {"min": 0, "max": 4}, "s": 10}],
            NUMBERS,
        ),
        one(
            {"$bucketAuto": {"groupBy": "$k", "buckets": 3}},
            [{"_id": {"min": None, "max": None}, "count": 5}],
            NUMBERS,
        ),
        one({"$bucketAuto": {"groupBy": "$n", "buckets": 3}}, [], []),
        one(
            {"$bucketAuto": {"groupBy": "$k", "buckets": 2}},
            [{"_id": {"min": 1, "max": 2}, "count": 3}, {"_id": {"min": 2, "max": 2}, "count": 1}],
            [{"k": 1}, {"k": 1}, {"k": 1}, {"k": 2}],
        ),
        one(
            {"$bucketAuto": {"groupBy": "$n", "buckets": 2, "granularity": "POWERSOF2"}},
            [{"_id": {"min": 0, "max": 4}, "count": 4}, {"_id": {"min": 4, "max": 8}, "count": 1}],
            NUMBERS,
        ),
        one(
            {"$bucketAuto": {"groupBy": "$k", "buckets": 2, "granularity": "R5"}},
            [
                {"_id": {"min": 6.3, "max": 25.0}, "count": 2},
                {"_id": {"min": 25.0, "max": 100.0}, "count": 1},
            ],
            [{"k": 10}, {"k": 20}, {"k": 70}],
        ),
        one(
            {"$bucketAuto": {"groupBy": "$k", "buckets": 2, "granularity": "1-2-5"}},
            [
                {"_id": {"min": 5.0, "max": 50.0}, "count": 2},
                {"_id": {"min": 50.0, "max": 100.0}, "count": 1},
            ],
            [{"k": 10}, {"k": 20}, {"k": 70}],
        ),
        one(
            {"$bucketAuto": {"groupBy": "$n", "buckets": 2, "granularity": "E7"}},
            Refused("Unknown rounding granularity 'E7'"),
        ),
        one(
            {"$bucketAuto": {"groupBy": "$item", "buckets": 2, "granularity": "R5"}},
            Refused("cannot be rounded"),
            SALES,
        ),
        one(
            {"$bucketAuto": {"groupBy": "$k", "buckets": 2, "granularity": "R5"}},
            Refused("not negative"),
            [{"k": -1}],
        ),
        one(
            {"$bucketAuto": {"groupBy": "$n", "buckets": 0}}, Refused("must be a positive 32-bit integer: 0")
        ),
        one({"$bucketAuto": {"groupBy": "$n"}}, Refused("Missing 'buckets' parameter")),
    ],
    # …/aggregation/sortByCount, replaceRoot, replaceWith
    "$sortByCount $replaceRoot $replaceWith": [
        one(
            {"$sortByCount": "$item"},
            [{"_id": "a", "count": 2}, {"_id": None, "count": 2}, {"_id": "b", "count": 1}],
            SALES,
        ),
        one({"$sortByCount": {"$mod": ["$n", 2]}}, [{"_id": 0, "count": 3}, {"_id": 1, "count": 2}], NUMBERS),
        one({"$sortByCount": "item"}, Refused("(code 40149)")),
        one({"$sortByCount": {"a": 1}}, Refused("(code 40149)")),
        one({"$replaceRoot": {"newRoot": "$b"}}, [{"x": 1, "y": 2}]),
        one({"$replaceRoot": {"newRoot": {"k": "$a", "n": "$nope"}}}, [{"k": 1}]),
        one({"$replaceWith": "$b"}, [{"x": 1, "y": 2}]),
        one({"$replaceWith": {"$mergeObjects": ["$b", {"a": "$a"}]}}, [{"x": 1, "y": 2, "a": 1}]),
        one(
            {"$replaceRoot": {"newRoot": "$a"}},
            Refused("must evaluate to an object, but resulting value was: 1"),
        ),
        one({"$replaceRoot": {"newRoot": "$nope"}}, Refused("Type of resulting value: 'missing'")),
        one({"$replaceRoot": {}}, Refused("Missing 'newRoot' parameter")),
        one({"$replaceWith": 5}, Refused("(code 40228)")),
    ],
    # …/aggregation/redact
    "$redact": [
        one({"$redact": "$$KEEP"}, ONE),
        one({"$redact": "$$PRUNE"}, []),
        one({"$redact": "$$DESCEND"}, ONE),
        one(
            {"$redact": {"$cond": [{"$eq": ["$x", 1]}, "$$PRUNE", "$$DESCEND"]}},
            [{"_id": 1, "a": 1, "l": [3, {"y": 4}], "z": None}],
        ),
        one({"$redact": {"$cond": [{"$ifNull": ["$y", False]}, "$$KEEP", "$$DESCEND"]}}, ONE),
        one(
            {"$redact": {"$cond": [{"$eq": ["$level", 5]}, "$$PRUNE", "$$DESCEND"]}},
            [{"level": 1, "d": {"level": 3}}],
            [{"level": 1, "d": {"level": 3, "e": {"level": 5}}}],
        ),
        one(
            {"$redact": {"$cond": [{"$eq": ["$level", 5]}, "$$KEEP", "$$PRUNE"]}},
            [{"level": 5, "d": {"level": 1}}],
            [{"level": 5, "d": {"level": 1}}],
        ),
        one({"$redact": {"$cond": [{"$eq": ["$$ROOT.a", 1]}, "$$KEEP", "$$PRUNE"]}}, ONE),
        one(
            {
                "$redact": {
                    "$cond": [
                        {"$gt": [{"$size": {"$setIntersection": [{"$ifNull": ["$t", ["u"]]}, ["u"]]}}, 0]},
                        "$$DESCEND",
                        "$$PRUNE",
                    ]
                }
            },
            [{"t": ["u"], "k": {}}],
            [{"t": ["u"], "h": {"t": ["v"]}, "k": {}}],
        ),
        one({"$redact": "$a"}, Refused("should not return anything aside from")),
        one({"$redact": True}, Refused("(code 17053)")),
        one({"$project": {"a": "$$KEEP"}}, Refused("Use of undefined variable: KEEP")),
    ],
    # …/aggregation/facet, and pipelines as such
    "$facet and pipelines": [
        one(
            {"$facet": {"few": [{"$limit": 1}], "n": [{"$count": "c"}]}},
            [{"few": NUMBERS[:1], "n": [{"c": 5}]}],
            NUMBERS,
        ),
        one({"$facet": {"all": []}}, [{"all": NUMBERS}], NUMBERS),
        one({"$facet": {"none": [{"$match": {"n": 99}}]}}, [{"none": []}], NUMBERS),
        one({"$facet": {"a": [{"$count": "c"}]}}, [{"a": []}], []),
        (
            [{"$match": {"n": 1}}, {"$facet": {"a": [{"$project": {"n": 1, "_id": 0}}]}}, {"$unwind": "$a"}],
            NUMBERS,
            [{"a": {"n": 1}}],
        ),
        one({"$facet": {}}, Refused("must be a non-empty object (code 40169)")),
        one(
            {"$facet": {"a": [{"$facet": {"b": []}}]}},
            Refused("not allowed to be used within a $facet stage"),
        ),
        one({"$facet": {"a": [{"$out": "x"}]}}, Refused("$out is not allowed inside $facet")),
        one({"$facet": {"a": {"$limit": 1}}}, Refused("arguments to $facet must be arrays")),
        one({"$facet": {"a.b": []}}, Refused("may not contain '.'")),
        ([], NUMBERS, NUMBERS),
        ({"$limit": 1}, NUMBERS, Refused("a pipeline must be an array of stages")),
        ([{"$limit": 1, "$skip": 1}], NUMBERS, Refused("exactly one field. (code 40323)")),
        (
            [{"$vectorSearch": {}}],
            NUMBERS,
            Refused("Unrecognized pipeline stage name: '$vectorSearch'; known are $addFields, "),
        ),
        ([{"$limit": 1}, {"$collStats": {}}], NUMBERS, Refused("only valid as the first stage")),
        ([{"$out": "x"}, {"$limit": 1}], NUMBERS, Refused("can only be the final stage")),
        ([{"$geoNear": {}}], NUMBERS, Refused("$geoNear")),
        ([{"$limit": 1}] * 201, NUMBERS, Refused("a pipeline may have 200 stages")),
        ([{"$set": {"at": "$$NOW"}}, {"$limit": 1}], NUMBERS, [{**NUMBERS[0], "at": NOW}]),
    ],
}
