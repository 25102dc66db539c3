"""What every document store does with indexes: all their options, and plans that use several of them."""

from __future__ import annotations

from typing import Any

import pytest

from cloudlet.docdb.base import CreateIndex, Read, Store, Want
from cloudlet.docdb.catalog import key_part
from cloudlet.docdb.filter import where
from cloudlet.docdb.memory import MemoryStore
from cloudlet.docdb.sort import parse_sort
from cloudlet.docdb.sqlite import SqliteStore
from cloudlet.docdb.values import Document
from cloudlet.model.errors import AlreadyExists, DuplicateKey, InvalidDocument, InvalidParameter
from tests.contract.docdb_steps import change, find, put, remove

pytestmark = pytest.mark.anyio


def index(name: str, *paths: str, **options: Any) -> CreateIndex:
    """An index on ``dishes``; a path with a minus is descending."""
    parts = tuple(key_part(path.lstrip("-"), path.startswith("-")) for path in paths)
    return CreateIndex("dishes", name, parts, **options)


async def used(store: Store, condition: Document, order: Any = None, limit: int | None = None) -> str | None:
    """The index that answers."""
    return (await store.explain(Read("dishes", where(condition), parse_sort(order), limit=limit))).index


async def count(store: Store, condition: Document) -> tuple[int, int]:
    """Documents that match, and how many were looked at for that."""
    found = await store.read(Read("dishes", where(condition), want=Want.COUNT))
    return found.count, found.examined


async def test_a_sparse_index_holds_what_has_a_field_and_serves_what_asks_for_it(store: Store) -> None:
    await put(store, {"_id": 1, "n": 1}, {"_id": 2}, {"_id": 3, "n": None}, {"_id": 4, "n": 1})
    await store.define(index("n", "n", sparse=True))
    assert (await store.stats("dishes")).entries["n"] == 3
    assert await used(store, {"n": 1}) == "n"
    assert await used(store, {"n": {"$exists": True}, "m": 1}, {"n": 1}) == "n"
    assert await used(store, {"n": None}) is None
    assert await used(store, {}, {"n": 1}, 2) is None
    assert await find(store, {"n": None}) == [2, 3]
    assert sorted(await find(store, {"n": 1})) == [1, 4]
    await change(store, {"_id": 2}, lambda document: {**document, "n": 1})
    await change(store, {"_id": 1}, lambda document: {"_id": 1})
    assert sorted(await find(store, {"n": 1})) == [2, 4]


async def test_a_sparse_unique_index_lets_the_missing_be_many(store: Store) -> None:
    await store.define(index("n", "n", unique=True, sparse=True))
    await put(store, {"_id": 1}, {"_id": 2}, {"_id": 3, "n": None})
    with pytest.raises(DuplicateKey):
        await put(store, {"_id": 4, "n": None})
    with pytest.raises(DuplicateKey):
        await change(store, {"_id": 1}, lambda document: {**document, "n": None})


async def test_a_partial_index_serves_queries_that_imply_its_filter(store: Store) -> None:
    await put(store, *({"_id": at, "n": at, "open": at % 2 == 0} for at in range(10)))
    await store.define(index("n", "n", partial={"open": True}))
    assert (await store.stats("dishes")).entries["n"] == 5
    assert await used(store, {"n": {"$gt": 5}, "open": True}) == "n"
    assert await used(store, {"n": {"$gt": 5}}) is None
    assert await find(store, {"n": {"$gt": 5}}) == [6, 7, 8, 9]
    assert await find(store, {"n": {"$gt": 5}, "open": True}) == [6, 8]
    await change(store, {"_id": 6}, lambda document: {**document, "open": False})
    await change(store, {"_id": 7}, lambda document: {**document, "open": True})
    await remove(store, {"_id": 8})
    assert await find(store, {"n": {"$gt": 5}, "open": True}) == [7]
    assert (await store.stats("dishes")).entries["n"] == 4


async def test_a_partial_unique_index_counts_only_what_it_holds(store: Store) -> None:
    await store.define(index("n", "n", unique=True, partial={"open": True}))
    await put(store, {"_id": 1, "n": 1}, {"_id": 2, "n": 1}, {"_id": 3, "n": 1, "open": True})
    with pytest.raises(DuplicateKey):
        await change(store, {"_id": 1}, lambda document: {**document, "open": True})


