"""Environments move between engines while clients write, and nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from cloudlet.docdb.base import (
    Change,
    CreateCollection,
    CreateIndex,
    Decision,
    DropCollection,
    Preset,
    Put,
    SetRule,
    Store,
    Turn,
)
from cloudlet.docdb.body import encode_value
from cloudlet.docdb.catalog import key_part
from cloudlet.docdb.migrate.run import Progress
from cloudlet.docdb.service import DocumentService, IndexField, Query
from cloudlet.docdb.stores import Stores
from cloudlet.model.access import Access
from cloudlet.model.clock import SystemClock
from cloudlet.model.errors import AlreadyExists, Conflict, PlatformError
from tests.docdb_postgres import postgres_server, postgres_url  # noqa: F401 - fixtures

pytestmark = pytest.mark.anyio

ADMIN = Access("e", admin=True)
WRITERS = 32
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    made = Stores.in_directory(tmp_path)
    yield made
    await made.close()


class Cut(Exception):
    """A move is cut off here."""


class Client:
    """Writes until it is told to stop, and remembers what was acknowledged."""

    def __init__(self, service: DocumentService, number: int) -> None:
        self._service = service
        self._random = Random(number)
        self._number = number
        self._next = 0
        self.known: dict[str, int] = {}
        self.increments = 0
        self.refused: list[PlatformError] = []

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._step()
            except PlatformError as exc:
                self.refused.append(exc)

    async def _step(self) -> None:
        roll = self._random.random()
        if roll < 0.4 or not self.known:
            name = f"{self._number}-{self._next}"
            self._next += 1
            await self._service.insert(ADMIN, "c", [{"_id": name, "n": 1, "tags": [self._number, "é\0"]}])
            self.known[name] = 1
        elif roll < 0.7:
            name = self._random.choice(list(self.known))
            await self._service.update(ADMIN, "c", {"_id": name}, {"$inc": {"n": 1}})
            self.known[name] += 1
        elif roll < 0.8:
            name = self._random.choice(list(self.known))
            await self._service.delete(ADMIN, "c", {"_id": name})
            del self.known[name]
        else:
            await self._service.update(ADMIN, "c", {"_id": "shared"}, {"$inc": {"n": 1}})
            self.increments += 1


async def everything(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """All documents with their revisions, and the change log, of every collection."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for name in store.catalog():
        rows: list[tuple[Any, ...]] = []
        after = 0
        while page := await store.scan(name, after, 500):
            rows += [(row.id_key, row.rev, encode_value(row.document)) for row in page]
            after = page[-1].did
        found[name] = rows
    log: list[Change] = []
    while changes := await store.changes(log[-1].seq if log else 0, 500):
        log += changes
    found["log"] = [(c.seq, c.rev, c.operation, encode_value([c.before, c.after]), c.at_ms) for c in log]
    return found


async def prepared(stores: Stores, documents: int) -> DocumentService:
    service = DocumentService(stores, SystemClock())
    await service.create_collection("e", "c", Preset.PRIVATE)
    await service.create_collection("e", "empty", Preset.ADMINONLY)
    await service.create_index("e", "c", "n", [IndexField("n")])
    await service.create_index("e", "c", "tags", [IndexField("tags"), IndexField("n", True)])
    await service.insert(ADMIN, "c", [{"_id": "shared", "n": 0}])
    for start in range(0, documents, 500):
        many = [{"_id": f"old {n}", "n": n, "tags": [n % 7]} for n in range(start, start + 500)]
        await service.insert(ADMIN, "c", many)
    return service


async def test_32_clients_write_while_an_environment_moves_and_comes_back(
    stores: Stores,
    tmp_path: Path,
    postgres_url: str,  # noqa: F811
) -> None:
    service = await prepared(stores, 3_000)
    store = await stores.open("e")
    heard: list[int] = []
    store.listen(lambda changes: heard.extend(change.seq for change in changes))
    start = await store.last_seq()
    clients = [Client(service, number) for number in range(WRITERS)]
    stop = asyncio.Event()
    writing = [asyncio.create_task(client.run(stop)) for client in clients]
    try:
        reports = [
            await stores.migrate("e", postgres_url),
            await stores.migrate("e", "sqlite"),
            await stores.migrate("e", postgres_url),
        ]
    finally:
        stop.set()
        await asyncio.gather(*writing)
    assert [(report.engine, report.copied) for report in reports] == [
        ("postgresql", True),
        ("sqlite", False),
        ("postgresql", False),
    ]
    for report in reports:
        assert 0 < report.pause_s < 5, (
            report
        )  # The target of the issue, 1 s, is measured and not asserted here.
    assert [client.refused for client in clients] == [[]] * WRITERS
    await check(service, clients)
    assert heard == list(range(start + 1, await store.last_seq() + 1))
    assert stores.get("e") is store
    await stores.close()

    again = Stores.in_directory(tmp_path)
    try:
        service = DocumentService(again, SystemClock())
        await check(service, clients)
    finally:
        await again.close()


