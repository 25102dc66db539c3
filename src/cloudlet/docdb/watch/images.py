"""States of documents that wait to be told, and how much memory all of them take."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from cloudlet.docdb.base import Change, id_key
from cloudlet.docdb.body import encode_body
from cloudlet.docdb.values import Document


class Image:
    """One state of a document, shared by all who wait to tell it."""

    __slots__ = ("_size", "document", "holders")

    def __init__(self, document: Document, size: int | None = None) -> None:
        self.document = document
        self.holders = 0
        self._size = size

    @property
    def size(self) -> int:
        """Bytes of the stored text."""
        if self._size is None:
            self._size = len(encode_body(self.document, sys.maxsize))
        return self._size


class Held:
    """The size of all states that are held, each counted once however many hold it."""

    def __init__(self) -> None:
        self.bytes = 0

    def take(self, image: Image | None) -> None:
        """One more holds it."""
        if image is None:
            return
        if not image.holders:
            self.bytes += image.size
        image.holders += 1

    def give(self, image: Image | None) -> None:
        """One less holds it."""
        if image is None:
            return
        image.holders -= 1
        if not image.holders:
            self.bytes -= image.size


class Changed:
    """A change of a document with its two states."""

    __slots__ = ("after", "before", "key", "seq")

    def __init__(self, change: Change) -> None:
        self.seq = change.seq
        self.key = id_key(change.document_id)
        self.before = None if change.before is None else Image(change.before)
        self.after = None if change.after is None else Image(change.after)


class Touched:
    """What several changes in a row did to one document: its state before the first and after the last."""

    __slots__ = ("after", "before")

    def __init__(self, before: Image | None, after: Image | None) -> None:
        self.before = before
        self.after = after


def touched_by(changes: Iterable[Change]) -> dict[bytes, Touched]:
    """The documents of these changes, which come in order, by id key."""
    found: dict[bytes, Touched] = {}
    for change in changes:
        changed = Changed(change)
        known = found.get(changed.key)
        if known is None:
            found[changed.key] = Touched(changed.before, changed.after)
        else:
            known.after = changed.after
    return found
