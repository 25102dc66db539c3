"""What a PostgreSQL store does when its server is away, and what it does not tell."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudlet.docdb.base import CreateCollection, CreateIndex, Decision, Preset, Put, Read, Turn, id_key
from cloudlet.docdb.catalog import key_part
from cloudlet.docdb.filter import where
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.migrate.record import Place
from cloudlet.docdb.postgres import pool, writer
from cloudlet.docdb.postgres.address import Address
from cloudlet.docdb.postgres.local import LocalServer, find_programs, local_server, start_server
from cloudlet.docdb.postgres.sql import names
from cloudlet.docdb.stores import Stores
from cloudlet.model.errors import (
    Conflict,
    Internal,
    InvalidParameter,
    OutcomeUnknown,
    PlatformError,
    QueryTooCostly,
    StoreUnavailable,
)
from tests.docdb_postgres import OwnStore, postgres_server, postgres_url  # noqa: F401 - fixtures

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[OwnStore]:  # noqa: F811
    made = OwnStore(postgres_url)
    await made.define(CreateCollection("c", Preset.PRIVATE))
    yield made
    await made.close()


async def put(store: OwnStore, key: Any) -> None:
    await store.commit(Turn("c", 1, lambda _: Decision(None, [Put({"_id": key})])))


async def exists(store: OwnStore, key: Any) -> bool:
    return bool(await store.get_many("c", [id_key(key)]))


class LosesConnection:
    """A connection whose server vanishes at COMMIT, before or after it has done its work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
        self.lost = 0
        execute = writer.PostgresWriter._commit

        async def commit(own: Any, connection: Any, mark: str) -> None:
            self.lost += 1
            if after:
                await connection.execute("COMMIT")
            connection.terminate()
            await execute(own, connection, mark)

        monkeypatch.setattr(writer.PostgresWriter, "_commit", commit)


