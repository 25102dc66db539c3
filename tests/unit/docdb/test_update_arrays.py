"""Array operators and dynamic paths of updates: tables written from the named pages of MongoDB's manual."""

from __future__ import annotations

from typing import Any

import pytest

from cloudlet.docdb.numeric import Decimal128
from cloudlet.docdb.values import INT64_MAX, INT64_MIN, Document, Regex
from tests.unit.docdb.updating import Case, Refused, apply, check, operator

NAN = float("nan")

# Manual: "$push", "$each", "$position", "$slice", "$sort".
PUSH = operator(
    "$push",
    [
        ([1], 2, [1, 2]),
        (..., 1, [1]),
        ([1], [2, 3], [1, [2, 3]]),
        ([1], None, [1, None]),
        ([1], {"b": 1}, [1, {"b": 1}]),
        ([1], {"each": [2]}, [1, {"each": [2]}]),
        ([1], {"$foo": 2}, [1, {"$foo": 2}]),
        ([], {"$each": [1, [2], None]}, [1, [2], None]),
        (..., {"$each": []}, []),
        ([1], {"$each": []}, [1]),
        ([1, 4], {"$each": [2, 3], "$position": 1}, [1, 2, 3, 4]),
        ([1, 4], {"$each": [2], "$position": 0}, [2, 1, 4]),
        ([1, 4], {"$each": [9], "$position": -1}, [1, 9, 4]),
        ([1, 4], {"$each": [9], "$position": -9}, [9, 1, 4]),
        ([1, 4], {"$each": [9], "$position": 99}, [1, 4, 9]),
        ([1, 2], {"$each": [3], "$slice": -2}, [2, 3]),
        ([1, 2], {"$each": [3], "$slice": 2.0}, [1, 2]),
        ([1, 2], {"$each": [3], "$slice": 0}, []),
        ([1, 2], {"$each": [3], "$slice": INT64_MAX}, [1, 2, 3]),
        ([1, 2], {"$each": [3], "$slice": INT64_MIN, "$position": INT64_MIN}, [3, 1, 2]),
        ([3, 1], {"$each": [2], "$slice": 2, "$sort": -1}, [3, 2]),
        ([2, "b", None, [1]], {"$each": [1], "$sort": 1}, [None, 1, 2, "b", [1]]),
        ([{"n": 2}], {"$each": [{"n": 1}], "$sort": {"n": 1}}, [{"n": 1}, {"n": 2}]),
        ([{"n": 2}, 5], {"$each": [{"n": None}], "$sort": {"n": -1}}, [{"n": 2}, 5, {"n": None}]),
        (
            [{"n": {"m": 1}, "k": 1}, {"n": {"m": 1}, "k": 2}],
            {"$each": [], "$sort": {"n.m": 1, "k": -1}},
            [{"n": {"m": 1}, "k": 2}, {"n": {"m": 1}, "k": 1}],
        ),
        (1, 2, Refused(2, "The field 'a' must be an array but is of type int in document {_id: 1}")),
        (None, 2, Refused(2, "must be an array but is of type null")),
        ({}, 2, Refused(2, "must be an array but is of type object")),
        (
            [],
            {"$each": 1},
            Refused(2, "The argument to $each in $push must be an array but it was of type: int"),
        ),
        ([], {"$each": [], "$foo": 1}, Refused(2, "Unrecognized clause in $push: $foo")),
        ([], {"$slice": 1}, Refused(52, "needs $each")),
        ([], {"$each": [], "$slice": NAN}, Refused(2, "The value for $slice must be an integer value")),
        ([], {"$each": [], "$slice": "1"}, Refused(2, "but was given type: string")),
        ([], {"$each": [], "$position": 1.5}, Refused(2, "The value for $position must be an integer value")),
        ([], {"$each": [], "$sort": 5}, Refused(2, "must be either 1 or -1")),
        ([], {"$each": [], "$sort": "a"}, Refused(2, "use 1/-1 to sort the whole element")),
        ([], {"$each": [], "$sort": {}}, Refused(2, "The $sort pattern is empty")),
        ([], {"$each": [], "$sort": {"n": 2}}, Refused(2, "must be 1 or -1")),
    ],
    ({"a": {"b": [1]}}, {"$push": {"a.b": 2, "a.c": 3}}, {"a": {"b": [1, 2], "c": [3]}}),
    ({"a": [[1]]}, {"$push": {"a.0": 2}}, {"a": [[1, 2]]}),
    ({"a": 1}, {"$push": {"a.b": 2}}, Refused(28, "Cannot create field 'b' in element {a: 1}")),
)

