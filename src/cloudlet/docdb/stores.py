"""The open stores of this process, one per environment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from cloudlet.docdb.base import Store
from cloudlet.docdb.limits import DEFAULT_LIMITS, DocdbLimits
from cloudlet.docdb.memory import MemoryStore
from cloudlet.docdb.metrics import DocumentMetrics
from cloudlet.docdb.migrate.home import Home, PostgresHome
from cloudlet.docdb.migrate.record import SQLITE
from cloudlet.docdb.migrate.run import Move, Report, Told
from cloudlet.docdb.migrate.switch import SwitchStore
from cloudlet.docdb.workers import WorkerPool
from cloudlet.model.errors import Conflict, ShuttingDown


class Opener(Protocol):
    """Knows where environments are."""

    async def open(self, environment: str) -> Store:
        """The environment's store, made if it is new."""
        ...

    async def erase(self, environment: str) -> None:
        """Remove what a closed store leaves behind."""
        ...

    async def close(self) -> None:
        """Let go of everything; the stores are closed already."""
        ...


class Stores:
    """Opens an environment's store at its first use and keeps it until it is closed.

    ``open_store`` is an Opener, or a function that may block and runs in a thread; so does ``erase``, which
    goes with it. What is handed out stays the same object when an environment moves to another engine.
    """

    def __init__(
        self,
        open_store: Callable[[str], Store] | Opener,
        workers: WorkerPool | None = None,
        erase: Callable[[str], None] = lambda _name: None,
        metrics: DocumentMetrics | None = None,
    ) -> None:
        self.metrics = metrics or DocumentMetrics()
        self._opener: Opener = _Threaded(open_store, erase) if callable(open_store) else open_store
        self._workers = workers
        self._stores: dict[str, SwitchStore] = {}
        self._former: list[Store] = []
        """Engines that were moved away from; reads that began there may still go on."""
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
        postgres_url: str | None = None,
    ) -> Stores:
        """One SQLite file per environment, ``<environment>.db``; with ``postgres_url`` new environments are
        made in that database. Raises InvalidParameter for a wrong address.
        """
        metrics = metrics or DocumentMetrics()
        workers = WorkerPool(limits, metrics)
        return cls(Home(directory, limits, workers, metrics, postgres_url), workers, metrics=metrics)

    @classmethod
    def in_postgres(
        cls, url: str, limits: DocdbLimits = DEFAULT_LIMITS, metrics: DocumentMetrics | None = None
    ) -> Stores:
        """One schema per environment of one database. Raises InvalidParameter for a wrong address."""
        metrics = metrics or DocumentMetrics()
        workers = WorkerPool(limits, metrics)
        return cls(PostgresHome(url, limits, workers, metrics), workers, metrics=metrics)

    @classmethod
    def in_memory(cls, limits: DocdbLimits = DEFAULT_LIMITS) -> Stores:
        """Stores that vanish with the process."""
        workers = WorkerPool(limits)
        return cls(lambda _name: MemoryStore(limits, workers), workers)

    def get(self, environment: str) -> Store | None:
        """The store if it is open already."""
        return self._stores.get(environment)

    def opened(self) -> Iterable[tuple[str, Store]]:
        """The open stores by environment."""
        return self._stores.items()

    async def open(self, environment: str) -> Store:
        """The environment's store. Raises what opening raises, and ShuttingDown after ``close``."""
        async with self._opening.setdefault(environment, asyncio.Lock()):
            if self._closed:
                raise ShuttingDown("the document stores are closed")
            store = self._stores.get(environment)
            if store is None:
                store = self._stores[environment] = SwitchStore(await self._opener.open(environment))
            return store

    async def migrate(self, environment: str, to: str, tell: Told | None = None) -> Report:
        """Move an environment to another engine while it is used: to a PostgreSQL URL, or to ``"sqlite"``.

        Writes wait for the moment of the switch, and none that was answered is lost. After a failure or a
        crash the environment is where it was, and the same call goes on. Raises Conflict (it is there
        already, it is being moved already, these stores have no directory), InvalidParameter,
        AlreadyExists (the database has documents of the environment), StoreUnavailable.
        """
        move = self._move(environment, to, tell)
        await self.open(environment)
        report, former = await move.run(self._stores[environment])
        self._former.append(former)
        asyncio.get_running_loop().call_later(_RETIRE_S, self._retire, former)
        return report

    async def abandon_migration(self, environment: str) -> None:
        """Remove what an unfinished move has left. Raises Conflict if there is none, or it is running."""
        self._check_still(environment)
        await self._move(environment, SQLITE.engine, None).abandon()

    async def remove(self, environment: str) -> None:
        """Close one environment's store and remove its documents for good. Raises Conflict if it is being
        moved.
        """
        async with self._opening.setdefault(environment, asyncio.Lock()):
            self._check_still(environment)
            await self._close_one(environment)
            await self._opener.erase(environment)

    async def close(self) -> None:
        """Close everything; waiting writes are finished first."""
        self._closed = True
        for environment in list(self._stores):
            async with self._opening.setdefault(environment, asyncio.Lock()):
                await self._close_one(environment)
        for store in self._former:
            await store.close()
        self._former.clear()
        if self._workers is not None:
            await self._workers.close()
        await self._opener.close()

    def _check_still(self, environment: str) -> None:
        store = self._stores.get(environment)
        if store is not None and store.moving:
            raise Conflict("the environment is being moved: cancel that first")

    def _move(self, environment: str, to: str, tell: Told | None) -> Move:
        home = self._opener
        if not isinstance(home, Home):
            raise Conflict("only the environments of a data directory can be moved")
        if to == SQLITE.engine:
            return Move(home, environment, SQLITE, tell)
        return Move(home, environment, home.place(to), tell)

    def _retire(self, former: Store) -> None:
        """Close an engine once nobody reads there any more; ``close`` closes it if it comes first."""
        if former in self._former:
            task = asyncio.get_running_loop().create_task(former.close())
            task.add_done_callback(lambda _: self._former.remove(former) if former in self._former else None)

    async def _close_one(self, environment: str) -> None:
        store = self._stores.pop(environment, None)
        if store is not None:
            await store.close()


_RETIRE_S = 60.0
"""Longer than any read takes."""


class _Threaded:
    """Opens stores with a function that blocks."""

    def __init__(self, open_store: Callable[[str], Store], erase: Callable[[str], None]) -> None:
        self._open_store = open_store
        self._erase = erase

    async def open(self, environment: str) -> Store:
        return await asyncio.to_thread(self._open_store, environment)

    async def erase(self, environment: str) -> None:
        await asyncio.to_thread(self._erase, environment)

    async def close(self) -> None:
        pass
