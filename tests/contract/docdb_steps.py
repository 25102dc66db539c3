"""Small steps for tests of document stores: writing, changing, removing and finding in ``dishes``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cloudlet.docdb.base import Decision, Put, Read, Row, Select, Store, Turn
from cloudlet.docdb.filter import where
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.sort import parse_sort
from cloudlet.docdb.values import Document

LIMITS = DocdbLimits(
    document_bytes_max=4_000,
    result_bytes_max=20_000,
    examined_inline_max=50,
    collections_max=3,
    indexes_max=3,
    changes_kept_max=40,
    workers_max=1,
)


async def put(store: Store, *documents: Document, into: str = "dishes") -> None:
    """Insert in one turn."""
    await store.commit(Turn(into, 5, lambda _: Decision(None, [Put(document) for document in documents])))


async def change(store: Store, condition: Document, edit: Callable[[Document], Document]) -> int:
    """Replace what matches; returns how many."""

    def decide(rows: Sequence[Row]) -> Decision[int]:
        return Decision(len(rows), [Put(edit(row.document), row) for row in rows])

    return await store.commit(Turn("dishes", 6, decide, Select(where(condition), None)))


async def remove(store: Store, condition: Document) -> int:
    """Remove what matches; returns how many."""
    decide: Callable[[Sequence[Row]], Decision[int]] = lambda rows: Decision(len(rows), deletes=rows)  # noqa: E731
    return await store.commit(Turn("dishes", 7, decide, Select(where(condition), None)))


async def find(
    store: Store, condition: Document, order: Any = None, skip: int = 0, limit: int | None = None
) -> list[Any]:
    """Ids of what matches, in order."""
    found = await store.read(Read("dishes", where(condition), parse_sort(order), skip, limit))
    return [row.document["_id"] for row in found.rows]
