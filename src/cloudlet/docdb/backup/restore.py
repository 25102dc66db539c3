"""Bringing collections of a past moment into an environment: complete, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import structlog

from cloudlet.docdb.backup.moment import Moment
from cloudlet.docdb.backup.segments import IndexShape, Shape
from cloudlet.docdb.base import (
    CreateCollection,
    CreateIndex,
    Decision,
    DropCollection,
    Preset,
    Put,
    Row,
    SetPreset,
    SetRule,
    Store,
    Turn,
)
from cloudlet.docdb.body import decode_value
from cloudlet.docdb.catalog import OWNER_INDEX, parts_of
from cloudlet.model.errors import AlreadyExists, CollectionNotFound, InvalidParameter, PlatformError
from cloudlet.model.ids import check_collection_name

log = structlog.get_logger(__name__)

TURN_DOCUMENTS: Final = 200
TURN_BYTES: Final = 4 * 1024 * 1024

Told: TypeAlias = Callable[[dict[str, Any]], None]
"""Told what is being done, as an object with the key ``phase``."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored: documents by the name they have now."""

    backup: str
    at_ms: int
    replayed: int
    documents: dict[str, int]


def chosen(moment: Moment, names: Mapping[str, str]) -> dict[str, str]:
    """Old names to new ones; all of the moment's collections if none is named.

    Raises CollectionNotFound, InvalidName, InvalidParameter (two would get one name).
    """
    wanted = dict(names) or {name: name for name in sorted(moment.shapes)}
    for old, new in wanted.items():
        if old not in moment.shapes:
            known = ", ".join(sorted(moment.shapes))[:300] or "none"
            raise CollectionNotFound(f"the backup has no collection {old[:64]!r}; it has: {known}")
        check_collection_name(new)
    if len(set(wanted.values())) != len(wanted):
        raise InvalidParameter("two collections cannot be restored under one name")
    return wanted


def check_free(store: Store, names: Mapping[str, str]) -> None:
    """Raises AlreadyExists if one of the new names is taken."""
    taken = sorted(set(names.values()) & set(store.catalog()))
    if taken:
        raise AlreadyExists(
            f"{', '.join(taken)[:300]} exist already: restore under new names (OLD=NEW), "
            "or replace what is there with --replace"
        )


async def bring(
    moment: Moment, store: Store, names: Mapping[str, str], replace: bool, now_ms: int, tell: Told
) -> Restored:
    """Restore collections; if that fails, what was made of them is removed again.

    A collection is closed to clients until it is complete. With ``replace`` what is there is removed right
    before. Raises AlreadyExists, StoreUnavailable, DuplicateKey and what else writing raises.
    """
    if not replace:
        check_free(store, names)
    made: list[str] = []
    documents: dict[str, int] = {}
    try:
        for old, new in names.items():
            if replace and new in store.catalog():
                await store.define(DropCollection(new))
            await store.define(CreateCollection(new, Preset.ADMINONLY))
            made.append(new)
            documents[new] = await _fill(moment.store, old, store, new, now_ms, tell)
            await _finish(store, new, moment.shapes[old])
    except BaseException:
        for name in made:
            await _undo(store, name)
        raise
    for old, new in names.items():
        await store.define(SetPreset(new, Preset(moment.shapes[old].preset)))
    return Restored(moment.manifest.id, moment.at_ms, moment.replayed, documents)


def index_of(collection: str, shape: IndexShape) -> CreateIndex:
    """The change that makes an index as it was."""
    options = json.loads(shape.options)
    partial = options.get("partial")
    return CreateIndex(
        collection,
        shape.name,
        parts_of(shape.parts),
        shape.unique,
        options.get("sparse", False),
        None if partial is None else decode_value(partial),
        options.get("expire_after_s"),
        options.get("automatic", False),
    )


async def _fill(source: Store, old: str, store: Store, new: str, now_ms: int, tell: Told) -> int:
    after = count = 0
    while rows := await source.scan(old, after, TURN_DOCUMENTS):
        for part in _parts(rows):
            await store.commit(Turn(new, now_ms, _putting(part)))
        count += len(rows)
        after = rows[-1].did
        tell({"phase": "documents", "collection": new, "done": count})
    return count


async def _finish(store: Store, name: str, shape: Shape) -> None:
    for index in shape.indexes:
        if index.name != OWNER_INDEX:
            await store.define(index_of(name, index))
    if shape.rule is not None:
        await store.define(SetRule(name, shape.rule))


async def _undo(store: Store, name: str) -> None:
    try:
        await store.define(DropCollection(name))
    except PlatformError as exc:
        log.error("unfinished_restore_not_removed", collection=name, error=exc.message)


def _putting(rows: Sequence[Row]) -> Callable[[Sequence[Row]], Decision[None]]:
    return lambda _: Decision(None, [Put(row.document) for row in rows])


def _parts(rows: Sequence[Row]) -> Iterator[list[Row]]:
    part: list[Row] = []
    size = 0
    for row in rows:
        if part and size + row.size > TURN_BYTES:
            yield part
            part, size = [], 0
        part.append(row)
        size += row.size
    yield part
