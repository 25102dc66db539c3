"""What a transaction and a store have in common for those who read and write documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias, TypeVar

from cloudlet.docdb.base import CollectionInfo, Found, Read, Turn

T = TypeVar("T")

Key: TypeAlias = tuple[str, bytes]
"""A document: its collection and its id key."""


class Documents(Protocol):
    """Documents to read and to write: a store, or a store as one transaction sees it."""

    def catalog(self) -> Mapping[str, CollectionInfo]:
        """The collections by name."""
        ...

    async def read(self, read: Read) -> Found:
        """Answer a query; raises what ``Store.read`` raises."""
        ...

    async def commit(self, turn: Turn[T]) -> T:
        """Run one turn; raises what ``Store.commit`` raises."""
        ...
