"""The record of an import: what was asked for, how far it is, and what went wrong. One small file each."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from cloudlet.docdb.newfile import replace_file
from cloudlet.docdb.transfer.reading import Format
from cloudlet.docdb.transfer.writing import Mode

State: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled"]

PROBLEMS_MAX: Final = 100
"""Lines that are told about; all are counted."""


class Problem(msgspec.Struct, frozen=True):
    """A line that was not imported."""

    line: int
    message: str


class Import(msgspec.Struct):
    """One import. Times are Unix milliseconds, sizes bytes.

    Everything before ``offset`` is in the collection. ``seq`` is the store's last change at that moment.
    """

    id: str
    environment: str
    collection: str
    format: Format
    mode: Mode
    stop_on_error: bool
    created_ms: int
    bytes: int
    state: State = "queued"
    message: str = ""
    """Why it failed."""
    finished_ms: int | None = None
    offset: int = 0
    line: int = 1
    seq: int = 0
    began: bool = False
    """Whether a batch may have been written that the rest of the record does not know of."""
    inserted: int = 0
    replaced: int = 0
    unchanged: int = 0
    failed: int = 0
    problems: list[Problem] = []

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.state in ("done", "failed", "cancelled")

    @property
    def resumable(self) -> bool:
        """Whether it can go on where it was."""
        return self.state in ("failed", "cancelled") and self.offset < self.bytes


def read_import(path: Path) -> Import:
    """Raises msgspec.MsgspecError, OSError."""
    return msgspec.json.decode(path.read_bytes(), type=Import)


def write_import(path: Path, job: Import) -> None:
    """Replace the record: after a crash it is the old one or the new one. Raises StoreUnavailable."""
    replace_file(path, msgspec.json.encode(job))
