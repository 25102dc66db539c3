"""Writes outside transactions: they wait, for a while, for the intents of transactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from cloudlet.docdb.base import CollectionInfo, Decision, Found, Read, Row, Store, Turn, id_key
from cloudlet.docdb.transactions.base import Key
from cloudlet.docdb.transactions.intents import Intents, Owner
from cloudlet.docdb.transactions.waiting import claim
from cloudlet.model.clock import Clock

T = TypeVar("T")


class GuardedStore:
    """A store whose writes wait until the documents they change are no longer about to be written by a
    transaction, `wait_s` seconds at most; after that they go first.
    """

    def __init__(self, store: Store, intents: Intents, clock: Clock, wait_s: float) -> None:
        self._store = store
        self._intents = intents
        self._clock = clock
        self._wait_s = wait_s

    def catalog(self) -> Mapping[str, CollectionInfo]:
        return self._store.catalog()

    async def read(self, read: Read) -> Found:
        return await self._store.read(read)

    async def commit(self, turn: Turn[T]) -> T:
        now = self._clock.monotonic()
        owner = Owner(now, busy=1)
        try:
            while True:
                try:
                    return await self._store.commit(replace(turn, decide=self._watched(turn, owner)))
                except _Held as held:
                    if not await claim(self._intents, owner, held.key, now + self._wait_s):
                        break
            return await self._store.commit(turn)
        finally:
            self._intents.release(owner, self._clock.monotonic())

    def _watched(self, turn: Turn[T], owner: Owner) -> Callable[[Sequence[Row]], Decision[T]]:
        """The turn's decision, which is not carried out if it would change what somebody else holds.

        It may run in the writer's thread: an intent that is taken a moment later is not seen, and then the
        transaction finds the change when it validates.
        """

        def decide(rows: Sequence[Row]) -> Decision[T]:
            decision = turn.decide(rows)
            for key in changed_keys(turn.collection, decision):
                if self._intents.holder(key) not in (None, owner):
                    raise _Held(key)
            return decision

        return decide


def changed_keys(collection: str, decision: Decision[T]) -> list[Key]:
    """The documents a decision writes."""
    keys = [
        put.before.id_key if put.before is not None else id_key(put.document["_id"]) for put in decision.puts
    ]
    return [(collection, key) for key in (*keys, *(row.id_key for row in decision.deletes))]


class _Held(Exception):
    """A transaction is about to write this document."""

    def __init__(self, key: Key) -> None:
        super().__init__(key)
        self.key = key
