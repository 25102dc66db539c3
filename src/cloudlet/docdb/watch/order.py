"""An order in which no two documents are equal: that of the query, then by ``_id``."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from cloudlet.docdb.sort import Sort, SortField, parse_sort, sort_keys
from cloudlet.docdb.values import Document, OrderKey

_BY_ID: Final[SortField] = parse_sort({"_id": 1})[0]

Place: TypeAlias = tuple[Any, ...]
"""Where a document stands; places compare as the documents are ordered."""


class _Reversed:
    """A key in descending order."""

    __slots__ = ("key",)

    def __init__(self, key: OrderKey) -> None:
        self.key = key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reversed) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __lt__(self, other: _Reversed) -> bool:
        return self.key > other.key


def total(sort: Sort) -> Sort:
    """The order with ``_id`` at its end, unless it is there already."""
    return sort if any(item.path == "_id" for item in sort) else (*sort, _BY_ID)


def place_of(document: Document, sort: Sort) -> Place:
    """Where a document stands in an order."""
    keys = sort_keys(document, sort)
    return tuple([_Reversed(key) if item.descending else key for item, key in zip(sort, keys, strict=True)])
