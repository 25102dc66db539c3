"""Transactions over every document store: isolation, conflicts, lines, ends and limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from cloudlet.docdb.limits import DocdbLimits, TransactionLimits
from cloudlet.docdb.service import DocumentService, IndexField, Modify, Query
from cloudlet.docdb.stores import Stores
from cloudlet.model.access import Access
from cloudlet.model.errors import (
    CollectionNotFound,
    DuplicateKey,
    InvalidUpdate,
    LimitExceeded,
    PermissionDenied,
    PlatformError,
    RevisionConflict,
    TransactionNotFound,
)
from tests.contract.conftest import StoreMaker

pytestmark = pytest.mark.anyio

ADMIN = Access("e", admin=True)
LIMITS = DocdbLimits(
    changes_kept_max=300,
    transactions=TransactionLimits(
        open_max=60,
        operations_max=40,
        documents_max=50,
        bytes_max=20_000,
        open_bytes_max=30_000,
        changes_max=100,
        sweep_s=60.0,
    ),
)


class MovedClock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


@dataclass(frozen=True)
class Side:
    """Somebody who works on the collection ``c``: outside transactions, or inside one."""

    service: DocumentService
    access: Access = ADMIN

    async def begin(self, late: bool = False) -> Side:
        transaction = await self.service.start_transaction(ADMIN, late_conflicts=late)
        return Side(self.service, replace(ADMIN, transaction=transaction))

    async def commit(self) -> None:
        await self.service.commit_transaction(ADMIN, self.access.transaction)

    async def abort(self) -> None:
        await self.service.abort_transaction(ADMIN, self.access.transaction)

    async def insert(self, *documents: Any) -> list[Any]:
        return await self.service.insert(self.access, "c", list(documents))

    async def get(self, document_id: Any) -> Any:
        found = await self.find({"_id": document_id})
        return found[0] if found else None

    async def find(self, condition: Any = None, **options: Any) -> list[Any]:
        return (await self.service.find(self.access, "c", Query(condition, **options))).documents

    async def update(self, condition: Any, update: Any, **options: Any) -> int:
        return (await self.service.update(self.access, "c", condition, update, **options)).updated

    async def add(self, document_id: Any, number: int) -> int:
        return await self.update({"_id": document_id}, {"$inc": {"n": number}})

    async def delete(self, condition: Any, multi: bool = False) -> int:
        return await self.service.delete(self.access, "c", condition, multi=multi)


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
async def stores(make_store: StoreMaker) -> AsyncIterator[Stores]:
    opened = make_store(LIMITS, None)
    made = Stores(lambda _name: opened)
    yield made
    await made.close()


@pytest.fixture
async def outside(stores: Stores, clock: MovedClock) -> Side:
    """Ten documents with n = 0 … 9."""
    service = DocumentService(stores, clock, LIMITS)
    await service.create_collection("e", "c")
    side = Side(service)
    await side.insert(*({"_id": number, "n": number, "odd": bool(number % 2)} for number in range(10)))
    return side


async def numbers(side: Side, condition: Any = None, **options: Any) -> list[int]:
    return [document["n"] for document in await side.find(condition, **options)]


async def still_waiting(side: Side, *tasks: asyncio.Task[Any]) -> bool:
    """Whether none has ended, after time enough for one that does not wait."""
    for _ in range(5):
        await asyncio.sleep(0)
        await side.find({"_id": 9})
        await side.insert({"t": 1})
    return not any(task.done() for task in tasks)


# Isolation.


async def test_a_transaction_sees_its_own_writes_and_others_see_them_after_the_commit(outside: Side) -> None:
    inside = await outside.begin()
    assert await inside.add(1, 10) == 1
    await inside.insert({"_id": "new", "n": 50})
    assert await inside.delete({"_id": 2}) == 1
    assert (await inside.get(1))["n"] == 11
    assert await inside.get(2) is None
    assert await numbers(inside, {"n": {"$gte": 9}}, sort={"n": -1}) == [50, 11, 9]
    assert await numbers(outside, {}, sort={"n": 1}) == list(range(10))
    await inside.commit()
    assert await numbers(outside, {}, sort={"n": 1}) == [0, 3, 4, 5, 6, 7, 8, 9, 11, 50]


async def test_an_aborted_transaction_leaves_nothing(outside: Side) -> None:
    inside = await outside.begin()
    await inside.add(1, 10)
    await inside.insert({"_id": "new", "n": 50})
    await inside.abort()
    await inside.abort()
    assert await numbers(outside, {}, sort={"n": 1}) == list(range(10))
    for late in (inside.get(1), inside.add(1, 1), inside.commit()):
        with pytest.raises(TransactionNotFound):
            await late


async def test_reads_stay_at_the_first_one(outside: Side) -> None:
    inside = await outside.begin()
    await outside.add(0, 100)
    assert (await inside.get(0))["n"] == 100
    await outside.add(0, 100)
    await outside.update({}, {"$inc": {"n": 1}}, multi=True)
    await outside.delete({"_id": 3})
    await outside.insert({"_id": "late", "n": 4}, {"_id": 33, "n": 33})
    await outside.delete({"_id": 33})
    assert (await inside.get(0))["n"] == 100
    assert (await inside.get(3))["n"] == 3
    assert await inside.get("late") is None
    assert await inside.get(33) is None
    assert await numbers(inside, {"n": {"$lt": 6}}, sort={"n": 1}) == [1, 2, 3, 4, 5]
    assert await numbers(inside, {"n": {"$lt": 6}}, sort={"n": -1}, skip=1, limit=2) == [4, 3]
    assert await numbers(inside, {"odd": False}, sort={"n": 1}, limit=3) == [2, 4, 6]
    assert await inside.find({"n": 5}, projection={"_id": 0, "n": 1}) == [{"n": 5}]
    assert await inside.service.count(inside.access, "c", {"n": {"$lt": 6}}) == 5
    assert await inside.service.distinct(inside.access, "c", "odd") == [False, True]
    await inside.commit()
    assert await numbers(outside, {"_id": {"$in": [0, 1, 3]}}, sort={"n": 1}) == [2, 201]


async def test_a_first_read_by_query_takes_the_snapshot_too(outside: Side) -> None:
    inside = await outside.begin()
    assert await numbers(inside, {"n": {"$gt": 7}}, sort={"n": 1}) == [8, 9]
    await outside.add(8, 1)
    await outside.insert({"_id": 10, "n": 10})
    assert await numbers(inside, {"n": {"$gt": 7}}, sort={"n": 1}) == [8, 9]
    assert await inside.get(10) is None


async def test_a_limit_is_filled_in_spite_of_documents_that_left_the_snapshot(outside: Side) -> None:
    inside = await outside.begin()
    await inside.get(0)
    await outside.insert(*({"_id": f"x{number}", "n": -1} for number in range(20)))
    await outside.update({"_id": {"$in": [1, 2]}}, {"$set": {"n": 77}}, multi=True)
    assert await numbers(inside, {}, sort={"n": 1}, limit=4) == [0, 1, 2, 3]
    assert await numbers(inside, {}, sort={"n": -1}, limit=2) == [9, 8]


async def test_write_skew_is_possible_as_with_snapshot_isolation(outside: Side) -> None:
    one, two = await outside.begin(), await outside.begin()
    assert (await one.get(1))["n"] + (await two.get(2))["n"] == 3
    await one.update({"_id": 2}, {"$set": {"n": 20}})
    await two.update({"_id": 1}, {"$set": {"n": 10}})
    await one.commit()
    await two.commit()
    assert [(await outside.get(number))["n"] for number in (1, 2)] == [10, 20]


# Every kind of write.


async def test_all_kinds_of_writes(outside: Side) -> None:
    inside = await outside.begin()
    assert await inside.update({"odd": True}, {"$inc": {"n": 100}}, multi=True) == 5
    assert await inside.update({"_id": 4}, {"whole": True}, replace=True, upsert=True) == 1
    made = await inside.service.update(inside.access, "c", {"_id": "u"}, {"n": -1}, replace=True, upsert=True)
    assert made.upserted_id == "u"
    modify = Modify({"$inc": {"n": 1}}, after=True)
    result = await inside.service.find_and_modify(inside.access, "c", {"n": 101}, modify)
    assert result.document == {"_id": 1, "n": 102, "odd": True}
    assert await inside.delete({"n": {"$gte": 105}}, multi=True) == 3
    (made_id,) = await inside.insert({"n": -2})
    expected = [{"_id": 4, "whole": True}, -2, -1, 0, 2, 6, 8, 102, 103]
    for side in (inside, outside):
        documents = await side.find({}, sort={"n": 1})
        assert [documents[0], *(document["n"] for document in documents[1:])] == expected
        if side is inside:
            await inside.commit()
    assert (await outside.get(made_id))["n"] == -2


async def test_a_document_may_be_removed_and_made_again(outside: Side) -> None:
    inside = await outside.begin()
    await inside.delete({"_id": 1})
    await inside.insert({"_id": 1, "again": True})
    await inside.insert({"_id": "x", "n": 1})
    await inside.delete({"_id": "x"})
    await inside.commit()
    assert await outside.get(1) == {"_id": 1, "again": True}
    assert await outside.get("x") is None


async def test_a_write_that_changes_nothing_meets_no_conflict(outside: Side) -> None:
    inside = await outside.begin()
    assert await inside.update({"_id": 1}, {"$set": {"n": 1}}) == 0
    await outside.add(1, 1)
    await inside.commit()
    assert (await outside.get(1))["n"] == 2


async def test_an_id_that_is_taken(outside: Side) -> None:
    inside = await outside.begin()
    with pytest.raises(DuplicateKey, match="E11000"):
        await inside.insert({"_id": "a"}, {"_id": 1})
    with pytest.raises(TransactionNotFound):
        await inside.commit()
    again = await outside.begin()
    with pytest.raises(DuplicateKey):
        await again.insert({"_id": "a"}, {"_id": "a"})
    assert await outside.get("a") is None
    third = await outside.begin()
    assert await third.get("b") is None
    await outside.insert({"_id": "b"})
    with pytest.raises(RevisionConflict):
        await third.insert({"_id": "b"})


async def test_a_unique_index_is_checked_by_the_commit(outside: Side) -> None:
    await outside.service.create_index("e", "c", "n", [IndexField("n")], unique=True)
    inside = await outside.begin()
    await inside.add(1, 100)
    await inside.insert({"_id": "x", "n": 5})
    with pytest.raises(DuplicateKey):
        await inside.commit()
    assert (await outside.get(1))["n"] == 1
    assert await outside.get("x") is None


async def test_a_unique_value_may_move_to_a_new_document(outside: Side) -> None:
    await outside.service.create_index("e", "c", "n", [IndexField("n")], unique=True)
    inside = await outside.begin()
    await inside.delete({"_id": 5})
    await inside.insert({"_id": "x", "n": 5})
    await inside.commit()
    assert await outside.get("x") == {"_id": "x", "n": 5}


async def test_an_error_ends_the_transaction(outside: Side) -> None:
    inside = await outside.begin()
    await inside.add(1, 1)
    with pytest.raises(InvalidUpdate):
        await inside.update({"_id": 2}, {"$push": {"n": 1}})
    with pytest.raises(TransactionNotFound, match="error"):
        await inside.commit()
    assert (await outside.get(1))["n"] == 1


async def test_a_collection_that_is_dropped_meanwhile(outside: Side) -> None:
    inside = await outside.begin()
    await inside.add(1, 1)
    await outside.service.drop_collection("e", "c")
    with pytest.raises(CollectionNotFound):
        await inside.commit()


# Conflicts.


async def test_a_document_changed_since_the_snapshot_cannot_be_written(outside: Side) -> None:
    inside = await outside.begin()
    await inside.get(1)
    await outside.add(1, 1)
    await outside.delete({"_id": 2})
    assert (await inside.get(1))["n"] == 1
    with pytest.raises(RevisionConflict):
        await inside.add(1, 1)
    for late in (inside.get(3), inside.commit()):
        with pytest.raises(RevisionConflict):
            await late
    await inside.abort()
    again = await outside.begin()
    await again.get(3)
    await outside.delete({"_id": 4})
    with pytest.raises(RevisionConflict):
        await again.delete({"_id": 4})


async def test_the_second_writer_is_told_at_once(outside: Side) -> None:
    one, two = await outside.begin(), await outside.begin()
    await one.get(1)
    await two.add(1, 1)
    with pytest.raises(RevisionConflict):
        await one.add(1, 1)
    await two.commit()
    assert (await outside.get(1))["n"] == 2


async def test_a_late_conflict_is_told_by_the_commit(outside: Side) -> None:
    one, two, three = await outside.begin(late=True), await outside.begin(), await outside.begin(late=True)
    await three.get(5)
    await two.add(1, 1)
    assert await one.add(1, 1) == 1
    assert await one.add(2, 1) == 1
    assert (await one.get(1))["n"] == 2
    await outside.add(5, 1)
    assert await three.add(5, 1) == 1
    # Who is bound to fail keeps nobody else from writing.
    other = await outside.begin()
    await other.add(2, 5)
    await other.commit()
    await two.commit()
    for failed in (one, three):
        with pytest.raises(RevisionConflict):
            await failed.commit()
    assert [(await outside.get(number))["n"] for number in (1, 2, 5)] == [2, 7, 6]


async def test_the_commit_validates_what_another_process_wrote(
    outside: Side, stores: Stores, clock: MovedClock
) -> None:
    """Another process knows nothing of the intents here."""
    elsewhere = Side(DocumentService(stores, clock, LIMITS))
    here, there = await outside.begin(), await elsewhere.begin()
    await here.add(1, 1)
    await here.insert({"_id": "x", "n": 1})
    await there.add(1, 10)
    await there.commit()
    with pytest.raises(RevisionConflict):
        await here.commit()
    assert (await outside.get(1))["n"] == 11
    assert await outside.get("x") is None
    made = await outside.begin()
    await made.insert({"_id": "y"})
    await elsewhere.insert({"_id": "y", "first": True})
    with pytest.raises(RevisionConflict):
        await made.commit()
    assert await outside.get("y") == {"_id": "y", "first": True}


async def test_too_many_changes_or_a_pruned_log_end_the_snapshot(outside: Side) -> None:
    busy, gone = await outside.begin(), await outside.begin()
    await busy.get(0)
    await gone.get(0)
    for number in range(11):
        await outside.insert(*({"_id": f"{number} {other}", "n": 0} for other in range(10)))
    with pytest.raises(RevisionConflict):
        await busy.find({"n": 1})
    for number in range(11, 60):
        await outside.insert(*({"_id": f"{number} {other}", "n": 0} for other in range(10)))
    await outside.add(1, 1)
    with pytest.raises(RevisionConflict):
        await gone.get(1)


# Lines.


async def test_a_write_outside_waits_for_the_commit(outside: Side) -> None:
    inside = await outside.begin()
    await inside.add(1, 10)
    writes = [
        asyncio.create_task(outside.add(1, 1)),
        asyncio.create_task(outside.update({"n": {"$lt": 3}}, {"$inc": {"m": 1}}, multi=True)),
    ]
    assert await still_waiting(outside, *writes)
    await inside.commit()
    assert await asyncio.gather(*writes) == [1, 2]
    assert [await outside.get(number) for number in (0, 1)] == [
        {"_id": 0, "n": 0, "odd": False, "m": 1},
        {"_id": 1, "n": 12, "odd": True},
    ]


async def test_a_write_outside_goes_on_after_an_abort(outside: Side) -> None:
    inside = await outside.begin()
    await inside.insert({"_id": "x", "from": "inside"})
    write = asyncio.create_task(outside.insert({"_id": "x", "from": "outside"}))
    assert await still_waiting(outside, write)
    await inside.abort()
    await write
    assert (await outside.get("x"))["from"] == "outside"


async def test_a_write_outside_goes_first_after_its_longest_wait(outside: Side, clock: MovedClock) -> None:
    inside = await outside.begin()
    await inside.add(1, 10)
    write = asyncio.create_task(outside.add(1, 1))
    assert await still_waiting(outside, write)
    clock.seconds += LIMITS.transactions.write_wait_s - 1
    await inside.get(2)  # It is not silent, so its intent stays its own.
    outside.service.sweep_transactions()
    assert await still_waiting(outside, write)
    clock.seconds += 1
    outside.service.sweep_transactions()
    assert await write == 1
    with pytest.raises(RevisionConflict):
        await inside.commit()
    assert (await outside.get(1))["n"] == 2


async def test_a_silent_holder_loses_its_intent_to_who_waits(outside: Side, clock: MovedClock) -> None:
    silent, other = await outside.begin(), await outside.begin()
    await silent.add(1, 10)
    await other.get(2)
    write = asyncio.create_task(outside.add(1, 1))
    assert await still_waiting(outside, write)
    clock.seconds += LIMITS.transactions.intent_idle_s
    outside.service.sweep_transactions()
    assert await write == 1
    with pytest.raises(RevisionConflict):
        await silent.commit()
    unhurt = await outside.begin()
    await unhurt.add(3, 1)
    clock.seconds += LIMITS.transactions.intent_idle_s
    outside.service.sweep_transactions()
    await unhurt.commit()
    assert (await outside.get(3))["n"] == 4


async def heated(outside: Side, *ids: Any) -> None:
    """Let two transactions meet at each of these documents."""
    for document_id in ids:
        one, two = await outside.begin(), await outside.begin()
        await one.add(document_id, 0)
        await one.update({"_id": document_id}, {"$set": {"hot": True}})
        with pytest.raises(RevisionConflict):
            await two.update({"_id": document_id}, {"$set": {"hot": False}})
        await one.abort()


async def test_a_hot_document_is_read_in_line_as_the_one_before_left_it(outside: Side) -> None:
    await heated(outside, 1)
    first, *others = [await outside.begin() for _ in range(4)]
    assert (await first.get(1))["n"] == 1
    order: list[int] = []

    async def buy(number: int, side: Side) -> None:
        seen = (await side.get(1))["n"]
        order.append(number)
        await side.update({"_id": 1}, {"$set": {"n": seen + 1}})
        await side.commit()

    tasks = []
    for number, side in enumerate(others):
        tasks.append(asyncio.create_task(buy(number, side)))
        assert await still_waiting(outside, *tasks)
    await first.update({"_id": 1}, {"$inc": {"n": 1}})
    await first.commit()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2]
    assert (await outside.get(1))["n"] == 5


async def test_who_has_read_a_hot_document_does_not_get_in_line_to_write_it(outside: Side) -> None:
    """Whoever holds it changes what was read, so the wait could only end in the conflict."""
    one, two = await outside.begin(), await outside.begin()
    await one.get(1)
    await heated(outside, 1)
    await two.add(1, 5)
    with pytest.raises(RevisionConflict):
        await one.add(1, 1)
    await two.commit()
    assert (await outside.get(1))["n"] == 6


async def test_a_query_that_finds_a_hot_document_waits_for_it_too(outside: Side) -> None:
    await heated(outside, 1)
    first, second = await outside.begin(), await outside.begin()
    await first.get(1)
    task = asyncio.create_task(second.find({"n": {"$in": [1, 2]}}, sort={"n": 1}))
    assert await still_waiting(outside, task)
    await first.add(1, 1)
    await first.commit()
    assert [document["_id"] for document in await task] == [1, 2]
    assert [document["n"] for document in await task] == [2, 2]
    await second.add(1, 1)
    await second.commit()
    assert (await outside.get(1))["n"] == 3


async def test_a_snapshot_moves_to_what_was_waited_for_if_nothing_seen_has_changed(outside: Side) -> None:
    await heated(outside, 1)
    first, second, third = [await outside.begin() for _ in range(3)]
    await first.get(1)
    assert (await second.get(2))["n"] == 2
    await second.add(3, 1)
    assert (await third.get(5))["n"] == 5
    tasks = [asyncio.create_task(side.get(1)) for side in (second, third)]
    assert await still_waiting(outside, *tasks)
    await outside.add(5, 1)
    await first.add(1, 1)
    await first.commit()
    assert (await tasks[0])["n"] == 2
    await second.add(1, 1)
    await second.commit()
    # What the third has seen has changed: it stays where it was, and cannot write what changed since.
    assert (await tasks[1])["n"] == 1
    with pytest.raises(RevisionConflict):
        await third.add(1, 1)
    assert [(await outside.get(number))["n"] for number in (1, 3)] == [3, 4]


async def test_two_transactions_in_opposite_order_do_not_wait_for_each_other(outside: Side) -> None:
    await heated(outside, 1, 2)
    one, two = await outside.begin(), await outside.begin()
    await one.get(1)
    await two.get(2)
    waits = asyncio.create_task(one.get(2))
    assert await still_waiting(outside, waits)
    assert (await two.get(1))["n"] == 1  # It would close the circle, so it does not wait…
    with pytest.raises(RevisionConflict):
        await two.add(1, 1)  # … and gives way when it writes.
    assert (await waits)["n"] == 2
    await one.add(1, 1)
    await one.add(2, 1)
    await one.commit()
    assert [(await outside.get(number))["n"] for number in (1, 2)] == [2, 3]


async def test_a_wait_in_line_ends(outside: Side, clock: MovedClock) -> None:
    await heated(outside, 1)
    first, second = await outside.begin(), await outside.begin()
    await first.get(1)
    task = asyncio.create_task(second.get(1))
    assert await still_waiting(outside, task)
    clock.seconds += LIMITS.transactions.wait_s
    await first.get(2)
    outside.service.sweep_transactions()
    assert (await task)["n"] == 1
    with pytest.raises(RevisionConflict):
        await second.add(1, 1)


async def test_an_abort_ends_a_wait_at_once(outside: Side) -> None:
    await heated(outside, 1)
    first, second = await outside.begin(), await outside.begin()
    await first.get(1)
    task = asyncio.create_task(second.get(1))
    assert await still_waiting(outside, task)
    await second.abort()
    with pytest.raises(TransactionNotFound):
        await task
    await first.add(1, 1)
    await first.commit()


async def attempts(
    outside: Side, work: Callable[[Side], Awaitable[None]], late: bool = False, times: int = 4
) -> None:
    """What an SDK's runTransaction does."""
    for left in reversed(range(times)):
        side = await outside.begin(late)
        try:
            await work(side)
            await side.commit()
            return
        except RevisionConflict:
            if not left:
                raise


