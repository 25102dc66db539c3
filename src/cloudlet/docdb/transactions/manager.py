"""All open transactions of this process: starting, committing and aborting them, and what ends them
otherwise.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import structlog

from cloudlet.docdb.base import Store
from cloudlet.docdb.limits import DEFAULT_LIMITS, DocdbLimits
from cloudlet.docdb.metrics import DocumentMetrics
from cloudlet.docdb.transactions.base import Documents
from cloudlet.docdb.transactions.guard import GuardedStore
from cloudlet.docdb.transactions.intents import Intents, Owner
from cloudlet.docdb.transactions.transaction import HeldBytes, Transaction, again
from cloudlet.docdb.transactions.view import TransactionView
from cloudlet.model.access import Access
from cloudlet.model.clock import Clock
from cloudlet.model.errors import (
    LimitExceeded,
    PermissionDenied,
    PlatformError,
    RevisionConflict,
    TransactionNotFound,
    Unavailable,
)

log = structlog.get_logger(__name__)

COMMITTED, ABORTED, EXPIRED, CONFLICT, FAILED = "committed", "aborted", "expired", "conflict", "failed"


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How a transaction ended, and what a later request about it is told (a repeated commit of one that was
    committed is told so).
    """

    committed: bool
    error: PlatformError


@dataclass(slots=True)
class _Room:
    """The transactions of one open store. It does not keep the store: who closes it closes them, too."""

    intents: Intents
    held: HeldBytes
    open: dict[str, Transaction] = field(default_factory=dict)
    outcomes: OrderedDict[str, _Outcome] = field(default_factory=OrderedDict)


