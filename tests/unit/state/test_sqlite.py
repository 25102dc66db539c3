"""What only the file-backed store can show: durability, refusals, a second process."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
import threading
from pathlib import Path

import apsw
import pytest

from cloudlet.model.errors import AlreadyExists, InvalidRequest, OutcomeUnknown, StoreUnavailable
from cloudlet.state.database import WRITES_WAITING_MAX, Database, Transaction
from cloudlet.state.files import migrations, parse_queries, queries
from cloudlet.state.sqlite import SqliteRecords

pytestmark = pytest.mark.anyio


async def test_records_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    records = SqliteRecords(path)
    await records.create_environment("shop")
    credential, sequence = await records.credential("shop"), records.sequence()
    records.close()
    again = SqliteRecords(path)
    assert [e.name for e in again.environments()] == ["default", "shop"]
    assert await again.credential("shop") == credential
    assert again.sequence() == sequence
    again.close()


async def test_after_a_failure_of_the_disk_nobody_is_told_to_try_again(tmp_path: Path) -> None:
    records = SqliteRecords(tmp_path / "control.db")

    def fail(_: Transaction) -> None:
        raise apsw.IOError("IOError: disk I/O error")

    with pytest.raises(OutcomeUnknown, match="the disk failed"):
        await records._database.write(fail)
    await records.create_environment("shop")
    assert [e.name for e in records.environments()] == ["default", "shop"]
    records.close()


def test_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    SqliteRecords(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    SqliteRecords(path).close()
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", len(migrations()) + 1)
    connection.close()
    with pytest.raises(InvalidRequest, match=r"made by a newer cloudlet.*upgrade cloudlet"):
        SqliteRecords(path)
    with pytest.raises(InvalidRequest, match="newer"):
        SqliteRecords.open_readonly(path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreUnavailable):
        SqliteRecords(path)


async def test_a_reader_sees_what_the_writer_committed_and_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    with pytest.raises(StoreUnavailable, match="not there yet"):
        SqliteRecords.open_readonly(path)
    records = SqliteRecords(path)
    reader = SqliteRecords.open_readonly(path)
    await records.create_environment("shop")
    assert reader.snapshot() == records.snapshot()
    with pytest.raises(StoreUnavailable):
        await reader.create_environment("other")
    reader.close()
    records.close()


async def test_a_full_disk_changes_nothing_and_passes(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    records = SqliteRecords(path)
    writer = records._database._writer
    assert writer is not None
    await records.create_environment("before")
    pages = writer._connection.pragma("page_count")
    writer._connection.pragma("max_page_count", pages)
    sequence = records.sequence()
    with pytest.raises(StoreUnavailable):
        for number in range(2000):
            await records.set_environment_alias(f"alias-{number:04}-{'x' * 50}", "default")
    full = records.snapshot()
    assert full.sequence >= sequence
    assert len(full.environments[1].aliases) == full.sequence - sequence
    writer._connection.pragma("max_page_count", pages + 1000)
    await records.create_environment("after")
    records.close()


async def test_a_failing_write_does_not_take_others_of_its_group_with_it(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db")

    def half_done(t: Transaction) -> None:
        t.run("add_environment", "half", 1.0)
        raise AlreadyExists

    with pytest.raises(AlreadyExists):
        await database.write(half_done)
    await database.write(lambda t: t.run("add_environment", "whole", 1.0))
    assert database.rows("environments") == [("whole", 1.0)]
    assert database.rows("sequence") == [(1,)]
    database.close()
    database.close()


async def test_too_many_waiting_writes_are_refused_at_once(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db")
    started, go_on = threading.Event(), threading.Event()

    def slow(t: Transaction) -> None:
        started.set()
        go_on.wait(30)

    first = asyncio.create_task(database.write(slow))
    await asyncio.to_thread(started.wait, 30)
    waiting = [
        asyncio.create_task(database.write(lambda t: t.run("bump_sequence")))
        for _ in range(WRITES_WAITING_MAX)
    ]
    await asyncio.sleep(0)
    try:
        with pytest.raises(StoreUnavailable, match="too many"):
            await database.write(lambda t: t.run("bump_sequence"))
    finally:
        go_on.set()
    await asyncio.gather(first, *waiting)
    database.close()


_WRITER = """
import asyncio, sys
from pathlib import Path
from cloudlet.state.sqlite import SqliteRecords

async def main():
    records = SqliteRecords(Path(sys.argv[1]))
    for number in range(100_000):
        await records.create_environment(f"e{number}")
        print(f"e{number}", flush=True)

asyncio.run(main())
"""


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert writer.stdout is not None
    try:
        lines = [writer.stdout.readline() for _ in range(25)]
    finally:
        writer.kill()
        lines += writer.stdout.readlines()
        writer.wait()
        writer.stdout.close()
    # The log goes to the same place; a last line without its end was cut.
    answered = {line.strip() for line in lines if line.startswith("e") and line.endswith("\n")}
    records = SqliteRecords(path)
    names = {found.name for found in records.environments()}
    assert len(answered) > 20 and answered <= names
    assert records.sequence() == len(names)
    records.close()


def test_every_query_is_valid_sql_on_the_migrated_schema(tmp_path: Path) -> None:
    SqliteRecords(tmp_path / "control.db").close()
    connection = apsw.Connection(str(tmp_path / "control.db"))
    for name, sql in queries().items():
        connection.execute(f"EXPLAIN {sql}", (None,) * sql.count("?")).fetchall(), name
    connection.close()


def test_queries_need_a_description() -> None:
    assert parse_queries("-- a --\n-- Says what\nSELECT 1\n") == {"a": "SELECT 1"}
    with pytest.raises(Exception, match="description"):
        parse_queries("-- a --\nSELECT 1\n")
