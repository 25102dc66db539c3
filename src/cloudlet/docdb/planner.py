"""Which index answers a query: from the tree and the order to key ranges, or to a scan.

The ranges always lead to a superset of what matches; the matcher removes the rest. An index is only used for
what its keys can promise: one that has met an array combines no two bounds on a field and gives no order, one
with lossy keys gives no order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeAlias

from cloudlet.docdb.bytekeys import (
    NULL_KEY,
    UNDEFINED_KEY,
    UNIQUE_PREFIX,
    KeyPart,
    candidate_key,
    invert,
    lossless_key,
    successor,
    text_prefix_key,
)
from cloudlet.docdb.filter.ast import And, Compare, In, Node, Op, Or
from cloudlet.docdb.filter.regex import literal_prefix
from cloudlet.docdb.sort import Sort
from cloudlet.docdb.values import Rank, Value, rank

RANGES_MAX: Final = 256
"""More ranges than this are not worth the statements; ids are looked up one by one and have no such limit."""

END_KEY: Final = b"\xff"
"""Above every key: no key begins with this byte (type bytes end at 110, their inverses at 250)."""


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """One index of a collection. Number 0 is the collection's own id key."""

    number: int
    name: str
    parts: tuple[KeyPart, ...]
    unique: bool = False
    multikey: bool = False
    lossy: bool = False
    ready: bool = True
    """False while it is being filled: written to, not read."""


@dataclass(frozen=True, slots=True)
class Ids:
    """Look up these ids (their lossless keys)."""

    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Ranges:
    """Read these key ranges (lower end included, upper end not), which do not overlap and ascend."""

    index: IndexInfo
    ranges: tuple[tuple[bytes, bytes], ...]
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Scan:
    """Read everything in order of insertion."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the candidates come from, and whether they come in the wanted order."""

    source: Ids | Ranges | Scan
    ordered: bool


ID_INDEX: Final = IndexInfo(0, "_id_", (KeyPart("_id", (("_id", -1),)),), unique=True)


def plan(node: Node, sort: Sort, indexes: Iterable[IndexInfo]) -> Plan:
    """The cheapest source by simple rules: ids, then the most leading equalities, then a range, then the
    order.
    """
    candidate, lossless = _Constraints(unique=False), _Constraints(unique=True)
    best: Plan | None = None
    best_score = 0.0
    for index in (ID_INDEX, *indexes):
        if not index.ready:
            continue
        found, score = _use(index, lossless if index.unique else candidate, node, sort)
        if found is not None and score > best_score:
            best, best_score = found, score
            if isinstance(found.source, Ids):
                break
    return best or Plan(Scan(), not sort)


@dataclass(frozen=True, slots=True)
class _Interval:
    """Keys of one field from ``low`` up to all that begin with ``high``, before any inversion."""

    low: bytes
    high: bytes
    point: bool = False
    """It is the complete key of one value, so that the next field's key follows."""


_Intervals: TypeAlias = tuple[_Interval, ...]


def _use(index: IndexInfo, constraints: _Constraints, node: Node, sort: Sort) -> tuple[Plan | None, float]:
    bounds = constraints.of(node)
    prefixes: list[tuple[bytes, bytes]] = [(b"", b"")]
    score, position = 0.0, 0
    points = True
    for part in index.parts:
        intervals = _for_part(bounds.get(part.path, ()), index.multikey)
        if intervals is None or len(intervals) * len(prefixes) > _ranges_max(index):
            break
        points = all(interval.point for interval in intervals)
        prefixes = [
            (low + below, low + above)
            for (low, _), (below, above) in product(prefixes, (_ends(i, part.descending) for i in intervals))
        ]
        score += 4 if points else 2
        position += 1
        if not points:
            break
    if index.number == 0 and position == 1 and points:
        return Plan(Ids(tuple(sorted({low for low, _ in prefixes}))), not sort or len(prefixes) <= 1), 100.0
    ordered, reverse = _order(index, sort, position if points else position - 1, len(prefixes))
    if ordered and sort:
        score += 1.5
    if not score:
        return None, 0.0
    return Plan(Ranges(index, _ranges(prefixes, index, position), reverse), ordered), score


def _ranges_max(index: IndexInfo) -> int:
    return 10**6 if index.number == 0 else RANGES_MAX


def _ends(interval: _Interval, descending: bool) -> tuple[bytes, bytes]:
    """The two ends as prefixes of stored keys, the lower first."""
    if descending:
        return invert(interval.high), invert(interval.low)
    return interval.low, interval.high


