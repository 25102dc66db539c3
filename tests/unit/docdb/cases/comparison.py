"""Comparison operators."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from cloudlet.docdb.values import (
    MAX_KEY,
    MIN_KEY,
    Binary,
    Decimal128,
    Long,
    ObjectId,
    Regex,
    Timestamp,
)
from tests.unit.docdb.cases.table import MISSING, no, table, yes

DAY = datetime(2026, 11, 20, tzinfo=UTC)
LATER = datetime(2026, 11, 21, tzinfo=UTC)
ID = ObjectId.from_hex("0123456789abcdef01234567")
NEXT_ID = ObjectId.from_hex("0123456789abcdef01234568")
NAN = math.nan


def eq(value: Any) -> dict[str, Any]:
    return {"a": {"$eq": value}}


EQ = table(
    "$eq",
    "reference/operator/query/eq/",
    yes(eq(1), 1, 1.0, Long(1), Decimal128("1.00"), [3, 1], [1.0]),
    no(eq(1), True, "1", None, MISSING, 2, [[1]], {"a": 1}, [], DAY, Decimal128("1.01")),
    yes(eq(0), 0, -0.0, Decimal128("-0E+3")),
    no(eq(0), False, "", None, MISSING),
    yes(eq(2**53 + 1), 2**53 + 1, Decimal128("9007199254740993")),
    no(eq(2**53 + 1), float(2**53), 2**53),
    yes(eq(0.1), 0.1),
    no(eq(0.1), Decimal128("0.1")),
    yes(eq(NAN), NAN, Decimal128("NaN"), [1, NAN]),
    no(eq(NAN), 0, None, MISSING, math.inf),
    yes(eq(math.inf), math.inf, Decimal128("Infinity")),
    yes(eq("é"), "é", ["a", "é"]),
    no(eq("é"), "e\u0301", "É"),
    yes(eq(True), True, [False, True]),
    no(eq(True), 1, "true", MISSING),
    yes(eq(None), None, MISSING, [1, None]),
    no(eq(None), 0, "", [], False, {}, [[None]]),
    yes(eq([1, 2]), [1, 2], [[1, 2], 3], [1.0, Long(2)]),
    no(eq([1, 2]), [2, 1], [1, 2, 3], 1, MISSING, [[[1, 2]]]),
    yes(eq([]), [], [[]]),
    no(eq([]), None, MISSING, [1], {}),
    yes(eq({"x": 1, "y": 2}), {"x": 1, "y": 2}, {"x": 1.0, "y": 2}, [{"x": 1, "y": 2}]),
    no(eq({"x": 1, "y": 2}), {"y": 2, "x": 1}, {"x": 1, "y": 2, "z": 3}, {"x": 1}, MISSING),
    yes(eq({}), {}, [{}]),
    no(eq({}), {"x": 1}, [], None, MISSING),
    yes(eq(Regex("a")), Regex("a"), [Regex("a")]),
    no(eq(Regex("a")), "a", Regex("a", "i")),
    yes(eq(DAY), DAY, [DAY]),
    no(eq(DAY), LATER, 1795132800000, "2026-11-20"),
    yes(eq(ID), ID),
    no(eq(ID), str(ID), NEXT_ID),
    yes(eq(b"\1"), b"\1"),
    no(eq(b"\1"), Binary(b"\1", 4), b"\1\2", "\1"),
    yes(eq(Binary(b"\1", 4)), Binary(b"\1", 4)),
    yes(eq(Timestamp(1, 2)), Timestamp(1, 2)),
    no(eq(Timestamp(1, 2)), Timestamp(1, 3), 1, DAY),
    yes(eq(MIN_KEY), MIN_KEY, [MIN_KEY]),
    no(eq(MIN_KEY), None, MISSING, MAX_KEY),
    # References to other documents are values, although their names start with $.
    yes({"a": {"$ref": "c", "$id": 1}}, {"$ref": "c", "$id": 1}),
    no({"a": {"$ref": "c", "$id": 1}}, {"$ref": "c", "$id": 2}, MISSING),
)

NE = table(
    "$ne",
    "reference/operator/query/ne/",
    yes({"a": {"$ne": 1}}, 2, "1", True, None, MISSING, [], [2, 3], {"x": 1}, NAN, [[1]]),
    no({"a": {"$ne": 1}}, 1, 1.0, Long(1), Decimal128("1"), [2, 1]),
    yes({"a": {"$ne": None}}, 0, False, "", [], {}, [1]),
    no({"a": {"$ne": None}}, None, MISSING, [1, None]),
    yes({"a": {"$ne": [1]}}, [2], 1, [1, 1], MISSING),
    no({"a": {"$ne": [1]}}, [1], [[1]]),
    yes({"a": {"$ne": {"x": 1, "y": 2}}}, {"y": 2, "x": 1}),
    no({"a": {"$ne": NAN}}, NAN, Decimal128("NaN")),
    yes({"a": {"$ne": MIN_KEY}}, 1, MISSING, MAX_KEY),
)

GT = table(
    "$gt",
    "reference/operator/query/gt/",
    yes({"a": {"$gt": 1}}, 2, 1.5, Long(2), Decimal128("1.1"), math.inf, [0, 2], 2**62),
    no({"a": {"$gt": 1}}, 1, 0, NAN, "2", True, None, MISSING, [], [0, 1], [[2]], DAY, {"x": 2}),
    yes({"a": {"$gt": float(2**53)}}, 2**53 + 1),
    no({"a": {"$gt": 2**53 + 1}}, float(2**53)),
    yes({"a": {"$gt": 0.1}}, Decimal128("0.1000000000000000056")),
    no({"a": {"$gt": 0.1}}, Decimal128("0.1")),
    yes({"a": {"$gt": "b"}}, "c", "ba", "é"),
    no({"a": {"$gt": "b"}}, "b", "a", "B", 5, MISSING),
    no({"a": {"$gt": None}}, None, 1, MISSING, [], True),
    no({"a": {"$gt": NAN}}, NAN, 1, math.inf),
    yes({"a": {"$gt": [1, 2]}}, [1, 3], [2], [1, 2, 0], [[1, 3]]),
    no({"a": {"$gt": [1, 2]}}, [1, 2], [1], 5, MISSING),
    yes({"a": {"$gt": {"x": 1}}}, {"x": 2}, {"y": 1}, {"x": "a"}, {"x": 1, "y": 0}),
    no({"a": {"$gt": {"x": 1}}}, {"x": 1}, {}, {"x": None}, 2, MISSING),
    yes({"a": {"$gt": False}}, True),
    no({"a": {"$gt": False}}, 1, False, MISSING),
    yes({"a": {"$gt": ID}}, NEXT_ID),
    yes({"a": {"$gt": DAY}}, LATER),
    yes({"a": {"$gt": b"\2"}}, b"\1\1", b"\3", Binary(b"\1", 9)),
    yes({"a": {"$gt": Timestamp(1, 1)}}, Timestamp(1, 2), Timestamp(2, 0)),
    yes({"a": {"$gt": MIN_KEY}}, 1, None, MISSING, "x", [MIN_KEY], MAX_KEY),
    no({"a": {"$gt": MIN_KEY}}, MIN_KEY),
    no({"a": {"$gt": MAX_KEY}}, 1, MAX_KEY, MISSING),
)

GTE = table(
    "$gte",
    "reference/operator/query/gte/",
    yes({"a": {"$gte": 1}}, 1, 1.0, 2, Decimal128("1.0"), Long(1), [0, 1], math.inf),
    no({"a": {"$gte": 1}}, 0.9, NAN, "1", True, None, MISSING, [], {"x": 1}, Decimal128("0.999")),
    yes({"a": {"$gte": None}}, None, MISSING, [None]),
    no({"a": {"$gte": None}}, 0, "", [], False),
    yes({"a": {"$gte": NAN}}, NAN, Decimal128("NaN"), [NAN]),
    no({"a": {"$gte": NAN}}, 1, None, MISSING),
    yes({"a": {"$gte": ""}}, "", "x"),
    no({"a": {"$gte": ""}}, None, 1),
    yes({"a": {"$gte": DAY}}, DAY, LATER),
    no({"a": {"$gte": LATER}}, DAY, MISSING),
    yes({"a": {"$gte": []}}, [], [1], [[]]),
    yes({"a": {"$gte": {}}}, {}, {"x": 1}),
    no({"a": {"$gte": {}}}, [], None),
    yes({"a": {"$gte": MIN_KEY}}, MIN_KEY, 1, None, MISSING, []),
    yes({"a": {"$gte": MAX_KEY}}, MAX_KEY),
    no({"a": {"$gte": MAX_KEY}}, 1, MISSING, MIN_KEY),
)

LT = table(
    "$lt",
    "reference/operator/query/lt/",
    yes({"a": {"$lt": 1}}, 0, -0.5, Decimal128("0.99"), -math.inf, [5, 0], Long(-3)),
    no({"a": {"$lt": 1}}, 1, 2, NAN, "0", False, None, MISSING, [], [1, 2], [[0]], Decimal128("NaN")),
    yes({"a": {"$lt": "b"}}, "a", "", "B"),
    no({"a": {"$lt": "b"}}, 1, "b", None, MISSING),
    yes({"a": {"$lt": True}}, False, [False]),
    no({"a": {"$lt": True}}, 0, True, MISSING),
    yes({"a": {"$lt": LATER}}, DAY),
    no({"a": {"$lt": None}}, None, MISSING, MIN_KEY, []),
    yes({"a": {"$lt": [2]}}, [1], [], [1, 9], [[0]]),
    no({"a": {"$lt": [2]}}, [2], [3], 1, MISSING),
    yes({"a": {"$lt": {"x": 1}}}, {}, {"x": 0}, {"a": 1}, {"x": None}),
    no({"a": {"$lt": {"x": 1}}}, {"x": 1}, {"y": 0}, 0, MISSING),
    yes({"a": {"$lt": MAX_KEY}}, 1, None, MISSING, [MAX_KEY], MIN_KEY),
    no({"a": {"$lt": MAX_KEY}}, MAX_KEY),
    no({"a": {"$lt": MIN_KEY}}, MIN_KEY, 1, MISSING),
)

LTE = table(
    "$lte",
    "reference/operator/query/lte/",
    yes({"a": {"$lte": 1}}, 1, 0, 1.0, Decimal128("1.000"), [1, 5], -math.inf),
    no({"a": {"$lte": 1}}, 1.1, NAN, "1", True, None, MISSING, [], [2, 3], DAY, {"x": 0}),
    yes({"a": {"$lte": None}}, None, MISSING, [3, None]),
    no({"a": {"$lte": None}}, 0, False),
    yes({"a": {"$lte": NAN}}, NAN),
    no({"a": {"$lte": NAN}}, -math.inf, 0, MISSING),
    yes({"a": {"$lte": "b"}}, "b", "a"),
    yes({"a": {"$lte": ID}}, ID),
    no({"a": {"$lte": ID}}, NEXT_ID, str(ID)),
    yes({"a": {"$lte": MIN_KEY}}, MIN_KEY),
    no({"a": {"$lte": MIN_KEY}}, 1, MISSING),
    yes({"a": {"$lte": MAX_KEY}}, MAX_KEY, 1, MISSING, None),
)

IN = table(
    "$in",
    "reference/operator/query/in/",
    yes({"a": {"$in": [1, "x"]}}, 1, 1.0, Long(1), Decimal128("1"), "x", [5, "x"], [1]),
    no({"a": {"$in": [1, "x"]}}, 2, True, "1", None, MISSING, [], [[1]], {"x": 1}, "X"),
    yes({"a": {"$in": ["x", "y"]}}, "y", ["q", "x"]),
    no({"a": {"$in": ["x", "y"]}}, "z", 1, None, MISSING, ["z"], {}, [["x"]]),
    no({"a": {"$in": []}}, 1, None, MISSING, []),
    yes({"a": {"$in": [None]}}, None, MISSING, [None]),
    no({"a": {"$in": [None]}}, 0, [], ""),
    yes({"a": {"$in": [[1, 2], 3]}}, [1, 2], 3, [[1, 2]], [3]),
    no({"a": {"$in": [[1, 2], 3]}}, 1, [2, 1], [1]),
    yes({"a": {"$in": [{"x": 1, "y": 2}]}}, {"x": 1, "y": 2}),
    no({"a": {"$in": [{"x": 1, "y": 2}]}}, {"y": 2, "x": 1}),
    yes({"a": {"$in": [Regex("^ab"), 1]}}, "abc", 1, ["zz", "ab"], Regex("^ab")),
    no({"a": {"$in": [Regex("^ab"), 1]}}, "cab", None, MISSING, Regex("^a")),
    yes({"a": {"$in": [NAN, True]}}, NAN, True, Decimal128("NaN")),
    no({"a": {"$in": [NAN, True]}}, 1, 0, False),
    yes({"a": {"$in": [Decimal128("1.5"), DAY, ID]}}, 1.5, DAY, ID),
    yes({"a": {"$in": [MIN_KEY, b"x"]}}, MIN_KEY, b"x"),
)

NIN = table(
    "$nin",
    "reference/operator/query/nin/",
    yes({"a": {"$nin": [1, "x"]}}, 2, None, MISSING, [], [2], True, {"x": 1}, NAN, [[1]]),
    no({"a": {"$nin": [1, "x"]}}, 1, 1.0, "x", [2, 1], Decimal128("1.0")),
    yes({"a": {"$nin": []}}, 1, None, MISSING, []),
    yes({"a": {"$nin": [None]}}, 0, [], False),
    no({"a": {"$nin": [None]}}, None, MISSING, [None, 1]),
    yes({"a": {"$nin": [Regex("^a")]}}, "b", 1, MISSING),
    no({"a": {"$nin": [Regex("^a")]}}, "ab", ["x", "a"]),
    no({"a": {"$nin": [[1]]}}, [1], [[1]]),
)

TABLES = (EQ, NE, GT, GTE, LT, LTE, IN, NIN)