# Manual: "$addToSet". Equal is what compares equal; an object's fields have an order.
ADD_TO_SET = operator(
    "$addToSet",
    [
        ([1], 2, [1, 2]),
        ([1], 1, [1]),
        ([1], 1.0, [1]),
        ([1], Decimal128("1.0"), [1]),
        ([1], True, [1, True]),
        (..., 2, [2]),
        ([1], [1], [1, [1]]),
        ([{"b": 1, "c": 2}], {"b": 1, "c": 2}, [{"b": 1, "c": 2}]),
        ([{"b": 1, "c": 2}], {"c": 2, "b": 1}, [{"b": 1, "c": 2}, {"c": 2, "b": 1}]),
        ([None], None, [None]),
        ([NAN], NAN, [NAN]),
        ([1, 1], 1, [1, 1]),
        ([1], {"$each": [2, 1, 2]}, [1, 2]),
        (..., {"$each": [3, 3]}, [3]),
        (..., {"$each": []}, []),
        ([1], {"$each": []}, [1]),
        ([1], {"each": [2]}, [1, {"each": [2]}]),
        (
            1,
            1,
            Refused(2, "Cannot apply $addToSet to non-array field. Field named 'a' has non-array type int"),
        ),
        (None, 1, Refused(2, "has non-array type null")),
        ({}, 1, Refused(2, "has non-array type object")),
        ([], {"$each": 1}, Refused(14, "The argument to $each in $addToSet must be an array")),
        (
            [],
            {"$each": [], "$slice": 1},
            Refused(2, "Found unexpected fields after $each in $addToSet: $slice"),
        ),
    ],
)

# Manual: "$pull". Of an object without operators the fields are a filter on elements that are objects.
PULL = operator(
    "$pull",
    [
        ([1, 2, 1], 1, [2]),
        ([1, 2, 1.0, True], 1, [2, True]),
        ([1], 5, [1]),
        ([None, 1], None, [1]),
        ([[1], 1, [1, 2]], [1], [1, [1, 2]]),
        ([1, 5, 9], {"$gte": 5}, [1]),
        ([1, 5, 9], {"$gt": 1, "$lt": 9}, [1, 9]),
        (["x", "y", "z", 1], {"$in": ["x", "z", 1]}, ["y"]),
        ([1, 2], {"$ne": 1}, [1]),
        ([[1, 2], [3]], {"$ne": 1}, [[1, 2]]),
        ([[1, 2], [3], 3], {"$eq": 3}, [[1, 2]]),
        (["xa", "b", 1], Regex("^x"), ["b", 1]),
        (["xa", "b"], {"$regex": "A", "$options": "i"}, ["b"]),
        ([{"b": 1, "c": 2}, {"b": 2}, 7], {"b": 1}, [{"b": 2}, 7]),
        ([{"b": 1, "c": 2}, {"b": 1}], {"b": 1, "c": {"$gte": 2}}, [{"b": 1}]),
        ([{"b": 1}, {}, 5], {"b": None}, [{"b": 1}, 5]),
        ([{"b": [{"c": 1}]}, {"b": [{"c": 2}]}], {"b": {"$elemMatch": {"c": 1}}}, [{"b": [{"c": 2}]}]),
        ([{"b": {"c": 1}}, {"b": {"c": 2}}], {"b.c": 1}, [{"b": {"c": 2}}]),
        ([{"b": 1}, {"b": 2}, {"b": 3}], {"$or": [{"b": 1}, {"b": 3}]}, [{"b": 2}]),
        ([1, {"b": 1}], {}, [1]),
        ([], 1, []),
        (..., 1, ...),
        (1, 1, Refused(2, "Cannot apply $pull to a non-array value")),
        (None, 1, Refused(2, "Cannot apply $pull to a non-array value")),
        ([1], {"$foo": 1}, Refused(2, "unknown operator: $foo")),
        ([1], Regex("(a+)+$"), Refused(2, "too costly")),
    ],
    ({"a": {}}, {"$pull": {"a.b": 1}}, {"a": {}}),
    ({"a": {"b": [1, 2]}}, {"$pull": {"a.b": 1}}, {"a": {"b": [2]}}),
    (
        {"a": 5},
        {"$pull": {"a.b": 1}},
        Refused(28, "Cannot use the part (a) of (a.b) to traverse the element"),
    ),
    ({"a": [{"b": [1]}]}, {"$pull": {"a.b": 1}}, Refused(28, "to traverse the element ({a: [{b: [1]}]})")),
)

