"""What a dotted path leads to: objects, arrays, indexes, null and missing."""

from __future__ import annotations

from tests.unit.docdb.cases.table import MISSING, no, table, whole, yes

NESTED = table(
    "nested objects",
    "tutorial/query-embedded-documents/",
    yes({"a.b": 1}, {"b": 1}, {"b": 1, "c": 2}, {"b": [0, 1]}),
    no({"a.b": 1}, {"b": 2}, {}, 1, None, MISSING, "b", {"c": {"b": 1}}, True),
    yes({"a.b.c": 5}, {"b": {"c": 5}}, {"b": [{"c": 5}]}, [{"b": {"c": [4, 5]}}]),
    no({"a.b.c": 5}, {"b": 5}, {"b": {"c": 4}}, {"b.c": 5}, MISSING),
    yes({"a": {"b": 1}}, {"b": 1}, [{"b": 1}], {"b": 1.0}),
    no({"a": {"b": 1}}, {"b": 1, "c": 2}, {}, [[{"b": 1}]], MISSING),
    yes({"a": {}}, {}, [{}]),
    no({"a": {}}, {"b": 1}, MISSING, None, []),
    yes({"a.b.c.d": 1}, {"b": {"c": {"d": 1}}}),
    yes({"a.b": {"$gt": 1, "$lt": 3}}, {"b": 2}, {"b": [0, 5]}, [{"b": 0}, {"b": 5}], [{"b": [2]}]),
    no({"a.b": {"$gt": 1, "$lt": 3}}, {"b": 3}, {"b": []}, [{"b": 0}], 2, MISSING),
    yes({"a.b": {"$ne": 1}}, {"b": 2}, {}, 5, MISSING, [], [1]),
    no({"a.b": {"$ne": 1}}, {"b": 1}, [{"b": 2}, {"b": 1}]),
    whole({"a.__proto__.x": 1}, {"a": {"__proto__": {"x": 1}}}, True),
    whole({"__proto__": None}, {}, True),
    whole({"constructor": {"$exists": True}}, {"a": 1}, False),
)

ARRAYS = table(
    "arrays of objects",
    "tutorial/query-array-of-documents/",
    yes({"a.b": 5}, [{"b": 4}, {"b": 5}], [1, {"b": [5]}], {"b": 5}),
    no({"a.b": 5}, [{"b": 4}], [[{"b": 5}]], [5], [], MISSING, None),
    yes({"a.1.b": 5}, [{"b": 4}, {"b": 5}], {"1": {"b": 5}}, [{"1": {"b": 5}}]),
    no({"a.1.b": 5}, [{"b": 5}, {"b": 4}], [{"b": 5}], MISSING),
    yes({"a.0": 7}, [7, 8], {"0": 7}, [{"0": 7}], [1, {"0": 7}]),
    no({"a.0": 7}, [8, 7], 7, [], MISSING, "7"),
    # An element named by its index is not taken apart.
    no({"a.0": 7}, [[7, 8]]),
    yes({"a.0": [7, 8]}, [[7, 8]]),
    yes({"a.0.1": 8}, [[7, 8]], [{"1": 8}]),
    no({"a.0.1": 8}, [[8, 7]], [7, 8]),
    yes({"a.0.b": 1}, [[{"b": 1}]], [{"b": 1}], [[5, {"b": 1}]]),
    no({"a.01": 7}, [0, 7], [7]),
    yes({"a.01": 7}, {"01": 7}),
    no({"a.-1": 7}, [7]),
    no({"a.99999999": 7}, [7]),
    yes({"a.b.c": 1}, [{"b": [{"c": 0}, {"c": 1}]}]),
    no({"a.b.c": 1}, [{"b": [[{"c": 1}]]}]),
    yes({"a": [3, 1]}, [3, 1], [[3, 1], 0]),
    no({"a": [3, 1]}, [1, 3], [3], [3, 1, 0], 3),
)

# The documents of the manual's page and of the behaviour it describes for arrays.
NULL = table(
    "null and missing",
    "tutorial/query-for-null-fields/",
    yes({"a": None}, None, MISSING, [None, None], [1, None, 4]),
    no({"a": None}, [], {}, [[]], 4, [{"b": None}], [1, 4], [[None]]),
    yes({"a.b": None}, {}, None, 4, {"b": None}, MISSING, [{"b": 3}, {}], [{"b": None}, {"b": 3}]),
    no({"a.b": None}, {"b": "hi"}, [], [[]], [None, None], [1, 4], [{"b": 1}, {"b": 3}], [[{}]]),
    yes({"a.b": {"$ne": None}}, {"b": "hi"}, [], [[]], [None], [1, "x", None], [{"b": 1}]),
    no({"a.b": {"$ne": None}}, {}, None, 4, MISSING, [{"b": 3}, {}]),
    yes({"a.0": None}, [None], {}, [{"b": 1}], 4, MISSING, {"0": None}),
    no({"a.0": None}, [1], [], [[None]], {"0": 1}),
    yes({"a": {"$type": 10}}, None, [None]),
    no({"a": {"$type": 10}}, MISSING, [], 0),
    yes({"a.b": {"$in": [None, 75]}}, {"b": 75}, {}, 4, [{"b": 75}], [{}]),
    no({"a.b": {"$in": [None, 75]}}, {"b": 1}, [], [1], [{"b": 1}]),
    yes({"a.b": {"$gte": None}}, {}, {"b": None}, MISSING),
    no({"a.b": {"$gte": None}}, {"b": 1}, []),
    yes({"a.b": {"$not": {"$gte": None}}}, {"b": 1}, []),
)

TABLES = (NESTED, ARRAYS, NULL)
