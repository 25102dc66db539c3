"""A document service on a real file, with a clock that stands until it is moved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloudlet.docdb.base import Preset
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.service import DocumentService
from cloudlet.docdb.sqlite import SqliteStore
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.workers import WorkerPool

LIMITS = DocdbLimits(
    examined_inline_max=50, turn_documents_max=20, insert_documents_max=300, workers_max=1, scan_time_s=5.0
)


class ManualClock:
    """Wall time that the test moves."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    workers = WorkerPool(LIMITS)
    made = Stores(lambda name: SqliteStore(tmp_path / f"{name}.db", LIMITS, workers), workers)
    yield made
    await made.close()


@pytest.fixture
async def service(stores: Stores, clock: ManualClock) -> DocumentService:
    """One collection per preset, named like it in lower case."""
    made = DocumentService(stores, clock, LIMITS)
    for preset in Preset:
        await made.create_collection("e", preset.value.lower(), preset)
    return made
