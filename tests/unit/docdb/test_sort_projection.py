"""Order and projection."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cloudlet.docdb.projection import compile_projection
from cloudlet.docdb.sort import parse_sort, sort_documents, sort_value
from cloudlet.docdb.values import Document, ObjectId, Regex, type_name
from cloudlet.model.errors import InvalidProjection, InvalidSort

MIXED: list[Any] = [
    [],
    None,
    float("nan"),
    float("-inf"),
    -1,
    1.5,
    2,
    "",
    "a",
    {},
    {"a": 1},
    b"x",
    ObjectId(b"0" * 12),
    False,
    True,
    datetime(1970, 1, 1, tzinfo=UTC),
    Regex("a"),
]


def ordered(values: list[Any], order: Any) -> list[Any]:
    documents: list[Document] = [{"v": value} for value in values]
    sort_documents(documents, parse_sort(order), lambda document: document)
    return [document["v"] for document in documents]


def test_types_sort_in_mongodbs_order() -> None:
    assert [repr(value) for value in ordered(MIXED[::-1], {"v": 1})] == [repr(value) for value in MIXED]
    assert [repr(value) for value in ordered(MIXED, {"v": -1})] == [repr(value) for value in MIXED[::-1]]


def test_an_array_sorts_by_its_smallest_or_largest_element() -> None:
    assert ordered([[5, 1], 2, [3, 4]], {"v": 1}) == [[5, 1], 2, [3, 4]]
    assert ordered([[5, 1], 2, [3, 4]], {"v": -1}) == [[5, 1], [3, 4], 2]


def test_several_fields_and_stability() -> None:
    documents = [{"_id": at, "a": at % 2, "b": at // 4} for at in range(8)]
    sort_documents(documents, parse_sort([{"field": "a", "direction": "desc"}, {"field": "b"}]), lambda d: d)
    assert [document["_id"] for document in documents] == [1, 3, 5, 7, 0, 2, 4, 6]


def test_an_order_survives_the_way_to_a_worker() -> None:
    order = parse_sort({"a.b": -1, "c": 1})
    assert parse_sort(sort_value(order)) == order


@pytest.mark.parametrize(
    "value", [5, {"a": 0}, {"a": "up"}, {"$a": 1}, {"": 1}, [1], {str(n): 1 for n in range(40)}]
)
def test_bad_orders_are_refused(value: Any) -> None:
    with pytest.raises(InvalidSort):
        parse_sort(value)


DOCUMENT = {"_id": 1, "a": 1, "b": {"c": 2, "d": 3}, "e": [{"f": 1, "g": 2}, 5, [{"f": 3}]]}


@pytest.mark.parametrize(
    ("projection", "expected"),
    [
        ({"a": 1}, {"_id": 1, "a": 1}),
        ({"a": True, "_id": False}, {"a": 1}),
        ({"_id": 1}, {"_id": 1}),
        ({"b.c": 1}, {"_id": 1, "b": {"c": 2}}),
        ({"b.c": 1, "b.d": 1}, {"_id": 1, "b": {"c": 2, "d": 3}}),
        ({"e.f": 1}, {"_id": 1, "e": [{"f": 1}, [{"f": 3}]]}),
        ({"a.x": 1}, {"_id": 1}),
        ({"b": 0, "e": 0}, {"_id": 1, "a": 1}),
        ({"_id": 0, "b": 0, "e": 0}, {"a": 1}),
        ({"_id": 0}, {"a": 1, "b": {"c": 2, "d": 3}, "e": [{"f": 1, "g": 2}, 5, [{"f": 3}]]}),
        ({"e.f": False, "b.d": False}, {"_id": 1, "a": 1, "b": {"c": 2}, "e": [{"g": 2}, 5, [{}]]}),
    ],
)
def test_projects(projection: Any, expected: Document) -> None:
    project = compile_projection(projection)
    assert project is not None
    assert project(DOCUMENT) == expected


def test_no_projection_returns_documents_whole() -> None:
    assert compile_projection({}) is None
    assert compile_projection(None) is None


@pytest.mark.parametrize(
    ("projection", "reason"),
    [
        ({"a": 1, "b": 0}, "both include and exclude"),
        ({"b": 1, "b.c": 1}, "collide"),
        ({"b.c": 1, "b": 1}, "collide"),
        ({"a": {"$slice": 1}}, r"\$slice is not supported"),
        ({"a": "x"}, "must be 0 or 1"),
        ({"a.$": 1}, "cannot be projected"),
        ({"a..b": 1}, None),
        ([], "object"),
    ],
)
def test_bad_projections_are_refused(projection: Any, reason: str | None) -> None:
    with pytest.raises(InvalidProjection, match=reason):
        compile_projection(projection)


def test_type_names() -> None:
    values: list[Any] = [1, 2**40, 1.0, None, [], {}]
    assert [type_name(value) for value in values] == ["int", "long", "double", "null", "array", "object"]
