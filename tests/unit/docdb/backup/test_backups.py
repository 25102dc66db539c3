"""Backups of real SQLite stores: whole copies, moments between them, restoring, and what can go wrong."""

from __future__ import annotations

import asyncio
import gzip
import os
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cloudlet.docdb.backup.manifest import Shelf
from cloudlet.docdb.backup.seal import Secret
from cloudlet.docdb.backup.service import Backups, Plan, Restore
from cloudlet.docdb.base import Preset
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.service import DocumentService, IndexField, Query
from cloudlet.docdb.stores import Stores
from cloudlet.model.access import Access
from cloudlet.model.errors import (
    AlreadyExists,
    CollectionNotFound,
    InvalidParameter,
    NotFound,
    PermissionDenied,
    StoreUnavailable,
)

pytestmark = pytest.mark.anyio
ADMIN = Access("shop", admin=True)
SECRET = Secret(b"correct horse battery")


@dataclass
class Hands:
    """A clock that is set by hand."""

    time: float = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@dataclass
class Rig:
    stores: Stores
    documents: DocumentService
    backups: Backups
    clock: Hands
    root: Path
    told: list[dict[str, Any]] = field(default_factory=list)

    async def add(self, name: str, *documents: dict[str, Any]) -> None:
        await self.documents.insert(ADMIN, name, documents)

    async def found(self, name: str, environment: str = "shop") -> list[dict[str, Any]]:
        access = Access(environment, admin=True)
        return (await self.documents.find(access, name, Query(sort={"_id": 1}, limit=1000))).documents

    async def restore(self, secret: Secret | None = None, **wanted: Any) -> Any:
        return await self.backups.restore("shop", Restore(**wanted), self.told.append, secret)

    @property
    def shelf(self) -> Shelf:
        return Shelf.of(self.root, "shop")

    def files(self) -> list[str]:
        return sorted(path.name for path in self.root.rglob("*") if path.is_file())


@asynccontextmanager
async def rig(
    tmp_path: Path, plan: Plan | None = None, secret: Secret | None = None, limits: DocdbLimits | None = None
) -> AsyncIterator[Rig]:
    clock = Hands()
    stores = Stores.in_directory(tmp_path / "documents", limits or DocdbLimits())
    documents = DocumentService(stores, clock)
    root = tmp_path / "backups"
    backups = Backups(stores, root, tmp_path / "work", clock, plan, lambda: secret)
    try:
        yield Rig(stores, documents, backups, clock, root)
        assert not list((tmp_path / "work").glob("*"))
    finally:
        await stores.close()


async def filled(rig: Rig) -> None:
    await rig.documents.create_collection("shop", "orders", Preset.READONLY)
    await rig.documents.create_collection("shop", "users")
    await rig.documents.create_index("shop", "orders", "by_no", [IndexField("no")], unique=True)
    await rig.documents.set_rule("shop", "users", '{"read": true, "write": false}')
    await rig.add("orders", *({"_id": f"o{n}", "no": n, "tags": [n, "x"]} for n in range(5)))
    await rig.add("users", {"_id": "u", "name": "A"})


