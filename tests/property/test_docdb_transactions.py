"""Transactions against a naive model, and money that is moved by many at once."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from cloudlet.docdb.limits import DocdbLimits, TransactionLimits
from cloudlet.docdb.memory import MemoryStore
from cloudlet.docdb.service import DocumentService, Query
from cloudlet.docdb.sqlite import SqliteStore
from cloudlet.docdb.stores import Stores
from cloudlet.model.access import Access
from cloudlet.model.errors import DuplicateKey, PlatformError, RevisionConflict, TransactionNotFound

pytestmark = pytest.mark.anyio

ADMIN = Access("e", admin=True)
IDS = st.integers(0, 2)
NUMBERS = st.integers(0, 6)


@dataclass
class Model:
    """What a transaction is, said slowly: a copy of everything, and whose version is looked at."""

    late: bool
    view: dict[int, int] | None = None
    versions: dict[int, int] = field(default_factory=dict)
    before: dict[int, int | None] = field(default_factory=dict)
    """What it has written, and how that was in the copy."""
    doomed: bool = False
    error: type[PlatformError] | None = None


class TransactionsAgainstModel(RuleBasedStateMachine):
    """Documents ``{_id, n}``. Everything outside a transaction comes from another process, which does not
    wait for intents.
    """

    transactions = Bundle("transactions")
    on_disk = False

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        limits = DocdbLimits(transactions=TransactionLimits(hot_s=0.0))
        path = Path(self.directory.name) / "e.db"
        self.stores = Stores(lambda _: SqliteStore(path, limits) if self.on_disk else MemoryStore(limits))
        self.here = DocumentService(self.stores, limits=limits)
        self.elsewhere = DocumentService(self.stores, limits=limits)
        self.documents: dict[int, int] = {}
        self.versions: dict[int, int] = {}
        self.intents: dict[int, str] = {}
        self.open: dict[str, Model] = {}

    def teardown(self) -> None:
        self.runner.run(self.stores.close())
        self.runner.close()
        self.directory.cleanup()

    @initialize(target=transactions, late=st.booleans())
    def make(self, late: bool) -> Any:
        self.runner.run(self.here.create_collection("e", "c"))
        for document_id in (0, 1):
            self.runner.run(self.here.insert(ADMIN, "c", [{"_id": document_id, "n": 3}]))
            self.changed(document_id, 3)
        return multiple(self.start(late), self.start(False), self.start(False))

    # The world outside.

    @rule(document_id=IDS, number=st.one_of(st.none(), NUMBERS))
    def write_outside(self, document_id: int, number: int | None) -> None:
        if number is None:
            deleted = self.runner.run(self.elsewhere.delete(ADMIN, "c", {"_id": document_id}))
            assert deleted == (document_id in self.documents)
        else:
            put = self.elsewhere.update(
                ADMIN, "c", {"_id": document_id}, {"n": number}, replace=True, upsert=True
            )
            self.runner.run(put)
        if self.documents.get(document_id) != number:
            self.changed(document_id, number)

    @invariant()
    def outside_only_commits_are_seen(self) -> None:
        if self.documents or self.open:
            found = self.runner.run(self.elsewhere.find(ADMIN, "c", Query({}))).documents
            assert {document["_id"]: document["n"] for document in found} == self.documents

    # Transactions.

    @rule(target=transactions, late=st.booleans())
    def start(self, late: bool) -> str:
        name = self.runner.run(self.here.start_transaction(ADMIN, late_conflicts=late))
        self.open[name] = Model(late)
        return name

    @rule(name=transactions, document_id=IDS)
    def get(self, name: str, document_id: int) -> None:
        model = self.begun(name)
        found = self.told(model, self.find(name, {"_id": document_id}))
        if found is not None:
            view = self.seen(name)
            assert found == ([view[document_id]] if document_id in view else [])

    @rule(name=transactions, low=NUMBERS, descending=st.booleans(), skip=st.integers(0, 2))
    def query(self, name: str, low: int, descending: bool, skip: int) -> None:
        model = self.begun(name)
        sort = {"n": -1 if descending else 1}
        found = self.told(model, self.find(name, {"n": {"$gte": low}}, sort=sort, skip=skip, limit=2))
        if found is not None:
            fitting = sorted((n for n in self.seen(name).values() if n >= low), reverse=descending)
            assert found == fitting[skip : skip + 2]

    @rule(name=transactions, document_id=IDS, number=NUMBERS)
    def add(self, name: str, document_id: int, number: int) -> None:
        model = self.begun(name)
        access = replace(ADMIN, transaction=name)
        changing = self.here.update(access, "c", {"_id": document_id}, {"$inc": {"n": number}})
        if not number or model.error or document_id not in self.seen(name):
            result = self.told(model, changing)
            assert model.error or (result is not None and result.updated == 0)
        else:
            self.written(name, document_id, self.seen(name)[document_id] + number, changing)

    @rule(name=transactions, document_id=IDS, number=NUMBERS)
    def insert(self, name: str, document_id: int, number: int) -> None:
        model = self.begun(name)
        access = replace(ADMIN, transaction=name)
        inserting = self.here.insert(access, "c", [{"_id": document_id, "n": number}])
        if model.error or document_id not in self.seen(name):
            self.written(name, document_id, number, inserting)
            return
        with pytest.raises(DuplicateKey):
            self.runner.run(inserting)
        self.ended(name, TransactionNotFound)

    @rule(name=transactions, document_id=IDS)
    def remove(self, name: str, document_id: int) -> None:
        model = self.begun(name)
        removing = self.here.delete(replace(ADMIN, transaction=name), "c", {"_id": document_id})
        if model.error or document_id not in self.seen(name):
            assert self.told(model, removing) in (None, 0)
        else:
            self.written(name, document_id, None, removing)

    @rule(name=consumes(transactions))
    def commit(self, name: str) -> None:
        model = self.open[name]
        writes = {key: (model.view or {}).get(key) for key, before in model.before.items()}
        effects = {key: after for key, after in writes.items() if after != model.before[key]}
        fits = all(self.versions.get(key, 0) == model.versions.get(key, 0) for key in effects)
        if model.error is None and (model.doomed or not fits):
            self.ended(name, RevisionConflict)
        if model.error is not None:
            self.told(model, self.here.commit_transaction(ADMIN, name))
            return
        self.runner.run(self.here.commit_transaction(ADMIN, name))
        self.ended(name, TransactionNotFound)
        for key, after in effects.items():
            self.changed(key, after)

    @rule(name=consumes(transactions))
    def abort(self, name: str) -> None:
        self.runner.run(self.here.abort_transaction(ADMIN, name))
        self.ended(name, TransactionNotFound)

    # How it is meant.

    def begun(self, name: str) -> Model:
        model = self.open[name]
        if model.view is None:
            model.view, model.versions = dict(self.documents), dict(self.versions)
        return model

    def seen(self, name: str) -> dict[int, int]:
        view = self.open[name].view
        assert view is not None
        return view

    async def find(self, name: str, condition: Any, **options: Any) -> list[int]:
        found = await self.here.find(replace(ADMIN, transaction=name), "c", Query(condition, **options))
        return [document["n"] for document in found.documents]

    def told(self, model: Model, call: Any) -> Any:
        """The answer, or None and the error that the transaction has ended with."""
        if model.error is None:
            return self.runner.run(call)
        with pytest.raises(model.error):
            self.runner.run(call)
        return None

    def written(self, name: str, key: int, after: int | None, call: Any) -> None:
        model = self.open[name]
        if model.error is None and key not in model.before and not model.doomed:
            held = self.intents.get(key, name) != name
            if held or self.versions.get(key, 0) != model.versions.get(key, 0):
                if model.late:
                    model.doomed = True
                    self.release(name)
                else:
                    self.ended(name, RevisionConflict)
            else:
                self.intents[key] = name
        self.told(model, call)
        if model.error is None:
            view = self.seen(name)
            model.before.setdefault(key, view.get(key))
            view.pop(key, None)
            if after is not None:
                view[key] = after

    def ended(self, name: str, error: type[PlatformError]) -> None:
        self.open[name].error = error
        self.release(name)

    def release(self, name: str) -> None:
        self.intents = {key: owner for key, owner in self.intents.items() if owner != name}

    def changed(self, key: int, after: int | None) -> None:
        self.versions[key] = self.versions.get(key, 0) + 1
        self.documents.pop(key, None)
        if after is not None:
            self.documents[key] = after


class OnDisk(TransactionsAgainstModel):
    """The same on SQLite."""

    on_disk = True


TestInMemory = TransactionsAgainstModel.TestCase
TestInMemory.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestOnDisk = OnDisk.TestCase
TestOnDisk.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)


ACCOUNTS, START = 6, 100


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("seed", range(4))
async def test_money_that_is_moved_is_neither_lost_nor_made(tmp_path: Path, seed: int, late: bool) -> None:
    """Random transfers by many at once in random order, with deposits outside transactions in between: the
    sum is right at the end and in every snapshot, and no account is overdrawn.
    """
    stores = Stores(lambda _: SqliteStore(tmp_path / "e.db") if seed % 2 else MemoryStore())
    service = DocumentService(stores)
    try:
        await service.create_collection("e", "c")
        await service.insert(ADMIN, "c", [{"_id": number, "n": START} for number in range(ACCOUNTS)])
        bank = Bank(service, Random(seed), late)
        deposits = sum(await asyncio.gather(*(bank.deposit() for _ in range(10)), *bank.transfers(40)))
        assert await bank.total(ADMIN) == ACCOUNTS * START + deposits
        assert bank.totals and all(total >= ACCOUNTS * START for total in bank.totals)
    finally:
        await stores.close()


@dataclass
class Bank:
    """Customers of one bank."""

    service: DocumentService
    random: Random
    late: bool
    totals: list[int] = field(default_factory=list)

    def transfers(self, count: int) -> list[Any]:
        return [self.transfer(*self.random.sample(range(ACCOUNTS), 2)) for _ in range(count)]

    async def deposit(self) -> int:
        account, amount = self.random.randrange(ACCOUNTS), self.random.randint(1, 5)
        await self.service.update(ADMIN, "c", {"_id": account}, {"$inc": {"n": amount}})
        return amount

    async def transfer(self, source: int, target: int) -> int:
        """Returns what it adds to the sum: nothing."""
        amount = self.random.randint(1, 80)
        for _ in range(100):
            name = await self.service.start_transaction(ADMIN, late_conflicts=self.late)
            try:
                await self.move(replace(ADMIN, transaction=name), source, target, amount)
                await self.service.commit_transaction(ADMIN, name)
                return 0
            except RevisionConflict:
                await self.service.abort_transaction(ADMIN, name)
        raise AssertionError("a transfer was never served")

    async def move(self, access: Access, source: int, target: int, amount: int) -> None:
        if self.random.random() < 0.3:
            self.totals.append(await self.total(access))
        balances = []
        for account in (source, target):
            found = await self.service.find(access, "c", Query({"_id": account}))
            balances.append(found.documents[0]["n"])
        if balances[0] < amount:
            return
        for account, balance in ((source, balances[0] - amount), (target, balances[1] + amount)):
            await self.service.update(access, "c", {"_id": account}, {"$set": {"n": balance}})

    async def total(self, access: Access) -> int:
        found = (await self.service.find(access, "c", Query({}))).documents
        assert all(document["n"] >= 0 for document in found)
        return sum(document["n"] for document in found)
