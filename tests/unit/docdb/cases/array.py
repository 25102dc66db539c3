"""Array operators."""

from __future__ import annotations

import math
from typing import Any

from cloudlet.docdb.values import Decimal128, Long, Regex
from tests.unit.docdb.cases.table import MISSING, no, table, whole, yes


def each(condition: Any) -> dict[str, Any]:
    return {"a": {"$elemMatch": condition}}


ALL = table(
    "$all",
    "reference/operator/query/all/",
    yes({"a": {"$all": [1, 2]}}, [2, 3, 1], [1, 2], [1.0, Long(2)], [[1, 2], 1, 2], [Decimal128("1"), 2]),
    no({"a": {"$all": [1, 2]}}, [1], [], 1, None, MISSING, [[1, 2]], ["1", "2"], [True, 2]),
    yes({"a": {"$all": [1]}}, 1, [1], [0, 1]),
    no({"a": {"$all": []}}, [], 1, None, MISSING, [[]]),
    yes({"a": {"$all": [None]}}, None, MISSING, [None]),
    no({"a": {"$all": [None]}}, [], 0),
    yes({"a": {"$all": [[1, 2]]}}, [1, 2], [[1, 2]], [[1, 2], 5]),
    no({"a": {"$all": [[1, 2]]}}, [2, 1], [1, 2, 3]),
    yes({"a": {"$all": [Regex("^a"), "b"]}}, ["ax", "b"], ["b", "a"]),
    no({"a": {"$all": [Regex("^a"), "b"]}}, ["b"], "a", [1]),
    yes({"a": {"$all": [{"x": 1}]}}, [{"x": 1}], {"x": 1}),
    no({"a": {"$all": [{"x": 1}]}}, [{"x": 1, "y": 2}], MISSING),
    yes(
        {"a": {"$all": [{"$elemMatch": {"x": 1, "y": {"$gt": 5}}}, {"$elemMatch": {"x": 2}}]}},
        [{"x": 2}, {"x": 1, "y": 6}],
        [{"x": 1, "y": 6}, 5, {"x": 2, "z": 0}],
    ),
    no(
        {"a": {"$all": [{"$elemMatch": {"x": 1, "y": {"$gt": 5}}}, {"$elemMatch": {"x": 2}}]}},
        [{"x": 1, "y": 6}],
        [{"x": 1}, {"y": 6}, {"x": 2}],
        {"x": 1, "y": 6},
        MISSING,
        [],
    ),
    yes({"a.b": {"$all": [1, 2]}}, [{"b": 1}, {"b": 2}], {"b": [1, 2]}),
    no({"a.b": {"$all": [1, 2]}}, [{"b": 1}], {"b": 1}),
)

ELEM_MATCH = table(
    "$elemMatch",
    "reference/operator/query/elemMatch/",
    yes(each({"$gt": 1, "$lt": 3}), [0, 2, 9], [1.5], [Decimal128("2")], [Long(2)]),
    no(each({"$gt": 1, "$lt": 3}), [0, 9], 2, [], None, MISSING, [[2]], ["2"], [math.nan], {"0": 2}),
    yes(each({"x": 1, "y": 2}), [{"x": 1}, {"x": 1, "y": 2}], [5, {"y": 2, "x": 1.0, "z": 0}]),
    no(each({"x": 1, "y": 2}), [{"x": 1}, {"y": 2}], {"x": 1, "y": 2}, [], [None], MISSING),
    yes(each({"x.y": 1}), [{"x": {"y": 1}}], [{"x": [{"y": 0}, {"y": 1}]}]),
    no(each({"x.y": 1}), [[{"x": {"y": 1}}]], [{"x.y": 1}]),
    yes(each({"$or": [{"x": 1}, {"y": 1}]}), [{"y": 1}], [{"x": 2}, {"x": 1}]),
    no(each({"$or": [{"x": 1}, {"y": 1}]}), [{"x": 2}], [1]),
    yes(each({"$eq": None}), [None], [1, None]),
    no(each({"$eq": None}), [], None, MISSING, [1]),
    yes(each({"$ne": None}), [1], [None, 0]),
    no(each({"$ne": None}), [None], [], 5, MISSING),
    yes(each({"x": None}), [{}], [{"x": None}], [{"y": 1}]),
    no(each({"x": None}), [1], [{"x": 1}], [], MISSING),
    yes(each({"$elemMatch": {"$gt": 3}}), [[1, 4]], [5, [4]]),
    no(each({"$elemMatch": {"$gt": 3}}), [4], [[1]], [[[4]]]),
    yes(each({"$size": 1}), [[1]], [5, ["x"]]),
    no(each({"$size": 1}), [1], [[]]),
    yes(each({"$in": [1, Regex("^x")]}), [1], ["xa"]),
    yes(each({"$not": {"$gt": 1}}), [1], ["x"], [5, 0]),
    no(each({"$not": {"$gt": 1}}), [2], []),
    yes(each({"$regex": "B", "$options": "i"}), ["abc"]),
    yes(each({"$exists": True}), [None], [1]),
    no(each({"$exists": True}), [], 1),
    # An array in the array counts as an object whose fields are its indexes.
    yes(each({"0": 5}), [[5]], [{"0": 5}]),
    no(each({"0": 5}), [5], [[1, 5]]),
    yes(each({}), [{}], [{"x": 1}], [[]]),
    no(each({}), [], [1], {}, MISSING),
    whole({"a.b": {"$elemMatch": {"c": 1}}}, {"a": [{"b": [{"c": 1}]}]}, True),
    whole({"a.b": {"$elemMatch": {"c": 1}}}, {"a": {"b": {"c": 1}}}, False),
    whole({"a.0": {"$elemMatch": {"$gt": 1}}}, {"a": [[2]]}, True),
)

SIZE = table(
    "$size",
    "reference/operator/query/size/",
    yes({"a": {"$size": 2}}, [1, 2], [[], 1], [None, None], [{}, "x"]),
    no({"a": {"$size": 2}}, [1], [], [1, 2, 3], 2, "ab", None, MISSING, {"0": 1, "1": 2}, [[1, 2]]),
    yes({"a": {"$size": 0}}, []),
    no({"a": {"$size": 0}}, [[]], None, MISSING, "", {}),
    yes({"a": {"$size": 2.0}}, [1, 2]),
    yes({"a": {"$size": Long(1)}}, [None]),
    yes({"a": {"$size": Decimal128("1")}}, [0]),
    yes({"a.b": {"$size": 1}}, {"b": [1]}, [{"b": []}, {"b": [1]}]),
    no({"a.b": {"$size": 1}}, {"b": 1}, [{"b": [1, 2]}], [1]),
    yes({"a.0": {"$size": 1}}, [[7]]),
    no({"a.0": {"$size": 1}}, [7], [[1, 2]]),
)

TABLES = (ALL, ELEM_MATCH, SIZE)
