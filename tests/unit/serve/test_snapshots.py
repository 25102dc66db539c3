"""The control records, read beside the event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cloudlet.model.function import FunctionConfig, VersionKey
from cloudlet.serve.snapshots import Snapshots
from cloudlet.state.sqlite import SqliteRecords

pytestmark = pytest.mark.anyio


async def test_the_newest_records_and_the_same_object_while_nothing_changes(tmp_path: Path) -> None:
    records = SqliteRecords(tmp_path / "control.db")
    snapshots = Snapshots(tmp_path / "control.db")
    try:
        first = await snapshots.newest()
        assert first == records.snapshot()
        assert await snapshots.newest() is first
        for number in range(3):
            key = VersionKey("default", f"f{number}", "a" * 16)
            await records.add_version(key, FunctionConfig(), "/code", 1.0)
            await records.point_alias(key, "$LATEST", 1.0)
            many = await asyncio.gather(*(snapshots.newest() for _ in range(4)))
            assert all(each == records.snapshot() for each in many)
        await records.delete_function("default", "f1")
        latest = await snapshots.newest()
        assert [version.function for version in latest.versions] == ["f0", "f2"]
    finally:
        snapshots.close()
        records.close()
