"""Sorting documents by fields, in MongoDB's order. Manual: "cursor.sort()", "Comparison/Sort Order"."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial, reduce
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from cloudlet.docdb import numeric
from cloudlet.docdb.paths import Segments, resolve, split_path
from cloudlet.docdb.values import MISSING, UNDEFINED_KEY, Document, OrderKey, Rank, Value, order_key
from cloudlet.model.errors import InvalidSort

T = TypeVar("T")

FIELDS_MAX: Final = 32
_CACHED_PATH_MAX: Final = 100
_DIRECTIONS: Final = {"asc": False, "ascending": False, "desc": True, "descending": True}
_NULL_KEY: Final[OrderKey] = (Rank.NULL, 0)


class SortField(msgspec.Struct, frozen=True):
    """One field of an order."""

    path: str
    segments: Segments
    descending: bool
    distance: Callable[[Document], float | None] | None = None
    """If set, documents are ordered by this number instead of the field; those without one come last."""


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


def by_distance(path: str, distance: Callable[[Document], float | None]) -> Sort:
    """The order of a ``$near`` about a path."""
    return (SortField(path, split_path(path, InvalidSort), False, distance),)


def sort_value(sort: Sort) -> Value:
    """The order as a value that ``parse_sort`` reads (what is sent to a worker).

    An order by distance follows from the filter and is left out.
    """
    return [
        {"field": item.path, "direction": "desc" if item.descending else "asc"}
        for item in sort
        if item.distance is None
    ]


def sort_documents(items: list[T], sort: Sort, document: Callable[[T], Document]) -> None:
    """Sort in place. Stable: what is equal keeps its order."""
    if _share_a_field(sort):
        _sort_jointly(items, sort, document)
        return
    for run in reversed(_runs(sort)):
        key = _key_of(run)
        items.sort(key=lambda entry: key(document(entry)), reverse=run[0].descending)


def sort_keys(document: Document, sort: Sort) -> list[OrderKey]:
    """What a document is sorted by, one key for each field of the order (ascending)."""
    return _joint_key(document, sort)


def _pair(item: Value) -> tuple[Value, Value]:
    if type(item) is dict and "field" in item:
        return item["field"], item.get("direction", 1)
    raise InvalidSort("an element of an order must have a field and a direction")


def _field(path: Value, direction: Value) -> SortField:
    if type(path) is str and len(path) <= _CACHED_PATH_MAX and type(direction) in (int, str):
        return _cached_field(path, direction)
    return _read_field(path, direction)


def _read_field(path: Value, direction: Value) -> SortField:
    if type(path) is not str or path.startswith("$"):
        raise InvalidSort(f"an order names fields by text that does not start with $, unlike {path!r:.80}")
    if type(direction) is dict:
        raise InvalidSort(
            f"the order of {path[:80]!r} by {next(iter(direction), '{}')[:40]} is not supported"
        )
    if type(direction) is str and direction in _DIRECTIONS:
        descending = _DIRECTIONS[direction]
    elif numeric.is_number(direction) and direction in (1, -1):
        descending = bool(direction == -1)
    else:
        raise InvalidSort(f"the direction of {path[:80]!r} must be 1 or -1")
    return SortField(path, split_path(path, InvalidSort), descending)


_cached_field = lru_cache(maxsize=1_024)(_read_field)


def _runs(sort: Sort) -> list[Sort]:
    """Neighbouring fields of one direction: each run is one pass with one key."""
    runs: list[Sort] = []
    for item in sort:
        if runs and runs[-1][0].descending == item.descending:
            runs[-1] = (*runs[-1], item)
        else:
            runs.append((item,))
    return runs


def _key_of(run: Sort) -> Callable[[Document], Any]:
    keys = [_field_key(item) for item in run]
    if len(keys) == 1:
        return keys[0]
    return lambda document: tuple([key(document) for key in keys])


def _field_key(field: SortField) -> Callable[[Document], Any]:
    if field.distance is not None:
        return _distance_key(field.distance)
    return _flat_key(field) if len(field.segments) == 1 else _path_key(field)


def _distance_key(distance: Callable[[Document], float | None]) -> Callable[[Document], float]:
    def key(document: Document) -> float:
        far = distance(document)
        return math.inf if far is None else far

    return key


def _path_key(field: SortField) -> Callable[[Document], OrderKey]:
    """Of an array its smallest element counts in ascending order and its largest in descending order."""
    best = max if field.descending else min
    segments = field.segments

    def key(document: Document) -> OrderKey:
        keys: list[OrderKey] = []
        for leaf in resolve(document, segments):
            if type(leaf) is list:
                keys.extend(map(order_key, leaf) if leaf else (UNDEFINED_KEY,))
            else:
                keys.append(order_key(leaf))
        return best(keys) if keys else _NULL_KEY

    return key


def _flat_key(field: SortField) -> Callable[[Document], OrderKey]:
    """``_path_key`` without the walk."""
    best = max if field.descending else min
    name = field.path

    def key(document: Document) -> OrderKey:
        leaf = document.get(name, MISSING)
        if type(leaf) is list:
            return best(map(order_key, leaf)) if leaf else UNDEFINED_KEY
        return order_key(leaf)

    return key


def _share_a_field(sort: Sort) -> bool:
    """Whether two paths enter the same field, which may be an array of objects."""
    firsts = [item.segments[0][0] for item in sort if len(item.segments) > 1]
    return len(set(firsts)) < len(firsts)


def _sort_jointly(items: list[T], sort: Sort, document: Callable[[T], Document]) -> None:
    """Where several fields are in one array, the values of one element count together."""
    keyed = [(_joint_key(document(item), sort), item) for item in items]
    for at in reversed(range(len(sort))):
        keyed.sort(key=lambda pair: pair[0][at], reverse=sort[at].descending)
    items[:] = [item for _, item in keyed]


def _joint_key(value: Document, sort: Sort) -> list[OrderKey]:
    """The keys of all fields of an order, of the best element where several of them are in one array."""
    groups: dict[str, list[int]] = {}
    for at, item in enumerate(sort):
        groups.setdefault(item.segments[0][0], []).append(at)
    keys: list[OrderKey] = [_NULL_KEY] * len(sort)
    for name, places in groups.items():
        fields = tuple(sort[at] for at in places)
        below = value.get(name, MISSING)
        for at, key in zip(places, _group_key(value, below, fields), strict=True):
            keys[at] = key
    return keys


def _group_key(value: Document, below: Value, fields: Sort) -> list[OrderKey]:
    """The keys of fields that all begin with the same segment, which leads from ``value`` to ``below``."""
    deeper = len(fields) > 1 and all(len(item.segments) > 1 for item in fields)
    indexed = any(item.segments[1][1] >= 0 for item in fields) if deeper else False
    elements = [item for item in below if type(item) is dict] if type(below) is list else []
    rest = tuple(SortField(item.path, item.segments[1:], item.descending) for item in fields)
    if deeper and type(below) is dict:
        return _joint_key(below, rest)
    if deeper and elements and not indexed:
        return reduce(partial(_better, fields), (_joint_key(item, rest) for item in elements))
    return [_path_key(item)(value) for item in fields]


def _better(fields: Sort, one: list[OrderKey], other: list[OrderKey]) -> list[OrderKey]:
    for item, left, right in zip(fields, one, other, strict=True):
        if left != right:
            return one if (left > right) == item.descending else other
    return one
