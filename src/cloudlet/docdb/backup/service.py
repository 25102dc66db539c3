"""Backups of all environments: made when asked for and by schedule, listed, restored, rehearsed."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import structlog

from cloudlet.docdb.aside import in_thread
from cloudlet.docdb.backup.full import Place, make_directory, make_full
from cloudlet.docdb.backup.manifest import Manifest, Segment, Shelf, chain, outdated
from cloudlet.docdb.backup.moment import Range, base_of, opened, ranges
from cloudlet.docdb.backup.restore import Restored, Told, bring, check_free, chosen
from cloudlet.docdb.backup.seal import Secret
from cloudlet.docdb.backup.segments import write_segment
from cloudlet.docdb.base import Store
from cloudlet.docdb.stores import Stores
from cloudlet.model.clock import Clock
from cloudlet.model.errors import ChangesPruned, InvalidParameter, NotFound, PlatformError, StoreUnavailable

log = structlog.get_logger(__name__)

PACE_S: Final = 1.0
"""How often it is looked whether something is due."""
LAG_MAX: Final = 10_000
"""Changes after which a piece is written before its time is up: a twentieth of what the log keeps."""
RETRY_S: Final = 60.0
"""After a failure the next try is so much later."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done by schedule. Durations in seconds; 0 switches off."""

    interval_s: float = 0.0
    """How often each environment is copied as a whole, if it changed."""
    keep: int = 7
    """Whole copies that are kept of each environment, if anything is done by schedule."""
    log_interval_s: float = 0.0
    """How often the change log is written to the backup directory, if there are changes."""


