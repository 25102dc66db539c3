"""Evaluation operators: patterns, remainders, expressions."""

from __future__ import annotations

import math

from cloudlet.docdb.values import Decimal128, Long, Regex
from tests.unit.docdb.cases.table import MISSING, no, table, whole, yes

REGEX = table(
    "$regex",
    "reference/operator/query/regex/",
    yes({"a": {"$regex": "^ab"}}, "abc", ["x", "ab"], Regex("^ab"), "ab\n"),
    no(
        {"a": {"$regex": "^ab"}},
        "cab",
        1,
        None,
        MISSING,
        [],
        ["b"],
        {"x": "ab"},
        Regex("ab"),
        b"ab",
        [["ab"]],
    ),
    yes({"a": {"$regex": "AB", "$options": "i"}}, "xab", "Ab"),
    no({"a": {"$regex": "AB"}}, "ab"),
    yes({"a": {"$regex": "^b", "$options": "m"}}, "a\nb"),
    no({"a": {"$regex": "^b"}}, "a\nb"),
    yes({"a": {"$regex": "a.b", "$options": "s"}}, "a\nb"),
    no({"a": {"$regex": "a.b"}}, "a\nb"),
    yes({"a": {"$regex": "a b # the end", "$options": "x"}}, "ab"),
    no({"a": {"$regex": "a b # the end", "$options": "x"}}, "a b"),
    yes({"a": {"$options": "si", "$regex": "A.B"}}, "a\nb"),
    yes({"a": Regex("b", "i")}, "aBc", ["B"]),
    no({"a": Regex("b", "i")}, "c", 1, MISSING, None),
    yes({"a": {"$regex": Regex("b", "i")}}, "B"),
    yes({"a": {"$regex": "é", "$options": "i"}}, "É"),
    yes({"a": {"$regex": ""}}, "", "x"),
    no({"a": {"$regex": ""}}, 1, None, MISSING),
    yes({"a": {"$regex": "(?<year>2026)"}}, "in 2026"),
    yes({"a": {"$regex": "^a", "$ne": "ab"}}, "a", "abc"),
    no({"a": {"$regex": "^a", "$ne": "ab"}}, "ab", "b"),
    yes({"a": {"$regex": "^[[:alpha:]_]+[[:digit:]]$"}}, "ab_1", "Z9"),
    no({"a": {"$regex": "^[[:alpha:]_]+[[:digit:]]$"}}, "a:", "1", "[:a"),
    yes({"a": {"$regex": "^[\\u4e00-\\u9fa5]{2}$"}}, "中文"),
    no({"a": {"$regex": "^[\\u4e00-\\u9fa5]{2}$"}}, "ab", "中"),
    yes({"a": {"$regex": "\\d{2}$"}}, "a12"),
    no({"a": {"$regex": "\\d{2}$"}}, "a1", "12a"),
)

MOD = table(
    "$mod",
    "reference/operator/query/mod/",
    yes({"a": {"$mod": [4, 1]}}, 5, 1, 5.0, 5.7, Long(5), Decimal128("5.9"), [2, 5], -7 + 8),
    no({"a": {"$mod": [4, 1]}}, 4, "5", True, None, MISSING, [], math.nan, math.inf, {"x": 5}, -3, 2.0**63),
    yes({"a": {"$mod": [4, -1]}}, -5, -1.5),
    no({"a": {"$mod": [4, -1]}}, 5, 3),
    yes({"a": {"$mod": [-4, 1]}}, 5, 1),
    yes({"a": {"$mod": [4, 0]}}, 0, 8, -8, -0.0, 0.9, Decimal128("-0.5")),
    no({"a": {"$mod": [4, 0]}}, None, MISSING, Decimal128("NaN"), Decimal128("1E+30")),
    yes({"a": {"$mod": [4.9, 1.9]}}, 5),
    no({"a": {"$mod": [4.9, 1.9]}}, 4.9),
    yes({"a": {"$mod": [Decimal128("4.5"), Long(1)]}}, 5),
    yes({"a": {"$mod": [2**62, 1]}}, 2**62 + 1),
    yes({"a": {"$mod": [2, 1]}}, 2**63 - 1),
    no({"a": {"$mod": [4, 5]}}, 5, 9),
)

BUDGET = {"$expr": {"$gt": ["$spent", "$budget"]}}
EXPR = table(
    "$expr",
    "reference/operator/query/expr/",
    whole(BUDGET, {"spent": 5, "budget": 4}, True),
    whole(BUDGET, {"spent": 4, "budget": 4}, False),
    whole(BUDGET, {"spent": Decimal128("4.1"), "budget": 4}, True),
    # Expressions compare across types, and missing is below null.
    whole(BUDGET, {"spent": "a", "budget": 4}, True),
    whole(BUDGET, {"spent": None}, True),
    whole(BUDGET, {"budget": 4}, False),
    whole({"$expr": {"$eq": ["$a", [1]]}}, {"a": [1]}, True),
    whole({"$expr": {"$eq": ["$a", 1]}}, {"a": [1]}, False),
    yes({"$expr": "$a"}, 1, "x", [], {}, True, "", -1),
    no({"$expr": "$a"}, 0, 0.0, Decimal128("0"), None, MISSING, False),
    yes({"$expr": {"$in": ["$a", [1, "x"]]}}, 1, "x", 1.0),
    no({"$expr": {"$in": ["$a", [1, "x"]]}}, 2, [1], MISSING),
    whole({"$expr": {"$gt": [{"$add": ["$o.x", "$y"]}, 10]}}, {"o": {"x": 6}, "y": 5}, True),
    whole({"$expr": {"$gt": [{"$add": ["$o.x", "$y"]}, 10]}}, {"o": {"x": 6}}, False),
    whole({"b": 1, "$expr": {"$eq": ["$a", "$b"]}}, {"a": 1, "b": 1}, True),
    whole({"b": 1, "$expr": {"$eq": ["$a", "$b"]}}, {"a": 1, "b": 2}, False),
    whole({"$or": [{"$expr": {"$eq": ["$a", 2]}}, {"b": 1}]}, {"a": 2}, True),
    whole({"$nor": [{"$expr": {"$eq": ["$a", 2]}}]}, {"a": 2}, False),
    whole({"$expr": {"$eq": [{"$size": "$$ROOT.a"}, 2]}}, {"a": [0, 1]}, True),
)

TABLES = (REGEX, MOD, EXPR)