async def test_all_options_are_in_the_catalog(store: Store) -> None:
    await store.define(index("t", "at", expire_after_s=60, automatic=True))
    await store.define(index("p", "-a", "b", partial={"n": {"$gt": 1}}, unique=True))
    owner, expiring, partial = store.catalog()["dishes"].indexes
    assert (owner.name, owner.automatic) == ("_openid_id_", False)
    assert (expiring.expire_after_s, expiring.automatic, expiring.unique) == (60, True, False)
    assert partial.partial is not None
    assert (partial.partial.filter, partial.unique, partial.sparse) == ({"n": {"$gt": 1}}, True, False)
    assert [(part.path, part.descending, part.kind) for part in partial.parts] == [
        ("a", True, "value"),
        ("b", False, "value"),
    ]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (index("i"), "needs fields"),
        (index("i", "a", "a"), "each one once"),
        (index("i", *(f"f{at}" for at in range(33))), "31 fields, this one has 33"),
        (index("i", "a", sparse=True, partial={"a": 1}), "sparse and partial"),
        (index("i", "a", partial={"a": {"$regex": "x"}}), "partial index may only hold"),
        (index("i", "a", partial={"$bad": 1}), "filter of the partial index is wrong"),
        (index("i", "a", "b", expire_after_s=1), "one field"),
        (index("i", "_id", expire_after_s=1), "not _id"),
        (index("i", "a", expire_after_s=-1), "time to expire"),
    ],
)
async def test_an_index_that_makes_no_sense_is_refused(store: Store, wanted: CreateIndex, said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        await store.define(wanted)
    assert len(store.catalog()["dishes"].indexes) == 1
    with pytest.raises(AlreadyExists):
        await store.define(index("_id_", "a"))


async def test_an_index_of_31_fields_with_long_values(store: Store) -> None:
    paths = [f"f{at}" for at in range(31)]
    await store.define(index("wide", *paths))
    long = dict.fromkeys(paths, "x" * 100)
    await put(store, {"_id": 1, **long}, {"_id": 2, **long, "f30": "x"}, {"_id": 3, **long, "f0": "x"})
    assert sorted(await find(store, {**long})) == [1]
    assert sorted(await find(store, {"f0": "x" * 100, "f1": {"$gt": "w"}})) == [1, 2]
    assert await find(store, {"f0": "x"}) == [3]


async def test_a_unique_index_over_objects_in_one_array(store: Store) -> None:
    """Only what stands together in an element is a key; that of another document may not repeat it."""
    await store.define(index("u", "list.a", "list.b", unique=True))
    await put(store, {"_id": 1, "list": [{"a": 1, "b": 1}, {"a": 2, "b": 2}]})
    await put(store, {"_id": 2, "list": [{"a": 1, "b": 2}]})
    with pytest.raises(DuplicateKey):
        await put(store, {"_id": 3, "list": [{"a": 9}, {"a": 2, "b": 2}]})
    assert sorted(await find(store, {"list.a": 1, "list.b": 2})) == [1, 2]


async def test_branches_of_an_or_use_their_own_indexes(store: Store) -> None:
    await put(store, *({"_id": at, "a": at % 10, "b": at % 7} for at in range(70)))
    await store.define(index("a", "a"))
    await store.define(index("b", "b"))
    condition = {"$or": [{"a": 3}, {"b": {"$gte": 6}}]}
    found = await find(store, condition)
    assert sorted(found) == [at for at in range(70) if at % 10 == 3 or at % 7 == 6]
    assert await find(store, condition, {"_id": -1}, limit=2) == [69, 63]
    assert await count(store, condition) in ((16, 16), (16, 70))


async def test_counting_by_an_index_looks_at_no_document(store: Store) -> None:
    await put(store, *({"_id": at, "a": at % 10, "b": at} for at in range(60)))
    await store.define(index("ab", "a", "-b"))
    assert await count(store, {"a": 3}) == (6, 0)
    assert await count(store, {"a": 3, "b": {"$gt": 13, "$lte": 43}}) == (3, 0)
    assert await count(store, {"a": {"$in": [3, 4]}}) == (12, 0)
    assert await count(store, {"_id": 5}) == (1, 0)
    assert await count(store, {"_id": {"$in": [5, 6, 99]}}) == (2, 0)
    assert await count(store, {"_id": {"$gte": 50}}) == (10, 0)
    assert await count(store, {"a": 3, "c": None}) == (6, 6)
    await put(store, {"_id": "array", "a": [3, 4]})
    assert (await count(store, {"a": {"$in": [3, 4]}}))[0] == 13


async def test_an_equality_in_front_leaves_the_order_of_the_rest(store: Store) -> None:
    await put(store, *({"_id": at, "_openid": f"u{at % 3}", "at": 100 - at} for at in range(45)))
    await store.define(index("mine", "_openid", "-at"))
    read = Read("dishes", where({"_openid": "u1"}), parse_sort({"_openid": 1, "at": -1}), limit=3)
    found = await store.read(read)
    assert [row.document["_id"] for row in found.rows] == [1, 4, 7]
    assert (found.examined, found.index) == (3, "mine")
    assert await used(store, {"_openid": "u1"}, {"at": 1}, 3) == "mine"


async def test_the_smaller_of_two_ranges_is_read(store: Store) -> None:
    if not isinstance(store, MemoryStore | SqliteStore):
        pytest.skip("only engines whose index is in the process look before they choose")
    await store.define(index("kind", "kind"))
    await store.define(index("shop", "shop"))
    await put(store, *({"_id": at, "kind": "dish", "shop": at} for at in range(49)))
    assert await used(store, {"kind": "dish", "shop": 7}) == "shop"
    await change(store, {}, lambda document: {**document, "kind": document["_id"], "shop": 1})
    assert await used(store, {"kind": 7, "shop": 1}) == "kind"


async def test_an_automatic_index_never_stands_in_the_way_of_a_write(store: Store) -> None:
    await store.define(index("auto", "a", "b", automatic=True))
    await put(store, {"_id": 1, "a": 1, "b": 2})
    await put(store, {"_id": 2, "a": [1, 2], "b": [2, 3]})
    assert sorted(await find(store, {"a": 1, "b": 2})) == [1, 2]
    assert not store.catalog()["dishes"].indexes[1].ready
    await remove(store, {"_id": 2})
    await change(store, {"_id": 1}, lambda document: {**document, "a": 5})
    assert await find(store, {"a": 5}) == [1]
    await store.define(index("wanted", "a", "b"))
    with pytest.raises(InvalidDocument, match="parallel arrays"):
        await put(store, {"_id": 3, "a": [1, 2], "b": [2, 3]})
    with pytest.raises(InvalidDocument, match="parallel arrays"):
        await change(store, {"_id": 1}, lambda document: {**document, "a": [1], "b": [2]})