async def test_a_backup_says_what_is_in_it_and_leaves_nothing_else(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await filled(r)
        manifest = await r.backups.make("shop")
        assert manifest.seq == 6 and manifest.environment == "shop" and not manifest.encrypted
        assert {name: each.documents for name, each in manifest.collections.items()} == {
            "orders": 5,
            "users": 1,
        }
        assert "by_no" in manifest.collections["orders"].indexes
        assert r.files() == sorted([manifest.file, f"{manifest.id}.json"])
        listed, moments = await r.backups.listed("shop")
        assert [each.id for each in listed] == [manifest.id]
        assert [(each.from_ms, each.to_ms) for each in moments] == [(manifest.at_ms, manifest.at_ms)]


async def test_collections_come_back_under_new_names_with_everything_that_belongs_to_them(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as r:
        await filled(r)
        await r.backups.make("shop")
        await r.documents.delete(ADMIN, "orders", {}, multi=True)
        done = await r.restore(names={"orders": "orders_old", "users": "users_old"})
        assert done.documents == {"orders_old": 5, "users_old": 1}
        assert [each["no"] for each in await r.found("orders_old")] == [0, 1, 2, 3, 4]
        assert await r.found("orders") == []
        orders = await r.documents.collection_info("shop", "orders_old")
        users = await r.documents.collection_info("shop", "users_old")
        assert orders.preset is Preset.READONLY
        assert [(each.name, each.unique) for each in orders.indexes if each.name == "by_no"] == [
            ("by_no", True)
        ]
        assert users.rule == '{"read": true, "write": false}'


async def test_a_whole_environment_comes_back_into_an_empty_one(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await filled(r)
        await r.backups.make("shop")
        assert (await r.restore(into="copy")).documents == {"orders": 5, "users": 1}
        assert await r.found("orders", "copy") == await r.found("orders")
        with pytest.raises(AlreadyExists, match="orders, users exist already"):
            await r.restore(into="copy")


async def test_nothing_that_is_there_is_replaced_unless_asked_and_then_it_is_backed_up_first(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as r:
        await filled(r)
        first = await r.backups.make("shop")
        await r.add("users", {"_id": "v"})
        r.clock.time += 1
        with pytest.raises(AlreadyExists, match="--replace"):
            await r.restore(names={"users": "users"})
        assert len(await r.found("users")) == 2
        await r.restore(backup=first.id, names={"users": "users"}, replace=True)
        assert [each["_id"] for each in await r.found("users")] == ["u"]
        newest = (await r.backups.listed("shop"))[0][0]
        assert newest.collections["users"].documents == 2


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({"names": {"nothing": "x"}}, CollectionNotFound),
        ({"names": {"users": "a", "orders": "a"}}, InvalidParameter),
        ({"backup": "full-1-2"}, NotFound),
        ({"backup": "../full-1-2"}, NotFound),
        ({"at_ms": 5}, NotFound),
        ({"backup": "full-1-2", "at_ms": 5}, InvalidParameter),
    ],
)
async def test_what_cannot_be_restored_is_refused(
    tmp_path: Path, wanted: dict[str, Any], error: type[Exception]
) -> None:
    async with rig(tmp_path) as r:
        await filled(r)
        await r.backups.make("shop")
        with pytest.raises(error):
            await r.restore(**wanted)
        assert [each.name for each in await r.documents.list_collections("shop")] == ["orders", "users"]


async def test_any_moment_between_copies_comes_back(tmp_path: Path) -> None:
    async with rig(tmp_path, Plan(3600, 7, 10)) as r:
        await filled(r)
        await r.backups.do_due("shop")
        moments: dict[int, list[dict[str, Any]]] = {}
        for step in range(6):
            r.clock.time += 11
            await r.add("orders", {"_id": f"n{step}", "no": 100 + step})
            await r.documents.update(ADMIN, "orders", {"_id": "o1"}, {"$set": {"no": 200 + step}})
            await r.documents.delete(ADMIN, "orders", {"_id": f"o{step}"} if step > 1 else {"_id": "none"})
            moments[int(r.clock.time * 1000)] = await r.found("orders")
            if step % 2:
                await r.backups.do_due("shop")
        for number, (at_ms, expected) in enumerate(moments.items()):
            await r.restore(at_ms=at_ms, names={"orders": f"past{number}"})
            assert await r.found(f"past{number}") == expected
        r.clock.time += 3600
        assert (await r.backups.listed("shop"))[1][-1].to_ms == int(r.clock.time * 1000)
        await r.restore(at_ms=int(r.clock.time * 1000) - 5000, names={"orders": "idle"})
        assert await r.found("idle") == await r.found("orders")
        with pytest.raises(NotFound, match="cannot be restored"):
            await r.restore(at_ms=int(r.clock.time * 1000) + 5000, names={"orders": "later"})


async def test_collections_that_came_and_went_are_as_they_were(tmp_path: Path) -> None:
    async with rig(tmp_path, Plan(3600, 7, 10)) as r:
        await filled(r)
        await r.backups.do_due("shop")
        r.clock.time += 11
        await r.documents.create_collection("shop", "new", Preset.ADMINWRITE)
        await r.add("new", {"_id": 1})
        await r.documents.drop_collection("shop", "users")
        await r.backups.do_due("shop")
        middle = int(r.clock.time * 1000)
        r.clock.time += 11
        await r.documents.drop_collection("shop", "new")
        await r.documents.create_collection("shop", "new")
        await r.add("new", {"_id": 2})
        await r.backups.do_due("shop")
        assert (await r.restore(at_ms=middle, into="one")).documents == {"new": 1, "orders": 5}
        assert await r.found("new", "one") == [{"_id": 1}]
        await r.restore(into="two")
        assert await r.found("new", "two") == [{"_id": 2}]


async def test_the_log_goes_on_after_a_restart_without_a_gap(tmp_path: Path) -> None:
    plan = Plan(3600, 7, 10)
    async with rig(tmp_path, plan) as r:
        await filled(r)
        await r.backups.do_due("shop")
        r.clock.time += 11
        await r.add("users", {"_id": "a"})
        await r.backups.do_due("shop")
    async with rig(tmp_path, plan) as r:
        r.clock.time += 100
        await r.add("users", {"_id": "b"})
        await r.backups.do_due("shop")
        assert len(r.shelf.manifests()) == 1 and len(r.shelf.segments()) == 2
        await r.restore(names={"users": "past"})
        assert [each["_id"] for each in await r.found("past")] == ["a", "b", "u"]


async def test_moments_while_a_copy_was_made_come_back_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(60, 7, 10)
    async with rig(tmp_path, plan) as r:
        await filled(r)
        await r.backups.do_due("shop")
        store = await r.stores.open("shop")
        real = store.backup
        moments: list[int] = []

        async def slow(target: Path) -> int:
            for name in ("before", "after"):
                r.clock.time += 5
                await r.add("users", {"_id": name})
                moments.append(int(r.clock.time * 1000))
                if name == "before":
                    seq = await real(target)
            r.clock.time += 5
            return seq

        monkeypatch.setattr(store, "backup", slow)
        r.clock.time += 61
        await r.add("orders", {"_id": "new", "no": 9})
        await r.backups.do_due("shop")
        assert len(r.shelf.manifests()) == 2
    async with rig(tmp_path, plan) as r:
        r.clock.time = moments[-1] / 1000 + 20
        await r.backups.do_due("shop")
        for number, at_ms in enumerate(moments):
            await r.restore(at_ms=at_ms, names={"users": f"past{number}"})
        await r.restore(names={"users": "now"})
        found = [[each["_id"] for each in await r.found(name)] for name in ("past0", "past1", "now")]
        assert found == [["before", "u"], ["after", "before", "u"], ["after", "before", "u"]]
        assert len((await r.backups.listed("shop"))[1]) == 1


async def test_a_gap_of_the_log_is_noticed_and_closed_by_a_new_copy(tmp_path: Path) -> None:
    async with rig(tmp_path, Plan(3600, 7, 10), limits=DocdbLimits(changes_kept_max=10)) as r:
        await filled(r)
        await r.backups.do_due("shop")
        for number in range(40):
            await r.add("users", {"_id": number})
        r.clock.time += 11
        await r.backups.do_due("shop")
        first, second = r.shelf.manifests()
        assert second.line != first.line and second.collections["users"].documents == 41
        await r.restore(names={"users": "past"})
        assert len(await r.found("past")) == 41
        with pytest.raises(NotFound):
            await r.restore(at_ms=first.at_ms + 1, names={"users": "between"})


async def test_old_copies_and_their_log_go_and_the_newest_stay(tmp_path: Path) -> None:
    async with rig(tmp_path, Plan(60, 2, 10)) as r:
        await filled(r)
        for number in range(5):
            await r.add("users", {"_id": number})
            await r.backups.do_due("shop")
            r.clock.time += 30
            await r.add("users", {"_id": f"x{number}"})
            await r.backups.do_due("shop")
            r.clock.time += 31
        kept = r.shelf.manifests()
        assert [each.collections["users"].documents for each in kept] == [8, 10]
        assert min(each.at_ms for each in r.shelf.segments()) > kept[0].at_ms
        await r.backups.do_due("shop")
        before = r.files()
        r.clock.time += 600
        await r.backups.do_due("shop")
        assert r.files() == before  # Nothing changed, so nothing is due.


async def test_an_encrypted_backup_needs_its_secret(tmp_path: Path) -> None:
    async with rig(tmp_path, Plan(3600, 7, 10), SECRET) as r:
        await filled(r)
        await r.add("users", {"_id": "s", "text": "a secret of somebody"})
        await r.backups.do_due("shop")
        r.clock.time += 11
        await r.add("users", {"_id": "t", "text": "a secret of somebody"})
        await r.backups.do_due("shop")
        assert len(r.files()) == 3
        for path in r.root.rglob("*"):
            assert path.is_dir() or b"secret of somebody" not in path.read_bytes()
        other = Backups(r.stores, r.root, tmp_path / "work", r.clock)
        with pytest.raises(InvalidParameter, match="is encrypted"):
            await other.restore("shop", Restore(names={"users": "past"}), r.told.append)
        with pytest.raises(PermissionDenied, match="wrong"):
            await other.restore(
                "shop", Restore(names={"users": "past"}), r.told.append, Secret(b"not this one")
            )
        done = await other.restore(
            "shop", Restore(names={"users": "past"}), r.told.append, Secret(b"correct horse battery")
        )
        assert done.documents == {"past": 3}


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("harm", ["cut", "flip", "gone", "swap"])
async def test_a_backup_that_was_changed_is_noticed(tmp_path: Path, sealed: bool, harm: str) -> None:
    async with rig(tmp_path, secret=SECRET if sealed else None) as r:
        await filled(r)
        manifest = await r.backups.make("shop")
        await r.add("orders", {"_id": "more", "no": 99})
        r.clock.time += 1
        other = await r.backups.make("shop")
        path = r.shelf.directory / manifest.file
        raw = bytearray(path.read_bytes())
        if harm == "gone":
            path.unlink()
        elif harm == "swap":
            path.write_bytes((r.shelf.directory / other.file).read_bytes())
        else:
            raw[len(raw) // 2] ^= 1
            path.write_bytes(raw if harm == "flip" else raw[:-100])
        with pytest.raises((StoreUnavailable, PermissionDenied)):
            await r.backups.rehearse("shop", manifest.id, r.told.append)
        with pytest.raises((StoreUnavailable, PermissionDenied)):
            await r.restore(backup=manifest.id, names={"orders": "past"})
        assert [each.name for each in await r.documents.list_collections("shop")] == ["orders", "users"]
        assert (await r.backups.rehearse("shop", None, r.told.append)).backup == other.id


async def test_the_manifest_of_an_encrypted_backup_cannot_be_changed(tmp_path: Path) -> None:
    async with rig(tmp_path, secret=SECRET) as r:
        await filled(r)
        manifest = await r.backups.make("shop")
        path = r.shelf.directory / f"{manifest.id}.json"
        path.write_bytes(path.read_bytes().replace(b'"environment":"shop"', b'"environment":"shoq"'))
        with pytest.raises(PermissionDenied, match="manifest"):
            await r.backups.rehearse("shop", None, r.told.append)


@pytest.mark.parametrize("harm", ["cut", "line", "gone"])
async def test_a_piece_of_the_log_that_was_changed_is_noticed(tmp_path: Path, harm: str) -> None:
    async with rig(tmp_path, Plan(3600, 7, 10)) as r:
        await filled(r)
        await r.backups.do_due("shop")
        for number in range(2):
            r.clock.time += 11
            await r.add("users", {"_id": number}, {"_id": -number - 1})
            await r.backups.do_due("shop")
        piece = r.shelf.segments()[0].path
        if harm == "gone":
            piece.unlink()
            done = await r.restore(names={"users": "past"})  # What follows without a gap.
            assert done.documents == {"past": 1}
            return
        if harm == "cut":
            piece.write_bytes(piece.read_bytes()[:-20])
        else:
            lines = gzip.decompress(piece.read_bytes()).split(b"\n")
            del lines[1]
            piece.write_bytes(gzip.compress(b"\n".join(lines)))
        with pytest.raises(StoreUnavailable, match="of the change log"):
            await r.restore(names={"users": "past"})


async def test_a_rehearsal_reports_what_it_has_opened(tmp_path: Path) -> None:
    async with rig(tmp_path, Plan(3600, 7, 10)) as r:
        await filled(r)
        await r.backups.do_due("shop")
        r.clock.time += 11
        await r.add("users", {"_id": "later"})
        await r.backups.do_due("shop")
        done = await r.backups.rehearse("shop", None, r.told.append)
        assert (done.documents, done.pieces, done.replayed, done.read) == ({"orders": 5, "users": 2}, 1, 1, 2)
        assert done.at_ms == int(r.clock.time * 1000)


async def test_a_backup_under_32_writers_is_of_one_moment(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.documents.create_collection("shop", "pairs")
        going = True

        async def write(writer: int) -> int:
            number = 0
            while going:
                # Two documents in one insert: a copy has both or none.
                await r.add("pairs", {"_id": f"{writer}-{number}-a"}, {"_id": f"{writer}-{number}-b"})
                number += 1
            return number

        writers = [asyncio.create_task(write(number)) for number in range(32)]
        manifests = []
        for _ in range(3):
            r.clock.time += 1
            manifests.append(await r.backups.make("shop"))
        going = False
        written = sum(await asyncio.gather(*writers))
        for number, manifest in enumerate(manifests):
            count = manifest.collections["pairs"].documents
            assert count % 2 == 0 and manifest.seq == count <= written * 2
            await r.restore(backup=manifest.id, names={"pairs": f"past{number}"})
            assert await r.documents.count(ADMIN, f"past{number}") == count
        assert [each.seq for each in manifests] == sorted(each.seq for each in manifests)


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """From now on the system refuses to let a file grow beyond this, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("where", ["copying", "sealing", "log"])
async def test_a_full_disk_leaves_no_part_of_a_backup(tmp_path: Path, where: str) -> None:
    async with rig(tmp_path, Plan(3600, 7, 10), secret=SECRET) as r:
        await filled(r)
        await r.add("users", *({"_id": n, "text": os.urandom(500).hex()} for n in range(500)))
        whole = await r.backups.make("shop")
        await r.add("users", *({"_id": -1 - n, "text": os.urandom(500).hex()} for n in range(500)))
        before = r.files()
        copy = tmp_path / "copy.db"
        await (await r.stores.open("shop")).backup(copy)
        size = copy.stat().st_size
        limit = {"copying": size // 2, "sealing": size, "log": 100_000}[where]
        r.clock.time += 11
        with files_limited_to(limit), pytest.raises(StoreUnavailable):
            if where == "log":
                await r.backups.do_due("shop")
            else:
                plain = Backups(r.stores, r.root, tmp_path / "work", r.clock, None, lambda: SECRET)
                await plain.make("shop")
        assert r.files() == before
        assert (await r.backups.rehearse("shop", None, r.told.append)).backup == whole.id
        await r.backups.do_due("shop")
        assert (await r.backups.rehearse("shop", None, r.told.append)).documents["users"] == 1001


async def test_what_a_killed_process_left_is_removed_at_the_start(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await filled(r)
        await r.backups.make("shop")
        whole = r.files()
        (tmp_path / "work" / "abc.db").write_bytes(b"x")
        for name in (".full-000000000009-9.db.part", "full-000000000009-9.db", ".log-x.gz.part"):
            (r.shelf.directory / name).write_bytes(b"x")
        await r.backups.run(lambda: ["shop"])  # Nothing by schedule: it only looks for leftovers.
        assert r.files() == whole


async def test_a_schedule_backs_up_every_environment_and_one_failure_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path, Plan(60, 2, 10)) as r:
        await filled(r)
        for name in ("a", "b"):
            await r.documents.create_collection(name, "c")
        (r.root).mkdir()
        (r.root / "a").write_text("in the way")
        rounds: list[int] = []

        async def pause(_seconds: float) -> None:
            rounds.append(1)
            if len(rounds) == 2:
                raise asyncio.CancelledError

        monkeypatch.setattr("cloudlet.docdb.backup.service.asyncio.sleep", pause)
        with pytest.raises(asyncio.CancelledError):
            await r.backups.run(lambda: ["a", "b", "empty", "shop"])
        monkeypatch.undo()
        assert [path.name for path in sorted(r.root.iterdir())] == ["a", "b", "shop"]
        assert len((await r.backups.listed("shop"))[0]) == 1
        assert (await r.backups.listed("empty"))[0] == []


async def test_a_deleted_environment_leaves_its_backups_but_not_to_its_successor(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await filled(r)
        manifest = await r.backups.make("shop")
        await r.backups.forget("shop")
        assert (await r.backups.listed("shop"))[0] == []
        assert manifest.file in r.files()
        with pytest.raises(NotFound, match="has no backup"):
            await r.restore(names={"users": "past"})


@pytest.mark.parametrize("raw", [b"short", b"x" * 5000])
def test_a_secret_has_a_sensible_size(raw: bytes) -> None:
    with pytest.raises(InvalidParameter, match="8 to 4096 bytes"):
        Secret(raw)
