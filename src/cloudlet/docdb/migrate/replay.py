"""Bringing a copy up to date from the change log of its source, number by number.

Each change becomes one turn, and an engine numbers its changes without gaps: so the copy's change log,
revisions and numbers stay those of the source, and a position in one log means the same in the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from cloudlet.docdb.base import (
    Change,
    CreateCollection,
    CreateIndex,
    Decision,
    DropIndex,
    Keys,
    Put,
    Row,
    SetPreset,
    SetRule,
    Store,
    Turn,
    id_key,
)
from cloudlet.docdb.body import encode_value
from cloudlet.docdb.catalog import OWNER_INDEX
from cloudlet.docdb.planner import IndexInfo
from cloudlet.docdb.values import Document
from cloudlet.model.errors import Internal

PAGE: Final = 200
"""Changes that are replayed together."""

Replayed: TypeAlias = Callable[[int], None]
"""Told up to which change the copy is."""


async def replay(source: Store, target: Store, replayed: Replayed, until: int | None = None) -> int:
    """Replay until nothing is left, or up to ``until``; returns the last number replayed.

    Raises ChangesPruned if the source's log does not reach back to where the copy is, Internal if the copy
    goes another way than its source.
    """
    after = await target.last_seq()
    while until is None or after < until:
        changes = await source.changes(after, PAGE)
        if not changes:
            break
        if any(change.collection not in target.catalog() for change in changes):
            await align(source, target)
        await _apply(target, changes)
        after = changes[-1].seq
        replayed(after)
    return after


async def align(source: Store, target: Store) -> None:
    """Give the copy the collections, presets, rules and indexes of its source; it loses none but indexes."""
    for name, info in source.catalog().items():
        known = target.catalog().get(name)
        if known is None:
            await target.define(CreateCollection(name, info.preset))
            known = target.catalog()[name]
        if known.preset is not info.preset:
            await target.define(SetPreset(name, info.preset))
        if known.rule != info.rule:
            await target.define(SetRule(name, info.rule))
        await _align_indexes(target, name, info.indexes, known.indexes)


def is_aligned(source: Store, target: Store) -> bool:
    """Whether ``align`` would change nothing, and no collection is too many."""
    ours, theirs = source.catalog(), target.catalog()
    return ours.keys() == theirs.keys() and all(
        (info.preset, info.rule, _made(info.indexes))
        == (theirs[name].preset, theirs[name].rule, _made(theirs[name].indexes))
        for name, info in ours.items()
    )


async def _align_indexes(
    target: Store, name: str, wanted: Sequence[IndexInfo], known: Sequence[IndexInfo]
) -> None:
    ours, theirs = _made(wanted), _made(known)
    for index in theirs.keys() - ours.keys():
        await target.define(DropIndex(name, index))
    for index, change in ours.items():
        if theirs.get(index) == change:
            continue
        if index in theirs:
            await target.define(DropIndex(name, index))
        await target.define(
            CreateIndex(
                name,
                index,
                change.parts,
                change.unique,
                change.sparse,
                change.partial,
                change.expire_after_s,
                change.automatic,
            )
        )


def _made(indexes: Sequence[IndexInfo]) -> dict[str, CreateIndex]:
    """The finished indexes by name, as somebody would ask for them."""
    return {
        index.name: CreateIndex(
            "",
            index.name,
            index.parts,
            index.unique,
            index.sparse,
            None if index.partial is None else index.partial.filter,
            index.expire_after_s,
            index.automatic,
        )
        for index in indexes
        if index.ready and index.name != OWNER_INDEX
    }


async def _apply(target: Store, changes: Sequence[Change]) -> None:
    """Make the changes and look at what became of them."""
    # Tasks start in the order they are made, and an engine runs turns in the order they come.
    tasks = [asyncio.ensure_future(target.commit(_turn(change))) for change in changes]
    try:
        await asyncio.gather(*tasks)
    finally:
        await asyncio.gather(*tasks, return_exceptions=True)
    if await target.last_seq() != changes[-1].seq:
        raise Internal("the copy numbers its changes otherwise than its source")
    await _check(target, changes)


def _turn(change: Change) -> Turn[None]:
    def decide(rows: Sequence[Row]) -> Decision[None]:
        before = rows[0] if rows else None
        if (before is None) is not (change.before is None):
            raise Internal(f"the copy of {change.collection} has lost or kept a document")
        if change.after is not None:
            return Decision(None, [Put(change.after, before)])
        return Decision(None, deletes=list(rows))

    return Turn(change.collection, change.at_ms, decide, Keys([id_key(change.document_id)]))


async def _check(target: Store, changes: Sequence[Change]) -> None:
    """Read back the documents that were changed, and compare them with what the source logged."""
    last: dict[str, dict[bytes, Change]] = {}
    for change in changes:
        last.setdefault(change.collection, {})[id_key(change.document_id)] = change
    for name, by_key in last.items():
        rows = {row.id_key: row for row in await target.get_many(name, list(by_key))}
        for key, change in by_key.items():
            row = rows.get(key)
            if (None if row is None else (row.rev, _text(row.document))) != (
                None if change.after is None else (change.seq, _text(change.after))
            ):
                raise Internal(f"the copy of {name} differs from its source after change {change.seq}")


def _text(document: Document) -> str:
    return encode_value(document)
