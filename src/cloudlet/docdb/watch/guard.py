"""Keeps what watches see in step with what their users may read.

A permission is asked for once, when a watch begins. It is asked for again when the collection's preset or
rule changes, and when a document changes that the rule has read with ``get()``. Until the answer is there the
watch tells nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import structlog

from cloudlet.docdb.base import Change, CollectionInfo, Read, missing_collection
from cloudlet.docdb.body import encode_value
from cloudlet.docdb.permissions import Permission, Reading
from cloudlet.docdb.rules.fetch import fetcher
from cloudlet.docdb.values import Document
from cloudlet.docdb.watch.hub import Hub
from cloudlet.docdb.watch.watch import Asked, Watch
from cloudlet.model.clock import Clock
from cloudlet.model.errors import Conflict, Internal, LimitExceeded, PlatformError

log = structlog.get_logger(__name__)

NEEDS_MAX: Final = 100
"""Documents that one watch's rule may have read with ``get()``."""

_Need: TypeAlias = tuple[str, str]
"""A collection, and an id as text."""


@dataclass(eq=False, slots=True)
class Grant:
    """A permission to read, and the documents it was decided by."""

    reading: Reading = field(default_factory=lambda: Reading(()))
    needs: set[_Need] = field(default_factory=set)
    stale: bool = False
    """One of them has changed since."""
    watch: Watch | None = None


class Guard:
    """The grants of one environment's watches. ``changed`` has to be called before a change is handed on."""

    def __init__(self, hub: Hub, clock: Clock) -> None:
        self._hub = hub
        self._clock = clock
        self._grants: dict[Watch, Grant] = {}
        self._needed: dict[_Need, dict[Grant, None]] = {}
        self._known: dict[str, CollectionInfo] = {}
        self._stale: dict[Watch, None] = {}
        self._checking: asyncio.Task[None] | None = None

    async def grant(self, asked: Asked, info: CollectionInfo) -> Grant:
        """Ask for permission; to be followed by ``bind`` or ``drop``. Raises PermissionDenied, Invalid…."""
        grant = Grant()
        fetch = fetcher(self._hub.store)

        async def noted(collection: str, text: str) -> Document | None:
            self._need(grant, (collection, text))
            return await fetch(collection, text)

        permission = Permission(asked.access, info, int(self._clock.now() * 1000), noted)
        try:
            grant.reading = await permission.read(asked.filter, asked.paths)
        except BaseException:
            self.drop(grant)
            raise
        return grant

    def bind(self, grant: Grant, watch: Watch) -> None:
        """The grant is this watch's. If it is out of date already, it is asked for again at once."""
        if watch.ended:
            self.drop(grant)
            return
        grant.watch = watch
        self._grants[watch] = grant
        info = watch.live.info
        self._known.setdefault(info.name, info)
        if grant.stale or _different(info, self._hub.store.catalog().get(info.name)):
            self._ask_again(watch)

    def drop(self, grant: Grant) -> None:
        """The grant is no longer used."""
        for need in grant.needs:
            grants = self._needed.get(need)
            if grants is not None:
                grants.pop(grant, None)
                if not grants:
                    del self._needed[need]
        grant.needs.clear()

    def forget(self, watch: Watch) -> None:
        """The watch has ended."""
        self._stale.pop(watch, None)
        grant = self._grants.pop(watch, None)
        if grant is not None:
            self.drop(grant)
        if not self._grants:
            self._known.clear()

    def changed(self, change: Change) -> None:
        """Notice a change that permissions may depend on."""
        if self._needed and isinstance(change.document_id, str | int):
            for grant in list(self._needed.get((change.collection, str(change.document_id)), ())):
                grant.stale = True
                if grant.watch is not None:
                    self._ask_again(grant.watch)
        if change.collection in self._known:
            self.recheck(change.collection)

    def recheck(self, collection: str) -> None:
        """Notice a change of the collection itself, if there was one."""
        known, info = self._known.get(collection), self._hub.store.catalog().get(collection)
        if known is None or not _different(known, info):
            return
        for watch in self._hub.watches(collection):
            self._ask_again(watch)
        if info is not None and self._grants:
            self._known[collection] = info

    def _need(self, grant: Grant, need: _Need) -> None:
        if need in grant.needs:
            return
        if len(grant.needs) >= NEEDS_MAX:
            raise LimitExceeded(f"the rule reads more than {NEEDS_MAX} documents with get() for one watch")
        grant.needs.add(need)
        self._needed.setdefault(need, {})[grant] = None

    def _ask_again(self, watch: Watch) -> None:
        if self._still_there(watch) is None:
            return
        watch.pause()
        self._stale[watch] = None
        if self._checking is None:
            self._checking = asyncio.get_running_loop().create_task(self._check_all())

    async def _check_all(self) -> None:
        try:
            while self._stale:
                watch = next(iter(self._stale))
                del self._stale[watch]
                await self._check(watch)
                await asyncio.sleep(0)
        finally:
            self._checking = None

    async def _check(self, watch: Watch) -> None:
        """Ask again; the watch goes on if the answer is the same, and ends if not."""
        info = self._still_there(watch)
        if info is None:
            return
        try:
            grant = await self.grant(watch.asked, info)
            try:
                await self._compare(watch, grant.reading)
            except BaseException:
                self.drop(grant)
                raise
        except PlatformError as exc:
            watch.fail(exc)
            return
        except Exception:
            log.exception("watch_permission_failed", collection=info.name)
            watch.fail(Internal("the permission of the watch could not be decided; watch again"))
            return
        if watch.ended:
            self.drop(grant)
            return
        former = self._grants.get(watch)
        if former is not None:
            self.drop(former)
        grant.watch = watch
        self._grants[watch] = grant
        if grant.stale or watch in self._stale:
            self._ask_again(watch)
        else:
            watch.go_on(grant.reading)

    def _still_there(self, watch: Watch) -> CollectionInfo | None:
        """The watched collection as it is now; the watch ends if that is no longer the same one."""
        info = self._hub.store.catalog().get(watch.live.info.name)
        if info is not None and info.number == watch.live.info.number:
            return info
        gone = missing_collection(watch.live.info.name)
        watch.fail(gone if info is None else Conflict("the collection was replaced; watch again"))
        return None

    async def _compare(self, watch: Watch, reading: Reading) -> None:
        """Raises Conflict if the watch would see something else now, PermissionDenied if nothing."""
        live = watch.live
        same = encode_value(list(reading.conditions)) == encode_value(list(live.where.conditions))
        if not same or reading.hides or watch.reading.hides:
            raise Conflict("who may read this collection has changed; watch again")
        if reading.checks:
            found = await self._hub.store.read(Read(live.info.name, live.where))
            for row in found.rows:
                await reading.check(row.document)


def _different(known: CollectionInfo, info: CollectionInfo | None) -> bool:
    """Whether who may read has changed, or the collection is another one."""
    if info is known:
        return False
    return info is None or (known.number, known.preset, known.rule) != (info.number, info.preset, info.rule)
