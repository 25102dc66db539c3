"""Every store gives the same answers: random schema changes, writes and queries, step by step."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from cloudlet.docdb.base import Preset
from cloudlet.docdb.ids import IdSource
from cloudlet.docdb.memory import MemoryStore
from cloudlet.docdb.service import DocumentService, IndexField, Query
from cloudlet.docdb.sqlite import SqliteStore
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.values import identical
from cloudlet.model.access import Access
from cloudlet.model.errors import PlatformError
from tests.docdb_postgres import OwnStore, postgres_server, postgres_url  # noqa: F401 - fixtures

pytestmark = pytest.mark.anyio

ADMIN, ANN, BEN = Access("e", admin=True), Access("e", openid="ann"), Access("e", uid="ben")
SCALARS = [None, True, 0, 1, 2, 3, 1.5, 2**53 + 1, "a", "ab", "x" * 200]


class FixedClock:
    """A clock that stands."""

    def now(self) -> float:
        return 1_800_000_000.0

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture(params=["sqlite", "postgres"])
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """Stores that are compared with those in memory."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        return Stores(lambda name: OwnStore(url, environment=name))
    return Stores(lambda name: SqliteStore(tmp_path / f"{name}.db"))


@pytest.fixture
async def services(durable: Stores) -> AsyncIterator[tuple[DocumentService, DocumentService]]:
    memory = Stores(lambda _name: MemoryStore())
    made = [DocumentService(stores, FixedClock(), ids=IdSource(zeros)) for stores in (memory, durable)]
    yield made[0], made[1]
    await memory.close()
    await durable.close()


def zeros(size: int) -> str:
    """Random digits that are the same for both services."""
    return "00" * size


class Steps:
    """Random calls of the document service; the seed makes them repeatable."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.number = 0

    def value(self, depth: int = 2) -> Any:
        roll = self.random.random()
        if depth and roll < 0.2:
            return [self.value(depth - 1) for _ in range(self.random.randint(0, 3))]
        if depth and roll < 0.3:
            return {
                name: self.value(depth - 1) for name in self.random.sample("ab", self.random.randint(0, 2))
            }
        return self.random.choice(SCALARS)

    def filter(self) -> dict[str, Any]:
        path = self.random.choice(["a", "b", "a.b", "_id", "_id"])
        condition = self.random.choice(
            [
                self.value(),
                {"$gt": self.random.choice(SCALARS), "$lte": self.random.choice(SCALARS)},
                {"$in": [self.random.choice(SCALARS), self.value()]},
                {"$ne": self.value(1)},
            ]
        )
        either = {"$or": [{path: condition}, {"b": self.value()}]}
        return self.random.choice(
            [{path: condition}, {}, either, {"$and": [self.partial(), {path: condition}]}]
        )

    def partial(self) -> dict[str, Any]:
        return self.random.choice(
            [{"a": {"$gt": 1}}, {"b": {"$exists": True}}, {"$or": [{"a": 1}, {"b": 2}]}]
        )

    def update(self) -> dict[str, Any]:
        path = self.random.choice(["a", "b", "a.b", "b.0", "_openid"])
        name = self.random.choice(["$set", "$inc", "$push", "$addToSet", "$unset", "$min", "$pull"])
        return {name: {path: 1 if name == "$inc" else self.value()}}

    def document(self) -> dict[str, Any]:
        self.number += 1
        document = {"_id": self.random.choice([self.number, self.random.choice(SCALARS[2:])])}
        return {**document, **{name: self.value() for name in self.random.sample("ab", 2)}}

    def call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """Name, arguments and keywords of a call."""
        random, access = self.random, self.random.choice([ADMIN, ADMIN, ANN, BEN])
        kind = random.random()
        if kind < 0.35:
            documents = [self.document() for _ in range(random.choice([1, 1, 3]))]
            return "insert", (access, "c", documents), {}
        if kind < 0.55:
            flags = {"multi": random.random() < 0.5, "upsert": random.random() < 0.2}
            return "update", (access, "c", self.filter(), self.update()), flags
        if kind < 0.6:
            replacement = {name: self.value() for name in "ab"}
            return (
                "update",
                (access, "c", {"_id": self.number}, replacement),
                {"replace": True, "upsert": True},
            )
        if kind < 0.65:
            return "delete", (access, "c", self.filter()), {"multi": random.random() < 0.3}
        if kind < 0.7:
            return "count", (access, "c", self.filter()), {}
        if kind < 0.74:
            fields = [IndexField(path, random.random() < 0.5) for path in random.sample(["a", "b", "a.b"], 2)]
            name = random.choice(["i", "j", "k"])
            choices: list[dict[str, Any]] = [
                {},
                {},
                {"sparse": True},
                {"partial": self.partial()},
                {"expire_after_s": 1},
            ]
            options = random.choice(choices)
            fields = fields[:1] if random.random() < 0.3 else fields
            return "create_index", ("e", "c", name, fields, random.random() < 0.2), options
        if kind < 0.76:
            return "drop_index", ("e", "c", random.choice(["i", "j", "k"])), {}
        if kind < 0.77:
            return "set_preset", ("e", "c", random.choice(list(Preset))), {}
        sort = random.choice([None, {"a": 1}, {"b": -1, "_id": 1}, {"_id": -1}])
        query = Query(self.filter(), sort, random.choice([0, 2]), random.choice([None, 3]))
        return "find", (access, "c", query), {}


async def outcome(
    service: DocumentService, name: str, args: tuple[Any, ...], keywords: dict[str, Any]
) -> Any:
    try:
        result = await getattr(service, name)(*args, **keywords)
    except PlatformError as exc:
        return [type(exc).__name__, exc.message]
    if name == "find":
        return result.documents
    return repr(result)


@pytest.mark.parametrize("seed", range(6))
async def test_both_stores_give_the_same_answers(
    services: tuple[DocumentService, DocumentService], seed: int
) -> None:
    steps = Steps(seed)
    for service in services:
        await service.create_collection("e", "c", Preset.READONLY)
    failures = 0
    for _ in range(150):
        name, args, keywords = steps.call()
        memory = await outcome(services[0], name, args, keywords)
        other = await outcome(services[1], name, args, keywords)
        assert identical(memory, other), (name, args, keywords)
        failures += isinstance(memory, list) and len(memory) == 2 and isinstance(memory[0], str)
    assert failures < 100
    logs, stats = [], []
    for service in services:
        with contextlib.suppress(PlatformError):
            store = service._stores.get("e")
            assert store is not None
            stats.append(await store.stats("c"))
            logs.append([repr(change) for change in await store.changes(0, 1_000)])
    assert stats[0] == stats[1]
    assert logs[0] == logs[1]
    assert len(logs[0]) > 20
