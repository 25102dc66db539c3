"""Documents that expire: found by their index and removed in small turns, like any other removal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from cloudlet.docdb.base import CollectionInfo, Decision, Keys, Read, Row, Store, Turn, Want
from cloudlet.docdb.filter import Where, where
from cloudlet.docdb.planner import IndexInfo
from cloudlet.docdb.values import Document, date_from_ms
from cloudlet.model.errors import CollectionNotFound

TURN_DOCUMENTS: Final = 100
"""Documents of one removing turn, so that others' writes hardly wait."""
SWEEP_DOCUMENTS: Final = 5_000
"""Documents that one sweep removes for one index; the rest is for the next."""


def expired(index: IndexInfo, now_ms: int) -> tuple[Document, ...]:
    """What holds for documents whose time is up: the (earliest) date in the field is that long ago.

    Of a partial index only the documents that it holds.
    """
    if index.expire_after_s is None:
        return ({"$nor": [{}]},)
    until = date_from_ms(now_ms - 1_000 * index.expire_after_s)
    condition: Document = {index.parts[0].path: {"$lte": until}}
    return (condition,) if index.partial is None else (index.partial.filter, condition)


async def remove_expired(store: Store, now_ms: int) -> int:
    """Remove what has expired, in all collections; returns how many documents. Raises what the store does."""
    removed = 0
    for info in list(store.catalog().values()):
        for index in info.indexes:
            if index.expire_after_s is not None and index.ready:
                try:
                    removed += await _sweep(store, info, where(*expired(index, now_ms)), now_ms)
                except CollectionNotFound:
                    break  # Dropped meanwhile.
    return removed


async def _sweep(store: Store, info: CollectionInfo, condition: Where, now_ms: int) -> int:
    removed = 0
    while removed < SWEEP_DOCUMENTS:
        read = Read(info.name, condition, limit=TURN_DOCUMENTS, want=Want.KEYS)
        keys = [key for key, _, _ in (await store.read(read)).keys]
        if not keys:
            break
        gone = await store.commit(Turn(info.name, now_ms, _removal(condition), Keys(keys)))
        removed += gone
        if len(keys) < TURN_DOCUMENTS or not gone:
            break
    return removed


def _removal(condition: Where) -> Callable[[Sequence[Row]], Decision[int]]:
    """Removes the rows that still match: a document may have been given more time since it was found."""

    def decide(rows: Sequence[Row]) -> Decision[int]:
        gone = [row for row in rows if condition.match(row.document)]
        return Decision(len(gone), deletes=gone)

    return decide