async def check(service: DocumentService, clients: list[Client]) -> None:
    """Exactly what was acknowledged is there."""
    known = {name: n for client in clients for name, n in client.known.items()}
    found: dict[str, int] = {}
    for client in range(len(clients)):
        pattern = {"_id": {"$gte": f"{client}-", "$lt": f"{client}-:"}}
        for skip in range(0, 100_000, 1000):
            page = (await service.find(ADMIN, "c", Query(pattern, {"_id": 1}, skip, 1000))).documents
            found |= {document["_id"]: document["n"] for document in page}
            if len(page) < 1000:
                break
    assert found == known
    (shared,) = (await service.find(ADMIN, "c", Query({"_id": "shared"}))).documents
    assert shared["n"] == sum(client.increments for client in clients)
    assert await service.count(ADMIN, "c", {"_id": {"$gte": "old", "$lt": "ole"}}) == 3_000


async def test_a_copy_is_the_same_to_the_last_number(
    stores: Stores,
    postgres_url: str,  # noqa: F811
) -> None:
    service = await prepared(stores, 1_000)
    store = await stores.open("e")
    await store.define(SetRule("c", '{"read": true}'))
    await service.create_index("e", "c", "u", [IndexField("_id"), IndexField("n")], True)
    await service.update(
        ADMIN, "c", {"n": {"$lt": 50}}, {"$set": {"text": "\0\U0001f600", "f": 1.0}}, multi=True
    )
    await service.delete(ADMIN, "c", {"n": {"$gt": 990}}, multi=True)
    before, catalog = await everything(store), store.catalog()
    seen: list[Progress] = []
    report = await stores.migrate("e", postgres_url, seen.append)
    assert await everything(store) == before
    assert store.catalog() == catalog
    assert report.documents == {"c": 992, "empty": 0}
    assert (report.seq, report.replayed) == (before["log"][-1][0], 0)
    phases = [progress.phase for progress in seen]
    assert [phase for at, phase in enumerate(phases) if phase not in phases[:at]] == [
        "copy",
        "load",
        "switch",
        "done",
    ]
    await service.insert(ADMIN, "c", [{"_id": "new"}])
    await service.create_collection("e", "later", Preset.READONLY)
    await service.insert(ADMIN, "later", [{"_id": 1}])
    await service.drop_index("e", "c", "u")
    before = await everything(store)
    report = await stores.migrate("e", "sqlite")
    assert (report.copied, report.replayed) == (False, 2)
    assert await everything(store) == before
    assert {name: len(info.indexes) for name, info in store.catalog().items()} == {
        "c": 3,
        "empty": 1,
        "later": 1,
    }


async def test_a_dropped_collection_makes_the_way_back_a_new_copy(
    stores: Stores,
    postgres_url: str,  # noqa: F811
) -> None:
    service = await prepared(stores, 0)
    store = await stores.open("e")
    await stores.migrate("e", postgres_url)
    await service.create_collection("e", "brief", Preset.READONLY)
    await service.insert(ADMIN, "brief", [{"_id": 1}])
    await store.define(DropCollection("brief"))
    before = await everything(store)
    assert (await stores.migrate("e", "sqlite")).copied
    assert await everything(store) == before
    await store.define(DropCollection("c"))
    await store.define(CreateCollection("c", Preset.PRIVATE))
    before = await everything(store)
    assert (await stores.migrate("e", postgres_url)).copied
    assert await everything(store) == before


async def test_a_move_that_fails_leaves_the_source_and_can_be_repeated(
    stores: Stores,
    postgres_url: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = await prepared(stores, 1_000)
    store = await stores.open("e")

    def fail_at(phase: str) -> Callable[[Progress], None]:
        def tell(progress: Progress) -> None:
            if progress.phase == phase and (phase != "load" or progress.done >= 400):
                raise Cut

        return tell

    for phase in ("copy", "load", "switch"):
        with pytest.raises(Cut):
            await stores.migrate("e", postgres_url, fail_at(phase))
        await service.insert(ADMIN, "c", [{"_id": f"after {phase}"}])
        await store.define(CreateIndex("empty", phase, (key_part("x"),)))
    before = await everything(store)
    report = await stores.migrate("e", postgres_url)
    assert report.copied
    assert report.replayed == 2  # The snapshot of the second attempt was gone on from.
    assert await everything(store) == before
    assert len(store.catalog()["empty"].indexes) == 4


async def test_what_is_unfinished_can_be_abandoned(
    stores: Stores,
    tmp_path: Path,
    postgres_url: str,  # noqa: F811
) -> None:
    service = await prepared(stores, 500)

    def fail(progress: Progress) -> None:
        if progress.phase == "switch":
            raise Cut

    with pytest.raises(Cut):
        await stores.migrate("e", postgres_url, fail)
    with pytest.raises(Conflict, match="there already"):
        await stores.migrate("e", "sqlite")
    await stores.abandon_migration("e")
    with pytest.raises(Conflict):
        await stores.abandon_migration("e")
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("e.db")) == []
    assert await service.count(ADMIN, "c") == 501
    await stores.migrate("e", postgres_url)
    assert await service.count(ADMIN, "c") == 501


