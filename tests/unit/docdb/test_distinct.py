"""The different values of a field. Manual: "db.collection.distinct()"."""

from __future__ import annotations

from typing import Any

import pytest

from cloudlet.docdb.base import Preset
from cloudlet.docdb.distinct import distinct_values
from cloudlet.docdb.paths import split_path
from cloudlet.docdb.service import DocumentService
from cloudlet.docdb.stores import Stores
from cloudlet.model.access import Access
from cloudlet.model.errors import InvalidFilter, InvalidParameter, PermissionDenied, ResultTooLarge

pytestmark = pytest.mark.anyio

ADMIN = Access("e", admin=True)
ANN, BEN = Access("e", openid="ann"), Access("e", uid="ben")

DISTINCT: list[tuple[list[Any], str, list[Any]]] = [
    # Values of ``v`` (``...``: none), path, different values.
    ([3, 1, 3, 2], "v", [1, 2, 3]),
    ([], "v", []),
    ([..., ...], "v", []),
    ([None, ..., 1], "v", [None, 1]),
    ([1, 1.0, True, "1"], "v", [1, "1", True]),
    ([[2, 1], 1, [3]], "v", [1, 2, 3]),
    ([[], [[1, 2]], [1]], "v", [1, [1, 2]]),
    ([{"a": 1}, {"a": 1}, {"a": 2}], "v", [{"a": 1}, {"a": 2}]),
    ([{"a": 1}, {"a": [1, 2]}, {}, 5], "v.a", [1, 2]),
    ([[{"a": 2}, {"a": 1}, {}, 7], {"a": None}], "v.a", [None, 1, 2]),
    ([[5, 6], [7]], "v.0", [5, 7]),
    ([[5, 6], [7]], "v.1", [6]),
    ([{"0": "x"}, ["y"]], "v.0", ["x", "y"]),
    (["b", 1, None, False], "v", [None, 1, "b", False]),
    ([{"a": {"b": [1, [2]]}}], "v.a.b", [1, [2]]),
]


@pytest.mark.parametrize(("values", "path", "expected"), DISTINCT)
async def test_distinct(values: list[Any], path: str, expected: list[Any]) -> None:
    documents = [{} if value is ... else {"v": value} for value in values]
    stores = Stores.in_memory()
    memory = DocumentService(stores)
    await memory.create_collection("e", "private", Preset.PRIVATE)
    if documents:
        await memory.insert(ADMIN, "private", documents)
    found = await memory.distinct(ADMIN, "private", path)
    await stores.close()
    assert (found, [type(value) for value in found]) == (expected, [type(value) for value in expected])


async def test_distinct_counts_what_matches_and_may_be_read(service: DocumentService) -> None:
    await service.insert(ANN, "private", [{"k": "a", "v": 1}, {"k": "b", "v": 2}])
    await service.insert(BEN, "private", [{"k": "a", "v": 3}])
    assert await service.distinct(ADMIN, "private", "v", {"k": "a"}) == [1, 3]
    assert await service.distinct(ANN, "private", "v") == [1, 2]
    assert await service.distinct(BEN, "private", "v", {"k": "b"}) == []
    assert await service.distinct(ADMIN, "private", "_openid") == ["ann", "ben"]
    with pytest.raises(PermissionDenied):
        await service.distinct(ANN, "adminonly", "v")
    for path in ("", "a..b", "a\0", "$a"):
        with pytest.raises(InvalidParameter):
            await service.distinct(ADMIN, "private", path)
    with pytest.raises(InvalidFilter):
        await service.distinct(ADMIN, "private", "v", {"a": {"$foo": 1}})


async def test_distinct_over_more_documents_than_are_looked_at_at_once(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"v": number % 7} for number in range(200)])
    assert await service.distinct(ADMIN, "private", "v") == list(range(7))


def test_too_many_values_are_refused() -> None:
    documents = [{"v": "x" * 100 + str(number)} for number in range(50)]
    assert len(distinct_values(documents, split_path("v", InvalidParameter), 10_000)) == 50
    with pytest.raises(ResultTooLarge):
        distinct_values(documents, split_path("v", InvalidParameter), 1_000)