@pytest.mark.parametrize("late", [False, True])
async def test_fifty_buyers_of_one_stock_are_all_served(outside: Side, late: bool) -> None:
    await outside.insert({"_id": "stock", "n": 60})

    async def buy(side: Side) -> None:
        left = (await side.get("stock"))["n"]
        await side.update({"_id": "stock"}, {"$set": {"n": left - 1}})
        await side.insert({"sold": left})

    await asyncio.gather(*(attempts(outside, buy, late) for _ in range(50)))
    assert (await outside.get("stock"))["n"] == 10
    sold = await outside.find({"sold": {"$exists": True}}, limit=100)
    assert sorted(document["sold"] for document in sold) == list(range(11, 61))


async def test_operations_that_are_started_together_run_one_after_the_other(outside: Side) -> None:
    inside = await outside.begin()
    await asyncio.gather(*(inside.add(1, 1) for _ in range(20)), *(inside.get(1) for _ in range(5)))
    await inside.commit()
    assert (await outside.get(1))["n"] == 21


# Ends and limits.


async def test_a_client_that_vanishes_leaves_nothing_behind(outside: Side, clock: MovedClock) -> None:
    gone = await outside.begin()
    await gone.add(1, 1)
    clock.seconds += LIMITS.transactions.lifetime_s
    outside.service.sweep_transactions()
    for late in (gone.get(1), gone.commit()):
        with pytest.raises(TransactionNotFound, match="30 s"):
            await late
    await gone.abort()
    after = await outside.begin()
    await after.add(1, 1)
    await after.commit()
    assert (await outside.get(1))["n"] == 2
    # Without a sweep in between the time counts, too.
    late_one = await outside.begin()
    await late_one.add(1, 1)
    clock.seconds += LIMITS.transactions.lifetime_s
    with pytest.raises(TransactionNotFound):
        await late_one.commit()


