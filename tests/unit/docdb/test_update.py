"""Updates as a whole: what is refused before anything happens, conflicts, replacement, upsert.

The operators have tables of their own (``test_update_fields``, ``test_update_arrays``).
"""

from __future__ import annotations

from typing import Any

import pytest

from cloudlet.docdb.filter import where
from cloudlet.docdb.update import OPERATIONS_MAX, parse_replacement, parse_update, replaced
from cloudlet.docdb.update_errors import shown
from cloudlet.docdb.update_upsert import upsert_document, upsert_id
from cloudlet.docdb.values import Document, Regex, identical
from cloudlet.model.errors import InvalidUpdate
from tests.unit.docdb.updating import Refused, apply, check

# Manual: "Update Operators"; error names and numbers: "Error Codes".
REFUSED: list[tuple[Any, Refused]] = [
    ({}, Refused(9, "at least one operator")),
    (None, Refused(9, "must be an object")),
    ("x", Refused(9, "must be an object")),
    ([{"$set": {"a": 1}}], Refused(9, "an update by an aggregation pipeline (an array of stages)")),
    ([], Refused(9, "aggregation pipeline")),
    ({"a": 1}, Refused(9, "'a' is not one")),
    ({"$set": {"a": 1}, "b": 1}, Refused(9, "'b' is not one")),
    ({"$foo": {"a": 1}}, Refused(9, "Unknown modifier: $foo. Expected one of $set")),
    ({"$set": 1}, Refused(9, "Modifiers operate on fields but we found type int instead")),
    ({"$set": ["a"]}, Refused(9, 'not {$set: ["a"]}')),
    ({"$set": {"": 1}}, Refused(56, "An empty update path is not valid.")),
    ({"$set": {"a..b": 1}}, Refused(56, "The update path 'a..b' contains an empty field name")),
    ({"$set": {".a": 1}}, Refused(56, "contains an empty field name")),
    ({"$set": {"a.": 1}}, Refused(56, "contains an empty field name")),
    ({"$set": {"a\0b": 1}}, Refused(2, "null character")),
    (
        {"$set": {"$a": 1}},
        Refused(52, "The dollar ($) prefixed field '$a' in '$a' is not valid for storage."),
    ),
    ({"$set": {"a.$b": 1}}, Refused(52, "prefixed field '$b' in 'a.$b'")),
    ({"$set": {"$id": 1}}, Refused(52, "prefixed field '$id'")),
    ({"$set": {"a.$[": 1}}, Refused(52, "prefixed field '$['")),
    ({"$set": {"a.$[x": 1}}, Refused(52, "prefixed field '$[x'")),
    ({"$set": {".".join("a" * 101): 1}}, Refused(2, "more than 100 segments")),
    (
        {"$set": {str(number): 1 for number in range(OPERATIONS_MAX + 1)}},
        Refused(2, "may change 2000 fields"),
    ),
    (
        {"$set": {"a": 1}, "$inc": {"a": 1}},
        Refused(40, "Updating the path 'a' would create a conflict at 'a'"),
    ),
    ({"$set": {"a": 1, "a.b": 2}}, Refused(40, "Updating the path 'a.b' would create a conflict at 'a'")),
    ({"$set": {"a.b": 1}, "$unset": {"a": 2}}, Refused(40, "Updating the path 'a' would create a conflict")),
    ({"$set": {"a.b.c": 1}, "$push": {"a.b": 2}}, Refused(40, "conflict at 'a.b'")),
    ({"$set": {"a.$": 1, "a.$.b": 2}}, Refused(40, "conflict at 'a.$'")),
]


@pytest.mark.parametrize(("update", "expected"), REFUSED)
def test_refused_whatever_the_document(update: Any, expected: Refused) -> None:
    for document in ({}, {"a": 1}, {"a": {"b": 1}}):
        check(document, update, expected)


@pytest.mark.parametrize(
    "update",
    [
        {"$set": {"a": 1, "ab": 2, "b.a": 3}},
        {"$set": {"a.b": 1, "a.bc": 2}},
        {"$set": {"a.b": 1}, "$inc": {"a.c": 2}},
        {"$set": {"a.0": 1, "a.00": 2}},
        {"$set": {str(number): 1 for number in range(OPERATIONS_MAX)}},
    ],
)
def test_neighbours_are_no_conflict(update: Any) -> None:
    fields = [path for operands in update.values() for path in operands]
    assert parse_update(update).fields == {path.split(".")[0] for path in fields}


def test_a_failing_operator_leaves_nothing_behind() -> None:
    document = {"a": 1, "b": "x", "c": {"d": [1]}}
    update = {"$set": {"a": 2, "c.d.0": 5}, "$unset": {"c.e": ""}, "$inc": {"b": 1}}
    check(document, update, Refused(14, "the field 'b' of non-numeric type string"))


def test_what_does_not_change_is_shared_with_the_old_document() -> None:
    document: Document = {"a": {"b": 1, "c": [1]}, "d": [1], "e": 1}
    changed = apply(document, {"$set": {"a.b": 2}})
    assert changed["d"] is document["d"]
    assert changed["a"]["c"] is document["a"]["c"]
    assert apply(document, {"$set": {"e": 1}, "$pull": {"d": 5}, "$unset": {"x": ""}}) is document


def test_a_parsed_update_may_be_applied_to_many_documents() -> None:
    update = {"$push": {"a": {"$each": [2]}}, "$set": {"b": {"c": 1}}, "$rename": {"x": "y"}}
    parsed = parse_update(update)
    results = [
        parsed.apply(document, apply({}, {"$currentDate": {"n": True}})["n"], lambda _: None)
        for document in ({}, {"a": [1]}, {"x": 1}, {})
    ]
    assert [sorted(result) for result in results] == [["a", "b"], ["a", "b"], ["a", "b", "y"], ["a", "b"]]
    assert [result["a"] for result in results] == [[2], [1, 2], [2], [2]]


