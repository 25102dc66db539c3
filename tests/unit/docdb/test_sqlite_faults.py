"""No acknowledged write is lost: full disks, failing syncs, torn writes, power failures and kills."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import apsw
import pytest

from cloudlet.docdb.base import CreateCollection, CreateIndex, Decision, Preset, Put, Turn
from cloudlet.docdb.catalog import key_part
from cloudlet.docdb.indexes.entries import entries_of
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.sqlite import SqliteStore
from cloudlet.docdb.values import Document
from cloudlet.model.errors import OutcomeUnknown, PlatformError, StoreUnavailable
from tests.unit.docdb.faulty_disk import Disk, under_sqlite

pytestmark = pytest.mark.anyio

LIMITS = DocdbLimits(changes_kept_max=10**6)


def full() -> Exception:
    return apsw.FullError("no space left")


def broken() -> Exception:
    return apsw.IOError("the disk is broken")


class Ledger:
    """What was told to the writers."""

    def __init__(self) -> None:
        self.acknowledged: set[object] = set()
        self.refused: set[object] = set()
        self.unknown: set[object] = set()

    async def put(self, store: SqliteStore, *documents: Document) -> bool:
        """Write in one turn; says whether that was acknowledged."""
        names = {document["_id"] for document in documents}
        turn = Turn("c", 1, lambda _: Decision(None, [Put(document) for document in documents]))
        try:
            await store.commit(turn)
        except StoreUnavailable:
            self.refused |= names
        except OutcomeUnknown:
            self.unknown |= names
        else:
            self.acknowledged |= names
            return True
        return False


async def write_on(store: SqliteStore, ledger: Ledger, writer: int, until: Callable[[], bool]) -> None:
    """Insert documents, some of them large, one or two per turn."""
    random = Random(writer)
    for number in itertools.count():
        if until():
            break
        names = [f"{writer}-{number}-{at}" for at in range(random.choice([1, 1, 2]))]
        size = random.choice([10, 200, 9_000])
        await ledger.put(store, *({"_id": name, "n": number, "text": "x" * size} for name in names))


async def check(path: Path, ledger: Ledger) -> None:
    """Everything acknowledged is there, nothing refused is, and log, entries and documents agree."""
    store = SqliteStore(path, LIMITS)
    try:
        rows = await store.scan("c", 0, 10**6)
        stored = {row.document["_id"]: row for row in rows}
        assert ledger.acknowledged <= set(stored)
        assert not ledger.refused & set(stored)
        assert set(stored) <= ledger.acknowledged | ledger.unknown
        changes = await store.changes(0, 10**6)
        assert [change.seq for change in changes] == list(range(1, len(stored) + 1))
        assert {change.document_id: change.seq for change in changes} == {
            name: row.rev for name, row in stored.items()
        }
        for index in store.catalog()["c"].indexes:
            wanted = sorted((key, row.did) for row in rows for key in entries_of(row.document, index).keys)
            found = store._reader.execute(f"SELECT k, did FROM x_{index.number} ORDER BY k, did").fetchall()
            assert found == wanted
        assert store._reader.pragma("integrity_check") == "ok"
        await Ledger().put(store, {"_id": "afterwards"})
    finally:
        await store.close()


async def opened(path: Path) -> SqliteStore:
    store = SqliteStore(path, LIMITS)
    await store.define(CreateCollection("c", Preset.PRIVATE))
    await store.define(CreateIndex("c", "n", (key_part("n"),)))
    return store


async def lose_power(path: Path, seed: int) -> Ledger:
    """Four writers until the power fails at a random write or sync."""
    random = Random(seed)
    disk = Disk(random.randrange(1, 400), broken, dead=True)
    ledger = Ledger()
    with under_sqlite(disk):
        store = await opened(path)
        disk.armed = True
        await asyncio.gather(*(write_on(store, ledger, at, lambda: bool(disk.failed)) for at in range(4)))
        with suppress(PlatformError, apsw.Error):
            await store.close()
    disk.lose_power(random)
    # The shared memory of a machine that lost its power is gone.
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    # Without power nobody hears why; whatever was not acknowledged may or may not have reached the disk.
    ledger.unknown |= ledger.refused
    ledger.refused.clear()
    return ledger


@pytest.mark.parametrize("seed", range(12))
async def test_a_power_failure_loses_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    ledger = await lose_power(tmp_path / "e.db", seed)
    await check(tmp_path / "e.db", ledger)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 400))
async def test_power_failures_at_many_moments(tmp_path: Path, seed: int) -> None:
    ledger = await lose_power(tmp_path / "e.db", seed)
    await check(tmp_path / "e.db", ledger)


@pytest.mark.parametrize("error", [full, broken])
@pytest.mark.parametrize("kind", ["write", "sync"])
@pytest.mark.parametrize("at", [1, 2, 7, 23])
async def test_a_disk_that_fails_for_a_while(
    tmp_path: Path, error: Callable[[], Exception], kind: str, at: int
) -> None:
    """Writers hear the truth, those that come afterwards are served, and the file holds what was said."""
    disk = Disk(at, error, times=3, kinds=frozenset({kind}))
    ledger = Ledger()
    with under_sqlite(disk):
        store = await opened(tmp_path / "e.db")
        await ledger.put(store, {"_id": "first"})
        disk.armed = True
        late = itertools.count()
        await asyncio.gather(
            *(write_on(store, ledger, at, lambda: disk.failed >= 3 and next(late) > 20) for at in range(3))
        )
        assert disk.failed == 3
        assert ledger.refused | ledger.unknown
        assert await ledger.put(store, {"_id": "last"})
        await store.close()
    await check(tmp_path / "e.db", ledger)


async def test_a_backup_on_a_disk_that_fails_leaves_nothing(tmp_path: Path) -> None:
    disk = Disk(3, full, times=1, dead=False)
    ledger = Ledger()
    target = tmp_path / "copies"
    target.mkdir()
    with under_sqlite(disk):
        store = await opened(tmp_path / "e.db")
        await ledger.put(store, *({"_id": at, "text": "x" * 3_000} for at in range(50)))
        disk.armed = True
        with pytest.raises(StoreUnavailable):
            await store.backup(target / "e.db")
        assert list(target.iterdir()) == []
        disk.armed = False
        assert await store.backup(target / "e.db") == 50
        await store.close()
    await check(target / "e.db", ledger)


KILLED = """
import asyncio, sys
from pathlib import Path
from cloudlet.docdb.base import CreateCollection, CreateIndex, Decision, DropIndex, Preset, Put, Turn
from cloudlet.docdb.catalog import key_part
from cloudlet.docdb.sqlite import SqliteStore

