"""Import jobs over a real store: what they write, how they end, and that they go on."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloudlet.docdb.base import Store, Turn
from cloudlet.docdb.service import DocumentService, IndexField, Query
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.transfer import imports as module
from cloudlet.docdb.transfer.imports import Imports, Wanted
from cloudlet.docdb.transfer.record import Import
from cloudlet.model.access import Access
from cloudlet.model.clock import SystemClock
from cloudlet.model.errors import (
    CollectionNotFound,
    Conflict,
    InvalidDocument,
    InvalidParameter,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    StoreUnavailable,
)

pytestmark = pytest.mark.anyio
ADMIN = Access("shop", admin=True)


async def pieces(text: str) -> AsyncIterator[bytes]:
    size = 7 if len(text) < 100_000 else 100_000
    for start in range(0, len(text), size):
        yield text[start : start + size].encode()


def lines(*documents: Any) -> str:
    return "".join(json.dumps(each) + "\n" for each in documents)


class Died(BaseException):
    """The process is no more."""


@dataclass
class Rig:
    stores: Stores
    documents: DocumentService
    imports: Imports
    directory: Path

    async def begin(self, text: str, **wanted: Any) -> Import:
        given = {"collection": "c", "format": "json", **wanted}
        return await self.imports.receive(Wanted("shop", **given), pieces(text))

    async def ended(self, job: Import) -> Import:
        """Wait until the job has ended."""
        data = self.directory / f"{job.id}.data"
        async with asyncio.timeout(30):
            while not job.ended or (data.exists() and not job.resumable):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)
        return job

    async def finish(self, *jobs: Import) -> Import:
        """Work until these jobs have ended."""
        async with self.working():
            for job in jobs:
                await self.ended(job)
        return jobs[0]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        work = asyncio.create_task(self.imports.run())
        try:
            yield
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    async def run(self, text: str, **wanted: Any) -> Import:
        return await self.finish(await self.begin(text, **wanted))

    async def found(self) -> list[dict[str, Any]]:
        return (await self.documents.find(ADMIN, "c", Query(sort={"_id": 1}, limit=1000))).documents


@asynccontextmanager
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    stores = Stores.in_directory(tmp_path / "documents")
    documents = DocumentService(stores)
    try:
        if "c" not in {info.name for info in await documents.list_collections("shop")}:
            await documents.create_collection("shop", "c")
        directory = tmp_path / "imports"
        yield Rig(stores, documents, Imports(stores, directory, SystemClock()), directory)
    finally:
        await stores.close()


def counts(job: Import) -> tuple[str, int, int, int, int]:
    return job.state, job.inserted, job.replaced, job.unchanged, job.failed


async def test_inserting_refuses_what_exists_and_goes_on(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.documents.insert(ADMIN, "c", [{"_id": 2, "old": True}])
        job = await r.run(lines({"_id": 1}, {"_id": 2}, {"_id": 1}, {"_id": [1]}, {"_id": 3}))
        assert counts(job) == ("done", 2, 0, 0, 3)
        assert [each.line for each in job.problems] == [2, 3, 4]
        assert await r.found() == [{"_id": 1}, {"_id": 2, "old": True}, {"_id": 3}]
        assert [path.suffix for path in r.directory.iterdir()] == [".json"]


async def test_upserting_replaces_and_the_last_line_counts(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.documents.insert(ADMIN, "c", [{"_id": 1, "a": 1}, {"_id": 2, "a": 1}])
        job = await r.run(
            lines({"_id": 1, "b": 2}, {"_id": 2, "a": 1}, {"_id": 1, "b": 3}, {"_id": 4}), mode="upsert"
        )
        assert counts(job) == ("done", 1, 2, 1, 0)
        assert await r.found() == [{"_id": 1, "b": 3}, {"_id": 2, "a": 1}, {"_id": 4}]


async def test_it_stops_at_the_first_failure_if_asked(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        job = await r.run(lines({"_id": 1}, {"_id": 1}, {"_id": 2}), stop_on_error=True)
        assert counts(job) == ("failed", 1, 0, 0, 1)
        assert job.message.startswith("stopped at line 2") and await r.found() == [{"_id": 1}]


async def test_one_document_in_the_way_of_an_index_leaves_the_others_alone(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.documents.create_index("shop", "c", "by_no", [IndexField("no")], unique=True)
        given = [{"_id": n, "no": n if n != 57 else 3} for n in range(100)]
        job = await r.run(lines(*given))
        assert counts(job) == ("done", 99, 0, 0, 1) and job.problems[0].line == 58
        assert {each["_id"] for each in await r.found()} == set(range(100)) - {57}


async def test_ids_are_made_and_ascend_with_the_lines(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.run(lines(*({"n": n} for n in range(450))))
        assert [each["n"] for each in await r.found()] == list(range(450))


@pytest.mark.parametrize("mode", ["insert", "upsert"])
@pytest.mark.parametrize("after", [0, 1, 2])
async def test_a_process_that_ends_anywhere_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, after: int
) -> None:
    """The process ends after a batch was committed and before that was noted."""
    text = lines(*({"n": n} for n in range(700)), {"_id": "x"}, {"_id": "x"})
    async with rig(tmp_path) as r:
        job = await r.begin(text, mode=mode)
        committed = 0
        real = r.imports._count

        async def dies(store: Store, job: Import, *rest: Any) -> None:
            nonlocal committed
            if committed == after:
                raise Died
            committed += 1
            await real(store, job, *rest)

        monkeypatch.setattr(r.imports, "_count", dies)
        with pytest.raises(BaseExceptionGroup) as ended:
            await r.imports.run()
        assert isinstance(ended.value.exceptions[0], Died)
        assert len(await r.found()) == (after + 1) * 200
    async with rig(tmp_path) as r:
        again = await r.imports.get("shop", job.id)
        await r.finish(again)
        failed = 1 if mode == "insert" else 0
        assert (again.state, again.inserted, again.failed) == ("done", 701, failed)
        found = await r.found()
        assert [each["n"] for each in found if "n" in each] == list(range(700)) and len(found) == 701


@pytest.mark.parametrize("error", [OutcomeUnknown, StoreUnavailable])
@pytest.mark.parametrize("written", [True, False])
async def test_a_batch_whose_outcome_is_not_known_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], written: bool
) -> None:
    monkeypatch.setattr(module, "TRIES_S", (0.0,))
    async with rig(tmp_path) as r:
        store = await r.stores.open("shop")
        real, failures = store.commit, [True]

        async def commit(turn: Turn[Any]) -> Any:
            if failures:
                failures.pop()
                if written:
                    await real(turn)
                raise error("the disk failed")
            return await real(turn)

        monkeypatch.setattr(store, "commit", commit)
        job = await r.run(lines(*({"_id": n} for n in range(300))))
        assert counts(job) == ("done", 300, 0, 0, 0)
        assert len(await r.found()) == 300


async def test_what_failed_goes_on_when_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRIES_S", ())
    async with rig(tmp_path) as r:
        store = await r.stores.open("shop")
        real, calls = store.commit, []

        async def commit(turn: Turn[Any]) -> Any:
            calls.append(turn)
            if len(calls) == 2:
                raise StoreUnavailable("the disk is full")
            return await real(turn)

        monkeypatch.setattr(store, "commit", commit)
        job = await r.run(lines(*({"_id": n} for n in range(500))))
        assert counts(job) == ("failed", 200, 0, 0, 0) and "disk is full" in job.message and job.resumable
        await r.finish(await r.imports.resume("shop", job.id))
        assert counts(job) == ("done", 500, 0, 0, 0) and job.message == ""
        with pytest.raises(Conflict):
            await r.imports.resume("shop", job.id)


async def test_cancelling_keeps_what_was_written(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        job = await r.begin(lines(*({"_id": n} for n in range(500))))
        await r.imports.cancel("shop", job.id)
        assert (await r.finish(job)).state == "cancelled" and await r.found() == []
        with pytest.raises(Conflict):
            await r.imports.cancel("shop", job.id)
        await r.finish(await r.imports.resume("shop", job.id))
        assert counts(job) == ("done", 500, 0, 0, 0)
        with pytest.raises(NotFound):
            await r.imports.get("other", job.id)


async def test_what_cannot_be_imported_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as r:
        with pytest.raises(CollectionNotFound):
            await r.begin(lines({}), collection="no")
        with pytest.raises(InvalidParameter, match="empty"):
            await r.begin("")
        with pytest.raises(InvalidDocument, match="JSON array"):
            await r.begin(" [{}]")
        monkeypatch.setattr(module, "WAITING_MAX", 2)
        await r.begin(lines({}))
        await r.begin(lines({}))
        with pytest.raises(LimitExceeded):
            await r.begin(lines({}))
        assert len(list(r.directory.glob("*.data"))) == 2
        await r.imports.forget("shop")
        assert await r.imports.of("shop") == [] and list(r.directory.iterdir()) == []


async def test_a_collection_that_is_dropped_ends_its_import(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        job = await r.begin(lines({"_id": 1}))
        await r.documents.drop_collection("shop", "c")
        assert "not exist" in (await r.finish(job)).message and job.state == "failed"


async def test_only_the_first_problems_are_kept(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        job = await r.run("nonsense\n" * 1000)
        assert job.failed == 1000 and len(job.problems) == 100


async def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"{}"
        raise ConnectionResetError

    async with rig(tmp_path) as r:
        with pytest.raises((ConnectionResetError, StoreUnavailable)):
            await r.imports.receive(Wanted("shop", "c", "json"), broken())
        assert list(r.directory.iterdir()) == []
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        text = "{}" * 200_000
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (100_000, hard)
        )  # Refuses to write more, as a full disk does.
        try:
            with pytest.raises(StoreUnavailable, match="cannot be stored"):
                await r.begin(text)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list(r.directory.iterdir()) == []


async def test_a_large_import_does_not_hold_up_another_environment(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.documents.create_collection("other", "c")
        store = await r.stores.open("shop")
        entered, go_on = asyncio.Event(), asyncio.Event()
        real = store.last_seq

        async def slow() -> int:
            entered.set()
            await go_on.wait()
            return await real()

        first, second = await r.begin(lines({"_id": 1})), await r.begin(lines({"_id": 2}))
        other = await r.imports.receive(Wanted("other", "c", "json"), pieces(lines({"_id": 1})))
        store.last_seq = slow  # type: ignore[method-assign]
        async with r.working():
            assert (await r.ended(other)).state == "done" and entered.is_set()
            assert (first.ended, second.ended) == (False, False)
            go_on.set()
            await r.ended(first)
            assert counts(await r.ended(second)) == ("done", 1, 0, 0, 0)
