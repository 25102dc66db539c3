"""A query that is watched: one record for all watches that ask it, so that a change is matched once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudlet.docdb.base import CollectionInfo
from cloudlet.docdb.filter import Where
from cloudlet.docdb.sort import Sort
from cloudlet.docdb.watch.events import DataType
from cloudlet.docdb.watch.images import Changed, Image
from cloudlet.docdb.watch.order import total
from cloudlet.docdb.watch.pending import Move
from cloudlet.docdb.watch.terms import Term
from cloudlet.docdb.watch.window import Window

if TYPE_CHECKING:
    from cloudlet.docdb.watch.watch import Watch


class Live:
    """A query and its watches. Without a limit nothing is kept of its result: the two states of a changed
    document tell whether it comes, stays or goes. With one its first documents are kept (``window``).
    """

    def __init__(
        self, info: CollectionInfo, where: Where, sort: Sort, limit: int | None, digest: str
    ) -> None:
        self.info = info
        self.where = where
        self.sort = sort
        self.order = total(sort)
        self.limit = limit
        self.digest = digest
        self.term: Term | None = None
        """Where the index has it."""
        self.watches: dict[Watch, None] = {}
        self.openers = 0
        """Those who are about to watch it."""
        self.window: Window | None = None
        self.loading = False
        """Documents are being read: the window stands still, and nothing is told meanwhile."""
        self.seq = 0
        """The change up to which the window was read or changed."""

    def moves(self, changed: Changed) -> list[Move]:
        """What a change does to the result. Raises Overrun if matching would take too long."""
        match = self.where.match
        after = changed.after if changed.after is not None and match(changed.after.document) else None
        if self.limit is None:
            before = changed.before if changed.before is not None and match(changed.before.document) else None
            if before is None and after is None:
                return []
            return [Move(changed.key, before, after, reason_of(changed.before, changed.after))]
        if self.window is None or self.loading or changed.seq <= self.seq:
            return []
        self.seq = changed.seq
        return self.window.change(changed.key, after, reason_of(changed.before, changed.after))


def reason_of(before: Image | None, after: Image | None) -> DataType:
    """Why a document comes, changes or goes by its own doing."""
    if before is None:
        return DataType.ADD
    return DataType.REMOVE if after is None else DataType.UPDATE
