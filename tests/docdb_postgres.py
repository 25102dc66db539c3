"""A PostgreSQL server for tests: one per process of the test run, one database per test."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from cloudlet.docdb.limits import DEFAULT_LIMITS, DocdbLimits
from cloudlet.docdb.postgres.database import Database
from cloudlet.docdb.postgres.local import LocalServer, find_programs, local_server
from cloudlet.docdb.postgres.store import PostgresStore
from cloudlet.docdb.workers import WorkerPool

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[LocalServer]:
    """The server; it ends with the session."""
    if find_programs() is None:
        pytest.skip("there is no PostgreSQL on this machine")
    # The path of a socket is short, and a user without rights has to reach it.
    directory = Path(tempfile.mkdtemp(prefix="cloudlet-pg-"))
    try:
        with local_server(directory, durable=False) as server:
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: LocalServer) -> Iterator[str]:
    """An empty database of the test's own."""
    name = f"t{os.getpid()}_{next(_numbers)}"
    _execute(postgres_server, f'CREATE DATABASE "{name}"')
    yield postgres_server.url(name)
    _execute(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


class OwnStore(PostgresStore):
    """A store that takes its database along when it is closed."""

    def __init__(
        self,
        url: str,
        limits: DocdbLimits = DEFAULT_LIMITS,
        workers: WorkerPool | None = None,
        environment: str = "e",
    ) -> None:
        self._own = Database(url)
        super().__init__(self._own, environment, limits, workers)

    async def close(self) -> None:
        await super().close()
        await self._own.close()


def _execute(server: LocalServer, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(server.url())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    # A fixture may be set up while a loop of an asynchronous one is alive, but never inside it.
    asyncio.run(run())
