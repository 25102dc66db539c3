"""Reading watches in tests: what is there now, without waiting for what may never come."""

from __future__ import annotations

import asyncio
from typing import Any

from cloudlet.docdb.watch.events import DocChange, WatchEvent
from cloudlet.docdb.watch.watch import Watch

PATIENCE_S = 10.0
"""Only a broken test waits so long."""


async def hear(watch: Watch) -> WatchEvent:
    """The next event."""
    async with asyncio.timeout(PATIENCE_S):
        return await anext(watch)


def said(event: WatchEvent) -> list[tuple[str, str, Any]]:
    """Queue type, data type and id of each change."""
    return [named(change) for change in event.changes]


def named(change: DocChange) -> tuple[str, str, Any]:
    return change.queue_type.value, change.data_type.value, change.document_id
