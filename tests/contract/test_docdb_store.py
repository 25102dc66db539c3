"""What every document store has to do, run against each implementation."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cloudlet.docdb.base import (
    CreateCollection,
    CreateIndex,
    Decision,
    DropCollection,
    DropIndex,
    Keys,
    Operation,
    Preset,
    Put,
    Read,
    Row,
    SetPreset,
    Store,
    Turn,
    Want,
    id_key,
)
from cloudlet.docdb.catalog import key_part
from cloudlet.docdb.filter import where
from cloudlet.docdb.limits import Overrun
from cloudlet.docdb.sort import parse_sort
from cloudlet.model.errors import (
    AlreadyExists,
    ChangesPruned,
    CollectionNotFound,
    DuplicateKey,
    InvalidDocument,
    InvalidParameter,
    LimitExceeded,
    NotFound,
    PlatformError,
    QueryTooCostly,
    ResultTooLarge,
    RevisionConflict,
    Unavailable,
)
from tests.contract.docdb_steps import change, find, put, remove

pytestmark = pytest.mark.anyio


async def test_a_document_is_found_as_it_was_stored(store: Store) -> None:
    document = {"_id": "x", "n": 1, "f": 1.0, "list": [{"b": None}, []], "text": "\0é\U0001f600"}
    await put(store, document)
    (row,) = (await store.read(Read("dishes", where({"_id": "x"})))).rows
    assert row.document == document
    assert list(row.document) == list(document)
    assert type(row.document["f"]) is float
    assert (row.rev, row.id_key) == (1, id_key("x"))


async def test_ids_are_equal_when_the_values_are(store: Store) -> None:
    await put(store, {"_id": 1}, {"_id": "1"}, {"_id": True})
    assert await find(store, {"_id": 1.0}) == [1]
    with pytest.raises(DuplicateKey, match="E11000 duplicate key error"):
        await put(store, {"_id": 1.0})


async def test_a_failing_put_undoes_its_whole_turn_and_nothing_else(store: Store) -> None:
    await put(store, {"_id": "a"})
    with pytest.raises(DuplicateKey):
        await put(store, {"_id": "b"}, {"_id": "a"})
    with pytest.raises(DuplicateKey):
        await put(store, {"_id": "c"}, {"_id": "c"})
    assert await find(store, {}) == ["a"]
    assert len(await store.changes(0, 10)) == 1


async def test_what_decide_raises_reaches_the_caller_and_writes_nothing(store: Store) -> None:
    def refuse(_rows: Sequence[Row]) -> Decision[None]:
        raise InvalidParameter("no")

    with pytest.raises(InvalidParameter, match="no"):
        await store.commit(Turn("dishes", 1, refuse))
    assert await store.changes(0, 10) == []


async def test_a_change_raises_the_revision(store: Store) -> None:
    await put(store, {"_id": "a", "n": 1})
    assert await change(store, {"n": 1}, lambda document: {**document, "n": 2}) == 1
    (row,) = await store.get_many("dishes", [id_key("a")])
    assert (row.rev, row.document["n"]) == (2, 2)


async def test_a_stale_row_cannot_be_written(store: Store) -> None:
    await put(store, {"_id": "a", "n": 1})
    (stale,) = await store.get_many("dishes", [id_key("a")])
    await change(store, {}, lambda document: {**document, "n": 2})
    with pytest.raises(RevisionConflict):
        await store.commit(Turn("dishes", 1, lambda _: Decision(None, [Put({"_id": "a", "n": 9}, stale)])))
    with pytest.raises(RevisionConflict):
        await store.commit(Turn("dishes", 1, lambda _: Decision(None, deletes=[stale])))
    (row,) = await store.get_many("dishes", [id_key("a")])
    assert row.document["n"] == 2


async def test_get_many_keeps_the_order_asked_for(store: Store) -> None:
    await put(store, {"_id": "a"}, {"_id": "b"}, {"_id": "c"})
    rows = await store.get_many("dishes", [id_key("c"), id_key("none"), id_key("a")])
    assert [row.document["_id"] for row in rows] == ["c", "a"]


async def test_a_turn_on_keys_sees_what_exists_now(store: Store) -> None:
    await put(store, {"_id": "a"}, {"_id": "b"})
    seen = await store.commit(
        Turn(
            "dishes",
            1,
            lambda rows: Decision([row.document["_id"] for row in rows]),
            Keys([id_key("b"), id_key("x")]),
        )
    )
    assert seen == ["b"]


async def test_the_change_log_tells_everything_in_order(store: Store) -> None:
    await put(store, {"_id": "a", "n": 1}, {"_id": "b"})
    await change(store, {"_id": "a"}, lambda document: {**document, "n": 2})
    await remove(store, {"_id": "b"})
    changes = await store.changes(0, 100)
    assert [entry.seq for entry in changes] == [1, 2, 3, 4]
    assert [(entry.operation, entry.document_id, entry.rev, entry.at_ms) for entry in changes] == [
        (Operation.INSERT, "a", 1, 5),
        (Operation.INSERT, "b", 2, 5),
        (Operation.UPDATE, "a", 3, 6),
        (Operation.DELETE, "b", 4, 7),
    ]
    assert (changes[2].before, changes[2].after) == ({"_id": "a", "n": 1}, {"_id": "a", "n": 2})
    assert (changes[3].before, changes[3].after) == ({"_id": "b"}, None)
    assert [entry.seq for entry in await store.changes(2, 1)] == [3]


async def test_the_change_log_is_bounded(store: Store) -> None:
    for number in range(60):
        await put(store, {"_id": number})
    changes = await store.changes(20, 100)
    assert [entry.seq for entry in changes] == list(range(21, 61))
    for after, collection in ((19, None), (0, None), (0, "dishes")):
        with pytest.raises(ChangesPruned):
            await store.changes(after, 1, collection)
    assert await store.last_seq() == 60


async def test_order_skip_and_limit(store: Store) -> None:
    await put(store, *({"_id": number, "g": number % 3} for number in range(9)))
    assert await find(store, {}) == list(range(9))
    assert await find(store, {"g": 1}, {"_id": -1}) == [7, 4, 1]
    assert await find(store, {}, {"g": -1, "_id": 1}, skip=2, limit=3) == [8, 0 + 1, 4]
    assert await find(store, {}, {"_id": -1}, skip=1, limit=2) == [7, 6]
    assert await find(store, {}, {"_id": 1}, skip=20) == []


async def test_count_and_keys(store: Store) -> None:
    await put(store, *({"_id": number, "g": number % 3} for number in range(9)))
    assert (await store.read(Read("dishes", where({"g": 2}), want=Want.COUNT))).count == 3
    found = await store.read(Read("dishes", where({"g": 2}), limit=2, want=Want.KEYS))
    assert [(key, rev) for key, rev, _size in found.keys] == [(id_key(2), 3), (id_key(5), 6)]


async def test_counting_a_whole_collection_looks_at_no_document(store: Store) -> None:
    await put(store, *({"_id": number} for number in range(60)))
    found = await store.read(Read("dishes", where({}), want=Want.COUNT))
    assert (found.count, found.examined) == (60, 0)


async def test_what_a_caller_does_to_a_result_stays_with_the_caller(store: Store) -> None:
    await put(store, {"_id": 1, "list": [1]})
    (row,) = (await store.read(Read("dishes", where({})))).rows
    row.document["list"].append(2)
    (again,) = await store.get_many("dishes", [id_key(1)])
    again.document.clear()
    assert (await store.get_many("dishes", [id_key(1)]))[0].document == {"_id": 1, "list": [1]}


async def test_an_index_answers_as_a_scan_does(store: Store) -> None:
    documents = [{"_id": number, "n": number % 7, "t": [number % 3, "x"]} for number in range(40)]
    await put(store, *documents)
    scanned = [
        await find(store, {"n": {"$gt": 2, "$lte": 5}}),
        await find(store, {"t": 2}),
        await find(store, {"n": 3}),
    ]
    await store.define(CreateIndex("dishes", "n", (key_part("n", descending=True),)))
    await store.define(CreateIndex("dishes", "t", (key_part("t"),)))
    indexed = [
        await find(store, {"n": {"$gt": 2, "$lte": 5}}),
        await find(store, {"t": 2}),
        await find(store, {"n": 3}),
    ]
    assert [sorted(ids) for ids in indexed] == scanned
    examined = (await store.read(Read("dishes", where({"n": 3})))).examined
    assert examined == len(scanned[2])
    await change(store, {"_id": 3}, lambda document: {**document, "n": 99})
    await remove(store, {"_id": 10})
    assert sorted(await find(store, {"n": 3})) == [17, 24, 31, 38]
    assert await find(store, {"n": 99}) == [3]


async def test_an_index_that_meets_its_first_array_later_still_finds_everything(store: Store) -> None:
    await store.define(CreateIndex("dishes", "n", (key_part("n"),)))
    await put(store, {"_id": 1, "n": 7})
    assert await find(store, {"n": {"$gt": 5, "$lt": 10}}) == [1]
    await put(store, {"_id": 2, "n": [3, 20]})
    assert sorted(await find(store, {"n": {"$gt": 5, "$lt": 10}})) == [1, 2]
    assert not store.catalog()["dishes"].indexes[0].multikey
    assert store.catalog()["dishes"].indexes[1].multikey


async def test_the_order_of_an_index_is_used(store: Store) -> None:
    await put(store, *({"_id": number, "n": -number} for number in range(200)))
    await store.define(CreateIndex("dishes", "n", (key_part("n"),)))
    found = await store.read(Read("dishes", where({}), parse_sort({"n": 1}), limit=3))
    assert [row.document["_id"] for row in found.rows] == [199, 198, 197]
    assert found.examined == 3


async def test_a_unique_index_holds_and_counts_missing_as_null(store: Store) -> None:
    await put(store, {"_id": 1, "phone": "1"}, {"_id": 2, "phone": "2"})
    await store.define(CreateIndex("dishes", "phone", (key_part("phone"),), unique=True))
    with pytest.raises(DuplicateKey, match="E11000"):
        await put(store, {"_id": 3, "phone": "1"})
    await put(store, {"_id": 4})
    with pytest.raises(DuplicateKey):
        await put(store, {"_id": 5, "phone": None})
    await put(store, {"_id": 6, "phone": "x" * 3_000})
    await put(store, {"_id": 7, "phone": "x" * 3_000 + "y"})
    assert await find(store, {"phone": "x" * 3_000}) == [6]
    with pytest.raises(DuplicateKey):
        await change(store, {"_id": 1}, lambda document: {**document, "phone": "2"})
    await remove(store, {"_id": 2})
    assert await change(store, {"_id": 1}, lambda document: {**document, "phone": "2"}) == 1


async def test_a_unique_index_on_colliding_documents_is_not_made(store: Store) -> None:
    await put(store, {"_id": 1, "n": 1}, {"_id": 2, "n": 1.0})
    with pytest.raises(DuplicateKey):
        await store.define(CreateIndex("dishes", "n", (key_part("n"),), unique=True))
    assert [index.name for index in store.catalog()["dishes"].indexes] == ["_openid_id_"]
    await store.define(CreateIndex("dishes", "n", (key_part("n"),)))
    await store.define(DropIndex("dishes", "n"))
    assert sorted(await find(store, {"n": 1})) == [1, 2]


async def test_collections_and_indexes_by_name(store: Store) -> None:
    with pytest.raises(AlreadyExists):
        await store.define(CreateCollection("dishes", Preset.PRIVATE))
    await store.define(SetPreset("dishes", Preset.ADMINWRITE))
    assert store.catalog()["dishes"].preset is Preset.ADMINWRITE
    with pytest.raises(NotFound):
        await store.define(DropIndex("dishes", "none"))
    with pytest.raises(InvalidParameter):
        await store.define(DropIndex("dishes", "_openid_id_"))
    with pytest.raises(AlreadyExists):
        await store.define(CreateIndex("dishes", "_openid_id_", (key_part("n"),)))
    for change_missing in (
        DropCollection("none"),
        SetPreset("none", Preset.PRIVATE),
        CreateIndex("none", "n", (key_part("n"),)),
    ):
        with pytest.raises(
            CollectionNotFound, match=r"database collection not exists.*Db or Table not exist"
        ):
            await store.define(change_missing)


async def test_a_dropped_collection_is_gone_and_may_come_back_empty(store: Store) -> None:
    await put(store, {"_id": 1})
    await store.define(DropCollection("dishes"))
    with pytest.raises(CollectionNotFound):
        await find(store, {})
    with pytest.raises(CollectionNotFound):
        await put(store, {"_id": 1})
    with pytest.raises(CollectionNotFound):
        await store.get_many("dishes", [id_key(1)])
    await store.define(CreateCollection("dishes", Preset.PRIVATE))
    assert await find(store, {}) == []
    assert len(await store.changes(0, 10)) == 1


async def test_limits_on_collections_indexes_and_documents(store: Store) -> None:
    await store.define(CreateCollection("b", Preset.PRIVATE))
    await store.define(CreateCollection("c", Preset.PRIVATE))
    with pytest.raises(LimitExceeded):
        await store.define(CreateCollection("d", Preset.PRIVATE))
    await store.define(CreateIndex("b", "1", (key_part("x"),)))
    await store.define(CreateIndex("b", "2", (key_part("y"),)))
    with pytest.raises(LimitExceeded):
        await store.define(CreateIndex("b", "3", (key_part("z"),)))
    with pytest.raises(InvalidDocument, match="bytes"):
        await put(store, {"_id": 1, "text": "x" * 4_000})
    with pytest.raises(InvalidDocument, match="null"):
        await put(store, {"_id": None})
    with pytest.raises(InvalidDocument):
        await put(store, {"_id": "x" * 2_000})


async def test_too_many_entries_of_one_document_are_refused(store: Store) -> None:
    await store.define(CreateIndex("dishes", "ab", (key_part("a"), key_part("b"))))
    with pytest.raises(InvalidDocument, match=r"more than 1000 entries .*\(index ab\)"):
        await put(store, {"_id": 1, "a": list(range(1_001)), "b": 1})
    with pytest.raises(InvalidDocument, match=r"cannot index parallel arrays \[b\] \[a\] \(index ab\)"):
        await put(store, {"_id": 1, "a": [1, 2], "b": [3]})
    await put(store, {"_id": 1, "a": list(range(10)), "b": 9}, {"_id": 2, "a": 3, "b": [1, 9]})
    assert sorted(await find(store, {"a": 3, "b": 9})) == [1, 2]


async def test_reads_beyond_the_budget_need_a_worker(store: Store) -> None:
    await put(store, *({"_id": number} for number in range(60)))
    with pytest.raises(QueryTooCostly):
        await find(store, {"n": 1})
    with pytest.raises(QueryTooCostly):
        await find(store, {"_id": {"$not": {"$regex": "(a+)+$"}}})
    with pytest.raises(Overrun):
        await change(store, {"n": None}, lambda document: document)
    assert await find(store, {}, limit=2) == [0, 1]


async def test_a_result_beyond_the_limit_is_refused(store: Store) -> None:
    await put(store, *({"_id": number, "text": "x" * 2_000} for number in range(12)))
    with pytest.raises(ResultTooLarge):
        await find(store, {})
    assert len(await find(store, {}, limit=5)) == 5


async def test_a_worker_answers_what_is_too_much_here(scanning_store: Store) -> None:
    store = scanning_store
    await put(store, *({"_id": number, "n": number % 5, "t": "a" * (number % 9)} for number in range(120)))
    assert await find(store, {"n": 3}, {"_id": -1}, skip=1, limit=3) == [113, 108, 103]
    assert (await store.read(Read("dishes", where({"n": 3}), want=Want.COUNT))).count == 24
    keys = (
        await store.read(Read("dishes", where({"t": {"$regex": "^(a+)+$"}}), limit=4, want=Want.KEYS))
    ).keys
    assert [key for key, _rev, _size in keys] == [id_key(number) for number in (1, 2, 3, 4)]
    await put(store, *({"_id": f"big {number}", "t": "x" * 3_000} for number in range(8)))
    with pytest.raises(ResultTooLarge):
        await find(store, {"t": {"$regex": "^(x+)+$"}})


async def test_a_closed_store_refuses_everything(store: Store) -> None:
    await put(store, {"_id": 1})
    await store.close()
    await store.close()
    for attempt in (
        find(store, {}),
        put(store, {"_id": 2}),
        store.changes(0, 1),
        store.get_many("dishes", []),
    ):
        with pytest.raises(Unavailable):
            await attempt
    with pytest.raises(PlatformError):
        await store.define(DropCollection("dishes"))
