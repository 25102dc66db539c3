"""Logical operators, comments and conditions that stand together."""

from __future__ import annotations

import math

from cloudlet.docdb.values import Decimal128, Long, Regex
from tests.unit.docdb.cases.table import MISSING, no, table, whole, yes

AND = table(
    "$and",
    "reference/operator/query/and/",
    yes({"$and": [{"a": {"$gt": 1}}, {"a": {"$lt": 5}}]}, 3, [0, 9], Decimal128("2.5"), Long(2)),
    no({"$and": [{"a": {"$gt": 1}}, {"a": {"$lt": 5}}]}, 1, 5, None, MISSING, [], "3", [0, 1]),
    yes({"$and": [{"a": 1}]}, 1),
    yes({"$and": [{}]}, 1, MISSING),
    yes({"$and": [{"a": {"$exists": False}}, {}]}, MISSING),
    no({"$and": [{"a": 1}, {"b": 1}]}, 1),
    whole({"$and": [{"a": 1}, {"b": None}]}, {"a": 1}, True),
    whole({"$and": [{"$or": [{"a": 1}, {"b": 1}]}, {"c": 1}]}, {"b": 1, "c": 1}, True),
    whole({"$and": [{"$or": [{"a": 1}, {"b": 1}]}, {"c": 1}]}, {"b": 1, "c": 2}, False),
    whole({"a": 1, "$and": [{"b": 2}]}, {"a": 1, "b": 2}, True),
    whole({"a": 1, "$and": [{"b": 2}]}, {"a": 1, "b": 3}, False),
)

OR = table(
    "$or",
    "reference/operator/query/or/",
    yes({"$or": [{"a": 1}, {"a": "x"}]}, 1, "x", ["x"], 1.0),
    no({"$or": [{"a": 1}, {"a": "x"}]}, 2, None, MISSING, [], True),
    yes({"$or": [{"a": 1}, {"a": None}, {"a": [3]}]}, None, MISSING, [3], [1, 2], [None]),
    no({"$or": [{"a": 1}, {"a": None}, {"a": [3]}]}, 3, [], False),
    yes({"$or": [{"a": {"$in": [1, 2]}}, {"a": 3}, {"a": {"$gt": 10}}]}, 2, 3, 11, [0, 2]),
    no({"$or": [{"a": {"$in": [1, 2]}}, {"a": 3}, {"a": {"$gt": 10}}]}, 4, MISSING, "3"),
    yes({"$or": [{"a": math.nan}, {"a": True}, {"a": {"x": 1}}]}, math.nan, True, {"x": 1}),
    no({"$or": [{"a": math.nan}, {"a": True}, {"a": {"x": 1}}]}, 1, {"x": 1, "y": 2}),
    whole({"$or": [{"a": 1}, {"b": 1}]}, {"b": 1}, True),
    whole({"$or": [{"a": 1}, {"b": 1}], "c": 1}, {"b": 1}, False),
    whole({"$or": [{"a": 1}, {"$and": [{"b": 1}, {"c": 1}]}]}, {"b": 1, "c": 1}, True),
    yes({"$or": [{}]}, 1, MISSING),
)

NOR = table(
    "$nor",
    "reference/operator/query/nor/",
    yes({"$nor": [{"a": 1}, {"a": "x"}]}, 2, None, MISSING, [], True, [2]),
    no({"$nor": [{"a": 1}, {"a": "x"}]}, 1, "x", [0, 1], 1.0),
    no({"$nor": [{}]}, 1, MISSING),
    yes({"$nor": [{"a": None}]}, 0, [], False),
    no({"$nor": [{"a": None}]}, None, MISSING, [None]),
    yes({"$nor": [{"a": {"$exists": True}}]}, MISSING),
    whole({"$nor": [{"a": 1}, {"b": 1}]}, {"a": 2, "b": 2}, True),
    whole({"$nor": [{"a": 1}, {"b": 1}]}, {"a": 2, "b": 1}, False),
    whole({"$nor": [{"$nor": [{"a": 1}]}]}, {"a": 1}, True),
)

NOT = table(
    "$not",
    "reference/operator/query/not/",
    yes({"a": {"$not": {"$gt": 1}}}, 1, 0, "5", None, MISSING, [], [0, 1], True, math.nan),
    no({"a": {"$not": {"$gt": 1}}}, 2, [0, 2], Decimal128("1.5")),
    yes({"a": {"$not": {"$eq": None}}}, 0, [], "x"),
    no({"a": {"$not": {"$eq": None}}}, None, MISSING, [None]),
    yes({"a": {"$not": Regex("^x")}}, "ax", 1, None, MISSING, [], ["a"]),
    no({"a": {"$not": Regex("^x")}}, "xa", ["a", "x"]),
    yes({"a": {"$not": {"$regex": "X", "$options": "i"}}}, "a", 5),
    no({"a": {"$not": {"$regex": "X", "$options": "i"}}}, "ax"),
    yes({"a": {"$not": {"$not": {"$gt": 1}}}}, 2, [2]),
    no({"a": {"$not": {"$not": {"$gt": 1}}}}, 1, MISSING, "2"),
    yes({"a": {"$not": {"$gt": 1, "$lt": 5}}}, 1, 5, MISSING, [0, 1]),
    no({"a": {"$not": {"$gt": 1, "$lt": 5}}}, 3, [0, 9]),
    yes({"a": {"$not": {"$exists": True}}}, MISSING),
    yes({"a": {"$not": {"$elemMatch": {"$gt": 1}}}}, 2, [1], MISSING),
    no({"a": {"$not": {"$size": 1}}}, [1], [[]]),
)

COMMENT = table(
    "$comment",
    "reference/operator/query/comment/",
    yes({"$comment": "why", "a": 1}, 1, [1], 1.0),
    no({"$comment": "why", "a": 1}, 2, None, MISSING, []),
    yes({"$comment": "why"}, 1, None, MISSING, []),
    yes({"$and": [{"$comment": "why", "a": 1}]}, 1),
    no({"$and": [{"$comment": "why", "a": 1}]}, 2),
    yes({"a": {"$elemMatch": {"$comment": "why", "x": 1}}}, [{"x": 1}]),
    no({"a": {"$elemMatch": {"$comment": "why", "x": 1}}}, [{"x": 2}], [1]),
)

TABLES = (AND, OR, NOR, NOT, COMMENT)