@dataclass(frozen=True, slots=True)
class Restore:
    """What is restored, and where to. Without ``backup`` and ``at_ms``: the newest that is there."""

    backup: str | None = None
    at_ms: int | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    """Old names to new ones; empty: everything under its own name."""
    into: str | None = None
    """Another environment."""
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a rehearsal has opened and compared."""

    backup: str
    at_ms: int
    documents: dict[str, int]
    pieces: int
    replayed: int
    read: int
    """Documents that were read back by their id."""


@dataclass(slots=True)
class _Log:
    """Where the written log of an environment ends."""

    line: str
    seq: int
    at_ms: int
    catalog: object = None
    """The catalog as it was written last; another object means that the schema changed."""
    not_before: float = 0.0


class Backups:
    """Everything about backups, below one directory. One thing at a time is done with an environment."""

    def __init__(
        self,
        stores: Stores,
        root: Path,
        work: Path,
        clock: Clock,
        plan: Plan | None = None,
        secret: Callable[[], Secret | None] = lambda: None,
    ) -> None:
        """``secret`` gives the one of the settings, or raises what is wrong with it."""
        self._stores = stores
        self._root = root
        self._work = work
        self._clock = clock
        self._plan = plan or Plan()
        self._secret = secret
        self._locks: dict[str, asyncio.Lock] = {}
        self._logs: dict[str, _Log] = {}
        self._retry: dict[str, float] = {}
        self._newest: dict[str, Manifest] = {}
        """Where it is known, so that looking whether a copy is due costs nothing."""

    async def make(self, environment: str, secret: Secret | None = None) -> Manifest:
        """Copy an environment now. Encrypted with ``secret``, or with that of the settings if there is one.

        Raises StoreUnavailable, and InvalidParameter if the settings' secret cannot be used.
        """
        async with self._lock(environment):
            return await self._make(environment, secret)

    async def listed(self, environment: str) -> tuple[list[Manifest], list[Range]]:
        """The whole copies, the newest first, and the moments that can be restored."""
        manifests, segments = await self._shelved(environment)
        moments = ranges(manifests, segments)
        known = self._logs.get(environment)
        if self._plan.log_interval_s and known is not None and manifests and manifests[-1].line == known.line:
            # What is not written yet is written when somebody asks for it.
            moments[-1] = replace(moments[-1], to_ms=max(moments[-1].to_ms, self._now_ms()))
        return manifests[::-1], moments

    async def restore(
        self, environment: str, wanted: Restore, tell: Told, secret: Secret | None = None
    ) -> Restored:
        """Bring collections of a past moment back. Nothing that is there is touched, but with ``replace``,
        and then a backup of it is made first.

        Raises NotFound, AlreadyExists, CollectionNotFound, PermissionDenied (wrong secret), StoreUnavailable.
        """
        target = wanted.into or environment
        store = await self._stores.open(target)
        if wanted.names and not wanted.replace:
            check_free(store, wanted.names)
        async with AsyncExitStack() as stack:
            for name in sorted(
                {environment, target}
            ):  # In one order, so that two cannot wait for each other.
                await stack.enter_async_context(self._lock(name))
            tell({"phase": "open"})
            if wanted.at_ms is not None:
                await self._catch_up(environment)
            manifest, segments = await self._chosen(environment, wanted.backup, wanted.at_ms)
            key = secret or self._secret()
            shelf = Shelf.of(self._root, environment)
            async with opened(shelf, manifest, segments, key, self._work, wanted.at_ms) as moment:
                names = chosen(moment, wanted.names)
                if not wanted.replace:
                    check_free(store, names)
                elif set(names.values()) & set(store.catalog()):
                    await self._make(target, secret)
                restored = await bring(moment, store, names, wanted.replace, self._now_ms(), tell)
        log.info("restored", environment=target, source=environment, backup=restored.backup)
        return restored

    async def rehearse(
        self, environment: str, backup: str | None, tell: Told, secret: Secret | None = None
    ) -> Rehearsed:
        """Restore a copy (the newest) to a file of its own and check everything: checksums, the engine's own
        check, every collection against the manifest, the log that follows, and documents read back.

        Raises what is wrong: PermissionDenied, StoreUnavailable, NotFound.
        """
        async with self._lock(environment):
            manifest, segments = await self._chosen(environment, backup, None)
            if backup is not None:
                segments = chain(manifest, (await self._shelved(environment))[1])
            key = secret or self._secret()
            tell({"phase": "open", "backup": manifest.id})
            shelf = Shelf.of(self._root, environment)
            async with opened(shelf, manifest, segments, key, self._work) as moment:
                documents: dict[str, int] = {}
                read = 0
                for name in sorted(moment.shapes):
                    documents[name], found = await _read_back(moment.store, name)
                    read += found
                    tell({"phase": "documents", "collection": name, "done": documents[name]})
                return Rehearsed(manifest.id, moment.at_ms, documents, len(segments), moment.replayed, read)

    async def forget(self, environment: str) -> None:
        """The environment is gone. Its backups are kept under another name, because a new environment of the
        same name has nothing to do with them.
        """
        async with self._lock(environment):
            self._logs.pop(environment, None)
            self._newest.pop(environment, None)
            directory = Shelf.of(self._root, environment).directory
            if directory.is_dir():
                await in_thread(lambda: directory.rename(f"{directory}.deleted-{self._now_ms()}"))

    async def run(self, environments: Callable[[], Iterable[str]]) -> None:
        """Do what is due, until cancelled."""
        await self._clean()
        if not self._plan.interval_s and not self._plan.log_interval_s:
            return
        while True:
            for environment in list(environments()):
                if self._clock.monotonic() >= self._retry.get(environment, 0.0):
                    await self._do_due(environment)
            await asyncio.sleep(PACE_S)

    async def do_due(self, environment: str) -> None:
        """Make a copy or write a piece of the log if it is time. Raises StoreUnavailable and the like."""
        async with self._lock(environment):
            known = self._logs.get(environment) or await self._resume(environment)
            if self._plan.interval_s and await self._is_due(environment):
                await self._make(environment, None)
            elif self._plan.log_interval_s and known is not None:
                await self._follow(environment, known)

    async def _do_due(self, environment: str) -> None:
        try:
            await self.do_due(environment)
        except PlatformError as exc:
            # The next try makes up for this one: a gap of the log becomes a new whole copy.
            self._retry[environment] = self._clock.monotonic() + RETRY_S
            log.error("backup_failed", environment=environment, error=exc.message)

    # Whole copies.

    async def _make(self, environment: str, secret: Secret | None) -> Manifest:
        key = secret or self._secret()
        shelf = Shelf.of(self._root, environment)
        store = await self._stores.open(environment)
        known = self._logs.get(environment) or await self._resume(environment)
        seq = await store.last_seq()
        line = known.line if known is not None and known.seq <= seq else secrets.token_hex(4)
        if self._plan.log_interval_s and known is not None and known.line == line:
            # The log up to here belongs to the copies before this one.
            line = await self._finish_log(environment, known)
        place = Place(environment, line)
        manifest = await make_full(store, place, shelf, self._work, key, self._after(known))
        if self._plan.log_interval_s and known is not None and known.line == line:
            # The next piece begins before the copy, so that moments while it was made are there, too.
            known.at_ms = manifest.at_ms
        else:
            self._logs[environment] = _Log(line, manifest.seq, manifest.at_ms, store.catalog())
        self._newest[environment] = manifest
        if self._plan.interval_s or self._plan.log_interval_s:
            await in_thread(lambda: _retire(shelf, self._plan.keep))
        log.info("backup_made", environment=environment, backup=manifest.id, size_bytes=manifest.size_bytes)
        return manifest

    async def _finish_log(self, environment: str, known: _Log) -> str:
        """The line that a new copy belongs to: a new one if the log has a gap."""
        try:
            await self._write(environment, known)
        except ChangesPruned:
            log.warning("backup_log_gap", environment=environment, after_seq=known.seq)
            return secrets.token_hex(4)
        return known.line

    async def _is_due(self, environment: str) -> bool:
        newest = self._newest.get(environment)
        if newest is None:
            store = await self._stores.open(environment)
            return bool(store.catalog())
        if self._now_ms() - newest.at_ms < self._plan.interval_s * 1000:
            return False
        store = await self._stores.open(environment)
        return newest.seq != await store.last_seq() or set(newest.collections) != set(store.catalog())

    # The log.

    async def _follow(self, environment: str, known: _Log, at_once: bool = False) -> None:
        """Write a piece if it is time, or in any case."""
        store = self._stores.get(environment) or await self._stores.open(environment)
        seq = await store.last_seq()
        if seq < known.seq:
            log.warning("backup_log_went_back", environment=environment, after_seq=known.seq, seq=seq)
            await self._make(environment, None)
            return
        waited = self._now_ms() - known.at_ms >= self._plan.log_interval_s * 1000
        if not at_once and seq - known.seq < LAG_MAX and not waited:
            return
        if not at_once and seq == known.seq and _same_catalog(known.catalog, store):
            return
        try:
            await self._write(environment, known)
        except ChangesPruned:
            await self._make(environment, None)  # Meets the gap again, and begins a new line.

    async def _catch_up(self, environment: str) -> None:
        """Write the log up to now, so that every moment up to now can be restored."""
        known = self._logs.get(environment) or await self._resume(environment)
        if self._plan.log_interval_s and known is not None:
            await self._follow(environment, known, at_once=True)

    async def _write(self, environment: str, known: _Log) -> None:
        """Write everything up to now."""
        store = await self._stores.open(environment)
        shelf = Shelf.of(self._root, environment)
        await in_thread(lambda: make_directory(shelf.directory))
        last = await store.last_seq()
        while True:
            catalog = store.catalog()
            segment = await write_segment(
                store,
                Place(environment, known.line),
                shelf,
                known.seq,
                self._secret(),
                self._after(known)(),
            )
            known.seq, known.at_ms, known.catalog = segment.last_seq, segment.at_ms, catalog
            if segment.last_seq >= last:
                return

    async def _resume(self, environment: str) -> _Log | None:
        """Where a former process stopped; None without a copy that a log could follow."""
        manifests, segments = await self._shelved(environment)
        if not manifests:
            return None
        newest = self._newest[environment] = manifests[-1]
        known = _Log(newest.line, newest.seq, newest.at_ms)
        for segment in segments:
            if segment.line == newest.line:
                known.seq, known.at_ms = segment.last_seq, max(segment.at_ms, newest.at_ms)
        self._logs[environment] = known
        return known

    # Shared.

    async def _chosen(
        self, environment: str, backup: str | None, at_ms: int | None
    ) -> tuple[Manifest, list[Segment]]:
        """The copy and the pieces for what is asked. Raises NotFound."""
        if backup is not None and at_ms is not None:
            raise InvalidParameter("name a backup or a moment, not both")
        if backup is not None:
            shelf = Shelf.of(self._root, environment)
            return await in_thread(lambda: shelf.find(backup)), []
        manifests, segments = await self._shelved(environment)
        if not manifests:
            raise NotFound(f"the environment {environment} has no backup: make one with 'cloudlet db backup'")
        if at_ms is not None:
            return base_of(manifests, segments, at_ms)
        return manifests[-1], chain(manifests[-1], segments)

    async def _shelved(self, environment: str) -> tuple[list[Manifest], list[Segment]]:
        shelf = Shelf.of(self._root, environment)
        return await in_thread(lambda: (shelf.manifests(), shelf.segments()))

    async def _clean(self) -> None:
        """Remove what a process that was killed has left."""

        def clean() -> None:
            for path in self._work.glob("*"):
                path.unlink(missing_ok=True)
            for directory in self._root.glob("*"):
                if directory.is_dir() and ".deleted-" not in directory.name:
                    Shelf(directory).clean()

        try:
            await in_thread(clean)
        except OSError as exc:
            log.error("backup_leftovers_not_removed", error=str(exc))

    def _after(self, known: _Log | None) -> Callable[[], int]:
        """The time, but later than what was written last: times order copies and pieces."""
        return lambda: max(self._now_ms(), 0 if known is None else known.at_ms + 1)

    def _lock(self, environment: str) -> asyncio.Lock:
        return self._locks.setdefault(environment, asyncio.Lock())

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _same_catalog(known: object, store: Store) -> bool:
    """Whether the schema is as it was written last; unknown after a start, which writes it once."""
    return known is not None and known == store.catalog()


def _retire(shelf: Shelf, keep: int) -> None:
    try:
        manifests, segments = outdated(shelf.manifests(), shelf.segments(), keep)
        for manifest in manifests:
            shelf.remove(manifest)
        for segment in segments:
            segment.path.unlink(missing_ok=True)
    except OSError as exc:
        raise StoreUnavailable(f"an old backup cannot be removed: {exc}") from exc


async def _read_back(store: Store, name: str) -> tuple[int, int]:
    """How many documents a collection has, and how many of the first of each page are found by their id."""
    after = count = read = 0
    while rows := await store.scan(name, after, 200):
        count += len(rows)
        after = rows[-1].did
        found = await store.get_many(name, [rows[0].id_key])
        if [row.document for row in found] != [rows[0].document]:
            raise StoreUnavailable(f"a document of {name} is not found by its id")
        read += 1
        await asyncio.sleep(0)  # Reading may not have waited for anything: others get their turn.
    return count, read
