"""The open stores of this process, one per environment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from cloudlet.docdb.base import Store
from cloudlet.docdb.limits import DEFAULT_LIMITS, DocdbLimits
from cloudlet.docdb.memory import MemoryStore
from cloudlet.docdb.metrics import DocumentMetrics
from cloudlet.docdb.sqlite import SqliteStore
from cloudlet.docdb.workers import WorkerPool
from cloudlet.model.errors import ShuttingDown
from cloudlet.model.ids import check_environment_name


class Stores:
    """Opens an environment's store at its first use and keeps it until it is closed.

    ``open_store`` and ``erase`` (which removes what a store leaves behind) may block; they run in a thread.
    """

    def __init__(
        self,
        open_store: Callable[[str], Store],
        workers: WorkerPool | None = None,
        erase: Callable[[str], None] = lambda _name: None,
        metrics: DocumentMetrics | None = None,
    ) -> None:
        self.metrics = metrics or DocumentMetrics()
        self._open_store = open_store
        self._erase = erase
        self._workers = workers
        self._stores: dict[str, Store] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._closed = False
        self.metrics.stores.set_function(lambda: len(self._stores))
        if workers is not None:
            self.metrics.workers.set_function(lambda: len(workers.pids))
            self.metrics.waiting.set_function(lambda: workers.waiting)

    @classmethod
    def in_directory(
        cls,
        directory: Path,
        limits: DocdbLimits = DEFAULT_LIMITS,
        metrics: DocumentMetrics | None = None,
    ) -> Stores:
        """One SQLite file per environment: ``<environment>.db``."""
        metrics = metrics or DocumentMetrics()
        workers = WorkerPool(limits, metrics)
        return cls(
            lambda name: SqliteStore(_file(directory, name), limits, workers, metrics),
            workers,
            lambda name: _remove_files(_file(directory, name)),
            metrics,
        )

    @classmethod
    def in_memory(cls, limits: DocdbLimits = DEFAULT_LIMITS) -> Stores:
        """Stores that vanish with the process."""
        workers = WorkerPool(limits)
        return cls(lambda _name: MemoryStore(limits, workers), workers)

    def get(self, environment: str) -> Store | None:
        """The store if it is open already."""
        return self._stores.get(environment)

    async def open(self, environment: str) -> Store:
        """The environment's store. Raises what opening raises, and ShuttingDown after ``close``."""
        async with self._opening.setdefault(environment, asyncio.Lock()):
            if self._closed:
                raise ShuttingDown("the document stores are closed")
            store = self._stores.get(environment)
            if store is None:
                store = await asyncio.to_thread(self._open_store, environment)
                self._stores[environment] = store
            return store

    async def remove(self, environment: str) -> None:
        """Close one environment's store and remove its documents for good."""
        async with self._opening.setdefault(environment, asyncio.Lock()):
            await self._close_one(environment)
            await asyncio.to_thread(self._erase, environment)

    async def close(self) -> None:
        """Close everything; waiting writes are finished first."""
        self._closed = True
        for environment in list(self._stores):
            async with self._opening.setdefault(environment, asyncio.Lock()):
                await self._close_one(environment)
        if self._workers is not None:
            await self._workers.close()

    async def _close_one(self, environment: str) -> None:
        store = self._stores.pop(environment, None)
        if store is not None:
            await store.close()


def _file(directory: Path, environment: str) -> Path:
    return directory / f"{check_environment_name(environment)}.db"


def _remove_files(path: Path) -> None:
    """The file and its companions; the file last, so that a crash in between leaves no orphans to be
    replayed.
    """
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
