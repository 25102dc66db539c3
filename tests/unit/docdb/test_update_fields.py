"""Field operators of updates: tables written from the pages of MongoDB's manual that are named."""

from __future__ import annotations

from typing import Any

import pytest

from cloudlet.docdb.numeric import Decimal128, Long
from cloudlet.docdb.values import INT64_MAX, INT64_MIN, Document, Timestamp
from tests.unit.docdb.updating import NOW, Case, Refused, apply, check, operator

NAN = float("nan")

# Manual: "$set". A path is made where it is missing; an array is entered by index, and padded with null.
SET: list[Case] = [
    ({"a": 1}, {"$set": {"b": 2}}, {"a": 1, "b": 2}),
    ({"a": 1, "b": 2}, {"$set": {"a": 3}}, {"a": 3, "b": 2}),
    ({"a": 1}, {"$set": {"a": None}}, {"a": None}),
    ({"a": [1]}, {"$set": {"a": "text"}}, {"a": "text"}),
    ({"a": 1}, {"$set": {"a": 1}}, {"a": 1}),
    ({"a": 1}, {"$set": {"a": 1.0}}, {"a": 1.0}),
    ({"a": {"x": 1, "y": 2}}, {"$set": {"a": {"y": 2, "x": 1}}}, {"a": {"y": 2, "x": 1}}),
    ({}, {"$set": {"a.b.c": 1}}, {"a": {"b": {"c": 1}}}),
    ({"a": {"x": 1}}, {"$set": {"a.b": 1}}, {"a": {"x": 1, "b": 1}}),
    ({"a": [1, 2]}, {"$set": {"a.1": 9}}, {"a": [1, 9]}),
    ({"a": [1]}, {"$set": {"a.3": 9}}, {"a": [1, None, None, 9]}),
    ({"a": []}, {"$set": {"a.1.b": 9}}, {"a": [None, {"b": 9}]}),
    ({"a": [{"b": 1}, 2]}, {"$set": {"a.0.b": 2}}, {"a": [{"b": 2}, 2]}),
    ({}, {"$set": {"a.0": 1}}, {"a": {"0": 1}}),
    ({"a": {"0": 1}}, {"$set": {"a.0": 2}}, {"a": {"0": 2}}),
    ({"a": [[1]]}, {"$set": {"a.0.1": 2}}, {"a": [[1, 2]]}),
    ({}, {"$set": {"__proto__.polluted": True}}, {"__proto__": {"polluted": True}}),
    ({}, {"$set": {"a": {"$inc": 1, "b.c": 2, "": 3}}}, {"a": {"$inc": 1, "b.c": 2, "": 3}}),
    ({}, {"$set": {"a.$id": 1}}, {"a": {"$id": 1}}),
    ({"a": 1}, {"$set": {}}, {"a": 1}),
    ({}, {"$set": {"b": 1, "c.10": 1, "a": 1, "c.9": 1}}, {"a": 1, "b": 1, "c": {"9": 1, "10": 1}}),
    ({"_id": 1}, {"$set": {"_id": 1.0, "a": 1}}, {"_id": 1, "a": 1}),
    ({"a": 1}, {"$set": {"a.b": 1}}, Refused(28, "Cannot create field 'b' in element {a: 1}")),
    ({"a": None}, {"$set": {"a.b": 1}}, Refused(28, "Cannot create field 'b' in element {a: null}")),
    ({"a": "x"}, {"$set": {"a.b.c": 1}}, Refused(28, "Cannot create field 'b' in element {a: \"x\"}")),
    ({"a": [1]}, {"$set": {"a.b": 1}}, Refused(28, "Cannot create field 'b' in element {a: [1]}")),
    ({"a": [1]}, {"$set": {"a.0.b": 1}}, Refused(28, "Cannot create field 'b' in element {0: 1}")),
    ({"a": [1]}, {"$set": {"a.01": 1}}, Refused(28, "Cannot create field '01' in element {a: [1]}")),
    ({"a": []}, {"$set": {"a.1500001": 9}}, Refused(34, "can't backfill more than 1500000 elements")),
    ({"a": []}, {"$set": {"a.99999999999": 9}}, Refused(28, "Cannot create field '99999999999'")),
    ({"_id": 1}, {"$set": {"_id": 2}}, Refused(66, "would modify the immutable field '_id'")),
    ({"_id": {"x": 1}}, {"$set": {"_id.x": 2}}, Refused(66, "would modify the immutable field '_id'")),
    ({"_id": 1}, {"$set": {"_id.x": 2}}, Refused(28, "Cannot create field 'x' in element {_id: 1}")),
]

