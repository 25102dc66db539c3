"""The background work on indexes: counts costly queries, makes and removes automatic indexes, removes what
has expired.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import structlog

from cloudlet.docdb.base import CreateIndex, DropIndex, Found, Read, Store
from cloudlet.docdb.indexes.automatic import (
    COLLECTIONS_MAX,
    AutomaticPolicy,
    CollectionUse,
    decide,
)
from cloudlet.docdb.indexes.expiry import remove_expired
from cloudlet.docdb.indexes.shapes import AUTOMATIC_PREFIX, shape_of
from cloudlet.docdb.limits import DEFAULT_LIMITS, DocdbLimits
from cloudlet.model.clock import Clock
from cloudlet.model.errors import PlatformError, ShuttingDown

log = structlog.get_logger(__name__)

PACE_S: Final = 60.0
"""Between two rounds: a document expires up to so much later than it says."""
_UNKNOWN_COST: Final = 100_000
"""Documents that a query is taken to have looked at if it was ended for its cost."""
_Place = tuple[str, str]


class OpenStores(Protocol):
    """The stores that are open, by environment."""

    def opened(self) -> Iterable[tuple[str, Store]]: ...


class IndexKeeper:
    """One per process. ``note`` and ``note_too_costly`` are called with queries, ``run`` does the rest.

    ``automatic`` says whether a collection (environment, name) may have automatic indexes; those it has are
    removed when it says no.
    """

    def __init__(
        self,
        stores: OpenStores,
        clock: Clock,
        limits: DocdbLimits = DEFAULT_LIMITS,
        policy: AutomaticPolicy | None = None,
        automatic: Callable[[str, str], bool] = lambda _environment, _collection: True,
    ) -> None:
        self._stores = stores
        self._clock = clock
        self._limits = limits
        self._policy = policy or AutomaticPolicy()
        self._automatic = automatic
        self._uses: dict[_Place, CollectionUse] = {}

    def note(self, environment: str, read: Read, found: Found) -> None:
        """Count a query that was answered. Cheap for those that need no better index."""
        if found.examined >= self._policy.examined_min:
            self._count(environment, read, found.examined, max(len(found.rows), len(found.keys), found.count))
        if found.index is not None and found.index.startswith(AUTOMATIC_PREFIX):
            self._use(environment, read.collection).used_ms[found.index] = self._now_ms()

    def note_too_costly(self, environment: str, read: Read) -> None:
        """Count a query that was ended because it cost too much."""
        self._count(environment, read, _UNKNOWN_COST, 0)

    def refuse(self, environment: str, collection: str, index: str, store: Store) -> None:
        """Somebody removes an index: if it is an automatic one it is not made again."""
        info = store.catalog().get(collection)
        for known in info.indexes if info is not None else ():
            if known.name == index and known.automatic:
                self._use(environment, collection).refused.add(known.parts)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await asyncio.sleep(PACE_S)
            await self.round()

    async def round(self) -> None:
        """One round over all open stores; what fails is logged and tried again in the next."""
        for environment, store in list(self._stores.opened()):
            try:
                removed = await remove_expired(store, self._now_ms())
                if removed:
                    log.info("documents_expired", environment=environment, documents=removed)
                await self._keep_indexes(environment, store)
            except ShuttingDown:
                continue
            except PlatformError as exc:
                log.warning("index_round_failed", environment=environment, error=exc.message)

    async def _keep_indexes(self, environment: str, store: Store) -> None:
        for info in list(store.catalog().values()):
            use = self._uses.get((environment, info.name)) or CollectionUse()
            if any(index.automatic for index in info.indexes):
                use = self._use(environment, info.name)
            change: CreateIndex | DropIndex | None
            if self._automatic(environment, info.name):
                change = decide(info, use, self._policy, self._now_ms(), self._limits.indexes_max)
            else:
                unwanted = next((index for index in info.indexes if index.automatic), None)
                change = None if unwanted is None else DropIndex(info.name, unwanted.name)
            if change is not None:
                await self._make(environment, store, use, change)

    async def _make(
        self, environment: str, store: Store, use: CollectionUse, change: CreateIndex | DropIndex
    ) -> None:
        log.info(
            "automatic_index",
            environment=environment,
            collection=change.collection,
            index=change.name,
            made=isinstance(change, CreateIndex),
        )
        if isinstance(change, DropIndex):
            info = store.catalog()[change.collection]
            use.refused |= {i.parts for i in info.indexes if i.name == change.name and not i.ready}
            use.used_ms.pop(change.name, None)
            await store.define(change)
            return
        use.used_ms[change.name] = self._now_ms()
        try:
            await store.define(change)
        except PlatformError:
            use.refused.add(change.parts)
            raise

    def _count(self, environment: str, read: Read, examined: int, returned: int) -> None:
        shape = shape_of(read.where.node, read.sort)
        if shape is not None:
            use = self._use(environment, read.collection)
            use.note(shape, examined, returned, self._now_ms(), self._policy.window_ms)

    def _use(self, environment: str, collection: str) -> CollectionUse:
        place = (environment, collection)
        use = self._uses.get(place)
        if use is None:
            if len(self._uses) >= COLLECTIONS_MAX:
                del self._uses[next(iter(self._uses))]
            use = self._uses[place] = CollectionUse()
        return use

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)