# Manual: "$pullAll". Whole values only; no conditions.
PULL_ALL = operator(
    "$pullAll",
    [
        ([1, 2, 3, 1], [1, 3], [2]),
        ([1, 2], [], [1, 2]),
        ([1, 2], [5], [1, 2]),
        ([1.0, True, "1"], [1], [True, "1"]),
        ([None, 0], [None], [0]),
        ([[1], 1], [[1]], [1]),
        ([{"b": 1, "c": 2}, {"b": 1}], [{"b": 1}], [{"b": 1, "c": 2}]),
        ([{"b": 1, "c": 2}], [{"c": 2, "b": 1}], [{"b": 1, "c": 2}]),
        ([{"$gt": 0}, 5], [{"$gt": 0}], [5]),
        ([], [1], []),
        (..., [1], ...),
        (1, [1], Refused(2, "Cannot apply $pullAll to a non-array value")),
        ([1], 1, Refused(2, "$pullAll requires an array argument but was given a int")),
        ([1], {"$in": [1]}, Refused(2, "but was given a object")),
    ],
)

# Manual: "$pop".
POP = operator(
    "$pop",
    [
        ([1, 2, 3], 1, [1, 2]),
        ([1, 2, 3], -1, [2, 3]),
        ([1, 2, 3], 1.0, [1, 2]),
        ([1], 1, []),
        ([None, [1]], -1, [[1]]),
        ([], 1, []),
        (..., 1, ...),
        (1, 1, Refused(14, "Path 'a' contains an element of non-array type 'int'")),
        (None, -1, Refused(14, "of non-array type 'null'")),
        ([1], 2, Refused(9, "$pop expects 1 or -1, found: 2")),
        ([1], 0, Refused(9, "$pop expects 1 or -1, found: 0")),
        ([1], "1", Refused(9, 'Expected a number in: {a: "1"}')),
        ([1], True, Refused(9, "Expected a number in: {a: true}")),
    ],
    ({"a": [[1, 2]]}, {"$pop": {"a.0": 1}}, {"a": [[1]]}),
    ({"a": 5}, {"$pop": {"a.b": 1}}, Refused(28, "Cannot use the part (a) of (a.b)")),
)

