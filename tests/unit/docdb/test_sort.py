"""Sorting. Manual: "cursor.sort()", "Comparison/Sort Order"."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cloudlet.docdb.numeric import Decimal128, Long
from cloudlet.docdb.sort import FIELDS_MAX, parse_sort, sort_documents, sort_value
from cloudlet.docdb.values import MAX_KEY, MIN_KEY, Document, ObjectId, Regex, Timestamp
from cloudlet.model.errors import InvalidSort

MIXED: list[Any] = [
    MIN_KEY,
    [],
    None,
    float("nan"),
    float("-inf"),
    -1,
    Decimal128("1.25"),
    1.5,
    Long(2),
    2**53 + 1,
    "",
    "B",
    "a",
    "é",
    {},
    {"a": 1},
    {"a": "x"},
    b"x",
    ObjectId(b"0" * 12),
    False,
    True,
    datetime(1970, 1, 1, tzinfo=UTC),
    Timestamp(1, 1),
    Regex("a"),
    MAX_KEY,
]


def ordered(documents: list[Document], order: Any) -> list[Any]:
    found = list(documents)
    sort_documents(found, parse_sort(order), lambda document: document)
    return [document["_id"] for document in found]


def test_types_sort_in_mongodbs_order() -> None:
    documents = [{"_id": at, "v": value} for at, value in enumerate(MIXED)]
    places = list(range(len(MIXED)))
    assert ordered(documents[::-1], {"v": 1}) == places
    assert ordered(documents, {"v": -1}) == places[::-1]


def rows(*values: Any) -> list[Document]:
    """Documents with these values; ``...`` stands for none."""
    return [{"_id": at} if value is ... else {"_id": at, "v": value} for at, value in enumerate(values)]


CASES: list[tuple[list[Document], Any, list[int]]] = [
    (rows(3, 1, 2), {"v": 1}, [1, 2, 0]),
    (rows(3, 1, 2), {"v": -1}, [0, 2, 1]),
    # Missing equals null; what is equal keeps its order in both directions.
    (rows(1, ..., None, 0), {"v": 1}, [1, 2, 3, 0]),
    (rows(1, ..., None, 0), {"v": -1}, [0, 3, 1, 2]),
    # Of an array the smallest element counts upwards, the largest downwards.
    (rows([5, 1], 2, [3, 4]), {"v": 1}, [0, 1, 2]),
    (rows([5, 1], 2, [3, 4]), {"v": -1}, [0, 2, 1]),
    (rows([], None, ..., [None]), {"v": 1}, [0, 1, 2, 3]),
    (rows(None, [], 1), {"v": 1}, [1, 0, 2]),
    (rows(None, [], 1), {"v": -1}, [2, 0, 1]),
    (rows(["b", 9], "a", 10), {"v": 1}, [0, 2, 1]),
    (rows([[1]], [5], 7), {"v": 1}, [1, 2, 0]),
    (rows({"b": 2}, {"b": 1}, {"a": 9}), {"v": 1}, [2, 1, 0]),
    (rows({"b": 2}, {"b": 1}, 5, ..., [{"b": 0}, {"b": 3}]), {"v.b": 1}, [2, 3, 4, 1, 0]),
    (rows({"b": 2}, {"b": 1}, 5, ..., [{"b": 0}, {"b": 3}]), {"v.b": -1}, [4, 0, 1, 2, 3]),
    (rows([{"b": [4, 7]}], {"b": 5}), {"v.b": 1}, [0, 1]),
    (rows([{"b": [4, 7]}], {"b": 5}), {"v.b": -1}, [0, 1]),
    (rows([9, 1], [0, 5]), {"v.0": 1}, [1, 0]),
    (rows([9, 1], [0, 5]), {"v.1": 1}, [0, 1]),
    # Fields of one array's elements count together: (1, 9) before (1, 5) only if both are in one element.
    (
        rows([{"b": 1, "c": 9}, {"b": 2, "c": 1}], [{"b": 1, "c": 5}]),
        {"v.b": 1, "v.c": 1},
        [1, 0],
    ),
    (rows([{"b": 1, "c": 1}, {"b": 2, "c": 1}], {"b": 2, "c": 5}), {"v.b": -1, "v.c": 1}, [0, 1]),
    (rows([{"b": 2, "c": 1}, {"b": 2, "c": 7}], {"b": 2, "c": 5}), {"v.b": -1, "v.c": -1}, [0, 1]),
    (rows({"b": 1, "c": 2}, {"b": 1, "c": 1}, 5, ..., []), {"v.b": 1, "v.c": 1}, [2, 3, 4, 1, 0]),
    (
        rows({"x": [{"b": 1, "c": 9}, {"b": 2, "c": 1}]}, {"x": {"b": 1, "c": 5}}),
        {"v.x.b": 1, "v.x.c": 1},
        [1, 0],
    ),
    (rows([{"b": 1}, {"c": 1}], [{"b": 1, "c": 0}]), {"v.b": 1, "v.c": -1}, [0, 1]),
    (rows([5, 1], [0, 9]), {"v.0": 1, "v.1": 1}, [1, 0]),
    (rows(1, 1.0, Long(1), Decimal128("1")), {"v": 1}, [0, 1, 2, 3]),
    (rows(2, 1, 2, 1), [], [0, 1, 2, 3]),
    (rows(2, 1, 2, 1), None, [0, 1, 2, 3]),
    (rows(2, 1, 2, 1), {"v": 1, "_id": -1}, [3, 1, 2, 0]),
    (rows(2, 1, 2, 1), {"v": 1, "_id": 1}, [1, 3, 0, 2]),
    (rows(2, 1, 2, 1), {"v": -1, "_id": -1}, [2, 0, 3, 1]),
    (rows(2, 1, 2, 1), [{"field": "v", "direction": "desc"}, {"field": "_id"}], [0, 2, 1, 3]),
    (rows(2, 1), [{"field": "v", "direction": "ascending"}], [1, 0]),
    (rows(1, 2), {"v": -1.0}, [1, 0]),
    (rows(1, 2), {"v": Decimal128("-1")}, [1, 0]),
]


@pytest.mark.parametrize(("documents", "order", "expected"), CASES)
def test_sorts(documents: list[Document], order: Any, expected: list[int]) -> None:
    assert ordered(documents, order) == expected


def test_several_fields_and_stability() -> None:
    documents = [{"_id": at, "a": at % 2, "b": at // 4} for at in range(8)]
    order = [{"field": "a", "direction": "desc"}, {"field": "b"}]
    assert ordered(documents, order) == [1, 3, 5, 7, 0, 2, 4, 6]
    assert ordered(documents, {"b": -1, "a": -1}) == [5, 7, 4, 6, 1, 3, 0, 2]


def test_an_order_survives_the_way_to_a_worker() -> None:
    order = parse_sort({"a.b": -1, "c": 1})
    assert parse_sort(sort_value(order)) == order


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (5, "must be an object or an array"),
        ({"a": 0}, "must be 1 or -1"),
        ({"a": 2}, "must be 1 or -1"),
        ({"a": True}, "must be 1 or -1"),
        ({"a": None}, "must be 1 or -1"),
        ({"a": "up"}, "must be 1 or -1"),
        ({"a": float("nan")}, "must be 1 or -1"),
        ({"a": {"$meta": "textScore"}}, r"by \$meta is not supported"),
        ({"$a": 1}, r"does not start with \$"),
        ({"$natural": 1}, r"does not start with \$"),
        ({"": 1}, "empty"),
        ({"a..b": 1}, "empty"),
        ([1], "must have a field"),
        ([{"direction": 1}], "must have a field"),
        ([{"field": 5}], "by text"),
        ({str(number): 1 for number in range(FIELDS_MAX + 1)}, f"may have {FIELDS_MAX} fields"),
    ],
)
def test_bad_orders_are_refused(value: Any, reason: str) -> None:
    with pytest.raises(InvalidSort, match=reason):
        parse_sort(value)
