"""An environment as it was at a moment: a copy, and the changes after it up to then, in a file of its own."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloudlet.docdb import sqlite_file
from cloudlet.docdb.aside import in_thread
from cloudlet.docdb.backup.content import check_file, contents
from cloudlet.docdb.backup.full import make_directory, open_full
from cloudlet.docdb.backup.manifest import Manifest, Segment, Shelf, chain
from cloudlet.docdb.backup.seal import Secret
from cloudlet.docdb.backup.segments import Head, Logged, Shape, pieces_of, read_segment, shapes
from cloudlet.docdb.base import (
    CreateCollection,
    Decision,
    DropCollection,
    DropIndex,
    Keys,
    Preset,
    Put,
    Row,
    Store,
    Turn,
    id_key,
)
from cloudlet.docdb.catalog import OWNER_INDEX
from cloudlet.docdb.migrate.home import remove_files
from cloudlet.docdb.sqlite import SqliteStore
from cloudlet.model.errors import NotFound, StoreUnavailable

TURN_CHANGES: Final = 500


@dataclass(frozen=True, slots=True)
class Range:
    """Moments that can be restored, from one to another. Unix milliseconds."""

    from_ms: int
    to_ms: int
    backup: str


@dataclass(frozen=True, slots=True)
class Moment:
    """An opened past: its documents, and how its collections were."""

    store: Store
    shapes: dict[str, Shape]
    manifest: Manifest
    at_ms: int
    """Everything in it was written before."""
    replayed: int


def ranges(manifests: Sequence[Manifest], segments: list[Segment]) -> list[Range]:
    """What can be restored, the oldest first; pure. A copy without pieces is a range of one moment."""
    found: list[Range] = []
    for manifest in manifests:
        followed = chain(manifest, segments)
        end = followed[-1].at_ms if followed else manifest.at_ms
        if found and found[-1].to_ms >= manifest.at_ms:
            found[-1] = Range(found[-1].from_ms, max(found[-1].to_ms, end), found[-1].backup)
        else:
            found.append(Range(manifest.at_ms, end, manifest.id))
    return found


def base_of(
    manifests: Sequence[Manifest], segments: list[Segment], at_ms: int
) -> tuple[Manifest, list[Segment]]:
    """The copy to begin with for a moment, and the pieces that follow. Pure.

    Raises NotFound if nothing reaches to the moment.
    """
    for manifest in sorted(manifests, key=lambda each: -each.at_ms):
        if manifest.at_ms > at_ms:
            continue
        followed = chain(manifest, segments)
        needed: list[Segment] = []
        for segment in followed:
            needed.append(segment)
            if segment.at_ms >= at_ms:
                return manifest, needed
        if manifest.at_ms == at_ms:
            return manifest, []
        break
    raise NotFound("this moment cannot be restored: see 'cloudlet db backups' for those that can")


@asynccontextmanager
async def opened(
    shelf: Shelf,
    manifest: Manifest,
    segments: Sequence[Segment],
    secret: Secret | None,
    work: Path,
    until_ms: int | None = None,
) -> AsyncIterator[Moment]:
    """Make the past in a file that is removed afterwards; the copy is checked against its manifest first.

    Raises PermissionDenied, InvalidParameter, StoreUnavailable.
    """
    path = work / f"{secrets.token_hex(8)}.db"
    try:
        await in_thread(lambda: make_directory(work))
        await in_thread(lambda: _checked(shelf, manifest, secret, path))
        store = await in_thread(lambda: SqliteStore(path))
        try:
            past = _Past(store, manifest.seq)
            await past.strip()
            for segment in segments:
                if not await past.replay(*await in_thread(lambda: read_segment(segment, secret)), until_ms):  # noqa: B023
                    break
            at_ms = manifest.at_ms if not segments else min(until_ms or 2**62, segments[-1].at_ms)
            yield Moment(store, past.shapes, manifest, at_ms, past.replayed)
        finally:
            await store.close()
    finally:
        await in_thread(lambda: remove_files(path))


def _checked(shelf: Shelf, manifest: Manifest, secret: Secret | None, path: Path) -> None:
    open_full(shelf, manifest, secret, path)
    with closing(sqlite_file.open_reader(path)) as connection:
        check_file(connection)
        found, seq = contents(connection), sqlite_file.last_seq(connection)
    if found != manifest.collections:
        raise StoreUnavailable(f"the documents of the backup {manifest.id} are not those of its manifest")
    if seq != manifest.seq:
        raise StoreUnavailable(f"the backup {manifest.id} ends with change {seq}, not {manifest.seq}")


class _Past:
    """A document file that is brought forward.

    Its indexes are taken off first: documents are put in their last state, and on the way there two may have
    a unique value that only one had at any time.
    """

    def __init__(self, store: SqliteStore, seq: int) -> None:
        self._store = store
        self._seq = seq
        self.shapes = {shape.name: shape for shape in shapes(store.catalog())}
        self.replayed = 0

    async def strip(self) -> None:
        """Take the indexes off."""
        for info in self._store.catalog().values():
            for index in info.indexes:
                if index.name != OWNER_INDEX:
                    await self._store.define(DropIndex(info.name, index.name))

    async def replay(self, head: Head, changes: Sequence[Logged], until_ms: int | None) -> bool:
        """Make a piece's changes; False if the moment lies before its end."""
        coming = {shape.name: shape for shape in head.collections}
        for name, shape in coming.items():
            known = self.shapes.get(name)
            if known is not None and known.number != shape.number:
                await self._drop(name)
                known = None
            if known is None:
                await self._store.define(CreateCollection(name, Preset.ADMINONLY))
                self.shapes[name] = shape
        wanted = [each for each in changes if each.seq > self._seq]
        for number, each in enumerate(wanted):
            if until_ms is not None and each.at_ms > until_ms:
                await self._apply(wanted[:number])
                return False
        await self._apply(wanted)
        self._seq = max(self._seq, head.last_seq)
        for name in [name for name in self.shapes if name not in coming]:
            await self._drop(name)
        self.shapes.update(coming)
        return True

    async def _drop(self, name: str) -> None:
        await self._store.define(DropCollection(name))
        del self.shapes[name]

    async def _apply(self, changes: Sequence[Logged]) -> None:
        for piece in pieces_of(iter(changes), TURN_CHANGES):
            name = piece[0].collection
            if name in self.shapes:  # Otherwise it was removed before the piece was written.
                last = {id_key(each.id): each for each in piece}
                await self._store.commit(
                    Turn(name, piece[-1].at_ms, lambda rows: _decided(rows, last), Keys(list(last)))  # noqa: B023
                )
            self.replayed += len(piece)


def _decided(rows: Sequence[Row], last: dict[bytes, Logged]) -> Decision[None]:
    there = {row.id_key: row for row in rows}
    puts = [Put(each.after, there.get(key)) for key, each in last.items() if each.after is not None]
    gone = [row for key, row in there.items() if last[key].after is None]
    return Decision(None, puts, gone)