# Manual: "$[]". Every element; the array has to be there.
EVERY: list[Case] = [
    ({"a": [1, 2]}, {"$inc": {"a.$[]": 1}}, {"a": [2, 3]}),
    ({"a": []}, {"$inc": {"a.$[]": 1}}, {"a": []}),
    ({"a": [1, None]}, {"$set": {"a.$[]": 0}}, {"a": [0, 0]}),
    ({"a": [1, 2]}, {"$unset": {"a.$[]": ""}}, {"a": [None, None]}),
    ({"a": [{"b": 1}, {"b": 2, "c": 3}]}, {"$set": {"a.$[].b": 0}}, {"a": [{"b": 0}, {"b": 0, "c": 3}]}),
    ({"a": [{"b": 1}, {}]}, {"$unset": {"a.$[].b": ""}}, {"a": [{}, {}]}),
    ({"a": [[1, 2], [3]]}, {"$mul": {"a.$[].$[]": 2}}, {"a": [[2, 4], [6]]}),
    (
        {"a": [{"b": [{"c": 1}]}, {"b": []}]},
        {"$inc": {"a.$[].b.$[].c": 1}},
        {"a": [{"b": [{"c": 2}]}, {"b": []}]},
    ),
    ({"a": [{}, {}]}, {"$set": {"a.$[].x": 1, "a.1.y": 2}}, {"a": [{"x": 1}, {"x": 1, "y": 2}]}),
    ({"a": [{}]}, {"$set": {"a.$[].x": 1, "a.$[].y": 2}}, {"a": [{"x": 1, "y": 2}]}),
    ({"a": [1, 2]}, {"$set": {"a.$[]": 1, "a.0": 5}}, Refused(40, "Update created a conflict at 'a.0'")),
    ({"a": [{}]}, {"$set": {"a.$[].x": 1, "a.0.x": 5}}, Refused(40, "Update created a conflict at 'a.0.x'")),
    ({"a": [1]}, {"$set": {"a.$[]": 1, "a.$[].b": 5}}, Refused(40, "conflict at 'a.$[]'")),
    ({"a": [1]}, {"$set": {"a.$[].b": 1}}, Refused(28, "Cannot create field 'b' in element {0: 1}")),
    ({}, {"$set": {"a.$[]": 1}}, Refused(2, "The path 'a' must exist in the document in order to apply")),
    (
        {"a": {"b": 1}},
        {"$set": {"a.$[]": 1}},
        Refused(2, "Cannot apply array updates to non-array element {a:"),
    ),
    ({"a": 5}, {"$set": {"a.$[]": 1}}, Refused(2, "non-array element {a: 5}")),
    ({"a": 5}, {"$set": {"$[].a": 1}}, Refused(2, "in the first position in path '$[].a'")),
]

FilteredCase = tuple[Document, Any, Any, Document | Refused]