async def test_a_repeated_commit_is_told_the_same(outside: Side) -> None:
    inside = await outside.begin()
    await inside.add(1, 1)
    await asyncio.gather(inside.commit(), inside.commit())
    await inside.commit()
    assert (await outside.get(1))["n"] == 2
    for late in (inside.get(1), inside.add(1, 1), inside.abort()):
        with pytest.raises(TransactionNotFound):
            await late
    failed = await outside.begin()
    await failed.get(1)
    await outside.add(1, 1)
    with pytest.raises(RevisionConflict):
        await failed.add(1, 1)
    for _ in range(2):
        with pytest.raises(RevisionConflict):
            await failed.commit()


async def test_a_commit_goes_on_without_the_client(outside: Side) -> None:
    inside = await outside.begin()
    await inside.add(1, 1)
    commit = asyncio.create_task(inside.commit())
    await asyncio.sleep(0)
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    await inside.commit()
    assert (await outside.get(1))["n"] == 2


async def test_transactions_do_not_survive_a_restart(
    outside: Side, stores: Stores, clock: MovedClock
) -> None:
    inside = await outside.begin()
    await inside.add(1, 1)
    restarted = Side(DocumentService(stores, clock, LIMITS), inside.access)
    for late in (restarted.get(1), restarted.add(1, 1), restarted.commit(), restarted.abort()):
        with pytest.raises(TransactionNotFound):
            await late
    assert (await outside.get(1))["n"] == 1