async def test_a_foreign_copy_is_not_overwritten(
    stores: Stores,
    tmp_path: Path,
    postgres_url: str,  # noqa: F811
) -> None:
    service = await prepared(stores, 0)
    other = Stores.in_directory(tmp_path / "other", postgres_url=postgres_url)
    try:
        await (await other.open("e")).define(CreateCollection("theirs", Preset.PRIVATE))
        with pytest.raises(AlreadyExists):
            await stores.migrate("e", postgres_url)
        assert await service.count(ADMIN, "c") == 1
        assert set((await other.open("e")).catalog()) == {"theirs"}
    finally:
        await other.close()


async def test_schema_changes_while_moving(
    stores: Stores,
    postgres_url: str,  # noqa: F811
) -> None:
    service = await prepared(stores, 500)
    store = await stores.open("e")
    attempts: list[asyncio.Task[Any]] = []

    def tell(progress: Progress) -> None:
        if progress.phase == "load" and not attempts:
            for change in (
                DropCollection("c"),
                CreateIndex("c", "late", (key_part("x"),)),
                CreateCollection("new", Preset.READONLY),
                SetRule("empty", '{"read": false}'),
            ):
                attempts.append(asyncio.ensure_future(store.define(change)))

    await stores.migrate("e", postgres_url, tell)
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Conflict, Conflict, type(None), type(None)]
    assert store.catalog()["empty"].rule == '{"read": false}'
    assert set(store.catalog()) == {"c", "empty", "new"}
    await service.insert(ADMIN, "new", [{"_id": 1}])


async def test_two_processes_write_one_environment(postgres_url: str) -> None:  # noqa: F811
    one, two = Stores.in_postgres(postgres_url), Stores.in_postgres(postgres_url)
    try:
        ours, theirs = await one.open("e"), await two.open("e")
        heard: list[int] = []
        done = asyncio.Event()

        def listen(changes: Any) -> None:
            heard.extend(change.seq for change in changes)
            if len(heard) == 201:
                done.set()

        theirs.listen(listen)
        await ours.define(CreateCollection("c", Preset.PRIVATE))
        await ours.commit(Turn("c", 1, lambda _: Decision(None, [Put({"_id": 0, "n": 0})])))
        services = [DocumentService(stores, SystemClock()) for stores in (one, two)]
        await theirs.define(CreateIndex("c", "n", (key_part("n"),)))
        await asyncio.gather(
            *(services[n % 2].update(ADMIN, "c", {"_id": 0}, {"$inc": {"n": 1}}) for n in range(200))
        )
        (row,) = await ours.scan("c", 0, 10)
        assert (row.rev, row.document) == (201, {"_id": 0, "n": 200})
        async with asyncio.timeout(20):
            await done.wait()
        assert heard == list(range(1, 202))

        await services[0].update(ADMIN, "c", {"_id": 0}, {"$set": {"n": [1, 50]}})
        # The other process has not been told that the index has met an array. Two bounds hold for two
        # elements: who still combined them to one range would find nothing.
        assert await services[1].count(ADMIN, "c", {"n": {"$gt": 5, "$lt": 10}}) == 1
    finally:
        await one.close()
        await two.close()


@pytest.mark.parametrize("rounds", [3, pytest.param(30, marks=pytest.mark.long)])
async def test_a_process_killed_while_it_moves_loses_nothing(
    tmp_path: Path,
    postgres_url: str,  # noqa: F811
    rounds: int,
) -> None:
    random = Random(rounds)
    acknowledged: set[str] = set()
    moved = 0
    for number in range(rounds):
        command = [sys.executable, "-m", "tests.integration.docdb_migrate_child"]
        child = await asyncio.create_subprocess_exec(
            *command, str(tmp_path), postgres_url, f"r{number}", stdout=PIPE, stderr=PIPE, cwd=ROOT
        )
        heard = b""
        try:
            assert child.stdout is not None
            for _ in range(random.randint(50, 1_500)):
                heard += await child.stdout.readline()
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            rest, errors = await child.communicate()
        assert child.returncode == -signal.SIGKILL, (heard + rest + errors).decode()[-3_000:]
        lines = (heard + rest).decode().split("\n")[:-1]
        moved += sum(line.startswith("moved ") for line in lines)
        acknowledged |= {line.removeprefix("wrote ") for line in lines if line.startswith("wrote ")}
        stores = Stores.in_directory(tmp_path)
        try:
            store = await stores.open("e")
            there: set[Any] = set()
            after = 0
            while rows := await store.scan("c", after, 1_000):
                there |= {row.document["_id"] for row in rows}
                after = rows[-1].did
            assert acknowledged <= there
            assert await store.last_seq() == len(there)
        finally:
            await stores.close()
    assert moved > 0
