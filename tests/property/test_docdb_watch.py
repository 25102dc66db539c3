"""Whatever is written, and however late a client reads: what it was told is what the query returns."""

from __future__ import annotations

import asyncio
import tempfile
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudlet.docdb.base import Read
from cloudlet.docdb.filter import where
from cloudlet.docdb.limits import DocdbLimits, WatchLimits
from cloudlet.docdb.memory import MemoryStore
from cloudlet.docdb.service import DocumentService
from cloudlet.docdb.sort import parse_sort, sort_documents
from cloudlet.docdb.sqlite import SqliteStore
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.values import identical
from cloudlet.docdb.watch.events import DataType, QueueType, WatchEvent, difference
from cloudlet.docdb.watch.order import total
from cloudlet.docdb.watch.watch import Watch
from cloudlet.model.access import Access
from cloudlet.model.errors import PlatformError
from tests.property import docdb_strategies as docs

ADMIN = Access("e", admin=True)
IDS = st.integers(0, 24)
TURNS = 5
"""Turns of the loop after which a watch has told what it can tell without waiting."""
LIMITS = DocdbLimits(watches=WatchLimits(queue_max=8, reserve_max=2))


def patched(document: dict[str, Any], updated: dict[str, Any], removed: list[str]) -> dict[str, Any]:
    """What a client makes of an update."""
    made = deepcopy(document)
    for path in removed:
        *way, name = path.split(".")
        holder = made
        for segment in way:
            holder = holder[segment]
        del holder[name]
    for path, value in updated.items():
        *way, name = path.split(".")
        holder = made
        for segment in way:
            holder = holder[segment]
        holder[name] = value
    return made


@dataclass
class Client:
    """Knows nothing but the events, and believes them."""

    documents: dict[Any, dict[str, Any]] = field(default_factory=dict)
    event: int = -1
    token: str = ""

    def hear(self, event: WatchEvent) -> None:
        assert event.id == self.event + 1
        assert event.initial == (event.id == 0)
        self.event, self.token = event.id, event.token
        for change in event.changes:
            known = self.documents.get(change.document_id)
            match change.queue_type:
                case QueueType.INIT | QueueType.ENQUEUE:
                    assert known is None
                    self.documents[change.document_id] = change.document
                case QueueType.DEQUEUE:
                    assert known is not None and identical(known, change.document)
                    del self.documents[change.document_id]
                case QueueType.UPDATE:
                    assert known is not None and not identical(known, change.document)
                    if change.data_type is not DataType.REPLACE:
                        assert change.updated_fields is not None and change.removed_fields is not None
                        made = patched(known, change.updated_fields, change.removed_fields)
                        assert identical(made, change.document)
                    self.documents[change.document_id] = change.document


@dataclass
class Query:
    filter: dict[str, Any]
    sort: dict[str, int] | None
    limit: int | None


queries = st.builds(
    Query,
    st.one_of(st.just({}), docs.indexable_filters, docs.filters),
    docs.sorts,
    st.one_of(st.none(), st.integers(1, 4)),
)
inserts = st.tuples(st.just("insert"), IDS, docs.documents)
steps = st.lists(
    st.one_of(
        inserts,
        inserts,
        st.tuples(st.just("update"), IDS, docs.updates),
        st.tuples(st.just("replace"), IDS, docs.documents),
        st.tuples(st.just("delete"), IDS, st.none()),
        st.tuples(st.just("delete_many"), IDS, st.none()),
        st.tuples(st.just("read"), st.integers(0, 1), st.none()),
        st.tuples(st.just("resume"), st.integers(0, 1), st.none()),
    ),
    min_size=5,
    max_size=40,
)


async def write(service: DocumentService, step: tuple[str, int, Any]) -> None:
    kind, number, value = step
    if kind == "insert":
        await service.insert(ADMIN, "c", [{"_id": number, **value}])
    elif kind == "delete":
        await service.delete(ADMIN, "c", {"_id": number})
    elif kind == "delete_many":
        await service.delete(ADMIN, "c", {"_id": {"$gte": number, "$lt": number + 12}}, multi=True)
    else:
        await service.update(ADMIN, "c", {"_id": number}, value, replace=kind == "replace")


async def settled(service: DocumentService, watch: Watch) -> None:
    """Wait until the watch stands where the store does."""
    store = await service._stores.open("e")
    hub = service.watches._rooms["e"].hub
    while hub.cursor < await store.last_seq() or watch.live.loading:  # noqa: ASYNC110 - a test may look
        await asyncio.sleep(0)


async def read(service: DocumentService, watch: Watch, client: Client) -> None:
    """Hear all there is."""
    await settled(service, watch)
    while not watch.ended and (client.event < 0 or watch._pending.entries):
        task = asyncio.ensure_future(anext(watch))
        for _ in range(TURNS):
            await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return
        client.hear(task.result())


async def expected(service: DocumentService, query: Query) -> list[dict[str, Any]]:
    store = await service._stores.open("e")
    rows = (await store.read(Read("c", where(query.filter)))).rows
    found = [row.document for row in rows]
    sort_documents(found, total(parse_sort(query.sort)), lambda item: item)
    return found[: query.limit]


def shown(client: Client, query: Query) -> list[dict[str, Any]]:
    found = list(client.documents.values())
    sort_documents(found, total(parse_sort(query.sort)), lambda item: item)
    return found