async def test_transactions_are_for_server_side_callers(outside: Side) -> None:
    client = Access("e", openid="ann")
    inside = await outside.begin()
    with pytest.raises(PermissionDenied):
        await outside.service.start_transaction(client)
    with pytest.raises(PermissionDenied):
        await outside.service.commit_transaction(client, inside.access.transaction)
    with pytest.raises(PermissionDenied):
        await outside.service.abort_transaction(client, inside.access.transaction)
    with pytest.raises(PermissionDenied):
        await outside.service.count(replace(client, transaction=inside.access.transaction), "c")
    with pytest.raises(TransactionNotFound):
        await outside.service.count(replace(ADMIN, transaction="0" * 40), "c")


async def test_limits_leave_the_transaction_as_it_was(outside: Side) -> None:
    inside = await outside.begin()
    await inside.add(1, 1)
    with pytest.raises(LimitExceeded, match="50 documents"):
        await inside.insert(*({"n": number} for number in range(60)))
    with pytest.raises(LimitExceeded, match="20000 bytes"):
        await inside.insert({"text": "x" * 21_000})
    other = await outside.begin()
    await other.insert({"text": "x" * 19_000})
    with pytest.raises(LimitExceeded, match="30000 bytes"):
        await inside.insert({"text": "x" * 12_000})
    await other.abort()
    await inside.insert({"text": "x" * 12_000})
    for _ in range(40 - 5):
        await inside.get(2)
    with pytest.raises(LimitExceeded, match="40 operations"):
        await inside.get(2)
    await inside.commit()
    assert (await outside.get(1))["n"] == 2
    assert await outside.service.count(ADMIN, "c") == 11


async def test_the_number_of_open_transactions_is_limited(outside: Side, clock: MovedClock) -> None:
    sides = [await outside.begin() for _ in range(60)]
    with pytest.raises(LimitExceeded, match="60 open transactions"):
        await outside.begin()
    await sides[0].abort()
    await sides[1].commit()
    await outside.begin()
    clock.seconds += LIMITS.transactions.lifetime_s
    outside.service.sweep_transactions()
    for _ in range(60):
        await outside.begin()


async def test_every_error_is_one_of_the_platform(outside: Side) -> None:
    """Hostile identifiers are only unknown ones."""
    for name in ("", "\0", "x" * 10_000, "../e", "é"):
        with pytest.raises(PlatformError):
            await outside.service.commit_transaction(ADMIN, name)