class Transactions:
    """The transactions of all environments. Each belongs to the store it was started on.

    All methods must be called on one event loop. What is due is done by one timer that only runs while
    something is open; ``sweep`` does the same at once.
    """

    def __init__(
        self,
        clock: Clock,
        limits: DocdbLimits = DEFAULT_LIMITS,
        metrics: DocumentMetrics | None = None,
        new_id: Callable[[], str] = lambda: secrets.token_hex(20),
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._own = limits.transactions
        self._metrics = metrics or DocumentMetrics()
        self._new_id = new_id
        self._rooms: WeakKeyDictionary[Store, _Room] = WeakKeyDictionary()
        self._timer: asyncio.TimerHandle | None = None
        self._metrics.transactions.set_function(lambda: sum(len(room.open) for room in self._rooms.values()))

    def start(self, store: Store, access: Access, late: bool = False) -> str:
        """Open a transaction; returns its id, which is a secret. Nothing is read yet.

        ``late``: a conflict is told by the commit, not by the operation that meets it (for programs that
        repeat a transaction only then). Raises PermissionDenied for clients, LimitExceeded.
        """
        _check_server_side(access)
        room = self._room(store)
        if len(room.open) >= self._own.open_max:
            raise LimitExceeded(
                f"the environment has {self._own.open_max} open transactions; commit or abort some of them"
            )
        now = self._clock.monotonic()
        transaction = Transaction(self._new_id(), store, Owner(now), now + self._own.lifetime_s, late)
        room.open[transaction.id] = transaction
        self._arm()
        return transaction.id

    async def commit(self, store: Store, access: Access, transaction_id: str) -> None:
        """Write everything or nothing; a repeated commit is told the same again.

        Raises RevisionConflict, DuplicateKey, CollectionNotFound or InvalidDocument, and nothing was written;
        TransactionNotFound; OutcomeUnknown. After an Unavailable it may be tried again.
        """
        _check_server_side(access)
        room = self._room(store)
        outcome = room.outcomes.get(transaction_id)
        if outcome is not None:
            if outcome.committed:
                return
            raise again(outcome.error)
        transaction = self._found(room, transaction_id)
        if transaction.committing is None:
            transaction.committing = asyncio.create_task(self._commit(room, transaction))
            transaction.committing.add_done_callback(_retrieved)
        # A client that goes away does not stop a commit half way.
        await asyncio.shield(transaction.committing)

    def abort(self, store: Store, access: Access, transaction_id: str) -> None:
        """Forget the writes, which holds already for one that has failed. Raises TransactionNotFound."""
        _check_server_side(access)
        room = self._room(store)
        outcome = room.outcomes.get(transaction_id)
        if outcome is not None and not outcome.committed:
            return
        transaction = self._found(room, transaction_id)
        if transaction.committing is not None:
            raise TransactionNotFound("the transaction is being committed")
        self._end(room, transaction, ABORTED, TransactionNotFound("the transaction has been aborted"))

    def documents(self, store: Store, access: Access) -> Documents:
        """The documents as this caller sees them: in its transaction, or all that is committed. Raises
        TransactionNotFound, or the conflict that ended the transaction.
        """
        if not access.transaction:
            room = self._rooms.get(store)
            if room is None or not room.intents.held:
                return store
            return GuardedStore(store, room.intents, self._clock, self._own.write_wait_s)
        _check_server_side(access)
        room = self._room(store)
        outcome = room.outcomes.get(access.transaction)
        if outcome is not None:
            raise again(outcome.error)
        transaction = self._found(room, access.transaction)
        if transaction.committing is not None:
            raise TransactionNotFound("the transaction is being committed")
        return TransactionView(
            transaction,
            room.intents,
            room.held,
            self._clock,
            self._limits,
            lambda error: self._fail(room, transaction, error),
        )

    def sweep(self) -> None:
        """End what is past its time, and let go on who has waited long enough."""
        now = self._clock.monotonic()
        for room in list(self._rooms.values()):
            for transaction in list(room.open.values()):
                if transaction.deadline <= now and transaction.committing is None:
                    self._end(room, transaction, EXPIRED, self._expired())
            room.intents.sweep(now)

    def _room(self, store: Store) -> _Room:
        room = self._rooms.get(store)
        if room is None:
            room = self._rooms[store] = _Room(Intents(self._own), HeldBytes(self._own))
        return room

    def _found(self, room: _Room, transaction_id: str) -> Transaction:
        transaction = room.open.get(transaction_id)
        if transaction is None:
            raise TransactionNotFound()
        if transaction.deadline <= self._clock.monotonic() and transaction.committing is None:
            self.sweep()
            raise self._expired()
        return transaction

    def _expired(self) -> TransactionNotFound:
        return TransactionNotFound(f"the transaction was undone after {self._own.lifetime_s:g} s")

    async def _commit(self, room: _Room, transaction: Transaction) -> None:
        transaction.owner.busy += 1
        try:
            async with transaction.lock:
                if transaction.ended is not None:
                    raise again(transaction.ended)
                if transaction.doomed is not None:
                    raise transaction.doomed
                batch = transaction.batch(int(self._clock.now() * 1000))
                if batch is not None:
                    await transaction.store.commit_batch(batch)
        except Unavailable:
            transaction.committing = None
            raise
        except PlatformError as error:
            if isinstance(error, RevisionConflict):
                self._heat(room, transaction)
            self._fail(room, transaction, error)
            raise
        else:
            self._end(room, transaction, COMMITTED, TransactionNotFound("the transaction has been committed"))
        finally:
            transaction.owner.busy -= 1
            transaction.owner.touched_at = self._clock.monotonic()

    def _heat(self, room: _Room, transaction: Transaction) -> None:
        """It is not told which document was in the way; of a few, all become hot."""
        if len(transaction.written) <= self._own.claims_max:
            for key in transaction.written:
                room.intents.heat(key, self._clock.monotonic())

    def _fail(self, room: _Room, transaction: Transaction, error: PlatformError) -> None:
        if isinstance(error, RevisionConflict):
            self._end(room, transaction, CONFLICT, RevisionConflict(error.message))
        else:
            ended = TransactionNotFound(f"an error has ended the transaction: {error.message}")
            self._end(room, transaction, FAILED, ended)

    def _end(self, room: _Room, transaction: Transaction, outcome: str, error: PlatformError) -> None:
        """Let go of everything; only the first end counts."""
        if transaction.ended is not None:
            return
        transaction.ended = error
        del room.open[transaction.id]
        room.outcomes[transaction.id] = _Outcome(outcome == COMMITTED, error)
        if len(room.outcomes) > self._own.outcomes_kept_max:
            room.outcomes.popitem(last=False)
        room.held.charge(transaction, -transaction.size)
        transaction.written.clear()
        room.intents.release(transaction.owner, self._clock.monotonic())
        self._metrics.transactions_ended.labels(outcome).inc()
        if outcome == EXPIRED:
            log.info("transaction_expired", operations=transaction.operations)

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._own.sweep_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.sweep()
        if any(room.open or room.intents.waiting for room in self._rooms.values()):
            self._arm()


def _check_server_side(access: Access) -> None:
    if not access.admin:
        raise PermissionDenied("transactions are for server-side callers, such as functions")


def _retrieved(task: asyncio.Task[None]) -> None:
    """Whoever asked for the commit may be gone; its error is in the outcome then."""
    if not task.cancelled():
        task.exception()
