"""The SQLite file itself: versions, foreign files, disks that refuse, death in the middle of writing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from importlib import resources
from pathlib import Path
from types import NoneType

import apsw
import pytest

from cloudlet.docdb.base import (
    CreateCollection,
    CreateIndex,
    Decision,
    Operation,
    Preset,
    Put,
    Read,
    Turn,
    id_key,
)
from cloudlet.docdb.catalog import key_part
from cloudlet.docdb.filter import where
from cloudlet.docdb.sqlite import SqliteStore
from cloudlet.docdb.sqlite_file import APPLICATION_ID, open_writer
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.values import Document
from cloudlet.model.errors import Conflict, DuplicateKey, InvalidName, StoreUnavailable

pytestmark = pytest.mark.anyio


async def put(store: SqliteStore, *documents: Document) -> None:
    await store.commit(Turn("c", 1, lambda _: Decision(None, [Put(document) for document in documents])))


async def all_ids(store: SqliteStore) -> list[object]:
    return [row.document["_id"] for row in (await store.read(Read("c", where({})))).rows]


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "deep" / "e.db")
    await store.define(CreateCollection("c", Preset.ADMINWRITE))
    await store.define(CreateIndex("c", "n", (key_part("n", descending=True),)))
    await put(store, {"_id": 1, "n": [1, 2]})
    catalog = store.catalog()["c"]
    await store.close()
    again = SqliteStore(tmp_path / "deep" / "e.db")
    assert again.catalog()["c"] == catalog
    assert again.catalog()["c"].indexes[1].multikey
    assert await all_ids(again) == [1]
    assert [change.seq for change in await again.changes(0, 10)] == [1]
    await again.close()


async def test_a_file_of_a_newer_version_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    connection = open_writer(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(Conflict, match=r"e\.db was written by a newer version of cloudlet \(schema 99"):
        SqliteStore(path)
    assert path.read_bytes() == before


async def test_a_file_of_the_first_release_keeps_its_documents_and_gets_new_revisions(tmp_path: Path) -> None:
    """Revisions counted the changes of one document; now they are the sequence number of the last one."""
    connection = apsw.Connection(str(tmp_path / "e.db"))
    connection.execute(
        (resources.files("cloudlet.docdb") / "migrations" / "0001_pre_initial.sql").read_text()
    )
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1")
    connection.execute(
        """
        INSERT INTO coll (name, preset) VALUES ('c', 'PRIVATE'), ('other', 'READONLY');
        INSERT INTO idx (coll, name, parts, uniq, multikey, ready) VALUES (1, 'n', '[["n", -1]]', 0, 1, 1);
        CREATE TABLE x_1 (k BLOB NOT NULL, did INTEGER NOT NULL, PRIMARY KEY (k, did)) WITHOUT ROWID;
        """
    )
    for number in (1, 2):
        connection.execute(
            f"CREATE TABLE c_{number} (did INTEGER PRIMARY KEY, id_key BLOB NOT NULL UNIQUE, "
            "rev INTEGER NOT NULL, body BLOB NOT NULL)"
        )
    rows = [(1, "kept", 3), (1, "forgotten", 2), (2, "kept", 1)]
    for number, key, rev in rows:
        body = f'{{"_id":"{key}","n":7}}'
        connection.execute(
            f"INSERT INTO c_{number} (id_key, rev, body) VALUES (?, ?, jsonb(?))", (id_key(key), rev, body)
        )
    for seq, name, key, rev, op in (
        (11, "c", "kept", 2, "update"),
        (12, "other", "kept", 1, "insert"),
        (13, "c", "kept", 3, "update"),
        (14, "c", "gone", 2, "delete"),
    ):
        text = f'{{"_id":"{key}"}}'
        connection.execute(
            "INSERT INTO chg (seq, coll, rev, op, id, before, after, at) "
            "VALUES (?, ?, ?, ?, ?, jsonb(?), jsonb(?), 1)",
            (
                seq,
                name,
                rev,
                op,
                id_key(key),
                None if op == "insert" else text,
                None if op == "delete" else text,
            ),
        )
    connection.close()
    store = SqliteStore(tmp_path / "e.db")
    found = [(row.document["_id"], row.rev) for row in await store.scan("c", 0, 9)]
    assert found == [("kept", 13), ("forgotten", 0)]
    assert [row.rev for row in await store.scan("other", 0, 9)] == [12]
    assert [(item.seq, item.rev, item.operation) for item in await store.changes(10, 9, "c")] == [
        (11, 11, Operation.UPDATE),
        (13, 13, Operation.UPDATE),
        (14, 14, Operation.DELETE),
    ]
    (index,) = store.catalog()["c"].indexes
    assert (index.parts, index.multikey, index.sparse) == ((key_part("n", descending=True),), True, False)
    assert store.catalog()["c"].rule is None
    await put(store, {"_id": "new"})
    assert await store.last_seq() == 15
    await store.close()


async def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(Conflict, match="not a document file"):
        SqliteStore(path)
    path.write_text("this is no database at all, and long enough to be looked at" * 20)
    with pytest.raises(StoreUnavailable, match="damaged"):
        SqliteStore(path)


async def test_a_directory_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreUnavailable):
        SqliteStore(tmp_path / "file" / "e.db")
    (tmp_path / "e.db").mkdir()
    with pytest.raises(StoreUnavailable):
        SqliteStore(tmp_path / "e.db")


async def test_a_full_disk_refuses_the_write_and_changes_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "e.db")
    await store.define(CreateCollection("c", Preset.PRIVATE))
    await put(store, {"_id": 1})
    connection = store._writer._connection
    pages = connection.pragma("page_count")
    connection.pragma("max_page_count", pages + 3)
    attempts = [put(store, {"_id": f"big {at}", "text": "x" * 30_000}) for at in range(3)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 3
    assert await all_ids(store) == [1]
    assert len(await store.changes(0, 10)) == 1
    connection.pragma("max_page_count", 10**6)
    await put(store, {"_id": 2})
    assert await all_ids(store) == [1, 2]
    assert [change.seq for change in await store.changes(0, 10)] == [1, 2]
    await store.close()


async def test_a_file_that_becomes_read_only_refuses_writes_and_still_reads(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "e.db")
    await store.define(CreateCollection("c", Preset.PRIVATE))
    await put(store, {"_id": 1})
    store._writer._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreUnavailable):
        await put(store, {"_id": 2})
    assert await all_ids(store) == [1]
    await store.close()


async def test_requests_that_share_a_transaction_fail_alone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "e.db")
    await store.define(CreateCollection("c", Preset.PRIVATE))
    attempts = [put(store, {"_id": at % 7, "n": at}) for at in range(20)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert [result is None for result in results] == [at < 7 for at in range(20)]
    assert [change.seq for change in await store.changes(0, 100)] == list(range(1, 8))
    await store.close()


async def test_a_request_that_fails_half_way_is_undone_without_the_others(tmp_path: Path) -> None:
    """The key of a second index is taken when the document is in the table already."""
    store = SqliteStore(tmp_path / "e.db")
    await store.define(CreateCollection("c", Preset.PRIVATE))
    await store.define(CreateIndex("c", "n", (key_part("n"),), unique=True))
    attempts = [
        put(store, {"_id": at, "n": at % 7}, {"_id": f"{at} too", "n": f"{at % 7}"}) for at in range(20)
    ]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert [type(result) for result in results] == [NoneType] * 7 + [DuplicateKey] * 13
    assert sorted(map(str, await all_ids(store))) == sorted(
        [f"{at}{too}" for at in range(7) for too in ("", " too")]
    )
    assert [change.seq for change in await store.changes(0, 100)] == list(range(1, 15))
    assert (await store.stats("c")).entries == {"_id_": 14, "_openid_id_": 14, "n": 14}
    await store.close()


async def test_an_index_is_filled_while_others_write(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "e.db")
    await store.define(CreateCollection("c", Preset.PRIVATE))
    await put(store, *({"_id": at, "n": at % 10} for at in range(2_500)))
    filling = asyncio.create_task(store.define(CreateIndex("c", "n", (key_part("n"),))))
    await asyncio.gather(filling, *(put(store, {"_id": f"late {at}", "n": 3}) for at in range(30)))
    found = await store.read(Read("c", where({"n": 3})))
    assert (len(found.rows), found.examined) == (280, 280)
    await store.close()


async def test_an_index_whose_filling_was_cut_off_is_removed_at_the_next_start(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "e.db")
    await store.define(CreateCollection("c", Preset.PRIVATE))
    await store.define(CreateIndex("c", "n", (key_part("n"),)))
    await store.close()
    connection = open_writer(tmp_path / "e.db")
    connection.execute("UPDATE idx SET ready = 0 WHERE name = 'n'")
    connection.close()
    again = SqliteStore(tmp_path / "e.db")
    assert [index.name for index in again.catalog()["c"].indexes] == ["_openid_id_"]
    await again.define(CreateIndex("c", "n", (key_part("n"),)))
    await again.close()


async def test_removing_an_environment_removes_its_files_and_no_others(tmp_path: Path) -> None:
    stores = Stores.in_directory(tmp_path)
    for name in ("one", "two"):
        await (await stores.open(name)).define(CreateCollection("c", Preset.PRIVATE))
    await stores.remove("one")
    await stores.remove("never")
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"two"}
    assert dict((await stores.open("one")).catalog()) == {}
    with pytest.raises(InvalidName):
        await stores.open("../two")
    await stores.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from cloudlet.docdb.base import CreateCollection, Decision, Preset, Put, Turn
from cloudlet.docdb.sqlite import SqliteStore

async def write(store, name):
    for number in range(10**9):
        document = {"_id": f"{name}-{number}", "n": number, "text": "x" * 200}
        await store.commit(Turn("c", 1, lambda _: Decision(None, [Put(document)])))
        print(document["_id"], flush=True)

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.define(CreateCollection("c", Preset.PRIVATE))
    await asyncio.gather(*(write(store, name) for name in "abcdefgh"))

asyncio.run(main())
"""


async def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    acknowledged = await asyncio.to_thread(_write_and_kill, path, 300)
    store = SqliteStore(path)
    found = await store.read(Read("c", where({"_id": {"$in": acknowledged}}), limit=1_000))
    assert {row.document["_id"] for row in found.rows} == set(acknowledged)
    changes = await store.changes(0, 100_000)
    stored = [key for (key,) in store._reader.execute("SELECT json(body) ->> '_id' FROM c_1")]
    assert [change.document_id for change in changes] == stored
    assert {change.operation for change in changes} == {Operation.INSERT}
    assert [change.seq for change in changes] == list(range(1, len(stored) + 1))
    assert store._reader.pragma("integrity_check") == "ok"
    await store.close()


def _write_and_kill(path: Path, wanted: int) -> list[str]:
    """Ids whose commit the process reported before it was killed in the middle of its work."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(wanted)]
    finally:
        process.kill()
        rest, _ = process.communicate()
    lines += rest.splitlines(keepends=True)
    return [line.strip() for line in lines if line.endswith("\n")]
