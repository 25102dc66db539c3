"""What an update does: tables of operators, and of what is refused."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from cloudlet.docdb.filter import where
from cloudlet.docdb.filter.position import matched_index
from cloudlet.docdb.update import parse_replacement, parse_update, replaced, upsert_document
from cloudlet.docdb.values import Document, Regex, identical
from cloudlet.model.errors import InvalidUpdate

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def apply(document: Document, update: Any, condition: Any = None, inserting: bool = False) -> Document:
    node = where(condition or {}).node
    return parse_update(update).apply(
        document, NOW, lambda path: matched_index(node, document, path), inserting=inserting
    )


@pytest.mark.parametrize(
    ("document", "update", "expected"),
    [
        ({"a": 1}, {"$set": {"b": 2}}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 2}, {"$set": {"a": 3}}, {"a": 3, "b": 2}),
        ({}, {"$set": {"a.b.c": 1}}, {"a": {"b": {"c": 1}}}),
        ({"a": {"x": 1}}, {"$set": {"a.b": 1}}, {"a": {"x": 1, "b": 1}}),
        ({"a": [1, 2]}, {"$set": {"a.1": 9}}, {"a": [1, 9]}),
        ({"a": [1]}, {"$set": {"a.3": 9}}, {"a": [1, None, None, 9]}),
        ({"a": [{"b": 1}]}, {"$set": {"a.0.b": 2}}, {"a": [{"b": 2}]}),
        ({}, {"$set": {"a.0": 1}}, {"a": {"0": 1}}),
        ({"a": 1, "b": 2}, {"$unset": {"a": "", "x.y": ""}}, {"b": 2}),
        ({"a": [1, 2]}, {"$unset": {"a.0": ""}}, {"a": [None, 2]}),
        ({"a": [1, 2]}, {"$unset": {"a.b": "", "a.7": ""}}, {"a": [1, 2]}),
        ({"a": 1}, {"$inc": {"a": 2, "b": -1}}, {"a": 3, "b": -1}),
        ({"a": 1}, {"$inc": {"a": 0.5}}, {"a": 1.5}),
        ({"a": 3}, {"$mul": {"a": 2, "b": 5}}, {"a": 6, "b": 0}),
        ({"a": 3, "b": 3}, {"$min": {"a": 2, "b": 4, "c": 1}}, {"a": 2, "b": 3, "c": 1}),
        ({"a": 3, "b": "x"}, {"$max": {"a": 4, "b": 9}}, {"a": 4, "b": "x"}),
        ({"a": [1]}, {"$push": {"a": [2], "b": 1}}, {"a": [1, [2]], "b": [1]}),
        ({"a": [1, 4]}, {"$push": {"a": {"$each": [2, 3], "$position": 1}}}, {"a": [1, 2, 3, 4]}),
        ({"a": [1, 4]}, {"$push": {"a": {"$each": [9], "$position": -1}}}, {"a": [1, 9, 4]}),
        ({"a": [3, 1]}, {"$push": {"a": {"$each": [2], "$sort": -1, "$slice": 2}}}, {"a": [3, 2]}),
        ({"a": [1, 2]}, {"$push": {"a": {"$each": [3], "$slice": -2}}}, {"a": [2, 3]}),
        ({"a": [1]}, {"$push": {"a": {"$each": [], "$slice": 0}}}, {"a": []}),
        (
            {"a": [{"n": 2}]},
            {"$push": {"a": {"$each": [{"n": 1}], "$sort": {"n": 1}}}},
            {"a": [{"n": 1}, {"n": 2}]},
        ),
        ({"a": [1, 2, 1]}, {"$pull": {"a": 1}}, {"a": [2]}),
        ({"a": [1, 5, 9]}, {"$pull": {"a": {"$gte": 5}}}, {"a": [1]}),
        ({"a": [{"b": 1, "c": 2}, {"b": 2}, 7]}, {"$pull": {"a": {"b": 1}}}, {"a": [{"b": 2}, 7]}),
        ({"a": ["xa", "b"]}, {"$pull": {"a": Regex("^x")}}, {"a": ["b"]}),
        ({"a": [[1], 1]}, {"$pull": {"a": [1]}}, {"a": [1]}),
        ({"a": ["x", "y", "z"]}, {"$pull": {"a": {"$in": ["x", "z"]}}}, {"a": ["y"]}),
        ({"b": 1}, {"$pull": {"a": 1}}, {"b": 1}),
        ({"a": [1, 2, 3]}, {"$pullAll": {"a": [1, 3]}}, {"a": [2]}),
        ({"a": [1]}, {"$addToSet": {"a": 1.0, "b": 2}}, {"a": [1], "b": [2]}),
        ({"a": [1]}, {"$addToSet": {"a": {"$each": [2, 1, 2]}}}, {"a": [1, 2]}),
        ({"a": [1]}, {"$addToSet": {"a": {"each": [2]}}}, {"a": [1, {"each": [2]}]}),
        ({"a": [1, 2, 3]}, {"$pop": {"a": 1}}, {"a": [1, 2]}),
        ({"a": [1, 2, 3]}, {"$pop": {"a": -1}}, {"a": [2, 3]}),
        ({"a": [], "b": 1}, {"$pop": {"a": 1, "c": 1}}, {"a": [], "b": 1}),
        (
            {"a": 1, "c": {"x": 1}},
            {"$rename": {"a": "b", "c.x": "d.y", "z": "q"}},
            {"c": {}, "b": 1, "d": {"y": 1}},
        ),
        ({}, {"$currentDate": {"a": True, "b": {"$type": "date"}}}, {"a": NOW, "b": NOW}),
        ({"a": 6}, {"$bit": {"a": {"and": 3}, "b": {"or": 5}, "c": {"xor": 1}}}, {"a": 2, "b": 5, "c": 1}),
        ({"a": 1}, {"$setOnInsert": {"b": 1}, "$set": {"c": 1}}, {"a": 1, "c": 1}),
        ({"_id": 1}, {"$set": {"_id": 1.0, "a": 1}}, {"_id": 1, "a": 1}),
    ],
)
def test_applies(document: Document, update: Any, expected: Document) -> None:
    assert identical(apply(document, update), expected), apply(document, update)


@pytest.mark.parametrize(
    ("document", "update", "reason"),
    [
        ({}, {}, "at least one operator"),
        ({}, [], "must be an object"),
        ({}, {"a": 1}, "consists of operators"),
        ({}, {"$set": {"a": 1}, "b": 1}, "consists of operators"),
        ({}, {"$foo": {"a": 1}}, r"unknown update operator: \$foo"),
        ({}, {"$set": 1}, "object of fields"),
        ({}, {"$set": {"a": 1}, "$inc": {"a": 1}}, "Updating the path 'a' would create a conflict at 'a'"),
        ({}, {"$set": {"a": 1, "a.b": 2}}, "Updating the path 'a.b' would create a conflict at 'a'"),
        ({}, {"$rename": {"a": "b"}, "$set": {"b": 1}}, "conflict at 'b'"),
        ({"_id": 1}, {"$set": {"_id": 2}}, "immutable field '_id'"),
        ({"_id": 1}, {"$unset": {"_id": ""}}, "immutable field '_id'"),
        ({"a": 1}, {"$set": {"a.b": 1}}, "Cannot create field 'b' in element 'a'"),
        ({"a": None}, {"$set": {"a.b": 1}}, "Cannot create field 'b'"),
        ({"a": [1]}, {"$set": {"a.b": 1}}, "Cannot create field 'b' in the array"),
        ({"a": []}, {"$set": {"a.999999": 1}}, "too far"),
        ({"a": "1"}, {"$inc": {"a": 1}}, r"Cannot apply \$inc to a value of non-numeric type"),
        ({"a": True}, {"$inc": {"a": 1}}, "non-numeric"),
        ({"a": None}, {"$mul": {"a": 1}}, "non-numeric"),
        ({}, {"$inc": {"a": "1"}}, "non-numeric argument"),
        ({"a": 2**63 - 1}, {"$inc": {"a": 1}}, "64 bits"),
        ({"a": 1}, {"$push": {"a": 1}}, "non-array"),
        ({"a": {}}, {"$addToSet": {"a": 1}}, "non-array"),
        ({"a": 1}, {"$pull": {"a": 1}}, "non-array"),
        ({"a": 1}, {"$pop": {"a": 1}}, "non-array"),
        ({}, {"$pop": {"a": 2}}, "1 or -1"),
        ({}, {"$push": {"a": {"$each": 1}}}, r"\$each"),
        ({}, {"$push": {"a": {"$each": [], "$foo": 1}}}, r"unrecognized clause in \$push: \$foo"),
        ({}, {"$push": {"a": {"$slice": 1}}}, r"\$each"),
        ({}, {"$push": {"a": {"$each": [], "$slice": math.nan}}}, "whole number"),
        ({}, {"$push": {"a": {"$each": [], "$sort": 5}}}, r"\$sort"),
        ({}, {"$pull": {"a": {"$foo": 1}}}, "unknown operator"),
        ({}, {"$pull": {"a": Regex("(a+)+$")}}, "too costly"),
        ({}, {"$pullAll": {"a": 1}}, "array"),
        ({}, {"$currentDate": {"a": {"$type": "timestamp"}}}, "currentDate"),
        ({}, {"$bit": {"a": {"not": 1}}}, r"\$bit"),
        ({"a": "x"}, {"$bit": {"a": {"or": 1}}}, r"\$bit"),
        ({}, {"$rename": {"a": 1}}, "text"),
        ({}, {"$set": {"": 1}}, "empty field name"),
        ({}, {"$set": {"a..b": 1}}, "empty field name"),
        ({}, {"$set": {"$a": 1}}, "cannot start with"),
        ({"a": [1]}, {"$set": {"a.$[]": 1}}, "array filters"),
        ({"a": [1]}, {"$set": {"a.$": 1}}, "positional operator did not find"),
        ({}, {"$set": {str(number): 1 for number in range(2_001)}}, "2000 fields"),
    ],
)
def test_refuses(document: Document, update: Any, reason: str) -> None:
    with pytest.raises(InvalidUpdate, match=reason):
        apply(document, update)


def test_the_position_is_the_first_element_the_filter_is_about() -> None:
    document = {"a": [{"b": 1, "c": 0}, {"b": 2, "c": 0}, {"b": 2, "c": 0}], "n": [5, 6]}
    changed = apply(document, {"$inc": {"a.$.c": 1}}, {"a.b": 2})
    assert [item["c"] for item in changed["a"]] == [0, 1, 0]
    changed = apply(document, {"$set": {"a.$": "x"}}, {"a": {"$elemMatch": {"b": 2}}})
    assert changed["a"][1] == "x"
    assert apply(document, {"$set": {"n.$": 0}}, {"n": {"$gt": 5}})["n"] == [5, 0]


def test_set_on_insert_counts_only_when_inserting() -> None:
    assert apply({"_id": 1}, {"$setOnInsert": {"a": 1}}, inserting=True) == {"_id": 1, "a": 1}


def test_a_failing_operator_leaves_nothing_behind() -> None:
    document = {"a": 1, "b": "x", "c": {"d": [1]}}
    with pytest.raises(InvalidUpdate):
        apply(document, {"$set": {"a": 2, "c.d.0": 5}, "$inc": {"b": 1}})
    assert document == {"a": 1, "b": "x", "c": {"d": [1]}}


def test_a_replacement_keeps_id_and_owner() -> None:
    before = {"_id": 1, "_openid": "u", "a": 1}
    assert replaced(before, parse_replacement({"b": 2})) == {"_id": 1, "_openid": "u", "b": 2}
    with pytest.raises(InvalidUpdate, match="immutable"):
        replaced(before, {"_id": 2})
    with pytest.raises(InvalidUpdate, match="operator"):
        parse_replacement({"$set": {"a": 1}})


def test_an_upsert_starts_from_the_equalities_of_the_filter() -> None:
    condition = {
        "_id": "x",
        "a.b": 1,
        "c": {"$eq": 2},
        "d": {"$gt": 1},
        "$and": [{"e": {"$in": [3]}}],
        "$or": [{"f": 1}],
    }
    assert upsert_document(where(condition).node) == {"_id": "x", "a": {"b": 1}, "c": 2, "e": 3}
    with pytest.raises(InvalidUpdate, match="conflict"):
        upsert_document(where({"$and": [{"a": 1}, {"a": 2}]}).node)
