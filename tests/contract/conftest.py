"""The document stores that every contract is run against."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from cloudlet.docdb.base import CreateCollection, Preset, Store
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.memory import MemoryStore
from cloudlet.docdb.sqlite import SqliteStore
from cloudlet.docdb.workers import WorkerPool
from tests.contract.docdb_steps import LIMITS
from tests.docdb_postgres import OwnStore, postgres_server, postgres_url  # noqa: F401 - fixtures

StoreMaker = Callable[[DocdbLimits, WorkerPool | None], Store]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> StoreMaker:
    """Opens a document store of each kind."""
    if request.param == "memory":
        return MemoryStore
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        return lambda limits, workers: OwnStore(url, limits, workers)
    return lambda limits, workers: SqliteStore(tmp_path / "e.db", limits, workers)


@pytest.fixture
async def store(make_store: StoreMaker) -> AsyncIterator[Store]:
    """A store with the collection ``dishes`` and no process for costly queries."""
    made = make_store(LIMITS, None)
    await made.define(CreateCollection("dishes", Preset.PRIVATE))
    yield made
    await made.close()


@pytest.fixture
async def scanning_store(make_store: StoreMaker) -> AsyncIterator[Store]:
    """A store that has a process for what is too costly here."""
    workers = WorkerPool(LIMITS)
    made = make_store(LIMITS, workers)
    await made.define(CreateCollection("dishes", Preset.PRIVATE))
    yield made
    await made.close()
    await workers.close()
