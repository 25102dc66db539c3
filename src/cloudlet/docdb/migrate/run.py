"""Moving one environment to another engine while it is used.

A copy is made from one snapshot, brought up to date from the change log while writes go on, and put in place
during a short pause. Until the record of the environment is replaced the source is what counts, and whatever
happens before leaves it as it is; afterwards the copy counts. There is no moment in which both would accept a
write.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec
import structlog

from cloudlet.docdb.base import Read, Store, Want
from cloudlet.docdb.filter import where
from cloudlet.docdb.migrate.home import Home, remove_files
from cloudlet.docdb.migrate.record import Former, Place, Record
from cloudlet.docdb.migrate.replay import align, is_aligned, replay
from cloudlet.docdb.migrate.switch import SwitchStore
from cloudlet.docdb.newfile import replace_file
from cloudlet.model.errors import (
    ChangesPruned,
    CollectionNotFound,
    Conflict,
    Internal,
    PlatformError,
    StoreUnavailable,
)

log = structlog.get_logger(__name__)

LAG_MAX: Final = 100
"""Changes the copy may be behind when the pause begins."""
PAUSE_S: Final = 2.0
"""A pause that would last longer is given up, and the copy follows on."""
PAUSES_MAX: Final = 5
ROUNDS_MAX: Final = 10_000
BRAKE_FIRST_S: Final = 0.001
BRAKE_MAX_S: Final = 0.25
COUNTED_MAX: Final = 300_000
"""Documents that are counted on both sides during the pause; beyond, the checksums before it have to do."""

Phase: TypeAlias = Literal["copy", "load", "replay", "switch", "done"]


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done: documents of a collection while loading, numbers of changes while replaying."""

    phase: Phase
    collection: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What a move did. ``copied`` is False if the former copy only had to be brought up to date."""

    environment: str
    engine: str
    copied: bool
    seq: int
    replayed: int
    documents: dict[str, int]
    pause_s: float
    seconds: float


Told: TypeAlias = Callable[[Progress], None]


class _Moving(msgspec.Struct, forbid_unknown_fields=True):
    """What must be known to go on after a crash."""

    to: Place
    mark: str
    collections: dict[str, int]
    """The numbers of the source's collections; one that was dropped since makes the copy useless."""
    ready: bool = False
    """The copy is complete and only has to follow."""


