"""Sorting documents by fields, in MongoDB's order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from cloudlet.docdb.paths import Segments, resolve, split_path
from cloudlet.docdb.values import UNDEFINED_KEY, Document, OrderKey, Rank, Value, order_key
from cloudlet.model.errors import InvalidSort

T = TypeVar("T")

FIELDS_MAX: Final = 32
_DIRECTIONS: Final = {"asc": False, "ascending": False, "desc": True, "descending": True}
_NULL_KEY: Final[OrderKey] = (Rank.NULL, 0)


@dataclass(frozen=True, slots=True)
class SortField:
    """One field of an order."""

    path: str
    segments: Segments
    descending: bool


Sort: TypeAlias = tuple[SortField, ...]


def parse_sort(value: Value) -> Sort:
    """An order: ``{"a": 1}``, ``[{"field": "a", "direction": "desc"}]`` or None. Raises InvalidSort."""
    if value is None:
        return ()
    if type(value) is dict:
        pairs = list(value.items())
    elif type(value) is list:
        pairs = [_pair(item) for item in value]
    else:
        raise InvalidSort("an order must be an object or an array")
    if len(pairs) > FIELDS_MAX:
        raise InvalidSort(f"an order may have {FIELDS_MAX} fields")
    return tuple(_field(path, direction) for path, direction in pairs)


def sort_value(sort: Sort) -> Value:
    """The order as a value that ``parse_sort`` reads (what is sent to a worker)."""
    return [{"field": item.path, "direction": "desc" if item.descending else "asc"} for item in sort]


def sort_documents(items: list[T], sort: Sort, document: Callable[[T], Document]) -> None:
    """Sort in place. Stable: what is equal keeps its order."""
    for item in reversed(sort):
        key = _key_of(item)
        items.sort(key=lambda entry: key(document(entry)), reverse=item.descending)


def _pair(item: Value) -> tuple[Value, Value]:
    if type(item) is dict and "field" in item:
        return item["field"], item.get("direction", 1)
    raise InvalidSort("an element of an order must have a field and a direction")


def _field(path: Value, direction: Value) -> SortField:
    if type(path) is not str or path.startswith("$"):
        raise InvalidSort("an order names fields by text that does not start with $")
    if type(direction) is str and direction in _DIRECTIONS:
        descending = _DIRECTIONS[direction]
    elif type(direction) in (int, float) and direction in (1, -1):
        descending = direction == -1
    else:
        raise InvalidSort(f"the direction of {path[:80]!r} must be 1 or -1")
    return SortField(path, split_path(path, InvalidSort), descending)


def _key_of(field: SortField) -> Callable[[Document], OrderKey]:
    """Of an array its smallest element counts in ascending order and its largest in descending order."""
    best = max if field.descending else min

    def key(document: Document) -> OrderKey:
        keys: list[OrderKey] = []
        for leaf in resolve(document, field.segments):
            if type(leaf) is list:
                keys.extend(map(order_key, leaf) if leaf else (UNDEFINED_KEY,))
            else:
                keys.append(order_key(leaf))
        return best(keys) if keys else _NULL_KEY

    return key
