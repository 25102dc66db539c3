"""What a watch still has to tell: for each document the state its client has, and the state it is to have.

Later changes of a document only replace the second. So what waits is bounded by the documents concerned, and
however many changes were merged, telling it leads exactly to the present.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloudlet.docdb.watch.events import DataType, DocChange
from cloudlet.docdb.watch.images import Held, Image


@dataclass(slots=True)
class Move:
    """One document enters a result (``old`` is None), changes inside it, or leaves it (``new`` is None)."""

    key: bytes
    old: Image | None
    new: Image | None
    reason: DataType
    told: DocChange | None = None
    """The update it amounts to, once one of the watches has worked it out."""


@dataclass(slots=True)
class Entry:
    """``base``: what the client has; ``now``: what it is to have; None: nothing."""

    base: Image | None
    now: Image | None
    reason: DataType
    move: Move | None
    """The only move it consists of; None if several were merged."""


class Pending:
    """The entries of one watch by id key, in the order in which documents were first concerned."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self.entries: dict[bytes, Entry] = {}
        self.bytes = 0
        """Size of the states to be told."""

    def add(self, move: Move) -> bool:
        """Whether the move was merged with what already waited."""
        entry = self.entries.get(move.key)
        if entry is None:
            self._held.take(move.old)
            self._held.take(move.new)
            self.entries[move.key] = Entry(move.old, move.new, move.reason, move)
            if move.new is not None:
                self.bytes += move.new.size
            return False
        self._replace(entry, move.new)
        entry.move = None
        if entry.base is None and entry.now is None:
            del self.entries[move.key]
        elif entry.base is not None or entry.now is None:
            # A document that comes keeps the reason of its coming; one that goes has the last word's.
            entry.reason = move.reason
        return True

    def take(self) -> dict[bytes, Entry]:
        """All entries; whoever takes them gives them to ``told`` or to ``put_back``."""
        taken, self.entries, self.bytes = self.entries, {}, 0
        return taken

    def told(self, taken: dict[bytes, Entry]) -> None:
        """The client has it."""
        for entry in taken.values():
            self._held.give(entry.base)
            self._held.give(entry.now)

    def put_back(self, taken: dict[bytes, Entry]) -> None:
        """It could not be told: what came meanwhile goes on from there."""
        newer, self.entries = self.entries, taken
        self.bytes = sum(entry.now.size for entry in taken.values() if entry.now is not None)
        for key, entry in newer.items():
            self.add(Move(key, entry.base, entry.now, entry.reason))
            self._held.give(entry.base)
            self._held.give(entry.now)

    def clear(self) -> None:
        """Forget everything."""
        self.told(self.take())

    def _replace(self, entry: Entry, now: Image | None) -> None:
        self._held.take(now)
        self.bytes += (0 if now is None else now.size) - (0 if entry.now is None else entry.now.size)
        self._held.give(entry.now)
        entry.now = now
