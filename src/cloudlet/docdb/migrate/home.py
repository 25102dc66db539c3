"""Where the documents of an installation's environments are, and how a store is opened there."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cloudlet.docdb.base import Store
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.metrics import DocumentMetrics
from cloudlet.docdb.migrate.record import SQLITE, Place, Record, read_record, record_path, write_record
from cloudlet.docdb.sqlite import SqliteStore
from cloudlet.docdb.workers import WorkerPool
from cloudlet.model.errors import StoreUnavailable
from cloudlet.model.ids import check_environment_name

if TYPE_CHECKING:
    from cloudlet.docdb.postgres.database import Database


class Home:
    """One directory, and any number of PostgreSQL databases.

    An environment's record says which engine it has. Without a record it is in its SQLite file if there is
    one; a new environment goes to the database at ``url`` if one is given, else into a SQLite file. So no
    setting makes documents disappear.
    """

    def __init__(
        self,
        directory: Path,
        limits: DocdbLimits,
        workers: WorkerPool | None,
        metrics: DocumentMetrics,
        url: str | None = None,
    ) -> None:
        """Raises InvalidParameter for a wrong address, StoreUnavailable if the driver is missing."""
        self.directory = directory
        self.limits = limits
        self._workers = workers
        self._metrics = metrics
        self._url = url
        self._databases: dict[str, Database] = {}
        if url is not None:
            self._database(url)

    def file(self, environment: str) -> Path:
        """The SQLite file of an environment. Raises InvalidName."""
        return self.directory / f"{check_environment_name(environment)}.db"

    def moving(self, environment: str) -> Path:
        """What an unfinished move keeps. Raises InvalidName."""
        return self.file(environment).with_suffix(".moving")

    def record(self, environment: str) -> Record:
        """Where an environment is, or would be. Blocks. Raises StoreUnavailable."""
        found = read_record(self.directory, environment)
        if found is not None:
            return found
        if self._url is None or self.file(environment).exists():
            return Record(SQLITE)
        return Record(Place("postgresql"))

    def save(self, environment: str, record: Record) -> None:
        """From now on the environment is there. Blocks. Raises StoreUnavailable."""
        write_record(self.directory, environment, record)

    async def open(self, environment: str) -> Store:
        """The environment's store, made if it is new."""
        record = await asyncio.to_thread(self.record, environment)
        if record.place.engine == "postgresql" and not record_path(self.directory, environment).exists():
            # Written down before the first document, so that a setting taken away hides nothing.
            await asyncio.to_thread(self.save, environment, record)
        return await self.open_at(record.place, environment)

    async def open_at(self, place: Place, environment: str) -> Store:
        """A store at a certain place. Raises StoreUnavailable, Conflict."""
        if place.engine == "sqlite":
            return await asyncio.to_thread(
                SqliteStore, self.file(environment), self.limits, self._workers, self._metrics
            )
        from cloudlet.docdb.postgres.store import PostgresStore

        database = self._database(self.url_of(place))
        store = PostgresStore(database, environment, self.limits, self._workers, self._metrics)
        await store.start()
        return store

    async def erase(self, environment: str) -> None:
        """Remove an environment's documents for good, wherever they are or were."""
        record = await asyncio.to_thread(self.record, environment)
        places = [record.place, *([record.former.place] if record.former else [])]
        for place in places:
            await self.erase_at(place, environment)
        await asyncio.to_thread(shutil.rmtree, self.moving(environment), True)
        await asyncio.to_thread(record_path(self.directory, environment).unlink, True)

    async def erase_at(self, place: Place, environment: str) -> None:
        """Remove what is at one place."""
        if place.engine == "sqlite":
            await asyncio.to_thread(remove_files, self.file(environment))
            return
        from cloudlet.docdb.postgres.address import Address
        from cloudlet.docdb.postgres.load import erase

        await erase(Address(self.url_of(place)), environment)

    def place(self, url: str) -> Place:
        """A database to move to. Raises InvalidParameter for a wrong address."""
        self._database(url)
        return Place("postgresql", url)

    def url_of(self, place: Place) -> str:
        """The address of a place in PostgreSQL. Raises StoreUnavailable if it is nowhere written down."""
        url = place.url or self._url
        if url is None:
            raise StoreUnavailable(
                "these documents are in a PostgreSQL database whose address is no longer set: set it again"
            )
        return url

    def same(self, one: Place, other: Place) -> bool:
        """Whether two places are one."""
        if one.engine != other.engine:
            return False
        return one.engine == "sqlite" or self.url_of(one) == self.url_of(other)

    async def close(self) -> None:
        """Let go of the connections; the stores must be closed."""
        for database in self._databases.values():
            await database.close()
        self._databases.clear()

    def _database(self, url: str) -> Database:
        known = self._databases.get(url)
        if known is None:
            known = self._databases[url] = _driver()(url)
        return known


class PostgresHome:
    """Every environment in one database, without a directory: for processes that share everything."""

    def __init__(
        self, url: str, limits: DocdbLimits, workers: WorkerPool | None, metrics: DocumentMetrics
    ) -> None:
        """Raises InvalidParameter for a wrong address, StoreUnavailable if the driver is missing."""
        self._limits = limits
        self._workers = workers
        self._metrics = metrics
        self._database = _driver()(url)

    async def open(self, environment: str) -> Store:
        """The environment's store, made if it is new."""
        from cloudlet.docdb.postgres.store import PostgresStore

        store = PostgresStore(self._database, environment, self._limits, self._workers, self._metrics)
        await store.start()
        return store

    async def erase(self, environment: str) -> None:
        """Remove an environment's documents for good."""
        from cloudlet.docdb.postgres.load import erase

        await erase(self._database.address, environment)

    async def close(self) -> None:
        """Let go of the connections; the stores must be closed."""
        await self._database.close()


def remove_files(path: Path) -> None:
    """A SQLite file and its companions; the file last, so that a crash in between leaves no orphans to be
    replayed.
    """
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _driver() -> Callable[[str], Database]:
    try:
        from cloudlet.docdb.postgres.database import Database
    except ImportError as exc:
        raise StoreUnavailable(
            "the driver for PostgreSQL is not installed: pip install 'cloudlet[postgres]'"
        ) from exc
    return Database