# Manual: "$[<identifier>]".
FILTERED: list[FilteredCase] = [
    ({"a": [1, 5, 9]}, {"$set": {"a.$[x]": 0}}, [{"x": {"$gte": 5}}], {"a": [1, 0, 0]}),
    ({"a": [1, 5]}, {"$set": {"a.$[x]": 0}}, [{"x": 7}], {"a": [1, 5]}),
    ({"a": []}, {"$set": {"a.$[x]": 0}}, [{"x": 7}], {"a": []}),
    ({"a": [{"b": 1}, {"b": 2}]}, {"$inc": {"a.$[x].b": 9}}, [{"x.b": 2}], {"a": [{"b": 1}, {"b": 11}]}),
    (
        {"a": [{"b": 1, "c": 1}, {"b": 1, "c": 2}]},
        {"$unset": {"a.$[x].b": ""}},
        [{"x.b": 1, "x.c": {"$gt": 1}}],
        {"a": [{"b": 1, "c": 1}, {"c": 2}]},
    ),
    (
        {"a": [{"b": [1, 2]}, {"b": [2]}]},
        {"$set": {"a.$[].b.$[x]": 0}},
        [{"x": 2}],
        {"a": [{"b": [1, 0]}, {"b": [0]}]},
    ),
    (
        {"a": [{"t": 1, "b": [1, 2]}, {"t": 2, "b": [2]}]},
        {"$inc": {"a.$[y].b.$[x]": 1}},
        [{"x": 2}, {"y.t": 1}],
        {"a": [{"t": 1, "b": [1, 3]}, {"t": 2, "b": [2]}]},
    ),
    ({"a": [1, 2, 3]}, {"$set": {"a.$[x]": 0}}, [{"$or": [{"x": 1}, {"x": 3}]}], {"a": [0, 2, 0]}),
    ({"a": [None, 1]}, {"$set": {"a.$[x]": 0}}, [{"x": None}], {"a": [0, 1]}),
    ({"a": [[1], [2]]}, {"$set": {"a.$[x]": 0}}, [{"x": 1}], {"a": [0, [2]]}),
    ({"a": [1, 2]}, {"$set": {"a.$[x]": 0, "a.$[y]": 9}}, [{"x": 1}, {"y": 2}], {"a": [0, 9]}),
    (
        {"a": [1, 2]},
        {"$set": {"a.$[x]": 0, "a.$[y]": 9}},
        [{"x": 1}, {"y": {"$lt": 5}}],
        Refused(40, "Update created a conflict at 'a.0'"),
    ),
    ({"a": [1]}, {"$set": {"a.$[x]": 0}}, None, Refused(2, "No array filter found for identifier 'x'")),
    (
        {"a": [1]},
        {"$set": {"a.$[]": 0}},
        [{"x": 1}],
        Refused(9, "The array filter for identifier 'x' was not used"),
    ),
    ({"a": [1]}, {"$set": {"a.$[x]": 0}}, [{"x": 1}, {"x": 2}], Refused(9, "Found multiple array filters")),
    ({"a": [1]}, {"$set": {"a.$[x]": 0}}, [{"x": 1, "y": 1}], Refused(9, "found 'x' and 'y'")),
    ({"a": [1]}, {"$set": {"a.$[x]": 0}}, [{}], Refused(9, "without a top-level field name")),
    ({"a": [1]}, {"$set": {"a.$[X]": 0}}, [{"X": 1}], Refused(2, "beginning with a lowercase letter")),
    ({"a": [1]}, {"$set": {"a.$[x]": 0}}, [{"x": {"$foo": 1}}], Refused(2, "Error parsing array filter")),
    ({"a": [1]}, {"$set": {"a.$[x]": 0}}, [{"x": Regex("(a+)+$")}], Refused(2, "too costly")),
    ({"a": [1]}, {"$set": {"a.$[x]": 0}}, {"x": 1}, Refused(14, "must be an array of filters")),
    ({"a": [1]}, {"$set": {"a.$[x]": 0}}, [1], Refused(14, "must be an object")),
    ({"a": 1}, {"$set": {"a.$[x]": 0}}, [{"x": 1}], Refused(2, "non-array element {a: 1}")),
]

NOT_FOUND = Refused(2, "The positional operator did not find the match needed from the query")