def test_values_in_messages_are_short() -> None:
    wide = {"x" * 300: "y" * 300, **{str(number): [number] * 50 for number in range(50)}}
    text = shown("a", {"b": wide, "c": [wide] * 40})
    assert len(text) < 3_000
    assert shown("a", [None, True, 1.5, {"b": "c"}, []]) == '{a: [null, true, 1.5, {b: "c"}, []]}'
    assert shown("a", Regex("x")) == "{a: regex}"


REPLACEMENTS: list[tuple[Document, Any, Document | Refused]] = [
    ({"_id": 1, "_openid": "u", "a": 1}, {"b": 2}, {"_id": 1, "_openid": "u", "b": 2}),
    ({"_id": 1, "a": 1}, {}, {"_id": 1}),
    ({"_id": 1}, {"_id": 1, "a": 1}, {"_id": 1, "a": 1}),
    ({"_id": 1}, {"a": 1, "_id": 1.0}, {"_id": 1, "a": 1}),
    ({"_id": 1, "_openid": "u"}, {"_openid": "v"}, {"_id": 1, "_openid": "v"}),
    ({}, {"_id": 5, "a": 1}, {"_id": 5, "a": 1}),
    ({"_id": 1}, {"a": {"$set": 1}}, {"_id": 1, "a": {"$set": 1}}),
    (
        {"_id": 1},
        {"_id": 2},
        Refused(66, "(immutable) field '_id' was found to have been altered to {_id: 2}"),
    ),
    ({"_id": 1}, {"_id": None}, Refused(66, "altered to {_id: null}")),
    ({"_id": 1}, {"$set": {"a": 1}}, Refused(52, "prefixed field '$set'")),
    ({"_id": 1}, {"a": 1, "$inc": {"b": 1}}, Refused(52, "a whole document cannot hold operators")),
    ({"_id": 1}, [], Refused(9, "a document must be an object")),
    ({"_id": 1}, None, Refused(9, "a document must be an object")),
]


@pytest.mark.parametrize(("before", "replacement", "expected"), REPLACEMENTS)
def test_replacements(before: Document, replacement: Any, expected: Document | Refused) -> None:
    if isinstance(expected, Refused):
        with pytest.raises(InvalidUpdate) as caught:
            replaced(before, parse_replacement(replacement))
        assert (caught.value.number, expected.text in caught.value.message) == (expected.number, True)
    else:
        assert identical(replaced(before, parse_replacement(replacement)), expected)


# Manual: "db.collection.update()", "Upsert Behavior".
UPSERTS: list[tuple[Any, Document | Refused]] = [
    ({}, {}),
    ({"a": 1}, {"a": 1}),
    ({"_id": "x", "a": None}, {"_id": "x", "a": None}),
    ({"a.b": 1, "a.c": 2}, {"a": {"b": 1, "c": 2}}),
    ({"a.0": 1}, {"a": {"0": 1}}),
    ({"a": {"$eq": 2}}, {"a": 2}),
    ({"a": {"$in": [3]}}, {"a": 3}),
    ({"a": {"$all": [3]}}, {"a": 3}),
    ({"a": [1, 2]}, {"a": [1, 2]}),
    ({"a": {"b": 1}}, {"a": {"b": 1}}),
    ({"$and": [{"a": 1}, {"$and": [{"b": 2}]}]}, {"a": 1, "b": 2}),
    ({"$or": [{"a": 1}]}, {"a": 1}),
    ({"$or": [{"a": 1}, {"b": 1}]}, {}),
    ({"a": {"$gt": 1}, "b": {"$in": [1, 2]}, "c": {"$ne": 1}, "d": Regex("x")}, {}),
    ({"a": {"$exists": True}, "b": {"$not": {"$eq": 1}}, "$nor": [{"c": 1}]}, {}),
    ({"a": {"$elemMatch": {"b": 1}}}, {}),
    ({"$and": [{"a": 1}, {"a": 1}]}, Refused(54, "path 'a' is matched twice")),
    ({"a": {"b": 1}, "a.c": 2}, Refused(54, "both paths 'a.c' and 'a' are matched")),
    ({"a": {"$all": [1, 2]}}, Refused(54, "path 'a' is matched twice")),
]


@pytest.mark.parametrize(("condition", "expected"), UPSERTS)
def test_an_upsert_starts_from_the_equalities_of_the_filter(
    condition: Any, expected: Document | Refused
) -> None:
    node = where(condition).node
    if isinstance(expected, Refused):
        with pytest.raises(InvalidUpdate, match=expected.text) as caught:
            upsert_document(node)
        assert caught.value.number == expected.number
    else:
        assert identical(upsert_document(node), expected)


def test_an_upserted_replacement_takes_the_id_alone() -> None:
    assert upsert_id(where({"_id": 1, "a": 1, "a.b": 2}).node) == {"_id": 1}
    assert upsert_id(where({"a": 1}).node) == {}


def test_an_upsert_cannot_change_the_id_of_its_filter() -> None:
    base = upsert_document(where({"_id": 1}).node)
    assert apply(base, {"$set": {"_id": 1, "a": 1}}, inserting=True) == {"_id": 1, "a": 1}
    with pytest.raises(InvalidUpdate, match="immutable"):
        apply(base, {"$set": {"_id": 2}}, inserting=True)