# Manual: "$unset". An element of an array becomes null; what is not there is no error.
UNSET: list[Case] = [
    ({"a": 1, "b": 2}, {"$unset": {"a": ""}}, {"b": 2}),
    ({"a": None}, {"$unset": {"a": True}}, {}),
    ({"b": 2}, {"$unset": {"a": ""}}, {"b": 2}),
    ({"a": {"b": 1, "c": 2}}, {"$unset": {"a.b": ""}}, {"a": {"c": 2}}),
    ({"a": {"b": 1}}, {"$unset": {"a.b": ""}}, {"a": {}}),
    ({"a": {"b": 1}}, {"$unset": {"a.b.c": ""}}, {"a": {"b": 1}}),
    ({"b": 1}, {"$unset": {"a.b.c": ""}}, {"b": 1}),
    ({"a": [1, 2]}, {"$unset": {"a.0": ""}}, {"a": [None, 2]}),
    ({"a": [1, 2]}, {"$unset": {"a.7": ""}}, {"a": [1, 2]}),
    ({"a": [1, 2]}, {"$unset": {"a.b": ""}}, {"a": [1, 2]}),
    ({"a": [{"b": 1}, {"b": 2}]}, {"$unset": {"a.1.b": ""}}, {"a": [{"b": 1}, {}]}),
    ({"a": "text"}, {"$unset": {"a.b": ""}}, {"a": "text"}),
    ({"a": 1, "b": {"c": 1}, "d": 2}, {"$unset": {"a": "", "b.c": "", "x": ""}}, {"b": {}, "d": 2}),
    ({"_id": 1}, {"$unset": {"_id": ""}}, Refused(66, "would modify the immutable field '_id'")),
]

# Manual: "$setOnInsert". Counts only when a document is inserted.
SET_ON_INSERT: list[Case] = [
    ({"a": 1}, {"$setOnInsert": {"b": 1}}, {"a": 1}),
    ({"a": 1}, {"$setOnInsert": {"a": 2}}, {"a": 1}),
    ({"a": 1}, {"$setOnInsert": {"a.b.c": 2}}, {"a": 1}),
    ({"a": None}, {"$setOnInsert": {"a.b": 2}}, {"a": None}),
    ({"a": [1]}, {"$setOnInsert": {"a.b": 2}}, {"a": [1]}),
    ({}, {"$setOnInsert": {"a.b": 2}}, {}),
    ({}, {"$setOnInsert": {"a.$[]": 2}}, {}),
    ({}, {"$setOnInsert": {"a": 1}, "$set": {"b": 1}}, {"b": 1}),
    ({}, {"$setOnInsert": {"_id": 5}}, {}),
    ({}, {"$setOnInsert": {"a": 1}, "$set": {"a": 1}}, Refused(40, "conflict at 'a'")),
    (
        {},
        {"$setOnInsert": {"a": 1, "a.b": 1}},
        Refused(40, "Updating the path 'a.b' would create a conflict"),
    ),
    ({}, {"$setOnInsert": {"": 1}}, Refused(56, "empty update path")),
]

# Manual: "$inc". Missing counts as 0; the type is the wider one; more than 64 bits is an error.
INC = operator(
    "$inc",
    [
        (1, 2, 3),
        (1, -3, -2),
        (..., 5, 5),
        (..., 1.5, 1.5),
        (1, 0.5, 1.5),
        (1, 0, 1),
        (1, 0.0, 1.0),
        (2**31 - 1, 1, 2**31),
        (Long(1), 1, Long(2)),
        (..., Long(1), Long(1)),
        (1, Decimal128("0.1"), Decimal128("1.1")),
        (0.5, Decimal128("0.25"), Decimal128("0.750000000000000")),
        (2**53, 1.0, 2.0**53),
        (float("inf"), 1, float("inf")),
        (1, NAN, NAN),
        (INT64_MAX, -1, INT64_MAX - 1),
        (INT64_MAX, 1, Refused(2, "Failed to apply $inc operations to current value (9223372036854775807)")),
        (INT64_MIN, -1, Refused(2, "Failed to apply $inc")),
        ("1", 1, Refused(14, "Cannot apply $inc to a value of non-numeric type. {_id: 1} has the field 'a'")),
        (None, 1, Refused(14, "of non-numeric type null")),
        (True, 1, Refused(14, "of non-numeric type bool")),
        ([1], 1, Refused(14, "of non-numeric type array")),
        ({}, 1, Refused(14, "of non-numeric type object")),
        (1, "1", Refused(14, 'Cannot increment with non-numeric argument: {a: "1"}')),
        (1, None, Refused(14, "Cannot increment with non-numeric argument: {a: null}")),
        (1, True, Refused(14, "Cannot increment with non-numeric argument: {a: true}")),
    ],
    ({"a": {"b": 1}}, {"$inc": {"a.b": 1, "a.c": 1}}, {"a": {"b": 2, "c": 1}}),
    ({"a": [1, 2]}, {"$inc": {"a.1": 1}}, {"a": [1, 3]}),
)

