"""The documents as one transaction sees and changes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from cloudlet.docdb.base import CollectionInfo, Decision, Found, Keys, Put, Read, Row, Turn, Want, id_key
from cloudlet.docdb.body import encode_body
from cloudlet.docdb.catalog import duplicate_key
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.planner import Ids, plan
from cloudlet.docdb.sort import sort_documents
from cloudlet.docdb.transactions.base import Key
from cloudlet.docdb.transactions.intents import Intents
from cloudlet.docdb.transactions.snapshot import Snapshot
from cloudlet.docdb.transactions.transaction import HeldBytes, Transaction, Written, again
from cloudlet.docdb.transactions.waiting import claim
from cloudlet.docdb.values import Document
from cloudlet.model.clock import Clock
from cloudlet.model.errors import LimitExceeded, PlatformError, RevisionConflict

T = TypeVar("T")

SNAPSHOTS_MAX = 4
"""How often a first query is asked again because it found documents that had to be waited for."""


class TransactionView:
    """``Documents`` within a transaction.

    Every method raises LimitExceeded beyond the limits, which changes nothing; any other error ends the
    transaction: `end` is called with it.
    """

    def __init__(
        self,
        transaction: Transaction,
        intents: Intents,
        held: HeldBytes,
        clock: Clock,
        limits: DocdbLimits,
        end: Callable[[PlatformError], None],
    ) -> None:
        self._transaction = transaction
        self._store = transaction.store
        self._intents = intents
        self._held = held
        self._clock = clock
        self._limits = limits
        self._end = end

    def catalog(self) -> Mapping[str, CollectionInfo]:
        return self._store.catalog()

    async def read(self, read: Read) -> Found:
        async with self._operation():
            return await self._read(read)

    async def commit(self, turn: Turn[T]) -> T:
        """Run a turn on what the transaction sees, and keep what it decides for the commit."""
        async with self._operation():
            decision = turn.decide(await self._target(turn))
            await self._keep(turn.collection, decision)
            return decision.result

    @asynccontextmanager
    async def _operation(self) -> AsyncIterator[None]:
        transaction, limits = self._transaction, self._limits.transactions
        transaction.owner.busy += 1
        try:
            if transaction.operations >= limits.operations_max:
                raise LimitExceeded(f"a transaction may have {limits.operations_max} operations; commit it")
            transaction.operations += 1
            async with transaction.lock:
                self._check_open()
                yield
                self._check_open()
        except LimitExceeded:
            raise
        except PlatformError as exc:
            self._end(exc)
            raise
        finally:
            transaction.owner.busy -= 1
            transaction.owner.touched_at = self._clock.monotonic()

    def _check_open(self) -> None:
        if self._transaction.ended is not None:
            raise again(self._transaction.ended)

    # Reading.

    async def _target(self, turn: Turn[T]) -> Sequence[Row]:
        if turn.target is None:
            return ()
        if isinstance(turn.target, Keys):
            rows = await self._rows(turn.collection, turn.target.ids)
            return [rows[key] for key in turn.target.ids if key in rows]
        return (await self._read(Read(turn.collection, turn.target.where, limit=turn.target.limit))).rows

    async def _read(self, read: Read) -> Found:
        source = plan(read.where.node, (), ()).source
        few = isinstance(source, Ids) and len(source.keys) <= self._limits.transactions.claims_max
        if not isinstance(source, Ids) or not few or read.where.costly:
            return await self._query(read)
        rows = await self._rows(read.collection, source.keys)
        found = [row for row in rows.values() if read.where.match(row.document)]
        if read.want is Want.COUNT:
            return Found(count=len(found))
        sort_documents(found, read.sort, _document)
        found = found[read.skip : None if read.limit is None else read.skip + read.limit]
        if read.want is Want.KEYS:
            return Found(keys=[(row.id_key, row.rev, row.size) for row in found])
        return Found(rows=found)

    async def _rows(self, collection: str, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """Documents by their ids, in the order asked for."""
        transaction = self._transaction
        own = transaction.own(collection) if transaction.written else {}
        others = [key for key in keys if key not in own]
        if await self._wait_for_hot(collection, others) and transaction.snapshot is not None:
            await self._move(transaction.snapshot, collection, others)
        then = await (await self._begun()).rows(collection, others)
        for key in others:
            row = then.get(key)
            transaction.seen.setdefault((collection, key), None if row is None else row.rev)
        rows = {key: own[key] if key in own else then.get(key) for key in keys}
        return {key: row for key, row in rows.items() if row is not None}

    async def _query(self, read: Read) -> Found:
        transaction = self._transaction
        for _ in range(SNAPSHOTS_MAX):
            if transaction.snapshot is not None:
                break
            snapshot = await self._taken()
            found = await snapshot.find(read, {})
            keys = [row.id_key for row in found.rows] or [key for key, _, _ in found.keys]
            if not await self._wait_for_hot(read.collection, keys):
                transaction.snapshot, transaction.queried = snapshot, True
                return found
            # What was waited for has changed: nothing of this has been told, so begin again.
            self._held.charge(transaction, -snapshot.size)
        found = await (await self._begun()).find(read, transaction.own(read.collection))
        transaction.queried = True
        return found

    async def _begun(self) -> Snapshot:
        if self._transaction.snapshot is None:
            self._transaction.snapshot = await self._taken()
        return self._transaction.snapshot

    async def _taken(self) -> Snapshot:
        charge = lambda size: self._held.charge(self._transaction, size)  # noqa: E731
        return Snapshot(self._store, await self._store.last_seq(), self._limits, charge)

    async def _wait_for_hot(self, collection: str, keys: Sequence[bytes]) -> bool:
        """Get in line for the hot ones among these documents; whether any intent is new.

        Not for those that were read before: whoever holds one is about to change what was read, so that a
        write of it has to conflict, at once instead of after the wait.
        """
        owner, seen, now = self._transaction.owner, self._transaction.seen, self._clock.monotonic()
        if len(keys) > self._limits.transactions.claims_max or self._transaction.doomed is not None:
            return False
        granted = False
        # In one order for all transactions, so that they do not wait for each other.
        for key in sorted((collection, key) for key in keys):
            if key not in owner.held and key not in seen and self._intents.is_hot(key, now):
                deadline = now + self._limits.transactions.wait_s
                granted = await claim(self._intents, owner, key, deadline) or granted
                self._check_open()
        return granted

    async def _move(self, snapshot: Snapshot, collection: str, keys: Sequence[bytes]) -> None:
        """Take a newer snapshot if everything seen so far is the same in it: what was waited for is often
        what changed meanwhile.
        """
        transaction = self._transaction
        await snapshot.rows(collection, keys)
        if transaction.queried or not any(snapshot.is_stale((collection, key)) for key in keys):
            return
        newer = await self._taken()
        known: dict[str, dict[bytes, int | None]] = {}
        for (name, key), rev in transaction.known():
            known.setdefault(name, {})[key] = rev
        for name, revisions in known.items():
            rows = {row.id_key: row.rev for row in await self._store.get_many(name, list(revisions))}
            if any(rows.get(key) != rev for key, rev in revisions.items()):
                return
        self._held.charge(transaction, -snapshot.size)
        transaction.snapshot = newer

    # Writing.

    async def _keep(self, collection: str, decision: Decision[T]) -> None:
        """Note what is to be written: all of it or nothing."""
        effects: dict[Key, Row | None] = {}
        before: dict[Key, Row | None] = {}
        created = await self._created(collection, [put for put in decision.puts if put.before is None])
        for put in decision.puts:
            key = (collection, id_key(put.document["_id"]) if put.before is None else put.before.id_key)
            if key in effects and put.before is None:
                raise duplicate_key(collection, "_id_", put.document["_id"])
            before[key] = put.before or created[key[1]]
            effects[key] = self._row(key, put)
        for row in decision.deletes:
            before[(collection, row.id_key)], effects[(collection, row.id_key)] = row, None
        self._charge(effects)
        for key, after in effects.items():
            self._claim_write(key)
            known = self._transaction.written.get(key)
            if known is None:
                self._transaction.written[key] = Written(before[key], after)
            else:
                known.after = after

    async def _created(self, collection: str, puts: Sequence[Put]) -> dict[bytes, None]:
        """Check that new documents have new ids. Raises DuplicateKey."""
        keys = {id_key(put.document["_id"]): put.document["_id"] for put in puts}
        if keys:
            for key in await self._rows(collection, list(keys)):
                raise duplicate_key(collection, "_id_", keys[key])
        return dict.fromkeys(keys)

    def _row(self, key: Key, put: Put) -> Row:
        size = len(encode_body(put.document, self._limits.document_bytes_max))
        old = put.before
        return Row(0 if old is None else old.did, key[1], 0 if old is None else old.rev, size, put.document)

    def _charge(self, effects: Mapping[Key, Row | None]) -> None:
        """Raises LimitExceeded if that is more than a transaction may hold."""
        written, limit = self._transaction.written, self._limits.transactions.documents_max
        if len(written.keys() | effects.keys()) > limit:
            raise LimitExceeded(f"a transaction may write {limit} documents; commit in smaller parts")
        size = sum(0 if row is None else row.size for row in effects.values())
        freed = sum(written[key].size for key in effects if key in written)
        self._held.charge(self._transaction, size - freed)

    def _claim_write(self, key: Key) -> None:
        """Take the intent. Raises RevisionConflict (or keeps it for the commit) if the document has changed
        since the snapshot or another transaction is writing it.
        """
        transaction, snapshot = self._transaction, self._transaction.snapshot
        if transaction.doomed is not None or key in transaction.written:
            return
        if snapshot is not None and snapshot.is_stale(key):
            why = "was changed since the transaction began"
        elif not self._intents.take(transaction.owner, key):
            why = "is being written by another transaction"
        else:
            return
        self._intents.heat(key, self._clock.monotonic())
        conflict = RevisionConflict(f"a document of {key[0]} {why}")
        if not transaction.late:
            raise conflict
        transaction.doomed = conflict
        self._intents.release(transaction.owner, self._clock.monotonic())


def _document(row: Row) -> Document:
    return row.document
