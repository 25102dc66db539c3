"""Our side of bench-documents: an installation with one environment on SQLite and one on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cloudlet.cli.client import AdminClient
from cloudlet.docdb.migrate.record import Place, Record, write_record
from cloudlet.docdb.service import DocumentService, IndexField
from cloudlet.docdb.stores import Stores
from cloudlet.model.access import Access
from cloudlet.model.ids import DEFAULT_ENVIRONMENT
from cloudlet.settings import Paths

from . import notes
from .platform import BenchInstallation, ended
from .postgres import Postgres

ENVIRONMENTS = {"sqlite": DEFAULT_ENVIRONMENT, "postgres": "postgres"}
"""Engine → environment."""
DATABASE = "cloudlet"
ROLES = ("api", "envoy")
"""Processes on the way of a document call; SQLite's writing thread is in api."""
_BATCH = 1_000


def cpu_s(pids: Iterable[int]) -> float:
    """Processor time that these processes have used since they started; those that have ended count as 0."""
    return sum(map(_cpu_s, pids))


class Documents:
    """The running installation."""

    def __init__(self, running: BenchInstallation) -> None:
        self._running = running
        self.url = running.url
        processes = running.status()["processes"]
        self._pids = {str(each["name"]): int(each["pid"]) for each in processes if each["pid"]}

    def tokens(self, environment: str) -> dict[str, str]:
        """An access token for each owner."""
        client = AdminClient(Paths(self._running.data).admin_socket, "not running")
        path = f"/environments/{environment}/tokens"
        owners = [notes.owner(number) for number in range(notes.OWNERS)]
        return {name: str(client.post(path, {"openid": name})["access_token"]) for name in owners}

    def pid(self, role: str) -> int:
        """Of one of ROLES."""
        return self._pids[role]


@contextmanager
def documents_installation(folder: Path, postgres: Postgres) -> Iterator[Documents]:
    """A running installation whose environments hold the notes; ended whatever happens."""
    running = BenchInstallation(folder / "data", {"pool_node": "0", "pool_python": "0"})
    running.data.mkdir(parents=True)
    home = Paths(running.data).documents
    postgres.execute("postgres", f'CREATE DATABASE "{DATABASE}"')
    place = Place("postgresql", postgres.server.url(DATABASE))
    write_record(home, ENVIRONMENTS["postgres"], Record(place))
    asyncio.run(_fill(home))
    postgres.execute(DATABASE, "VACUUM ANALYZE")
    try:
        running.start()
        client = AdminClient(Paths(running.data).admin_socket, "not running")
        client.post("/environments", {"name": ENVIRONMENTS["postgres"]})
        yield Documents(running)
    finally:
        ended(running)


async def _fill(home: Path) -> None:
    """Before the installation starts: nobody else may have the files open."""
    stores = Stores.in_directory(home)
    service = DocumentService(stores)
    try:
        for environment in ENVIRONMENTS.values():
            for collection in ("notes", "fresh"):
                await service.create_collection(environment, collection)
                await service.set_rule(environment, collection, notes.RULE)
                index = [IndexField("_openid"), IndexField("at", descending=True)]
                await service.create_index(environment, collection, "newest", index)
            for first in range(0, notes.NOTES, _BATCH):
                batch = [notes.stored(number) for number in range(first, first + _BATCH)]
                await service.insert(Access(environment, admin=True), "notes", batch)
    finally:
        await stores.close()


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answer_is_right(operation: str, ours: bool, body: bytes) -> bool:
    """Whether an answer is what its request asked for."""
    answer = json.loads(body)
    if operation == "list20":
        return len(answer["list" if ours else "results"]) == 20
    if not ours:
        return {"get": "title", "insert": "objectId", "inc": "count"}[operation] in answer
    if operation == "inc":
        return bool(answer["updated"] == 1)
    return len(answer["list" if operation == "get" else "insertedIds"]) == 1