async def write(store, name):
    for number in range(10**9):
        document = {"_id": f"{name}-{number}", "n": number, "text": "x" * 300}
        await store.commit(Turn("c", 1, lambda _: Decision(None, [Put(document)])))
        print(document["_id"], flush=True)

async def index(store):
    parts = (key_part("n"), key_part("text"))
    for number in range(10**9):
        await store.define(CreateIndex("c", f"i{number}", parts))
        print("made", f"i{number}", flush=True)
        await store.define(DropIndex("c", f"i{number}"))

async def back_up(store, folder):
    for number in range(10**9):
        seq = await store.backup(folder / f"{number}.db")
        print("saved", number, seq, flush=True)

async def main():
    path = Path(sys.argv[1])
    store = SqliteStore(path)
    await store.define(CreateCollection("c", Preset.PRIVATE))
    documents = [{"_id": f"old-{at}", "n": at, "text": "y"} for at in range(3_000)]
    await store.commit(Turn("c", 1, lambda _: Decision(None, [Put(document) for document in documents])))
    print("ready", flush=True)
    writers = [write(store, name) for name in "abcd"]
    await asyncio.gather(*writers, index(store), back_up(store, path.parent / "copies"))

asyncio.run(main())
"""


def kill_while_writing(path: Path, lines_wanted: int) -> list[str]:
    """What the process reported before it was killed in the middle of writes, index builds and backups."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(lines_wanted)]
    finally:
        os.kill(process.pid, signal.SIGKILL)
        rest, _ = process.communicate()
    lines += rest.splitlines(keepends=True)
    return [line.strip() for line in lines if line.endswith("\n")]


async def killed_once(folder: Path, seed: int) -> None:
    path = folder / "e.db"
    (folder / "copies").mkdir(parents=True)
    lines = await asyncio.to_thread(kill_while_writing, path, Random(seed).randrange(2, 120))
    ledger = Ledger()
    ledger.acknowledged = {line for line in lines if line.startswith(tuple("abcd")) and " " not in line}
    ledger.acknowledged |= {f"old-{at}" for at in range(3_000)}
    copies = {int(line.split()[1]): int(line.split()[2]) for line in lines if line.startswith("saved")}
    for number, seq in copies.items():
        copy = SqliteStore(folder / "copies" / f"{number}.db", LIMITS)
        assert await copy.last_seq() == seq == (await copy.stats("c")).documents
        await copy.close()
    store = SqliteStore(path, LIMITS)
    ledger.unknown = {row.document["_id"] for row in await store.scan("c", 0, 10**6)}
    assert all(index.ready for index in store.catalog()["c"].indexes)
    await store.close()
    await check(path, ledger)


async def test_a_kill_during_group_commit_index_build_and_backup(tmp_path: Path) -> None:
    for seed in range(2):
        await killed_once(tmp_path / str(seed), seed)


@pytest.mark.long
async def test_a_hundred_kills(tmp_path: Path) -> None:
    for seed in range(100):
        await killed_once(tmp_path / str(seed), seed)