def _ranges(
    prefixes: list[tuple[bytes, bytes]], index: IndexInfo, position: int
) -> tuple[tuple[bytes, bytes], ...]:
    if not position:
        return ((b"", END_KEY),)
    cut = UNIQUE_PREFIX if index.unique and index.lossy else None
    merged: list[tuple[bytes, bytes]] = []
    for low, high in sorted((low[:cut], successor(high[:cut])) for low, high in prefixes):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _order(index: IndexInfo, sort: Sort, fixed: int, ranges: int) -> tuple[bool, bool]:
    """Whether the index gives the order, and whether it has to be read backwards for it."""
    if not sort:
        return True, False
    rest = index.parts[fixed:]
    if index.multikey or index.lossy or (ranges > 1 and fixed) or len(sort) > len(rest):
        return False, False
    turned = {part.descending != item.descending for part, item in zip(rest, sort, strict=False)}
    same = all(part.path == item.path for part, item in zip(rest, sort, strict=False))
    return same and len(turned) == 1, turned == {True}


def _for_part(choices: tuple[_Intervals, ...], multikey: bool) -> _Intervals | None:
    """One set of intervals out of several that all hold; None if there is no set."""
    if not choices:
        return None
    best = min(choices, key=lambda intervals: (not all(i.point for i in intervals), len(intervals)))
    if multikey:
        return best
    chosen = best
    for other in choices:
        if other is not chosen and len(best) * len(other) <= RANGES_MAX:
            best = _intersection(best, other)
    return best


def _intersection(left: _Intervals, right: _Intervals) -> _Intervals:
    kept = []
    for a, b in product(left, right):
        low, high = max(a.low, b.low), min(a.high, b.high, key=successor)
        if low < successor(high):
            exact = (a.point and (low, high) == (a.low, a.high)) or (
                b.point and (low, high) == (b.low, b.high)
            )
            kept.append(_Interval(low, high, exact))
    return tuple(dict.fromkeys(kept))


class _Constraints:
    """What the tree says about single fields, as key intervals; each entry alone is implied by the tree."""

    def __init__(self, unique: bool) -> None:
        self._unique = unique
        self._known: dict[str, tuple[_Intervals, ...]] | None = None

    def of(self, node: Node) -> dict[str, tuple[_Intervals, ...]]:
        if self._known is None:
            self._known = self._collect(node)
        return self._known

    def _collect(self, node: Node) -> dict[str, tuple[_Intervals, ...]]:
        match node:
            case And(children):
                found: dict[str, tuple[_Intervals, ...]] = {}
                for child in children:
                    for path, sets in self._collect(child).items():
                        found[path] = found.get(path, ()) + sets
                return found
            case Or(children):
                return self._either(children)
            case Compare(path, op, value):
                intervals = self._compared(op, value)
            case In(path, values, _):
                intervals = self._any_of(node) if values or node.patterns else ()
            case _:
                return {}
        return {} if intervals is None else {path.text: (intervals,)}

    def _either(self, children: tuple[Node, ...]) -> dict[str, tuple[_Intervals, ...]]:
        """A field that every branch says something about: the union of what they say."""
        branches = [self._collect(child) for child in children]
        found: dict[str, tuple[_Intervals, ...]] = {}
        for path in branches[0] if branches else ():
            if all(path in branch for branch in branches):
                union = [interval for branch in branches for interval in branch[path][0]]
                found[path] = (tuple(dict.fromkeys(union)),)
        return found

    def _any_of(self, node: In) -> _Intervals | None:
        found: list[_Interval] = []
        for value in node.values:
            found.extend(self._equal(value))
        for pattern in node.patterns:
            prefix = literal_prefix(pattern)
            if not prefix:
                return None
            key = text_prefix_key(prefix)
            found += [_Interval(key, key), _type_interval(Rank.REGEX)]
        return tuple(dict.fromkeys(found))

    def _compared(self, op: Op, value: Value) -> _Intervals | None:
        if op is Op.EQ:
            return self._equal(value)
        kind = rank(value)
        if value is None or (type(value) is float and math.isnan(value)):
            return self._equal(value) if op in (Op.GTE, Op.LTE) else None
        if kind == Rank.ARRAY:
            return None
        key, type_key = self._key(value), bytes((kind,))
        return (_Interval(key, type_key) if op in (Op.GT, Op.GTE) else _Interval(type_key, key),)

    def _equal(self, value: Value) -> _Intervals:
        if value is None:
            return (_Interval(NULL_KEY, NULL_KEY, point=True),)
        own = self._key(value)
        found = [_Interval(own, own, point=True)]
        if type(value) is list:
            # An array is entered by its elements; the key of the array itself is there if it is an element.
            first = self._key(value[0]) if value else UNDEFINED_KEY
            found.append(_Interval(first, first, point=True))
        return tuple(found)

    def _key(self, value: Value) -> bytes:
        return lossless_key(value) if self._unique else candidate_key(value)[0]


def _type_interval(kind: int) -> _Interval:
    key = bytes((kind,))
    return _Interval(key, key)
