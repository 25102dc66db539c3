"""Exports of a real store: their form, and that everything in them is of one moment."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cloudlet.docdb.service import DocumentService
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.transfer.export import HERE_DOCUMENTS, Exported, Exporter
from cloudlet.model.access import Access
from cloudlet.model.clock import SystemClock
from cloudlet.model.errors import CollectionNotFound, InvalidFilter, InvalidParameter

pytestmark = pytest.mark.anyio
ADMIN = Access("shop", admin=True)
LARGE = HERE_DOCUMENTS * 3


class Rig:
    def __init__(self, stores: Stores, directory: Path) -> None:
        self.stores = stores
        self.documents = DocumentService(stores)
        self.directory = directory
        self.exporter = Exporter(directory, SystemClock())

    async def export(self, **wanted: Any) -> bytes:
        pieces = self.exporter.write(await self.stores.open("shop"), Exported("c", **wanted))
        return b"".join([piece async for piece in pieces])


@asynccontextmanager
async def rig(tmp_path: Path, count: int) -> AsyncIterator[Rig]:
    stores = Stores.in_directory(tmp_path / "documents")
    try:
        r = Rig(stores, tmp_path / "exports")
        await r.documents.create_collection("shop", "c")
        for start in range(0, count, 500):
            numbers = range(start, min(count, start + 500))
            await r.documents.insert(ADMIN, "c", [{"_id": count - n, "n": n, "e": n % 2} for n in numbers])
        yield r
        assert not list(r.directory.glob("*"))
    finally:
        await stores.close()


@pytest.mark.parametrize("count", [0, 3, HERE_DOCUMENTS, LARGE])
@pytest.mark.parametrize("packed", [True, False])
async def test_all_documents_come_in_order_of_insertion(tmp_path: Path, count: int, packed: bool) -> None:
    async with rig(tmp_path, count) as r:
        raw = await r.export(relaxed=True, gzip=packed)
        lines = (gzip.decompress(raw) if packed else raw).splitlines()
        assert [json.loads(line)["n"] for line in lines] == list(range(count))


@pytest.mark.parametrize("count", [10, LARGE])
async def test_a_query_and_fields_narrow_it(tmp_path: Path, count: int) -> None:
    async with rig(tmp_path, count) as r:
        raw = await r.export(filter={"e": 1, "n": {"$lt": 6}}, fields=("n",))
        assert raw.decode().splitlines() == [
            f'{{"_id":{{"$numberInt":"{count - n}"}},"n":{{"$numberInt":"{n}"}}}}' for n in (1, 3, 5)
        ]
        table = await r.export(format="csv", filter={"n": {"$lt": 2}})
        assert table.decode() == f"_id,n,e\r\n{count},0,0\r\n{count - 1},1,1\r\n"


async def test_everything_is_of_one_moment_while_others_write(tmp_path: Path) -> None:
    async with rig(tmp_path, LARGE) as r:
        pieces = r.exporter.write(await r.stores.open("shop"), Exported("c", relaxed=True))
        first = await anext(pieces)
        await r.documents.update(ADMIN, "c", {}, {"$set": {"e": 9}}, multi=True)
        await r.documents.delete(ADMIN, "c", {"n": {"$gt": 10}}, multi=True)
        rest = [piece async for piece in pieces]
        lines = b"".join([first, *rest]).splitlines()
        assert len(lines) == LARGE
        assert {json.loads(line)["e"] for line in lines} == {0, 1}


async def test_a_reader_that_goes_away_leaves_no_copy(tmp_path: Path) -> None:
    async with rig(tmp_path, LARGE) as r:
        pieces = r.exporter.write(await r.stores.open("shop"), Exported("c"))
        await anext(pieces)
        assert list(r.directory.glob("*"))
        await pieces.aclose()  # type: ignore[attr-defined]
        task = asyncio.create_task(r.export())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({"filter": {"a": {"$wrong": 1}}}, InvalidFilter),
        ({"filter": {"n": {"$regex": "(a+)+$"}}}, InvalidFilter),
        ({"fields": ("a..b",)}, InvalidParameter),
        ({"fields": ("a", "a")}, InvalidParameter),
    ],
)
async def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, wanted: dict[str, Any], error: type[Exception]
) -> None:
    async with rig(tmp_path, 1) as r:
        with pytest.raises(error):
            await r.export(**wanted)
        with pytest.raises(CollectionNotFound):
            await anext(r.exporter.write(await r.stores.open("shop"), Exported("no")))
