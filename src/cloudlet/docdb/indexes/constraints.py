"""What a query says about single fields, as intervals of index keys.

Each entry alone is implied by the query: the keys of a matching document always lie in the intervals. An
entry is *exact* if the reverse holds too, for indexes that have met no array and hide no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import product
from typing import Final, NamedTuple

from cloudlet.docdb.bytekeys import (
    NULL_KEY,
    UNDEFINED_KEY,
    candidate_key,
    lossless_key,
    successor,
    text_prefix_key,
)
from cloudlet.docdb.filter.ast import And, Compare, GeoIntersects, GeoWithin, In, Near, Node, Op, Or
from cloudlet.docdb.filter.regex import literal_prefix
from cloudlet.docdb.numeric import is_nan
from cloudlet.docdb.values import ObjectId, Rank, Value, rank

INTERVALS_MAX: Final = 256
_COMPARABLE: Final = frozenset({Rank.NUMBER, Rank.STRING, Rank.OBJECT_ID, Rank.BOOL, Rank.DATE})
"""Types whose keys order and separate their values."""
_PLAIN_IDS: Final = frozenset({str, int, ObjectId, datetime})
_NUMBERS_LOW: Final = successor(lossless_key(float("nan")))
"""Not-a-number is the lowest number and is compared with none."""


class Interval(NamedTuple):
    """Keys of one field from ``low`` up to but without ``end``, before any inversion."""

    low: bytes
    end: bytes
    point: bool = False
    """It is the complete key of one value, so that the next field's key follows."""


class Choice(NamedTuple):
    """Intervals, one of which holds a matching document's key."""

    intervals: tuple[Interval, ...]
    exact: bool = False

    @property
    def points(self) -> bool:
        for interval in self.intervals:  # noqa: SIM110 - a generator would cost a frame per query
            if not interval.point:
                return False
        return True


class Constraints:
    """The fields of one query. ``unique``: in the keys of unique indexes. ``tight``: for indexes whose keys
    hide no difference, so that an excluded bound can be left out.
    """

    def __init__(self, conditions: Iterable[Node], unique: bool, tight: bool) -> None:
        self._unique = unique
        self._tight = tight
        self.fields: dict[str, tuple[Choice, ...]] = {}
        for node in conditions:
            for path, choices in self._collect(node).items():
                self.fields[path] = self.fields.get(path, ()) + choices

    def _collect(self, node: Node) -> dict[str, tuple[Choice, ...]]:
        match node:
            case Compare(path, op, value):
                choice = self._compared(op, value)
            case And(children):
                return Constraints(children, self._unique, self._tight).fields
            case Or(children):
                return self._either(children)
            case In(path):
                choice = self._any_of(node)
            case _:
                return {}
        return {} if choice is None else {path.text: (choice,)}

    def _either(self, children: tuple[Node, ...]) -> dict[str, tuple[Choice, ...]]:
        """A field that every branch says something about: the union of what they say."""
        branches = [self._collect(child) for child in children]
        found: dict[str, tuple[Choice, ...]] = {}
        for path in branches[0] if branches else ():
            if all(path in branch for branch in branches):
                union = [interval for branch in branches for interval in branch[path][0].intervals]
                found[path] = (Choice(tuple(dict.fromkeys(union))),)
        return found

    def _any_of(self, node: In) -> Choice | None:
        found: list[Interval] = []
        exact = not node.patterns
        for value in node.values:
            choice = self._equal(value)
            exact = exact and choice.exact
            found += choice.intervals
        for pattern in node.patterns:
            prefix = literal_prefix(pattern)
            if not prefix:
                return None
            found += [_beginning(text_prefix_key(prefix)), _beginning(bytes((Rank.REGEX,)))]
        return Choice(tuple(dict.fromkeys(found)), exact)

    def _compared(self, op: Op, value: Value) -> Choice | None:
        if op is Op.EQ:
            return self._equal(value)
        kind = rank(value)
        if value is None or is_nan(value):
            return self._equal(value) if op in (Op.GTE, Op.LTE) else None
        if kind in (Rank.ARRAY, Rank.MIN_KEY, Rank.MAX_KEY):
            return None
        key, lossy = self._key(value)
        exact = kind in _COMPARABLE and not lossy
        tight = exact and self._tight
        low = _NUMBERS_LOW if kind == Rank.NUMBER else bytes((kind,))
        if op is Op.GT or op is Op.GTE:
            first = successor(key) if op is Op.GT and tight else key
            return Choice((Interval(first, bytes((kind + 1,))),), exact)
        return Choice((Interval(low, key if op is Op.LT and tight else successor(key)),), exact)

    def _equal(self, value: Value) -> Choice:
        if value is None:
            return Choice((_point(NULL_KEY),), exact=True)
        own, lossy = self._key(value)
        if type(value) is str:
            return Choice((_point(own),), not lossy)
        if type(value) is list:
            # An array is entered by its elements; the key of the array itself is there if it is an element.
            first = self._key(value[0])[0] if value else UNDEFINED_KEY
            return Choice((_point(own), _point(first)))
        return Choice((_point(own),), not lossy and rank(value) in _COMPARABLE)

    def _key(self, value: Value) -> tuple[bytes, bool]:
        return (lossless_key(value), False) if self._unique else candidate_key(value)


def combined(choices: Sequence[Choice], multikey: bool) -> Choice:
    """One choice out of several that all hold. Of an index that has met an array only one may be used: each
    may be met by another element.
    """
    if len(choices) == 1:
        return choices[0]
    ordered = sorted(choices, key=lambda choice: (not choice.points, len(choice.intervals)))
    best = ordered[0]
    if multikey:
        return Choice(best.intervals)
    for other in ordered[1:]:
        if len(best.intervals) * len(other.intervals) <= INTERVALS_MAX:
            best = _intersection(best, other)
        else:
            best = Choice(best.intervals)
    return best


def _intersection(left: Choice, right: Choice) -> Choice:
    kept = []
    for a, b in product(left.intervals, right.intervals):
        low, end = max(a.low, b.low), min(a.end, b.end)
        if low < end:
            whole = (a.point and (low, end) == (a.low, a.end)) or (b.point and (low, end) == (b.low, b.end))
            kept.append(Interval(low, end, whole))
    return Choice(tuple(dict.fromkeys(kept)), left.exact and right.exact)


def plain_id(conditions: Iterable[Node]) -> Value:
    """What the query pins ``_id`` to if that is simple, or None: the commonest query of all."""
    for node in conditions:
        if (
            type(node) is Compare
            and node.op is Op.EQ
            and node.path.text == "_id"
            and type(node.value) in _PLAIN_IDS
        ):
            return node.value
    return None


def mentioned(conditions: Iterable[Node]) -> set[str]:
    """Paths that the conditions may say something about."""
    found: set[str] = set()
    for node in conditions:
        if isinstance(node, Compare | In | GeoWithin | GeoIntersects | Near):
            found.add(node.path.text)
        elif isinstance(node, And | Or):
            found |= mentioned(node.children)
    return found


def _point(key: bytes) -> Interval:
    return Interval(key, successor(key), point=True)


def _beginning(prefix: bytes) -> Interval:
    return Interval(prefix, successor(prefix))