async def run(stores: Stores, asked: list[Query], seed: list[dict[str, Any]], script: list[Any]) -> None:
    service = DocumentService(stores, limits=LIMITS)
    await service.create_collection("e", "c")
    if seed:
        await service.insert(ADMIN, "c", [{"_id": n, **item} for n, item in enumerate(seed)])
    clients = [Client() for _ in asked]
    watches = [await service.watch(ADMIN, "c", q.filter, q.sort, q.limit) for q in asked]
    # Somebody else watches the same, and never reads.
    idle = await service.watch(ADMIN, "c", asked[0].filter, asked[0].sort, asked[0].limit)
    for step in [*script, ("read", 0, None), ("read", 1, None)]:
        kind, number, _ = step
        if kind == "read":
            await read(service, watches[number], clients[number])
            assert_same(shown(clients[number], asked[number]), await expected(service, asked[number]))
        elif kind == "resume":
            client, query = clients[number], asked[number]
            await watches[number].close()
            watches[number] = await service.watch(
                ADMIN, "c", query.filter, query.sort, query.limit, resume=client.token
            )
            if not watches[number].resumed:
                clients[number] = Client()
        else:
            try:
                await write(service, step)
            except PlatformError:
                continue  # Refused: nothing was changed.
    late = Client()
    await read(service, idle, late)
    assert_same(shown(late, asked[0]), await expected(service, asked[0]))
    for watch in [*watches, idle]:
        await watch.close()
    hub = service.watches._rooms["e"].hub
    assert (hub.held.bytes, hub._window_bytes, hub._users, hub._lives, hub._indexes) == (0, 0, 0, {}, {})


def assert_same(told: list[dict[str, Any]], stored: list[dict[str, Any]]) -> None:
    assert len(told) == len(stored)
    for one, other in zip(told, stored, strict=True):
        assert identical(one, other)


def dense(random: Random) -> tuple[list[Query], list[dict[str, Any]], list[Any]]:
    """Few values and many steps, so that results change with nearly every one."""

    def document() -> dict[str, Any]:
        made: dict[str, Any] = {"a": random.randint(0, 2), "b": random.randint(0, 5)}
        if random.random() < 0.2:
            made["a"] = [random.randint(0, 2), random.randint(0, 2)]
        return made | ({"c": {"n": random.randint(0, 1)}} if random.random() < 0.5 else {})

    def query() -> Query:
        filter: dict[str, Any] = random.choice(
            [
                {},
                {"a": random.randint(0, 2)},
                {"a": {"$in": [0, 1]}},
                {"b": {"$gte": 2}},
                {"c.n": 1},
                {"_id": random.randint(0, 24)},
                {"a": 1, "b": {"$lt": 5}},
                {"$or": [{"a": 0}, {"b": 3}]},
            ]
        )
        sort = random.choice([None, {"b": 1}, {"b": -1}, {"a": 1, "b": -1}, {"_id": -1}, {"c.n": -1}])
        return Query(filter, sort, random.choice([None, 1, 2, 3, 5]))

    def step() -> tuple[str, int, Any]:
        number = random.randint(0, 24)
        kind = random.choice(
            ["insert"] * 6 + ["update"] * 8 + ["replace", "delete", "delete", "read", "resume"]
        )
        if kind in ("read", "resume"):
            return kind, random.randint(0, 1), None
        if kind == "delete" and random.random() < 0.2:
            return "delete_many", number, None
        if kind == "update":
            return (
                kind,
                number,
                random.choice(
                    [
                        {"$set": {"a": random.randint(0, 2)}},
                        {"$inc": {"b": 1}},
                        {"$set": {"c.n": 1}},
                        {"$unset": {"c": ""}},
                    ]
                ),
            )
        return kind, number, None if kind == "delete" else document()

    return [query(), query()], [document() for _ in range(20)], [step() for _ in range(60)]


def in_memory(asked: list[Query], seed: list[dict[str, Any]], script: list[Any]) -> None:
    async def go() -> None:
        stores = Stores(lambda _: MemoryStore(LIMITS))
        try:
            await run(stores, asked, seed, script)
        finally:
            await stores.close()

    asyncio.run(go())


def on_disk(asked: list[Query], seed: list[dict[str, Any]], script: list[Any]) -> None:
    async def go(path: Path) -> None:
        stores = Stores(lambda _: SqliteStore(path / "e.db", LIMITS))
        try:
            await run(stores, asked, seed, script)
        finally:
            await stores.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(go(Path(directory)))


@given(st.lists(queries, min_size=2, max_size=2), st.lists(docs.documents, max_size=20), steps)
@settings(deadline=None, max_examples=60)
def test_events_lead_to_the_result_with_odd_values(
    asked: list[Query], seed: list[dict[str, Any]], script: list[Any]
) -> None:
    in_memory(asked, seed, script)


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=100)
def test_events_lead_to_the_result_in_memory(number: int) -> None:
    in_memory(*dense(Random(number)))


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=25)
def test_events_lead_to_the_result_on_disk(number: int) -> None:
    on_disk(*dense(Random(number)))


@given(docs.documents, docs.documents)
@settings(deadline=None)
def test_a_difference_leads_from_one_document_to_the_other(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    fields = difference(before, after)
    if fields is not None:
        assert identical(patched(before, *fields), after)


@given(
    st.dictionaries(docs.names, docs.odd_values, max_size=3),
    st.dictionaries(docs.names, docs.odd_values, max_size=3),
)
@settings(deadline=None)
def test_a_difference_of_odd_names_is_told_right_or_not_at_all(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    fields = difference(before, after)
    if fields is not None:
        assert identical(patched(before, *fields), after)