class Move:
    """One move of one environment. ``run`` may be repeated after a failure, and goes on where it was."""

    def __init__(self, home: Home, environment: str, to: Place, tell: Told | None = None) -> None:
        self._home = home
        self._environment = environment
        self._to = to
        self._tell: Told = tell or (lambda _progress: None)
        self._directory = home.moving(environment)
        self._replayed = 0

    async def run(self, switch: SwitchStore) -> tuple[Report, Store]:
        """Move; returns the report and the former engine, which the caller closes when nobody reads it.

        Raises Conflict, AlreadyExists, StoreUnavailable, Internal; then the source goes on as before.
        """
        began = time.monotonic()
        record = await asyncio.to_thread(self._home.record, self._environment)
        if self._home.same(record.place, self._to):
            raise Conflict("the environment is there already")
        if switch.moving:
            raise Conflict("the environment is being moved already")
        switch.moving = True
        source = switch.engine
        try:
            copied, pause_s, documents = await self._move(switch, record)
        finally:
            switch.moving, switch.brake_s = False, 0.0
        await asyncio.to_thread(shutil.rmtree, self._directory, True)
        seq = await switch.engine.last_seq()
        self._tell(Progress("done"))
        seconds = time.monotonic() - began
        engine = self._to.engine
        log.info("environment_moved", environment=self._environment, engine=engine, pause_s=pause_s)
        report = Report(self._environment, engine, copied, seq, self._replayed, documents, pause_s, seconds)
        return report, source

    async def abandon(self) -> None:
        """Remove what an unfinished move has left. Raises Conflict if there is none, StoreUnavailable."""
        moving = await asyncio.to_thread(self._read_state)
        if moving is None:
            raise Conflict("no move of this environment is unfinished")
        record = await asyncio.to_thread(self._home.record, self._environment)
        if not self._home.same(record.place, moving.to):
            await self._home.erase_at(moving.to, self._environment)
        await asyncio.to_thread(shutil.rmtree, self._directory)

    async def _move(self, switch: SwitchStore, record: Record) -> tuple[bool, float, dict[str, int]]:
        source = switch.engine
        former = await self._former(source, record)
        if former is not None:
            try:
                return False, *await self._follow_and_close(switch, source, former)
            except (CollectionNotFound, Internal) as exc:
                # Collections came and went since: the log alone does not tell what there is now.
                log.warning("former_copy_unusable", environment=self._environment, error=exc.message)
        return True, *await self._follow_and_close(switch, source, await self._target(source, record))

    async def _follow_and_close(
        self, switch: SwitchStore, source: Store, target: Store
    ) -> tuple[float, dict[str, int]]:
        try:
            return await self._follow(switch, source, target)
        finally:
            if switch.engine is not target:
                await target.close()

    # The copy.

    async def _target(self, source: Store, record: Record) -> Store:
        """A store that has everything up to some change."""
        numbers = _numbers(source)
        moving = await asyncio.to_thread(self._read_state)
        if moving is not None and not self._home.same(moving.to, self._to):
            raise Conflict("another move of this environment is unfinished: finish or abandon it first")
        if moving is not None and not _contains(numbers, moving.collections):
            await self.abandon()
            moving = None
        if moving is None:
            if record.former is not None and self._home.same(record.former.place, self._to):
                await self._home.erase_at(self._to, self._environment)  # It is outdated for good.
            moving = _Moving(self._to, secrets.token_hex(8), numbers)
            await asyncio.to_thread(self._write_state, moving)
        if not moving.ready:
            await self._copy(source, moving)
            moving.ready = True
            await asyncio.to_thread(self._write_state, moving)
        target = await self._home.open_at(self._to, self._environment)
        try:
            await source.changes(await target.last_seq(), 1)
        except ChangesPruned:
            # It was left alone for too long to follow.
            await target.close()
            await self.abandon()
            return await self._target(source, record)
        return target

    async def _copy(self, source: Store, moving: _Moving) -> None:
        self._tell(Progress("copy"))
        if self._to.engine == "sqlite":
            path = self._home.file(self._environment)
            await asyncio.to_thread(remove_files, path)
            await source.backup(path)
            return
        from cloudlet.docdb.postgres.address import Address
        from cloudlet.docdb.postgres.load import load

        snapshot = self._directory / "snapshot.db"
        if not snapshot.exists():
            # The mark belongs to one snapshot: what was loaded from another one is no use.
            await self._erase_half(moving)
            await source.backup(snapshot)
        address = Address(self._home.url_of(self._to))
        tell: Callable[[str, int], None] = lambda name, done: self._tell(Progress("load", name, done))  # noqa: E731
        await load(address, self._environment, snapshot, moving.mark, tell)
        await asyncio.to_thread(snapshot.unlink, True)

    async def _erase_half(self, moving: _Moving) -> None:
        from cloudlet.docdb.postgres.address import Address
        from cloudlet.docdb.postgres.load import erase

        await erase(Address(self._home.url_of(self._to)), self._environment, moving.mark)

    async def _former(self, source: Store, record: Record) -> Store | None:
        """The copy the environment was moved away from, if it can be brought up to date."""
        former = record.former
        if former is None or not self._home.same(former.place, self._to):
            return None
        if not _contains(_numbers(source), former.collections):
            return None  # A collection was dropped, whose changes could not be replayed.
        if former.place.engine == "sqlite" and not self._home.file(self._environment).exists():
            return None
        try:
            store = await self._home.open_at(former.place, self._environment)
        except PlatformError as exc:
            log.warning("former_copy_unusable", environment=self._environment, error=exc.message)
            return None
        try:
            if await store.last_seq() >= former.seq and former.collections.keys() <= store.catalog().keys():
                await source.changes(await store.last_seq(), 1)
                return store
        except ChangesPruned:
            pass
        await store.close()
        return None

    # Following, and the switch.

    async def _follow(
        self, switch: SwitchStore, source: Store, target: Store
    ) -> tuple[float, dict[str, int]]:
        for _ in range(PAUSES_MAX):
            await self._catch_up(switch, source, target)
            began = time.monotonic()
            try:
                async with switch.paused(PAUSE_S):
                    async with asyncio.timeout(PAUSE_S):
                        documents = await self._finish(source, target)
                    await self._commit(target)
                    switch.replace(target)
            except TimeoutError:
                log.warning("pause_too_long", environment=self._environment)
                continue
            return time.monotonic() - began, documents
        raise StoreUnavailable("writes come faster than the copy can follow: try again when there are fewer")

    async def _catch_up(self, switch: SwitchStore, source: Store, target: Store) -> None:
        """Follow until little is left, and hold writers back if that does not come by itself."""
        before: int | None = None
        for _ in range(ROUNDS_MAX):
            until = await source.last_seq()
            lag = until - await target.last_seq()
            if lag <= LAG_MAX:
                if not is_aligned(source, target):
                    await align(source, target)
                return
            if before is not None and lag > before // 2:
                switch.brake_s = min(BRAKE_MAX_S, max(BRAKE_FIRST_S, switch.brake_s * 2))
            before = lag
            tell: Callable[[int], None] = lambda seq: self._note(seq, until)  # noqa: B023, E731
            start = await target.last_seq()
            self._replayed += await replay(source, target, tell, until) - start
        raise StoreUnavailable("writes come faster than the copy can follow: try again when there are fewer")

    def _note(self, seq: int, until: int) -> None:
        self._tell(Progress("replay", done=seq, total=until))

    async def _finish(self, source: Store, target: Store) -> dict[str, int]:
        """With no write under way: the last changes, and a comparison."""
        self._tell(Progress("switch"))
        start = await target.last_seq()
        last = await replay(source, target, lambda _seq: None)
        self._replayed += last - start
        if not is_aligned(source, target):
            await align(source, target)
        if not is_aligned(source, target) or await source.last_seq() != last:
            raise Internal("the copy is not like its source")
        ours, theirs = await _counts(source), await _counts(target)
        if ours != theirs:
            raise Internal("the copy has other numbers of documents than its source")
        return theirs

    async def _commit(self, target: Store) -> None:
        """The moment from which the copy counts. It is not cut off by a cancellation."""
        record = await asyncio.to_thread(self._home.record, self._environment)
        former = Former(record.place, await target.last_seq(), _numbers(target))
        saving = asyncio.ensure_future(
            asyncio.to_thread(self._home.save, self._environment, Record(self._to, former))
        )
        cancelled = False
        while not saving.done():
            try:
                await asyncio.shield(saving)
            except asyncio.CancelledError:
                cancelled = True
        try:
            saving.result()
        except StoreUnavailable:
            # The record may have been replaced before the disk complained: what it says now is what counts.
            found = await asyncio.to_thread(self._home.record, self._environment)
            if not self._home.same(found.place, self._to):
                raise
            log.warning("move_not_synced", environment=self._environment)
        if cancelled:
            log.warning("move_finished_though_cancelled", environment=self._environment)

    # What must survive a crash.

    @property
    def _state(self) -> Path:
        return self._directory / "moving.json"

    def _read_state(self) -> _Moving | None:
        try:
            return msgspec.json.decode(self._state.read_bytes(), type=_Moving)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as exc:
            raise StoreUnavailable(f"{self._state.name} cannot be read: {exc}") from exc

    def _write_state(self, moving: _Moving) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        replace_file(self._state, msgspec.json.encode(moving))


def _numbers(store: Store) -> dict[str, int]:
    return {name: info.number for name, info in store.catalog().items()}


def _contains(now: dict[str, int], then: dict[str, int]) -> bool:
    """Whether no collection was dropped, or dropped and made again."""
    return all(now.get(name) == number for name, number in then.items())


async def _counts(store: Store) -> dict[str, int]:
    """Documents by collection; -1 where there are too many to count in a pause."""
    counts: dict[str, int] = {}
    left = COUNTED_MAX
    for name in sorted(store.catalog()):
        counts[name] = (await store.read(Read(name, where({}), want=Want.COUNT))).count if left > 0 else -1
        left -= counts[name]
    return counts
