"""The limits of the document database: one record, handed to everything that needs one."""

from __future__ import annotations

from dataclasses import dataclass

from cloudlet.model.errors import QueryTooCostly


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
