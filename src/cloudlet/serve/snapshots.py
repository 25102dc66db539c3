"""The control records as a whole, read beside the event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cloudlet.functions.threads import in_thread
from cloudlet.state.base import Snapshot
from cloudlet.state.sqlite import SqliteRecords


class Snapshots:
    """Reads in a thread, because ten thousand functions take a tenth of a second, and through a connection of
    its own, because a connection knows one transaction at a time.

    Opening raises StoreUnavailable while the writer has not made the file ready.
    """

    def __init__(self, control_db: Path) -> None:
        self._records = SqliteRecords.open_readonly(control_db)
        self._reading = asyncio.Lock()
        self._latest: Snapshot | None = None

    async def newest(self) -> Snapshot:
        """The records as they are now; the same object while nothing changes. Raise StoreUnavailable."""
        async with self._reading:
            latest = self._latest
            if latest is None or self._records.sequence() != latest.sequence:
                latest = self._latest = await in_thread(self._records.snapshot)
            return latest

    def close(self) -> None:
        self._records.close()
