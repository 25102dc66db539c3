"""Backups of an environment in PostgreSQL are the same files, and either engine restores them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudlet.docdb.backup.service import Backups, Plan, Restore
from cloudlet.docdb.service import DocumentService, IndexField, Query
from cloudlet.docdb.stores import Stores
from cloudlet.model.access import Access
from tests.docdb_postgres import postgres_server, postgres_url  # noqa: F401 - fixtures
from tests.unit.docdb.conftest import ManualClock

pytestmark = pytest.mark.anyio


async def test_moments_of_one_engine_are_restored_by_the_other(
    tmp_path: Path,
    postgres_url: str,  # noqa: F811 - the fixture
) -> None:
    clock = ManualClock()
    access = Access("shop", admin=True)
    there, here = Stores.in_postgres(postgres_url), Stores.in_directory(tmp_path / "documents")
    try:
        documents = DocumentService(there, clock)
        plan = Plan(3600, 7, 10)
        backups = Backups(there, tmp_path / "backups", tmp_path / "work", clock, plan)
        await documents.create_collection("shop", "users")
        await documents.create_index("shop", "users", "by_no", [IndexField("no")], unique=True)
        await documents.insert(access, "users", [{"_id": n, "no": n, "nul": "\x00"} for n in range(50)])
        await backups.do_due("shop")
        clock.seconds += 11
        await documents.update(access, "users", {"_id": 3}, {"$set": {"no": 300}})
        await documents.delete(access, "users", {"_id": 4})
        middle = int(clock.seconds * 1000)
        clock.seconds += 11
        await documents.delete(access, "users", {}, multi=True)
        await backups.do_due("shop")
        for stores in (there, here):
            service = DocumentService(stores, clock)
            doing = Backups(stores, tmp_path / "backups", tmp_path / "work", clock, plan)
            wanted = Restore(at_ms=middle, names={"users": "past"})
            await doing.restore("shop", wanted, lambda _: None)
            query = Query(sort={"_id": 1}, limit=100)
            found = (await service.find(access, "past", query)).documents
            expected = [{"_id": n, "no": 300 if n == 3 else n, "nul": "\x00"} for n in range(50) if n != 4]
            assert found == expected
            indexes = {index.name for index in (await service.collection_info("shop", "past")).indexes}
            assert "by_no" in indexes
    finally:
        await there.close()
        await here.close()
