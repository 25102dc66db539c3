"""The door to watches: checks who watches what, and where it begins."""

from __future__ import annotations

from dataclasses import dataclass

from cloudlet.docdb.base import Change, CollectionInfo, Store, find_collection
from cloudlet.docdb.filter import where
from cloudlet.docdb.limits import DEFAULT_LIMITS, DocdbLimits
from cloudlet.docdb.pipeline.expressions.binding import with_now
from cloudlet.docdb.sort import Sort, parse_sort
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.values import Value, prepare
from cloudlet.docdb.watch.begin import begin
from cloudlet.docdb.watch.guard import Grant, Guard
from cloudlet.docdb.watch.hub import Hub
from cloudlet.docdb.watch.live import Live
from cloudlet.docdb.watch.seats import Seats
from cloudlet.docdb.watch.token import digest_of, parse_token
from cloudlet.docdb.watch.watch import Asked, Watch
from cloudlet.model.access import Access
from cloudlet.model.clock import Clock, SystemClock
from cloudlet.model.errors import (
    InvalidFilter,
    InvalidParameter,
    PlatformError,
    QueryTooCostly,
    ShuttingDown,
    Unauthenticated,
)


@dataclass(frozen=True, slots=True)
class _Room:
    """The watches of one environment."""

    hub: Hub
    guard: Guard
    seats: Seats


class WatchService:
    """Watches of all environments. All methods must be called on one event loop."""

    def __init__(
        self, stores: Stores, clock: Clock | None = None, limits: DocdbLimits = DEFAULT_LIMITS
    ) -> None:
        self._stores = stores
        self._clock = clock or SystemClock()
        self._limits = limits.watches
        self._rooms: dict[str, _Room] = {}
        self._closed = False

    async def watch(
        self,
        access: Access,
        collection: str,
        filter: Value = None,
        sort: Value = None,
        limit: int | None = None,
        resume: str | None = None,
        connection: str = "",
    ) -> Watch:
        """Watch what a query returns. There is no skip and no projection; without a limit all of it.

        ``resume``: the token of the last event that was seen; the watch goes on after it, or begins anew with
        an ``initial`` event (``watch.resumed`` says which). ``connection``: names the client's connection,
        for its limit. Raises CollectionNotFound, PermissionDenied, InvalidFilter, InvalidSort,
        InvalidParameter, LimitExceeded, ResultTooLarge, QueryTooCostly.
        """
        order, most = parse_sort(sort), self._checked_limit(access, limit)
        asked = Asked(access, self._filter(filter), [item.path for item in order], connection)
        store = self._stores.get(access.environment) or await self._stores.open(access.environment)
        info = find_collection(store.catalog(), collection)
        room = self._room(access.environment, store)
        room.seats.take(asked)
        try:
            await room.hub.enter()
        except BaseException:
            room.seats.give(asked)
            raise
        try:
            return await self._open(room, asked, info, order, most, resume)
        except BaseException:
            room.hub.leave()
            room.seats.give(asked)
            raise

    def recheck(self, environment: str, collection: str) -> None:
        """A collection's preset or rule was changed, or it was removed."""
        room = self._rooms.get(environment)
        if room is not None:
            room.guard.recheck(collection)

    def close_for(self, environment: str, user: str, error: PlatformError | None = None) -> int:
        """End the watches of a user (by openid or uid) who was banned or has signed out; how many it were."""
        room = self._rooms.get(environment)
        found = [] if room is None else room.hub.watches()
        own = [item for item in found if user and user in (item.asked.access.openid, item.asked.access.uid)]
        for watch in own:
            watch.fail(error or Unauthenticated("the user has been signed out; sign in and watch again"))
        return len(own)

    def end_environment(self, environment: str) -> None:
        """End the watches of an environment whose store is about to be closed."""
        room = self._rooms.pop(environment, None)
        if room is not None:
            room.hub.fail_all(ShuttingDown("the environment's documents are closed; nothing was changed"))

    def close(self) -> None:
        """End everything; to be called before the stores are closed."""
        self._closed = True
        for environment in list(self._rooms):
            self.end_environment(environment)

    async def _open(
        self,
        room: _Room,
        asked: Asked,
        info: CollectionInfo,
        sort: Sort,
        limit: int | None,
        resume: str | None,
    ) -> Watch:
        grant = await room.guard.grant(asked, info)
        try:
            return await self._start(room, asked, info, grant, sort, limit, resume)
        except BaseException:
            room.guard.drop(grant)
            raise

    async def _start(
        self,
        room: _Room,
        asked: Asked,
        info: CollectionInfo,
        grant: Grant,
        sort: Sort,
        limit: int | None,
        resume: str | None,
    ) -> Watch:
        hub, reading = room.hub, grant.reading
        condition = where(*reading.conditions)
        if condition.costly:
            raise QueryTooCostly(
                "a watch looks at every change: its filter cannot have so many conditions, or a regular "
                "expression that can backtrack"
            )
        if condition.order:
            raise InvalidFilter("a watch cannot use $near or $nearSphere; watch with $geoWithin instead")
        digest = digest_of(info.number, reading.conditions, sort, limit, reading.hides)
        # What is shown in parts, or only after a look at the document, has to be looked at as a whole.
        token = None if resume is None or reading.hides or reading.checks else parse_token(resume)
        with hub.opening(Live(info, condition, sort, limit, digest)) as live:
            start = await begin(hub, live, token)
            hub.check()
            watch = Watch(hub, live, asked, reading, start)
            hub.attach(watch)
            room.guard.bind(grant, watch)
            return watch

    def _room(self, environment: str, store: Store) -> _Room:
        if self._closed:
            raise ShuttingDown("no watch can begin any more; nothing was changed")
        room = self._rooms.get(environment)
        if room is None or room.hub.store is not store:
            self.end_environment(environment)
            room = self._rooms[environment] = self._new_room(store)
        return room

    def _new_room(self, store: Store) -> _Room:
        seats = Seats(self._limits)

        def changed(change: Change) -> None:
            guard.changed(change)

        def left(watch: Watch) -> None:
            guard.forget(watch)
            seats.give(watch.asked)

        hub = Hub(store, self._limits, self._stores.metrics, changed, left)
        guard = Guard(hub, self._clock)
        return _Room(hub, guard, seats)

    def _filter(self, filter: Value) -> dict[str, Value]:
        now_ms = int(self._clock.now() * 1000)
        prepared = prepare({} if filter is None else filter, now_ms, InvalidFilter)
        if type(prepared) is not dict:
            raise InvalidFilter("a filter must be an object")
        return with_now(prepared, now_ms)

    def _checked_limit(self, access: Access, limit: int | None) -> int | None:
        """Beyond the largest result a limit says nothing."""
        if access.transaction:
            raise InvalidParameter("a watch cannot run inside a transaction")
        if limit is not None and limit < 1:
            raise InvalidParameter("the limit of a watch must be at least 1")
        return None if limit is None or limit > self._limits.documents_max else limit