# Manual: "$mul". Missing becomes 0 of the operand's type.
MUL = operator(
    "$mul",
    [
        (3, 2, 6),
        (3, 0.5, 1.5),
        (3, -1, -3),
        (..., 5, 0),
        (..., 5.5, 0.0),
        (..., Long(5), Long(0)),
        (..., Decimal128("5"), Decimal128("0")),
        (Long(3), 2, Long(6)),
        (1.5, 2, 3.0),
        (3, Decimal128("1.5"), Decimal128("4.5")),
        (2**40, 2, 2**41),
        (7, 1, 7),
        (7, 0, 0),
        (2**62, 2, Refused(2, "Failed to apply $mul operations to current value")),
        ("3", 2, Refused(14, "Cannot apply $mul to a value of non-numeric type")),
        (None, 2, Refused(14, "of non-numeric type null")),
        ([3], 2, Refused(14, "of non-numeric type array")),
        (3, "2", Refused(14, "Cannot multiply with non-numeric argument")),
        (3, [2], Refused(14, "Cannot multiply with non-numeric argument: {a: [2]}")),
    ],
)

# Manual: "$min". Types compare in MongoDB's order; a missing field is set.
MIN = operator(
    "$min",
    [
        (3, 2, 2),
        (3, 4, 3),
        (3, 3.0, 3),
        (..., 4, 4),
        ("x", 9, 9),
        (9, "x", 9),
        (9, None, None),
        (None, 1, None),
        ([1], 1, 1),
        ({"b": 2}, {"b": 1}, {"b": 1}),
        (True, NOW, True),
        (NOW, False, False),
        (1.5, Decimal128("1.4"), Decimal128("1.4")),
        (1, NAN, NAN),
        ([3], [2, 9], [2, 9]),
    ],
)

# Manual: "$max".
MAX = operator(
    "$max",
    [
        (3, 4, 4),
        (3, 2, 3),
        (3, 3.0, 3),
        (..., -4, -4),
        ("x", 9, "x"),
        (9, "x", "x"),
        (9, None, 9),
        (None, 1, 1),
        (1, [0], [0]),
        ({"b": 1}, {"b": 2}, {"b": 2}),
        (True, NOW, NOW),
        (NAN, 1, 1),
        (Decimal128("1.5"), 1.6, 1.6),
        ([3], [2, 9], [3]),
    ],
)

# Manual: "$currentDate".
CURRENT_DATE = operator(
    "$currentDate",
    [
        (..., True, NOW),
        (1, True, NOW),
        (None, True, NOW),
        ([1], {"$type": "date"}, NOW),
        ("x", {"$type": "timestamp"}, Timestamp(int(NOW.timestamp()), 1)),
        (1, False, NOW),
        (1, 1, Refused(2, "int is not valid type for $currentDate. Please use a boolean ('true')")),
        (1, "date", Refused(2, "string is not valid type for $currentDate")),
        (1, None, Refused(2, "null is not valid type for $currentDate")),
        (1, {"$type": "x"}, Refused(2, "required to be 'date' or 'timestamp'")),
        (1, {}, Refused(2, "required to be 'date' or 'timestamp'")),
        (1, {"$foo": "date"}, Refused(2, "Unrecognized $currentDate option: $foo")),
    ],
    ({}, {"$currentDate": {"a.b": True}}, {"a": {"b": NOW}}),
)

# Manual: "$bit". Integers only; a missing field counts as 0.
BIT = operator(
    "$bit",
    [
        (6, {"and": 3}, 2),
        (6, {"or": 1}, 7),
        (6, {"xor": 3}, 5),
        (6, {"and": 3, "or": 8}, 10),
        (..., {"or": 5}, 5),
        (..., {"and": 5}, 0),
        (Long(6), {"and": 3}, Long(2)),
        (6, {"or": Long(1)}, Long(7)),
        (-1, {"and": 2**40}, 2**40),
        (6, {"or": 2}, 6),
        (
            "x",
            {"or": 1},
            Refused(2, "Cannot apply $bit to a value of non-integral type.{_id: 1} has the field"),
        ),
        (1.0, {"or": 1}, Refused(2, "of non-integer type double")),
        (None, {"or": 1}, Refused(2, "of non-integer type null")),
        ([1], {"or": 1}, Refused(2, "of non-integer type array")),
        (1, {"or": 1.0}, Refused(2, "must be an Integer(32/64 bit); a 'double' is not supported here")),
        (1, {"not": 1}, Refused(2, "only supports 'and', 'or', and 'xor', not 'not'")),
        (1, {}, Refused(2, "at least one bitwise operation")),
        (1, 5, Refused(2, "not compatible with a int")),
    ],
)

