"""The limits of the document database: one record, handed to everything that needs one."""

from __future__ import annotations

from dataclasses import dataclass

from cloudlet.model.errors import QueryTooCostly


@dataclass(frozen=True, slots=True)
class TransactionLimits:
    """What transactions may cost. Each value has its unit in its name."""

    lifetime_s: float = 30.0
    """A transaction that has not been committed by then is undone; upstream's number."""
    open_max: int = 1_000
    """Open transactions of one environment."""
    operations_max: int = 1_000
    documents_max: int = 5_000
    """Documents one transaction may write."""
    bytes_max: int = 16 * 1024 * 1024
    """Stored size of what one transaction keeps in memory: its writes, and older states of documents."""
    open_bytes_max: int = 64 * 1024 * 1024
    """The same for all open transactions of one environment together."""
    changes_max: int = 5_000
    """Changes by others since the snapshot, in the collections that are read; after more it conflicts."""
    waiting_max: int = 2_000
    """Those who wait for a write intent, in one environment."""
    wait_s: float = 10.0
    """How long a transaction waits for a hot document (SDKs give up after 15 s)."""
    write_wait_s: float = 5.0
    """How long a write outside transactions waits for a document that a transaction is writing."""
    intent_idle_s: float = 3.0
    """A holder silent for so long loses the intent to the next in line (its commit may still succeed)."""
    hot_s: float = 10.0
    """How long after a conflict a document is waited for in line."""
    hot_documents_max: int = 10_000
    claims_max: int = 20
    """Documents of one operation that are waited for in line."""
    outcomes_kept_max: int = 1_000
    """Ended transactions that are remembered, so that a repeated commit gets the same answer."""
    sweep_s: float = 0.25
    """How often it is looked whether somebody's time is up."""


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """What watches may cost. Each value has its unit in its name."""

    open_max: int = 10_000
    """Watches of one environment."""
    user_max: int = 200
    """Watches of one signed-in user."""
    connection_max: int = 50
    """Watches of one client connection."""
    documents_max: int = 5_000
    """Documents of one result; upstream's number."""
    bytes_max: int = 16 * 1024 * 1024
    """Stored size of the documents one watch has not told yet, its first result included."""
    held_bytes_max: int = 128 * 1024 * 1024
    """The same for one environment, a state that several watches have to tell counted once."""
    window_bytes_max: int = 128 * 1024 * 1024
    """Stored size of the documents that watches with a limit keep, in one environment."""
    reserve_max: int = 100
    """Documents that are kept behind the limit of a watch, so that one that leaves is replaced at once."""
    paths_max: int = 32
    """Different paths by which the watches of one collection are found."""
    unindexed_max: int = 1_000
    """Different watches of one collection that have to look at every change of it."""
    queue_max: int = 4_096
    """Changes that wait to be handed to watches; what does not fit is read from the change log."""
    replay_max: int = 2_000
    """Changes of one collection that a resumed watch catches up with; beyond that it begins anew."""
    behind_max: int = 20_000
    """Changes of one collection while the first result of a watch is read; beyond that it cannot begin."""
    slice_s: float = 0.005
    """How long changes are handed to watches before others get their turn."""


@dataclass(frozen=True, slots=True)
class DocdbLimits:
    """What one request or one file may cost. Each value has its unit in its name."""

    document_bytes_max: int = 16 * 1024 * 1024
    """Size of one stored body; the limit of the database we are compatible with."""
    insert_documents_max: int = 5_000
    """Documents of one insert call. They are written atomically, so this bounds a writer turn."""
    result_bytes_max: int = 64 * 1024 * 1024
    """Stored size of the documents one answer may hold, sorted ones that were held meanwhile included."""
    examined_inline_max: int = 1_000
    """Documents a read or a writer turn may look at in the server's own process (about 5 ms)."""
    counted_inline_max: int = 1_000_000
    """Documents of a collection that is counted as a whole in the server's own process (about 20 ms)."""
    scan_time_s: float = 10.0
    """After this time a scanning worker is killed."""
    workers_max: int = 2
    scans_waiting_max: int = 64
    """Scans that may wait for a worker; more are refused at once."""
    turn_documents_max: int = 500
    """Documents of one writer turn of a large multi-document write, so that other writers get theirs."""
    turn_bytes_max: int = 16 * 1024 * 1024
    """Stored size of the documents of one such turn (one document may be larger)."""
    writes_waiting_max: int = 4_096
    group_max: int = 256
    """Requests that share one transaction, and so one disk sync."""
    conflicts_max: int = 5
    """How often a write that had to be matched outside the writer is tried again after a conflict."""
    changes_kept_max: int = 200_000
    """Rows of the change log that are kept per environment."""
    collections_max: int = 1_000
    indexes_max: int = 40
    """Indexes of one collection."""
    transactions: TransactionLimits = TransactionLimits()
    watches: WatchLimits = WatchLimits()

    def examined_max(self, patterned: bool) -> int:
        """Documents a query may look at in the server's own process; a tenth with regular expressions."""
        return max(1, self.examined_inline_max // 10) if patterned else self.examined_inline_max


DEFAULT_LIMITS = DocdbLimits()

DEPTH_MAX = 100
"""Nesting of a document, a filter value or an update value."""
PATH_SEGMENTS_MAX = 100
PATTERN_SUBJECT_MAX = 4_096
"""Characters of a text that a regular expression may search in the server's own process."""
INDEX_ENTRIES_MAX = 1_000
"""Entries of one document in one index."""


class Overrun(QueryTooCostly):
    """The query would cost more than it may in the server's own process or inside the writer."""
