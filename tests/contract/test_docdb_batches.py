"""What every document store has to do beyond single turns: batches, the log, listeners, copies, numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from cloudlet.docdb.base import (
    Batch,
    Change,
    CreateCollection,
    CreateIndex,
    Decision,
    DropCollection,
    Expected,
    Operation,
    Preset,
    Put,
    Read,
    Row,
    SetPreset,
    SetRule,
    Store,
    Turn,
    id_key,
)
from cloudlet.docdb.body import encode_body
from cloudlet.docdb.catalog import key_part
from cloudlet.docdb.filter import where
from cloudlet.docdb.memory import MemoryStore
from cloudlet.docdb.sort import parse_sort
from cloudlet.docdb.sqlite import SqliteStore
from cloudlet.docdb.values import Document
from cloudlet.model.errors import (
    AlreadyExists,
    CollectionNotFound,
    DuplicateKey,
    Internal,
    InvalidDocument,
    PlatformError,
    RevisionConflict,
    StoreUnavailable,
    Unavailable,
)
from tests.contract.docdb_steps import LIMITS, change, find, put, remove

pytestmark = pytest.mark.anyio


def expected(key: object, rev: int | None, collection: str = "dishes") -> Expected:
    return Expected(collection, id_key(key), rev)


async def rev_of(store: Store, key: object) -> int:
    (row,) = await store.get_many("dishes", [id_key(key)])
    return row.rev


async def test_a_batch_writes_several_collections_at_once(store: Store) -> None:
    await store.define(CreateCollection("orders", Preset.PRIVATE))
    await put(store, {"_id": "soup", "left": 3}, {"_id": "old"})
    seq = await store.commit_batch(
        Batch(
            9,
            [expected("soup", 1), expected("old", 2), expected("o1", None, "orders"), expected("no", None)],
            [("dishes", {"_id": "soup", "left": 2}), ("orders", {"_id": "o1", "dish": "soup"})],
            [("dishes", id_key("old"))],
        )
    )
    assert seq == 5 == await store.last_seq()
    assert await find(store, {}) == ["soup"]
    told = [(item.seq, item.collection, item.operation) for item in await store.changes(2, 10)]
    assert told == [
        (3, "dishes", Operation.DELETE),
        (4, "dishes", Operation.UPDATE),
        (5, "orders", Operation.INSERT),
    ]
    assert await rev_of(store, "soup") == 4


@pytest.mark.parametrize(
    "broken",
    [
        expected("soup", 2),
        expected("soup", None),
        expected("none", 1),
        expected("new", 7),
    ],
)
async def test_a_batch_whose_expectation_fails_writes_nothing(store: Store, broken: Expected) -> None:
    await put(store, {"_id": "soup", "left": 3}, {"_id": "other"})
    expectations = {
        item.id_key: item for item in (expected("soup", 1), expected("other", 2), expected("new", None))
    }
    expectations[broken.id_key] = broken
    with pytest.raises(RevisionConflict):
        await store.commit_batch(
            Batch(
                9,
                list(expectations.values()),
                [("dishes", {"_id": "other", "n": 1}), ("dishes", {"_id": "new"})],
            )
        )
    assert await find(store, {}) == ["soup", "other"]
    assert await store.last_seq() == 2


async def test_a_batch_that_breaks_an_index_or_a_limit_writes_nothing(store: Store) -> None:
    await store.define(CreateIndex("dishes", "n", (key_part("n"),), unique=True))
    await put(store, {"_id": 1, "n": 1})
    for document, error in (
        ({"_id": 3, "n": 1.0}, DuplicateKey),
        ({"_id": 3, "n": "x" * 5_000}, InvalidDocument),
    ):
        with pytest.raises(error):
            await store.commit_batch(
                Batch(
                    9,
                    [expected(2, None), expected(3, None)],
                    [("dishes", {"_id": 2, "n": 2}), ("dishes", document)],
                )
            )
    assert await find(store, {}) == [1]
    await store.commit_batch(
        Batch(
            9, [expected(1, 1), expected(2, None)], [("dishes", {"_id": 2, "n": 3})], [("dishes", id_key(1))]
        )
    )
    await put(store, {"_id": 4, "n": 1})
    assert sorted(await find(store, {"n": {"$gte": 0}})) == [2, 4]


async def test_a_batch_without_writes_only_checks(store: Store) -> None:
    await put(store, {"_id": 1})
    assert await store.commit_batch(Batch(9, [expected(1, 1)])) == 1
    with pytest.raises(RevisionConflict):
        await store.commit_batch(Batch(9, [expected(1, 2)]))
    with pytest.raises(CollectionNotFound):
        await store.commit_batch(Batch(9, [expected(1, None, "none")]))


async def test_a_batch_that_makes_no_sense_is_refused(store: Store) -> None:
    for batch in (
        Batch(9, [], [("dishes", {"_id": 1})]),
        Batch(9, [expected(1, None)], [("dishes", {"_id": 1}), ("dishes", {"_id": 1.0})]),
        Batch(9, [expected(1, None), expected(1, None)], [("dishes", {"_id": 1})]),
    ):
        with pytest.raises(Internal):
            await store.commit_batch(batch)
    assert await store.last_seq() == 0


async def test_revisions_are_sequence_numbers(store: Store) -> None:
    await put(store, {"_id": 1}, {"_id": 2})
    await change(store, {"_id": 1}, lambda document: {**document, "n": 1})
    await remove(store, {"_id": 2})
    await put(store, {"_id": 2, "again": True})
    assert [await rev_of(store, 1), await rev_of(store, 2)] == [3, 5]
    assert {item.rev == item.seq for item in await store.changes(0, 10)} == {True}


async def test_changes_of_one_collection(store: Store) -> None:
    await store.define(CreateCollection("orders", Preset.PRIVATE))
    for number in range(4):
        await put(store, {"_id": number})
        await put(store, {"_id": number}, into="orders")
    assert [item.seq for item in await store.changes(2, 2, "orders")] == [4, 6]
    assert [item.seq for item in await store.changes(0, 9, "dishes")] == [1, 3, 5, 7]
    assert await store.changes(0, 9, "none") == []


async def test_a_listener_hears_every_commit_in_order_and_nothing_else(store: Store) -> None:
    heard: list[Change] = []
    await put(store, {"_id": "before"})
    end = store.listen(heard.extend)
    await asyncio.gather(*(put(store, {"_id": number}) for number in range(20)))
    await change(store, {"_id": 3}, lambda document: {**document, "n": [1]})
    with pytest.raises(DuplicateKey):
        await put(store, {"_id": "undone"}, {"_id": 3})
    await remove(store, {"_id": 3})
    await store.commit_batch(Batch(9, [expected("b", None)], [("dishes", {"_id": "b"})]))
    assert heard == await store.changes(1, 100)
    assert [item.seq for item in heard] == list(range(2, 25))
    end()
    end()
    await put(store, {"_id": "after"})
    assert heard[-1].document_id == "b"


async def test_a_commit_that_was_answered_has_been_heard_and_is_in_the_log(store: Store) -> None:
    heard: list[int] = []
    store.listen(lambda changes: heard.extend(item.seq for item in changes))
    for number in range(1, 6):
        await put(store, {"_id": number})
        assert heard == list(range(1, number + 1))
        assert await store.last_seq() == number


async def test_listeners_do_not_disturb_each_other(store: Store) -> None:
    heard: list[Sequence[Change]] = []

    def fail(_changes: Sequence[Change]) -> None:
        raise ValueError("a listener against its contract")

    ends: list[object] = []
    store.listen(fail)
    once = store.listen(lambda _changes: ends.append(once()))
    store.listen(heard.append)
    await put(store, {"_id": 1, "list": []})
    await put(store, {"_id": 2})
    assert [item.document_id for changes in heard for item in changes] == [1, 2]
    assert len(ends) == 1


async def test_what_a_listener_does_to_a_change_stays_with_it(store: Store) -> None:
    def spoil(changes: Sequence[Change]) -> None:
        for item in changes:
            for document in (item.before, item.after):
                if document is not None:
                    document.clear()

    store.listen(spoil)

    def decide(rows: Sequence[Row]) -> Decision[object]:
        document = {"_id": 1, "list": [1]}
        return Decision(document, [Put(document)])

    result = await store.commit(Turn("dishes", 1, decide))
    assert result == {"_id": 1, "list": [1]}
    await change(store, {}, lambda document: {**document, "n": 1})
    (row,) = await store.get_many("dishes", [id_key(1)])
    assert row.document == {"_id": 1, "list": [1], "n": 1}
    assert [item.after for item in await store.changes(0, 9)] == [result, row.document]


async def test_a_scan_walks_the_collection_in_pieces(store: Store) -> None:
    await put(store, *({"_id": -number} for number in range(7)))
    await remove(store, {"_id": -3})
    seen: list[object] = []
    after = 0
    while rows := await store.scan("dishes", after, 2):
        seen += [row.document["_id"] for row in rows]
        after = rows[-1].did
    assert seen == [0, -1, -2, -4, -5, -6]
    with pytest.raises(CollectionNotFound):
        await store.scan("none", 0, 1)


async def test_a_rule_is_kept_and_taken_away(store: Store) -> None:
    assert store.catalog()["dishes"].rule is None
    await store.define(SetRule("dishes", '{"read": true}'))
    await store.define(SetPreset("dishes", Preset.ADMINONLY))
    info = store.catalog()["dishes"]
    assert (info.rule, info.preset) == ('{"read": true}', Preset.ADMINONLY)
    await store.define(SetRule("dishes", None))
    assert store.catalog()["dishes"].rule is None
    with pytest.raises(CollectionNotFound):
        await store.define(SetRule("none", None))


async def test_statistics_count_documents_bytes_and_entries(store: Store) -> None:
    await store.define(CreateIndex("dishes", "t", (key_part("t"),)))
    documents: list[Document] = [{"_id": 1, "t": ["a", "b"]}, {"_id": 2, "t": "é\0"}, {"_id": 3, "n": 1.5}]
    await put(store, *documents)
    stats = await store.stats("dishes")
    assert stats.documents == 3
    assert stats.bytes == sum(len(encode_body(document, 10_000).encode()) for document in documents)
    assert stats.entries == {"_id_": 3, "_openid_id_": 3, "t": 4}
    with pytest.raises(CollectionNotFound):
        await store.stats("none")


async def test_explain_tells_how_a_query_was_answered(scanning_store: Store) -> None:
    store = scanning_store
    await store.define(CreateIndex("dishes", "n", (key_part("n"),)))
    await put(store, *({"_id": number, "n": number % 10, "m": number} for number in range(100)))
    by_index = await store.explain(Read("dishes", where({"n": {"$in": [3, 5]}, "m": {"$lt": 50}})))
    assert (by_index.index, by_index.ranges, by_index.examined, by_index.returned) == ("n", 2, 20, 10)
    assert (by_index.ordered, by_index.worker) == (True, False)
    assert by_index.ms >= 0
    by_id = await store.explain(Read("dishes", where({"_id": {"$in": [1, 2, 3]}})))
    assert (by_id.index, by_id.ranges, by_id.examined, by_id.returned) == ("_id_", 3, 3, 3)
    ordered = await store.explain(Read("dishes", where({}), parse_sort({"n": -1}), limit=2))
    assert (ordered.index, ordered.ordered, ordered.examined) == ("n", True, 2)
    scan = await store.explain(Read("dishes", where({"m": 7})))
    assert (scan.index, scan.ranges, scan.worker, scan.examined, scan.returned) == (None, 0, True, 100, 1)


async def test_a_backup_is_whole_and_new(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "copies" / "e.db"
    if isinstance(store, MemoryStore):
        with pytest.raises(StoreUnavailable):
            await store.backup(target)
        return
    with pytest.raises(StoreUnavailable):
        await store.backup(target)
    target.parent.mkdir()
    await store.define(CreateIndex("dishes", "n", (key_part("n"),)))
    await put(store, *({"_id": number, "n": number} for number in range(30)))
    writing = asyncio.gather(*(put(store, {"_id": f"late {number}"}) for number in range(9)))
    seq = await store.backup(target)
    await writing
    assert 30 <= seq <= 39
    with pytest.raises(AlreadyExists):
        await store.backup(target)
    assert [path.name for path in target.parent.iterdir()] == ["e.db"]
    copy = SqliteStore(target, LIMITS)
    assert await copy.last_seq() == seq == len(await copy.changes(0, 100))
    assert copy.catalog() == store.catalog()
    assert await find(copy, {"n": {"$gte": 28}}) == [28, 29]
    await copy.close()


async def test_a_closed_store_refuses_the_rest_too(store: Store, tmp_path: Path) -> None:
    await store.close()
    for attempt in (
        store.commit_batch(Batch(1, [])),
        store.last_seq(),
        store.scan("dishes", 0, 1),
        store.stats("dishes"),
        store.explain(Read("dishes", where({}))),
        store.changes(0, 1, "dishes"),
    ):
        with pytest.raises(Unavailable):
            await attempt
    with pytest.raises(PlatformError):
        await store.define(DropCollection("dishes"))