# Manual: "$rename". Never through arrays; a missing source is no error; an existing target is replaced.
RENAME: list[Case] = [
    ({"a": 1}, {"$rename": {"a": "b"}}, {"b": 1}),
    ({"a": 1, "b": 2}, {"$rename": {"a": "b"}}, {"b": 1}),
    ({"a": 1, "b": 1}, {"$rename": {"a": "b"}}, {"b": 1}),
    ({"b": 2}, {"$rename": {"a": "b"}}, {"b": 2}),
    ({"a": None}, {"$rename": {"a": "b"}}, {"b": None}),
    ({"a": {"x": 1, "y": 2}}, {"$rename": {"a.x": "a.z"}}, {"a": {"y": 2, "z": 1}}),
    ({"a": {"x": 1}}, {"$rename": {"a.x": "b.c.d"}}, {"a": {}, "b": {"c": {"d": 1}}}),
    ({"a": [1, 2]}, {"$rename": {"a": "b"}}, {"b": [1, 2]}),
    ({"b": 5}, {"$rename": {"a": "b.c"}}, {"b": 5}),
    ({"a": 1, "b": 2}, {"$rename": {"a": "c", "b": "d"}}, {"c": 1, "d": 2}),
    ({"a": 1}, {"$rename": {"a": "b"}, "$set": {"c": 2}}, {"b": 1, "c": 2}),
    ({"a": 1, "b": 2}, {"$rename": {"a": "b.c"}}, Refused(28, "Cannot create field 'c' in element {b: 2}")),
    ({"a": 1}, {"$rename": {"a.b": "c"}}, Refused(28, "cannot use the part (a of a.b) to traverse")),
    ({"a": [{"b": 1}]}, {"$rename": {"a.b": "c"}}, Refused(2, "The source field cannot be an array element")),
    ({"a": [1]}, {"$rename": {"a.0": "c"}}, Refused(2, "has an array field called 'a'")),
    ({"a": 1, "b": [1]}, {"$rename": {"a": "b.0"}}, Refused(2, "The destination field cannot be an array")),
    ({}, {"$rename": {"a": "a"}}, Refused(2, "source and target field for $rename must differ")),
    ({}, {"$rename": {"a": "a.b"}}, Refused(2, "must not be on the same path")),
    ({}, {"$rename": {"a": 1}}, Refused(2, "The 'to' field for $rename must be a string: {a: 1}")),
    ({}, {"$rename": {"a.$": "b"}}, Refused(2, "The source field for $rename may not be dynamic")),
    ({}, {"$rename": {"a": "b.$[]"}}, Refused(2, "The destination field for $rename may not be dynamic")),
    ({}, {"$rename": {"a": ""}}, Refused(56, "empty update path")),
    ({}, {"$rename": {"a": "b"}, "$set": {"b": 1}}, Refused(40, "conflict at 'b'")),
    ({}, {"$rename": {"a": "b"}, "$inc": {"a": 1}}, Refused(40, "conflict at 'a'")),
    ({"_id": 1}, {"$rename": {"_id": "b"}}, Refused(66, "immutable field '_id'")),
    ({"_id": 1, "a": 2}, {"$rename": {"a": "_id"}}, Refused(66, "immutable field '_id'")),
]

TABLES = {
    "$set": SET,
    "$unset": UNSET,
    "$setOnInsert": SET_ON_INSERT,
    "$inc": INC,
    "$mul": MUL,
    "$min": MIN,
    "$max": MAX,
    "$currentDate": CURRENT_DATE,
    "$bit": BIT,
    "$rename": RENAME,
}


@pytest.mark.parametrize(
    ("document", "update", "expected"),
    [
        pytest.param(*case, id=f"{name}-{at}")
        for name, cases in TABLES.items()
        for at, case in enumerate(cases)
    ],
)
def test_field_operators(document: Document, update: Any, expected: Document | Refused) -> None:
    check(document, update, expected)


@pytest.mark.parametrize("name", TABLES)
def test_every_table_has_at_least_twelve_cases(name: str) -> None:
    assert len(TABLES[name]) >= 12


@pytest.mark.parametrize(
    ("document", "update", "expected"),
    [
        ({}, {"$setOnInsert": {"a": 1}}, {"a": 1}),
        ({"a": {"b": 1}}, {"$setOnInsert": {"a.c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"_id": 1}, {"$setOnInsert": {"_id": 1}}, {"_id": 1}),
        ({}, {"$setOnInsert": {"_id": 7}, "$set": {"a": 1}}, {"_id": 7, "a": 1}),
    ],
)
def test_set_on_insert_when_inserting(document: Document, update: Any, expected: Document) -> None:
    assert apply(document, update, inserting=True) == expected
