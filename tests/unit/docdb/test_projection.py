"""Projections: tables written from the named pages of MongoDB's manual."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from cloudlet.docdb.filter import where
from cloudlet.docdb.projection import FIELDS_MAX, compile_projection
from cloudlet.docdb.values import Document, Regex, identical
from cloudlet.model.errors import InvalidProjection

DOCUMENT: Document = {
    "_id": 1,
    "a": 1,
    "b": {"c": 2, "d": {"x": 1, "y": 2}},
    "e": [{"f": 1, "g": 2}, 5, [{"f": 3}], None],
    "n": None,
    "t": ["x", "y", "z"],
}

# Manual: "Project Fields to Return from Query", "db.collection.find()", "projection".
INCLUDED: list[tuple[Any, Document]] = [
    ({"a": 1}, {"_id": 1, "a": 1}),
    ({"a": True, "_id": False}, {"a": 1}),
    ({"a": 5, "_id": 0.0}, {"a": 1}),
    ({"_id": 1}, {"_id": 1}),
    ({"missing": 1}, {"_id": 1}),
    ({"n": 1}, {"_id": 1, "n": None}),
    ({"t": 1, "a": 1}, {"_id": 1, "a": 1, "t": ["x", "y", "z"]}),
    ({"b.c": 1}, {"_id": 1, "b": {"c": 2}}),
    ({"b.d.x": 1, "b.c": 1}, {"_id": 1, "b": {"c": 2, "d": {"x": 1}}}),
    ({"b": {"d": {"x": 1}, "c": 1}}, {"_id": 1, "b": {"c": 2, "d": {"x": 1}}}),
    ({"b": {"d.x": 1}}, {"_id": 1, "b": {"d": {"x": 1}}}),
    ({"b.missing": 1}, {"_id": 1, "b": {}}),
    ({"e.f": 1}, {"_id": 1, "e": [{"f": 1}, [{"f": 3}]]}),
    ({"e.0": 1}, {"_id": 1, "e": [{}, [{}]]}),
    ({"a.x": 1}, {"_id": 1}),
    ({"n.x": 1}, {"_id": 1}),
]
EXCLUDED: list[tuple[Any, Document]] = [
    ({"b": 0, "e": 0, "t": 0}, {"_id": 1, "a": 1, "n": None}),
    ({"_id": 0, "b": 0, "e": 0, "t": 0}, {"a": 1, "n": None}),
    ({"_id": 1, "b": 0, "e": 0, "t": 0}, {"_id": 1, "a": 1, "n": None}),
    ({"b": False, "e": 0, "t": 0, "n": 0, "a": 0}, {"_id": 1}),
    ({"_id": 0}, {name: item for name, item in DOCUMENT.items() if name != "_id"}),
    ({"missing": 0}, DOCUMENT),
    ({"a.x": 0, "n.x": 0, "t.x": 0}, DOCUMENT),
    ({"b.c": 0, "e": 0, "t": 0}, {"_id": 1, "a": 1, "b": {"d": {"x": 1, "y": 2}}, "n": None}),
    ({"b": {"d": {"x": 0}}, "e": 0, "t": 0}, {"_id": 1, "a": 1, "b": {"c": 2, "d": {"y": 2}}, "n": None}),
    ({"e.f": 0, "b": 0, "t": 0}, {"_id": 1, "a": 1, "e": [{"g": 2}, 5, [{}], None], "n": None}),
    ({"e.0": 0}, DOCUMENT),
    ({"b.c": 0, "b.d": 0, "e": 0, "t": 0}, {"_id": 1, "a": 1, "b": {}, "n": None}),
]
WITHOUT_T = {name: item for name, item in DOCUMENT.items() if name != "t"}
# Manual: "$slice (projection)". By itself it keeps all other fields.
SLICED: list[tuple[Any, Document]] = [
    ({"t": {"$slice": 1}}, {**DOCUMENT, "t": ["x"]}),
    ({"t": {"$slice": -2}}, {**DOCUMENT, "t": ["y", "z"]}),
    ({"t": {"$slice": 0}}, {**DOCUMENT, "t": []}),
    ({"t": {"$slice": 2**62}}, DOCUMENT),
    ({"t": {"$slice": -(2**62)}}, DOCUMENT),
    ({"t": {"$slice": [1, 1]}}, {**DOCUMENT, "t": ["y"]}),
    ({"t": {"$slice": [-2, 1]}}, {**DOCUMENT, "t": ["y"]}),
    ({"t": {"$slice": [-9, 2]}}, {**DOCUMENT, "t": ["x", "y"]}),
    ({"t": {"$slice": [9, 2]}}, {**DOCUMENT, "t": []}),
    ({"t": {"$slice": [1.9, 2**62]}}, {**DOCUMENT, "t": ["y", "z"]}),
    ({"a": {"$slice": 1}, "missing": {"$slice": 1}, "n": {"$slice": 1}}, DOCUMENT),
    ({"t": {"$slice": 1}, "_id": 1}, {"_id": 1, "t": ["x"]}),
    ({"t": {"$slice": 1}, "a": 1}, {"_id": 1, "a": 1, "t": ["x"]}),
    ({"t": {"$slice": 1}, "b": 0, "e": 0, "n": 0}, {"_id": 1, "a": 1, "t": ["x"]}),
    ({"t": {"$slice": 1}, "_id": 0, "a": 1}, {"a": 1, "t": ["x"]}),
    ({"e": {"$slice": 1}, "a": 1}, {"_id": 1, "a": 1, "e": [{"f": 1, "g": 2}]}),
    ({"b.c": {"$slice": 1}, "a": 1}, {"_id": 1, "a": 1, "b": {"c": 2}}),
]


@pytest.mark.parametrize(("projection", "expected"), [*INCLUDED, *EXCLUDED, *SLICED])
def test_projects(projection: Any, expected: Document) -> None:
    project = compile_projection(projection)
    assert project is not None
    before = deepcopy(DOCUMENT)
    assert identical(project(DOCUMENT), expected), project(DOCUMENT)
    assert identical(DOCUMENT, before)


def test_slices_are_taken_below_arrays_and_objects() -> None:
    project = compile_projection({"a.b": {"$slice": -1}})
    assert project is not None
    document = {"a": [{"b": [1, 2], "c": 1}, {"b": 5}, 7, [{"b": [3, 4]}]]}
    assert project(document) == {"a": [{"b": [2], "c": 1}, {"b": 5}, 7, [{"b": [4]}]]}


# Manual: "$elemMatch (projection)". The first element that matches; behind all other fields.
ELEMENTS: list[tuple[Document, Any, Document]] = [
    ({"_id": 1, "a": [1, 5, 9], "b": 1}, {"a": {"$elemMatch": {"$gt": 3}}}, {"_id": 1, "a": [5]}),
    ({"_id": 1, "a": [1, 5]}, {"a": {"$elemMatch": {"$gt": 7}}}, {"_id": 1}),
    ({"_id": 1, "a": []}, {"a": {"$elemMatch": {"$gt": 7}}}, {"_id": 1}),
    ({"_id": 1, "a": 9}, {"a": {"$elemMatch": {"$gt": 7}}}, {"_id": 1}),
    ({"_id": 1, "a": None}, {"a": {"$elemMatch": {"$gt": 7}}}, {"_id": 1}),
    ({"_id": 1}, {"a": {"$elemMatch": {"$gt": 7}}}, {"_id": 1}),
    ({"_id": 1, "a": [None, "x"]}, {"a": {"$elemMatch": {"$type": "string"}}}, {"_id": 1, "a": ["x"]}),
    (
        {"_id": 1, "a": [{"b": 1, "c": 1}, {"b": 1, "c": 2}]},
        {"a": {"$elemMatch": {"b": 1, "c": {"$gt": 1}}}},
        {"_id": 1, "a": [{"b": 1, "c": 2}]},
    ),
    ({"_id": 1, "a": [5, {"b": 1}]}, {"a": {"$elemMatch": {"b": 1}}}, {"_id": 1, "a": [{"b": 1}]}),
    (
        {"_id": 1, "a": [{"b": {"c": 1}}]},
        {"a": {"$elemMatch": {"b.c": 1}}},
        {"_id": 1, "a": [{"b": {"c": 1}}]},
    ),
    ({"_id": 1, "a": [1], "b": 2}, {"a": {"$elemMatch": {"$eq": 1}}, "b": 1}, {"_id": 1, "b": 2, "a": [1]}),
    ({"_id": 1, "a": [1], "b": 2}, {"a": {"$elemMatch": {"$eq": 1}}, "_id": 0}, {"a": [1]}),
    (
        {"_id": 1, "a": [1], "b": 2, "c": 3},
        {"a": {"$elemMatch": {"$eq": 1}}, "b": 0},
        {"_id": 1, "c": 3, "a": [1]},
    ),
    (
        {"_id": 1, "a": [1, 2], "b": [3, 4]},
        {"a": {"$elemMatch": {"$gt": 1}}, "b": {"$elemMatch": {"$gt": 3}}},
        {"_id": 1, "a": [2], "b": [4]},
    ),
    ({"_id": 1, "a": ["ab"]}, {"a": {"$elemMatch": {"$regex": "^a"}}}, {"_id": 1, "a": ["ab"]}),
    (
        {"_id": 1, "a": [1, 2], "b": [1, 2], "c": 3},
        {"a": {"$elemMatch": {"$gt": 1}}, "b": {"$slice": 1}},
        {"_id": 1, "b": [1], "c": 3, "a": [2]},
    ),
]


@pytest.mark.parametrize(("document", "projection", "expected"), ELEMENTS)
def test_elements(document: Document, projection: Any, expected: Document) -> None:
    project = compile_projection(projection)
    assert project is not None
    assert identical(project(document), expected), project(document)


# Manual: "$ (projection)". The element that made the document match.
POSITIONS: list[tuple[Document, Any, Any, Document]] = [
    ({"_id": 1, "a": [1, 5, 9], "b": 1}, {"a": {"$gt": 3}}, {"a.$": 1}, {"_id": 1, "a": [5]}),
    ({"_id": 1, "a": [1, 5]}, {"a": 1}, {"a.$": True, "_id": 0}, {"a": [1]}),
    ({"_id": 1, "a": [1, None]}, {"a": None}, {"a.$": 1}, {"_id": 1, "a": [None]}),
    ({"_id": 1, "a": [1, 5], "b": 2}, {"a": 5}, {"a.$": 1, "b": 1}, {"_id": 1, "a": [5], "b": 2}),
    (
        {"_id": 1, "a": [{"b": 1, "c": 1}, {"b": 2, "c": 2}]},
        {"a.b": 2},
        {"a.$": 1},
        {"_id": 1, "a": [{"b": 2, "c": 2}]},
    ),
    (
        {"_id": 1, "a": [{"b": 1, "c": 1}, {"b": 1, "c": 2}]},
        {"a": {"$elemMatch": {"b": 1, "c": 2}}},
        {"a.$": 1},
        {"_id": 1, "a": [{"b": 1, "c": 2}]},
    ),
    ({"_id": 1, "o": {"a": [1, 2], "b": 1}}, {"o.a": 2}, {"o.a.$": 1}, {"_id": 1, "o": {"a": [2]}}),
    ({"_id": 1, "a": [{"b": 1, "c": 1}, 5, {"b": 2}]}, {"a.b": 2}, {"a.b.$": 1}, {"_id": 1, "a": [{"b": 2}]}),
    ({"_id": 1, "a": [1, 2], "k": 1}, {"$and": [{"k": 1}, {"a": 2}]}, {"a.$": 1}, {"_id": 1, "a": [2]}),
    ({"_id": 1, "a": 5}, {"a": 5}, {"a.$": 1}, {"_id": 1, "a": 5}),
    ({"_id": 1}, {"a": None}, {"a.$": 1}, {"_id": 1}),
    ({"_id": 1, "a": [[1], [2]]}, {"a": [2]}, {"a.$": 1}, {"_id": 1, "a": [[2]]}),
]


@pytest.mark.parametrize(("document", "condition", "projection", "expected"), POSITIONS)
def test_positions(document: Document, condition: Any, projection: Any, expected: Document) -> None:
    wanted = where(condition)
    assert wanted.match(document)
    project = compile_projection(projection, wanted.node)
    assert project is not None
    assert identical(project(document), expected), project(document)


def test_a_position_that_is_not_found_is_an_error() -> None:
    project = compile_projection({"a.$": 1}, where({"$or": [{"a": 7}, {"b": 1}]}).node)
    assert project is not None
    with pytest.raises(InvalidProjection, match="couldn't find a matching element in the array"):
        project({"a": [1], "b": 1})


def test_no_projection_returns_documents_whole() -> None:
    assert compile_projection({}) is None
    assert compile_projection(None) is None


@pytest.mark.parametrize(
    ("projection", "reason"),
    [
        (5, "must be an object"),
        ([], "must be an object"),
        ({"a": 1, "b": 0}, "Cannot do exclusion on field b in inclusion projection"),
        ({"a": 0, "b": 1}, "Cannot do inclusion on field b in exclusion projection"),
        ({"a": {"b": 1}, "c": 0}, "Cannot do exclusion on field c"),
        ({"b": 1, "b.c": 1}, "Path collision at b.c remaining portion c"),
        ({"b.c": 1, "b": 1}, "Path collision at b"),
        ({"b.c": 1, "b": {"c": 1}}, "Path collision at b.c"),
        ({"b": {"$slice": 1}, "b.c": 1}, "Path collision at b.c"),
        ({"b": {"$slice": 1}, "b.$": 1}, "Path collision|does not match the query"),
        ({"a": "x"}, "must be 0 or 1, not string"),
        ({"a": "$b"}, "use an aggregation's"),
        ({"a": None}, "must be 0 or 1, not null"),
        ({"a": {}}, "empty object"),
        ({"a": {"$meta": "textScore"}}, r"the projection operator \$meta is not supported"),
        ({"a": {"$add": [1, 2]}}, r"operator \$add is not supported"),
        ({"a": {"$slice": "1"}}, r"\$slice only supports numbers and \[skip, limit\] arrays"),
        ({"a": {"$slice": float("nan")}}, r"\$slice only supports numbers"),
        ({"a": {"$slice": [1]}}, r"should be of form \[skip, limit\]"),
        ({"a": {"$slice": [1, 0]}}, r"\$slice limit must be positive, got 0"),
        ({"a": {"$slice": [1, "2"]}}, "expects the limit argument to be a number, got string"),
        ({"a": {"$slice": [None, 1]}}, "expects the skip argument to be a number, got null"),
        ({"a": {"$elemMatch": 1}}, "object required, but got int"),
        ({"a": {"$elemMatch": {"$foo": 1}}}, r"unknown operator: \$foo"),
        ({"a": {"$elemMatch": {"$regex": "(a+)+$"}}}, "too costly"),
        ({"a.b": {"$elemMatch": {"c": 1}}}, r"Cannot use \$elemMatch projection on a nested field"),
        ({"a": {"b": {"$elemMatch": {"c": 1}}}}, "on a nested field"),
        ({"z.$": 1}, "does not match the query document"),
        ({"a.$": 1, "b.$": 1}, "more than one positional projection"),
        ({"a.$": 1, "b": {"$elemMatch": {"c": 1}}}, r"Cannot specify positional operator and \$elemMatch"),
        ({"b": {"$elemMatch": {"c": 1}}, "a.$": 1}, r"Cannot specify positional operator and \$elemMatch"),
        ({"a.$": 0}, "cannot be projected"),
        ({"a.$.b": 1}, "cannot be projected"),
        ({"a.$.$": 1}, "cannot be projected"),
        ({"$": 1}, "cannot be projected"),
        ({"$a": 1}, "cannot be projected"),
        ({"a.$": {"$slice": 1}}, "cannot be projected|positional projection cannot be used with"),
        ({"a.$": 1, "b": 0}, "Cannot do exclusion"),
        ({"a..b": 1}, "empty field name"),
        ({"": 1}, "empty field name"),
        ({"a\0": 1}, "null character"),
        ({".".join("a" * 101): 1}, "100 segments"),
        ({str(number): 1 for number in range(FIELDS_MAX + 1)}, f"may have {FIELDS_MAX} fields"),
        ({"a": Regex("x")}, "must be 0 or 1, not regex"),
    ],
)
def test_bad_projections_are_refused(projection: Any, reason: str) -> None:
    with pytest.raises(InvalidProjection, match=reason):
        compile_projection(projection, where({"a": 1, "b": 1}).node)


def test_a_deep_projection_is_refused() -> None:
    deep: Any = 1
    for _ in range(101):
        deep = {"a": deep}
    with pytest.raises(InvalidProjection, match="100 segments"):
        compile_projection(deep)
