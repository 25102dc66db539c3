"""The store behind which the engine changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

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
    Row,
    SetPreset,
    Turn,
    id_key,
)
from cloudlet.docdb.catalog import key_part
from cloudlet.docdb.memory import MemoryStore
from cloudlet.docdb.migrate import switch as module
from cloudlet.docdb.migrate.switch import SwitchStore
from cloudlet.docdb.postgres.feed import Feed
from cloudlet.docdb.values import Document
from cloudlet.model.errors import ChangesPruned, Conflict, StoreUnavailable

pytestmark = pytest.mark.anyio

T = TypeVar("T")


async def made() -> SwitchStore:
    store = SwitchStore(MemoryStore())
    await store.define(CreateCollection("c", Preset.PRIVATE))
    return store


def turn(key: object) -> Turn[None]:
    def decide(_rows: Sequence[Row]) -> Decision[None]:
        return Decision(None, [Put({"_id": key})])

    return Turn("c", 1, decide)


async def started(*calls: object) -> list[asyncio.Task[object]]:
    """Tasks that have run as far as they can."""
    tasks = [asyncio.ensure_future(call) for call in calls]  # type: ignore[call-overload]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def test_writes_wait_for_a_pause_and_reads_do_not() -> None:
    store = await made()
    async with store.paused(1):
        batch = Batch(1, [Expected("c", id_key(2), None)], [("c", {"_id": 2})])
        waiting = await started(
            store.commit(turn(1)), store.commit_batch(batch), store.define(SetPreset("c", Preset.ADMINONLY))
        )
        assert [task.done() for task in waiting] == [False] * 3
        assert await store.last_seq() == 0
        assert await store.scan("c", 0, 10) == []
    await asyncio.gather(*waiting)
    assert await store.last_seq() == 2
    assert store.catalog()["c"].preset is Preset.ADMINONLY


async def test_a_pause_begins_when_the_writes_under_way_are_answered() -> None:
    class Slow(MemoryStore):
        """A commit that takes until it is told."""

        gate = asyncio.Event()

        async def commit(self, turn: Turn[T]) -> T:
            await self.gate.wait()
            return await super().commit(turn)

    engine = Slow()
    store = SwitchStore(engine)
    await store.define(CreateCollection("c", Preset.PRIVATE))
    writing = await started(store.commit(turn(1)))
    with pytest.raises(TimeoutError):
        async with store.paused(0.001):
            raise AssertionError("a write was under way")
    assert not writing[0].done()

    async def pause() -> int:
        async with store.paused(10):
            return await store.last_seq()

    pausing = await started(pause())
    assert not pausing[0].done()
    engine.gate.set()
    assert await pausing[0] == 1


async def test_waiting_has_an_end_and_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    store = await made()
    monkeypatch.setattr(module, "WAIT_S", 0.001)
    monkeypatch.setattr(module, "WAITING_MAX", 1)
    async with store.paused(1):
        first = asyncio.ensure_future(store.commit(turn(1)))
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match="too many"):
            await store.commit(turn(2))
        with pytest.raises(StoreUnavailable, match="being moved"):
            await first
    await store.commit(turn(3))
    assert await store.last_seq() == 1


async def test_the_engine_changes_in_a_pause_only_and_takes_the_waiting_writes() -> None:
    store, other = await made(), MemoryStore()
    await other.define(CreateCollection("c", Preset.PRIVATE))
    with pytest.raises(Conflict):
        store.replace(other)
    async with store.paused(1):
        waiting = await started(store.commit(turn(1)))
        former = store.replace(other)
        with pytest.raises(Conflict):
            async with store.paused(1):
                pass
    await asyncio.gather(*waiting)
    assert (await former.last_seq(), await other.last_seq()) == (0, 1)
    assert store.engine is other


async def test_listeners_hear_each_change_once_across_engines() -> None:
    store, other = await made(), MemoryStore()
    await other.define(CreateCollection("c", Preset.PRIVATE))
    heard: list[int] = []
    end = store.listen(lambda changes: heard.extend(change.seq for change in changes))
    await store.commit(turn(1))
    async with store.paused(1):
        await other.commit(turn(1))
        store.replace(other)
    await store.commit(turn(2))
    await started()
    assert heard == [1, 2]
    end()
    end()
    await store.commit(turn(3))
    assert heard == [1, 2]


async def test_nothing_is_removed_while_a_copy_follows() -> None:
    store = await made()
    store.moving = True
    for change in (DropCollection("c"), CreateIndex("c", "i", (key_part("x"),))):
        with pytest.raises(Conflict):
            await store.define(change)
    await store.define(CreateCollection("d", Preset.PRIVATE))
    store.brake_s = 0.001
    await store.commit(turn(1))
    assert await store.last_seq() == 1


def change(seq: int) -> Change:
    document: Document = {"_id": seq}
    return Change(seq, "c", seq, seq, Operation.INSERT, None, document, 1)


class Log:
    """A change log that can be read."""

    def __init__(self) -> None:
        self.first, self.last = 1, 0

    async def read(self, after: int, limit: int) -> list[Change]:
        await asyncio.sleep(0)
        if after + 1 < self.first:
            raise ChangesPruned
        return [change(seq) for seq in range(after + 1, min(self.last, after + limit) + 1)]

    async def first_seq(self) -> int:
        return self.first


class Heard:
    """A listener that can be waited for."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._more = asyncio.Event()

    def __call__(self, changes: Sequence[Change]) -> None:
        self.numbers.extend(item.seq for item in changes)
        self._more.set()

    async def until(self, seq: int) -> None:
        async with asyncio.timeout(10):
            while not self.numbers or self.numbers[-1] < seq:
                self._more.clear()
                await self._more.wait()


async def test_a_feed_closes_gaps_in_order() -> None:
    log, heard = Log(), Heard()
    feed = Feed(log.read, log.first_seq)
    feed.begin(0)
    feed.listen(heard)
    log.last = 1_203
    feed.poke(1_203)
    await heard.until(1_203)
    assert heard.numbers == list(range(1, 1_204))
    log.first, log.last = 2_000, 2_010
    feed.poke()
    await heard.until(2_010)
    assert heard.numbers[1_203:] == list(range(2_000, 2_011))
    await feed.close()


async def test_a_feed_nobody_listens_to_does_not_tell_the_past() -> None:
    log, heard = Log(), Heard()
    feed = Feed(log.read, log.first_seq)
    feed.begin(5)
    feed.poke(90)
    feed.listen(heard)
    log.last = 92
    feed.poke(92)
    await heard.until(92)
    assert heard.numbers == [91, 92]
    await feed.close()