async def test_a_commit_whose_answer_is_lost_is_looked_up(
    store: OwnStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        loses = LosesConnection(patch, after=True)
        await put(store, "kept")
        assert loses.lost == 1
    with monkeypatch.context() as patch:
        LosesConnection(patch, after=False)
        with pytest.raises(StoreUnavailable):
            await put(store, "dropped")
    assert (await exists(store, "kept"), await exists(store, "dropped")) == (True, False)
    await put(store, "next")
    assert [change.seq for change in await store.changes(0, 10)] == [1, 2]


async def test_an_outcome_that_nobody_can_tell_is_unknown(
    store: OwnStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(*_: object) -> None:
        return None

    monkeypatch.setattr(writer.PostgresWriter, "_outcome", unknown)
    with monkeypatch.context() as patch:
        LosesConnection(patch, after=True)
        with pytest.raises(OutcomeUnknown):
            await put(store, "perhaps")
    assert await exists(store, "perhaps")


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """A server of this test's own, which may be killed."""
    if find_programs() is None:
        pytest.skip("there is no PostgreSQL on this machine")
    with tempfile.TemporaryDirectory(prefix="cloudlet-pg-") as name, local_server(Path(name), False) as made:
        yield made


async def test_a_killed_server_loses_nothing_that_was_acknowledged(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "BACK_OFF_MAX_S", 0.2)
    store = OwnStore(server.url())
    again: LocalServer | None = None
    try:
        await store.define(CreateCollection("c", Preset.PRIVATE))
        acknowledged: list[str] = []
        refused: list[PlatformError] = []
        back, reached = asyncio.Event(), asyncio.Event()
        goal = [200]

        async def write(client: int) -> None:
            for number in range(10_000):
                if back.is_set() and number > 100:
                    return
                try:
                    await put(store, f"{client}-{number}")
                    acknowledged.append(f"{client}-{number}")
                    if len(acknowledged) == goal[0]:
                        reached.set()
                except PlatformError as exc:
                    refused.append(exc)
                    await asyncio.sleep(0.01)

        writing = [asyncio.create_task(write(client)) for client in range(8)]
        await reached.wait()
        server.process.send_signal(signal.SIGQUIT)
        await asyncio.to_thread(server.process.wait)
        again = await asyncio.to_thread(start_server, server.directory, False)
        goal[0] = len(acknowledged) + 50
        reached.clear()
        await reached.wait()
        back.set()
        await asyncio.gather(*writing)
        assert {type(exc) for exc in refused} <= {StoreUnavailable, OutcomeUnknown}
        assert refused
        for start in range(0, len(acknowledged), 500):
            keys = [id_key(name) for name in acknowledged[start : start + 500]]
            assert len(await store.get_many("c", keys)) == len(keys)
        log: list[int] = []
        while page := await store.changes(log[-1] if log else 0, 1_000):
            log += [change.seq for change in page]
        assert log == list(range(1, len(log) + 1))
        assert len(log) >= len(acknowledged)
    finally:
        await store.close()
        if again is not None:
            again.stop()


async def test_attempts_to_reach_a_server_that_is_away_are_spaced(tmp_path: Path) -> None:
    now = [0.0]
    away = pool.Pool(Address(f"postgresql://user:secret@/d?host={tmp_path}"), monotonic=lambda: now[0])
    messages = []
    for _ in range(3):
        with pytest.raises(StoreUnavailable) as caught:
            await away.take()
        messages.append(caught.value.message)
    assert ["next attempt" in message for message in messages] == [False, True, True]
    now[0] = 0.11
    with pytest.raises(StoreUnavailable, match="gives no connection"):
        await away.take()
    assert not any("secret" in message or "user" in message for message in messages)
    await away.close()


def test_an_address_never_shows_its_password() -> None:
    url = "postgresql://ann:s3cret@db.example:5433/shop?sslmode=require"
    address = Address(url)
    assert str(address) == "postgresql://db.example:5433/shop"
    assert "s3cret" not in repr(address) + repr(Place("postgresql", url))
    assert address.url == url
    for wrong in ("mysql://h/d", "postgresql://h", "h/d", "postgresql://h:port/d", "postgresql:///", ""):
        with pytest.raises(InvalidParameter) as caught:
            Address(wrong)
        assert "s3cret" not in caught.value.message


def test_environments_never_share_names() -> None:
    long = ["e" * 63, "e" * 62 + "f", "e" * 62, "E" * 63, "a-b", "a"]
    assert len({names(name).schema for name in long}) == len(long)
    assert len({names(name).lock for name in long}) == len(long)
    assert max(len(names(name).schema) for name in long) <= 63


async def test_environments_are_apart_and_can_be_removed(tmp_path: Path, postgres_url: str) -> None:  # noqa: F811
    stores = Stores.in_directory(tmp_path, postgres_url=postgres_url)
    try:
        for name in ("one", "two"):
            await (await stores.open(name)).define(CreateCollection(name, Preset.PRIVATE))
        assert set((await stores.open("one")).catalog()) == {"one"}
        assert (tmp_path / "one.json").stat().st_mode & 0o777 == 0o600
        await stores.remove("one")
        assert not (tmp_path / "one.json").exists()
        assert set((await stores.open("one")).catalog()) == set()
        assert set((await stores.open("two")).catalog()) == {"two"}
    finally:
        await stores.close()
    without = Stores.in_directory(tmp_path)
    try:
        with pytest.raises(StoreUnavailable, match="set it again"):
            await without.open("two")
    finally:
        await without.close()


async def test_a_setting_hides_no_documents(tmp_path: Path, postgres_url: str) -> None:  # noqa: F811
    before = Stores.in_directory(tmp_path)
    await (await before.open("e")).define(CreateCollection("c", Preset.PRIVATE))
    await before.close()
    after = Stores.in_directory(tmp_path, postgres_url=postgres_url)
    assert set((await after.open("e")).catalog()) == {"c"}
    await after.close()


async def test_a_newer_format_is_refused(postgres_url: str) -> None:  # noqa: F811
    store = OwnStore(postgres_url)
    await store.define(CreateCollection("c", Preset.PRIVATE))
    async with store._own.pool.connection() as connection:
        await connection.execute('UPDATE "env_e".state SET format = 99')
    await store.close()
    late = OwnStore(postgres_url)
    with pytest.raises(Conflict, match="newer version"):
        await late.last_seq()
    await late.close()


async def test_an_index_whose_maker_died_is_removed(postgres_url: str) -> None:  # noqa: F811
    store, other = OwnStore(postgres_url), OwnStore(postgres_url)
    await store.define(CreateCollection("c", Preset.PRIVATE))
    await store.define(CreateIndex("c", "i", (key_part("x"),)))
    async with store._own.pool.connection() as connection:
        await connection.execute("UPDATE \"env_e\".idx SET ready = false WHERE name = 'i'")
        await connection.execute('UPDATE "env_e".state SET version = version + 1')
    await other.start()
    assert [index.name for index in other.catalog()["c"].indexes] == ["_openid_id_"]
    await put(store, 1)
    assert [index.name for index in store.catalog()["c"].indexes] == ["_openid_id_"]
    await store.close()
    await other.close()


async def test_large_documents_and_many_ids_go_to_a_worker(postgres_url: str) -> None:  # noqa: F811
    store = OwnStore(postgres_url, DocdbLimits(examined_inline_max=100))
    await store.define(CreateCollection("c", Preset.PRIVATE))
    for number in range(5):
        document = {"_id": number, "text": "é" * 4_000_000}
        await store.commit(Turn("c", 1, lambda _, document=document: Decision(None, [Put(document)])))  # type: ignore[misc]
    found = await store.read(Read("c", where({}), limit=1))
    assert len(found.rows) == 1
    with pytest.raises(QueryTooCostly):
        await store.read(Read("c", where({"text": "x"})))
    with pytest.raises(QueryTooCostly):
        await store.read(Read("c", where({"_id": {"$in": list(range(2_000))}})))
    assert [row.did for row in await store.scan("c", 0, 2)] == [1, 2]
    await store.close()


async def test_a_write_that_the_database_refuses_fails_alone(store: OwnStore) -> None:
    await put(store, "first")
    async with store._own.pool.connection() as connection:
        await connection.execute("ALTER TABLE \"env_e\".c_1 ADD CHECK (body NOT LIKE '%poison%')")
    outcomes = await asyncio.gather(
        *(put(store, f"poison {n}" if n == 3 else n) for n in range(8)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [Internal if n == 3 else type(None) for n in range(8)]
    assert "poison" not in str(outcomes[3])
    assert len(await store.scan("c", 0, 100)) == 8
    assert [change.seq for change in await store.changes(0, 100)] == list(range(1, 9))


async def test_a_stalled_writer_elsewhere_is_waited_for_a_while_only(
    store: OwnStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pool.SESSION, "lock_timeout", "50ms")
    impatient = OwnStore(store._own.address.url)
    await impatient.start()
    async with store._own.pool.connection() as connection, connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({names('e').lock})")
        with pytest.raises(StoreUnavailable):
            await put(impatient, 1)
    await put(impatient, 2)
    assert [row.document["_id"] for row in await store.scan("c", 0, 10)] == [2]
    await impatient.close()