# Manual: "$ (update)". The first element that a condition on the array matched.
POSITIONAL: list[FilteredCase] = [
    ({"a": [1, 2, 2]}, {"$set": {"a.$": 0}}, {"a": 2}, {"a": [1, 0, 2]}),
    ({"a": [5, 6]}, {"$set": {"a.$": 0}}, {"a": {"$gt": 5}}, {"a": [5, 0]}),
    ({"a": [5, None]}, {"$set": {"a.$": 0}}, {"a": None}, {"a": [5, 0]}),
    ({"a": ["x", "y"]}, {"$unset": {"a.$": ""}}, {"a": {"$in": ["y"]}}, {"a": ["x", None]}),
    (
        {"a": [{"b": 1, "c": 0}, {"b": 2, "c": 0}, {"b": 2, "c": 0}]},
        {"$inc": {"a.$.c": 1}},
        {"a.b": 2},
        {"a": [{"b": 1, "c": 0}, {"b": 2, "c": 1}, {"b": 2, "c": 0}]},
    ),
    (
        {"a": [{"b": 1, "c": 1}, {"b": 2, "c": 2}]},
        {"$set": {"a.$": "x"}},
        {"a": {"$elemMatch": {"b": 2, "c": {"$gt": 1}}}},
        {"a": [{"b": 1, "c": 1}, "x"]},
    ),
    ({"o": {"a": [1, 2]}}, {"$set": {"o.a.$": 0}}, {"o.a": 2}, {"o": {"a": [1, 0]}}),
    ({"a": [{"b": [1, 2]}]}, {"$set": {"a.0.b.$": 0}}, {"a.0.b": 2}, {"a": [{"b": [1, 0]}]}),
    ({"a": [1, 2], "k": 1}, {"$set": {"a.$": 0}}, {"$and": [{"k": 1}, {"a": 2}]}, {"a": [1, 0], "k": 1}),
    ({"a": [1, 2], "k": 1}, {"$set": {"a.$": 0}}, {"$or": [{"k": 2}, {"a": 2}]}, {"a": [1, 0], "k": 1}),
    ({"a": [{"n": 1}]}, {"$set": {"a.$.n": 2, "a.$.m": 3}}, {"a.n": 1}, {"a": [{"n": 2, "m": 3}]}),
    ({"a": [[1], [2]]}, {"$push": {"a.$": 9}}, {"a": [2]}, {"a": [[1], [2, 9]]}),
    ({"a": [1]}, {"$set": {"a.$": 1}}, {}, NOT_FOUND),
    ({"a": [1]}, {"$set": {"a.$": 1}}, {"b": 1}, NOT_FOUND),
    ({"a": [1]}, {"$set": {"a.$": 1}}, {"a": {"$ne": 5}}, NOT_FOUND),
    ({"a": 1}, {"$set": {"a.$": 1}}, {"a": 1}, NOT_FOUND),
    ({"a": {"b": 1}}, {"$set": {"a.$": 1}}, {"a": {"b": 1}}, NOT_FOUND),
    ({}, {"$set": {"a.$": 1}}, {}, NOT_FOUND),
    ({"a": [1]}, {"$set": {"$": 1}}, {"a": 1}, Refused(2, "in the first position in path '$'")),
    ({"a": [[1]]}, {"$set": {"a.$.$": 1}}, {"a": 1}, Refused(2, "Too many positional (i.e. '$') elements")),
    ({"a": [1]}, {"$set": {"a.$": 1, "a.$[]": 2}}, {"a": 1}, Refused(40, "conflict at 'a.0'")),
    ({"a": [1]}, {"$set": {"a.$": 1, "a": 2}}, {"a": 1}, Refused(40, "conflict at 'a'")),
]

TABLES = {
    "$push": PUSH,
    "$addToSet": ADD_TO_SET,
    "$pull": PULL,
    "$pullAll": PULL_ALL,
    "$pop": POP,
    "$[]": EVERY,
}
SIZES = {**{name: len(cases) for name, cases in TABLES.items()}, "$[id]": len(FILTERED), "$": len(POSITIONAL)}


@pytest.mark.parametrize(
    ("document", "update", "expected"),
    [
        pytest.param(*case, id=f"{name}-{at}")
        for name, cases in TABLES.items()
        for at, case in enumerate(cases)
    ],
)
def test_array_operators(document: Document, update: Any, expected: Document | Refused) -> None:
    check(document, update, expected)


@pytest.mark.parametrize(("document", "update", "filters", "expected"), FILTERED)
def test_array_filters(document: Document, update: Any, filters: Any, expected: Document | Refused) -> None:
    check(document, update, expected, filters=filters)


@pytest.mark.parametrize(("document", "update", "condition", "expected"), POSITIONAL)
def test_position(document: Document, update: Any, condition: Any, expected: Document | Refused) -> None:
    check(document, update, expected, condition)


@pytest.mark.parametrize("name", SIZES)
def test_every_table_has_at_least_twelve_cases(name: str) -> None:
    assert SIZES[name] >= 12


def test_many_elements_are_copied_once() -> None:
    document = {"a": [{"n": number, "kept": [number]} for number in range(20_000)]}
    changed = apply(document, {"$set": {"a.$[].n": -1, "a.$[].m": 0, "a.19999.o": 1}})
    assert changed["a"][0] == {"n": -1, "kept": [0], "m": 0}
    assert changed["a"][19_999] == {"n": -1, "kept": [19_999], "m": 0, "o": 1}
    assert all(new["kept"] is old["kept"] for new, old in zip(changed["a"], document["a"], strict=True))
