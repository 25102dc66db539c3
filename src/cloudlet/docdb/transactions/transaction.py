"""One open transaction: what it has seen and what it is going to write. No I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from cloudlet.docdb.base import Batch, Expected, Row, Store
from cloudlet.docdb.limits import TransactionLimits
from cloudlet.docdb.transactions.base import Key
from cloudlet.docdb.transactions.intents import Owner
from cloudlet.docdb.transactions.snapshot import Snapshot
from cloudlet.docdb.values import identical
from cloudlet.model.errors import LimitExceeded, PlatformError, RevisionConflict


@dataclass(slots=True)
class Written:
    """A document that the commit will write."""

    before: Row | None
    """As the snapshot has it."""
    after: Row | None
    """As the transaction sees it; None: removed."""

    @property
    def size(self) -> int:
        """Bytes that wait in memory."""
        return 0 if self.after is None else self.after.size

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        if self.before is None or self.after is None:
            return self.before is not self.after
        return not identical(self.before.document, self.after.document)


class HeldBytes:
    """Counts what all open transactions of an environment keep in memory."""

    def __init__(self, limits: TransactionLimits) -> None:
        self.used = 0
        self._limits = limits

    def charge(self, transaction: Transaction, size: int) -> None:
        """Count `size` more (or fewer) bytes. Raises LimitExceeded, and then nothing is counted."""
        if size > 0 and transaction.size + size > self._limits.bytes_max:
            raise LimitExceeded(
                f"a transaction may hold {self._limits.bytes_max} bytes; commit in smaller parts"
            )
        if size > 0 and self.used + size > self._limits.open_bytes_max:
            raise LimitExceeded(
                f"all open transactions may hold {self._limits.open_bytes_max} bytes; commit or abort some"
            )
        transaction.size += size
        self.used += size


@dataclass(slots=True, eq=False)
class Transaction:
    """The state of one transaction.

    ``late``: a conflict is told by the commit and not by the operation that meets it. ``deadline`` is in
    seconds, monotonic.
    """

    id: str
    store: Store
    owner: Owner
    deadline: float
    late: bool = False
    snapshot: Snapshot | None = None
    seen: dict[Key, int | None] = field(default_factory=dict)
    """Revisions of the documents that were read by their ids (None: absent)."""
    queried: bool = False
    """Something was read by a query: what would match now is not known, so the snapshot stays."""
    written: dict[Key, Written] = field(default_factory=dict)
    size: int = 0
    """Bytes that are held in memory for it."""
    operations: int = 0
    doomed: RevisionConflict | None = None
    """The conflict that the commit will tell."""
    ended: PlatformError | None = None
    """Why nothing can be done in it any more."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Operations that a program starts at the same time run one after the other."""
    committing: asyncio.Task[None] | None = None

    def own(self, collection: str) -> dict[bytes, Row | None]:
        """What it has written in a collection."""
        return {key: item.after for (name, key), item in self.written.items() if name == collection}

    def known(self) -> Iterator[tuple[Key, int | None]]:
        """What must be unchanged for the snapshot to be moved: everything read or written by id."""
        yield from self.seen.items()
        for key, item in self.written.items():
            yield key, None if item.before is None else item.before.rev

    def batch(self, at_ms: int) -> Batch | None:
        """What the commit writes, or None if that is nothing."""
        effects = [(key, item) for key, item in self.written.items() if item.changes]
        if not effects:
            return None
        return Batch(
            at_ms,
            [Expected(*key, None if item.before is None else item.before.rev) for key, item in effects],
            [(key[0], item.after.document) for key, item in effects if item.after is not None],
            [key for key, item in effects if item.after is None],
        )


def again(error: PlatformError) -> PlatformError:
    """The same error anew: one that is raised many times would keep every place it was raised at."""
    return type(error)(error.message)
