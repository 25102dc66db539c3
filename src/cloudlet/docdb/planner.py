"""Which index answers a query: from the tree and the order to key ranges, or to a scan.

The ranges always lead to a superset of what matches; the matcher removes the rest. An index is only used for
what its keys can promise: one that has met an array combines no two bounds on a field and gives no order, one
with lossy keys gives no order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Final, TypeAlias

from cloudlet.docdb.bytekeys import (
    LOSSLESS_BYTES_MAX,
    UNIQUE_PREFIX,
    KeyPart,
    invert,
    lossless_key,
    successor,
)
from cloudlet.docdb.filter.ast import And, Near, Node, Or
from cloudlet.docdb.filter.geo import NO_INDEX, refused
from cloudlet.docdb.geo.rings import WANTED, Rings
from cloudlet.docdb.indexes.constraints import Choice, Constraints, Interval, combined, mentioned, plain_id
from cloudlet.docdb.indexes.partial import PartialFilter, implies, implies_exists
from cloudlet.docdb.indexes.places import place_choice, place_condition
from cloudlet.docdb.sort import Sort

RANGES_MAX: Final = 256
"""More ranges than this are not worth the statements; ids are looked up one by one and have no such limit."""

END_KEY: Final = b"\xff"
"""Above every key: no key begins with this byte (type bytes end at 120, their inverses at 254)."""


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
    sparse: bool = False
    """Holds only documents that have one of the fields."""
    partial: PartialFilter | None = None
    """Holds only documents that match."""
    expire_after_s: int | None = None
    automatic: bool = False
    """Made by the platform from measured queries."""

    places: tuple[KeyPart, ...] = field(init=False, repr=False, compare=False)
    """The geographic fields. With any, the index holds only documents that have a place in one."""

    def __post_init__(self) -> None:
        places = tuple(part for part in self.parts if part.kind != "value")
        object.__setattr__(self, "places", places)


@dataclass(slots=True)
class Ids:
    """Look up these ids (their lossless keys)."""

    keys: tuple[bytes, ...]


@dataclass(slots=True)
class Ranges:
    """Read these key ranges (lower end included, upper end not), which do not overlap and ascend."""

    index: IndexInfo
    ranges: tuple[tuple[bytes, bytes], ...]
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Union:
    """Read all of these, each document once: the branches of an Or that need different indexes."""

    sources: tuple[Ids | Ranges, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """Read everything in order of insertion."""


Source: TypeAlias = Ids | Ranges | Union | Rings | Scan
SCAN: Final = Scan()


@dataclass(slots=True)
class Plan:
    """Where the candidates come from, and whether they come in the wanted order."""

    source: Source
    ordered: bool
    exact: bool = False
    """Every candidate matches, and none is led to twice: they need not be looked at to be counted."""


Probe: TypeAlias = Callable[[Ranges, int], int]
"""How many entries there are in ranges, counted up to a limit."""

ID_INDEX: Final = IndexInfo(0, "_id_", (KeyPart("_id", (("_id", -1),)),), unique=True)


def plan(
    node: Node,
    sort: Sort,
    indexes: Sequence[IndexInfo],
    limit: int | None = None,
    probe: Probe | None = None,
    unions: bool = False,
) -> Plan:
    """The cheapest source: ids, then what ``probe`` finds smallest, then the most leading equalities, then a
    range, then the order.

    ``limit`` is how many documents are wanted (skipped ones included). ``unions``: the engine can read one.
    Raises InvalidFilter for a ``$near`` that no index can answer, unless no index is given: then only ids are
    looked for.
    """
    conditions = _conditions(node)
    pinned = plain_id(conditions)
    if pinned is not None:
        return Plan(Ids((lossless_key(pinned),)), ordered=True, exact=len(conditions) == 1)
    usable = [index for index in indexes if index.ready and _holds_all(index, node)]
    if indexes:
        for condition in conditions:
            if type(condition) is Near:
                return _nearest(condition, _Query(conditions, ()), sort, usable, limit, probe)
    query = _Query(conditions, sort)
    options = [option for index in (ID_INDEX, *usable) if (option := query.use(index)) is not None]
    for option in options:
        if isinstance(option.plan.source, Ids):
            return option.plan
    if unions and not any(option.equalities for option in options):
        union = _union(conditions, sort, usable)
        if union is not None:
            return union
    if not options:
        return Plan(SCAN, not sort)
    if len(options) == 1:
        return options[0].plan
    if probe is not None:
        return _cheapest(options, limit, probe).plan
    return max(options, key=lambda option: option.score).plan


def _conditions(node: Node) -> tuple[Node, ...]:
    """What all has to hold, with no And left at the top."""
    if not isinstance(node, And):
        return (node,)
    if not any([isinstance(child, And) for child in node.children]):  # noqa: C419 - lists are faster here
        return node.children
    return tuple(condition for child in node.children for condition in _conditions(child))


def _holds_all(index: IndexInfo, node: Node) -> bool:
    """Whether every document that matches is in the index."""
    if index.partial is not None and not implies(node, index.partial.node):
        return False
    if index.places:
        conditions = tuple(_conditions(node))
        return any(place_condition(conditions, part.path) is not None for part in index.places)
    return not index.sparse or any(implies_exists(node, part.path) for part in index.parts)


@dataclass(slots=True)
class _Option:
    """One way to answer, and what is known about its price without looking."""

    plan: Plan
    score: float
    equalities: int
    bounded: bool
    residuals: int
    """Conditions that the index says nothing about."""


class _Query:
    """One query, asked what each index can do for it."""

    def __init__(self, conditions: tuple[Node, ...], sort: Sort) -> None:
        self._nodes = conditions
        self._sort = sort
        self._paths = mentioned(conditions)
        self._known: dict[tuple[bool, bool], Constraints] = {}
        self._conditions = len(conditions)

    def use(self, index: IndexInfo) -> _Option | None:
        """The way through this index; None if it is of no use."""
        if index.parts[0].path not in self._paths:
            return self._use_order(index)
        fields = self._constraints(index).fields
        prefixes: list[tuple[bytes, bytes]] = [(b"", b"")]
        fixed: set[str] = set()
        roots: set[str] = set()
        score, used, conditions, equalities = 0.0, 0, 0, 0
        points = exact = True
        for part in index.parts:
            if part.kind != "value":
                place = place_choice(self._nodes, part, index.multikey) if points else None
                if place is not None and len(place.intervals) * len(prefixes) <= RANGES_MAX:
                    prefixes = _extended(prefixes, place, part.descending)
                    score, used, conditions = score + 2, used + 1, conditions + 1
                    points = exact = False
                break
            choices = fields.get(part.path)
            if not choices or not points:
                break
            if index.unique and index.multikey and part.segments[0][0] in roots:
                break  # Its keys stand for single elements; a query may mean two of them.
            roots.add(part.segments[0][0])
            choice = combined(choices, index.multikey)
            if len(choice.intervals) * len(prefixes) > _ranges_max(index):
                break
            points = choice.points
            prefixes = _extended(prefixes, choice, part.descending)
            score += 4 if points else 2
            used, conditions = used + 1, conditions + len(choices)
            equalities += points
            exact = exact and choice.exact
            if points and len(choice.intervals) == 1:
                fixed.add(part.path)
        exact = exact and conditions == self._conditions and not index.multikey and not index.lossy
        if index.number == 0 and used == 1 and points:
            ids = Ids(tuple(sorted({low for low, _ in prefixes})))
            return _Option(Plan(ids, not self._sort or len(ids.keys) <= 1, exact), 100.0, 1, True, 0)
        ordered, reverse = self._order(index, fixed, used if points else used - 1, len(prefixes))
        if ordered and self._sort:
            score += 1.5
        if not score:
            return None
        source = Ranges(index, _ranges(prefixes, index, used), reverse)
        residuals = max(0, self._conditions - conditions)
        return _Option(Plan(source, ordered, exact and used > 0), score, equalities, used > 0, residuals)

    def pinned(self, index: IndexInfo, at: int) -> tuple[bytes, ...] | None:
        """The keys that the first ``at`` fields are pinned to; None if one of them is not."""
        prefixes: list[tuple[bytes, bytes]] = [(b"", b"")]
        fields = self._constraints(index).fields
        for part in index.parts[:at]:
            choices = fields.get(part.path)
            choice = combined(choices, index.multikey) if choices and part.kind == "value" else None
            if choice is None or not choice.points or len(choice.intervals) * len(prefixes) > _PREFIXES_MAX:
                return None
            prefixes = _extended(prefixes, choice, part.descending)
        return tuple(sorted(low for low, _ in prefixes))

    def _use_order(self, index: IndexInfo) -> _Option | None:
        """The way through the whole of an index that only gives the order."""
        ordered, reverse = self._order(index, set(), 0, 1)
        if not ordered or not self._sort:
            return None
        source = Ranges(index, ((b"", END_KEY),), reverse)
        return _Option(Plan(source, True), 1.5, 0, False, self._conditions)

    def _constraints(self, index: IndexInfo) -> Constraints:
        kind = (index.unique, not index.lossy)
        found = self._known.get(kind)
        if found is None:
            found = self._known[kind] = Constraints(self._nodes, *kind)
        return found

    def _order(self, index: IndexInfo, fixed: set[str], leading: int, ranges: int) -> tuple[bool, bool]:
        """Whether the index gives the order, and whether it has to be read backwards for it."""
        if not self._sort:
            return True, False
        if index.multikey or index.lossy or (ranges > 1 and leading):
            return False, False
        sort = [item for item in self._sort if item.path not in fixed] if fixed else self._sort
        if len(sort) > len(index.parts) - leading:
            return False, False
        backwards = False
        for at, item in enumerate(sort):
            part = index.parts[leading + at]
            if part.path != item.path or part.kind != "value":
                return False, False
            turned = part.descending != item.descending
            if at and turned != backwards:
                return False, False
            backwards = turned
        return True, backwards


_PREFIXES_MAX: Final = 10
"""Values of the fields before a place among which the nearest is looked for."""


def _nearest(
    near: Near, query: _Query, sort: Sort, indexes: list[IndexInfo], limit: int | None, probe: Probe | None
) -> Plan:
    """Rings around a point; if another order is asked for, everything within the greatest distance."""
    for kind in near.kinds:
        for index in sorted(indexes, key=lambda index: -len(index.parts)):
            for at, part in enumerate(index.parts):
                if part.kind == "value" or part.kind != kind or part.path != near.path.text:
                    continue
                prefixes = query.pinned(index, at)
                if prefixes is not None:
                    rings = Rings(index, part.kind, prefixes, near.search, limit or WANTED)
                    return _ring_plan(rings, sort, limit, probe)
    raise refused(291, NO_INDEX)


def _ring_plan(rings: Rings, sort: Sort, limit: int | None, probe: Probe | None) -> Plan:
    if sort and sort[0].distance is None:
        return Plan(Ranges(rings.index, rings.disc(rings.search.farthest)), ordered=False)
    if probe is None or limit is None:
        return Plan(rings, ordered=True)
    start = rings.first_radius(probe, lambda radius: Ranges(rings.index, rings.disc(radius)))
    return Plan(replace(rings, start=start), ordered=True)


def _extended(
    prefixes: list[tuple[bytes, bytes]], choice: Choice, descending: bool
) -> list[tuple[bytes, bytes]]:
    """Every prefix, which is one point so far, with every interval of the next field behind it."""
    return [
        (prefix + low, prefix + end)
        for (prefix, _), (low, end) in product(
            prefixes, (_ends(item, descending) for item in choice.intervals)
        )
    ]


def _ends(interval: Interval, descending: bool) -> tuple[bytes, bytes]:
    """The two ends among stored keys, the lower first."""
    if descending:
        return successor(invert(interval.end)), successor(invert(interval.low))
    return interval.low, interval.end


def _ranges_max(index: IndexInfo) -> int:
    return 10**6 if index.number == 0 else RANGES_MAX


def _ranges(
    prefixes: list[tuple[bytes, bytes]], index: IndexInfo, used: int
) -> tuple[tuple[bytes, bytes], ...]:
    if not used:
        return ((b"", END_KEY),)
    if index.lossy:
        # Stored keys may be cut: what begins like a bound belongs to the range.
        cut = UNIQUE_PREFIX if index.unique else LOSSLESS_BYTES_MAX
        prefixes = [(low[:cut], end if len(end) <= cut else successor(end[:cut])) for low, end in prefixes]
    if len(prefixes) == 1:
        return (prefixes[0],)
    merged: list[tuple[bytes, bytes]] = []
    for low, end in sorted(prefixes):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((low, end))
    return tuple(merged)


_PROBES: Final = (64, 2_048)
"""Entries that are counted at first, and if no way turns out to be that short."""
_PROBED_RANGES_MAX: Final = 16
_UNKNOWN: Final = 10**9


def _cheapest(options: list[_Option], limit: int | None, probe: Probe) -> _Option:
    """The option that is expected to look at the fewest documents."""
    options = sorted(options, key=lambda option: -option.score)
    if options[0].plan.exact and options[0].plan.ordered and limit is not None:
        return options[0]
    found = options[0]
    for most in _PROBES:
        costs = [_cost(option, limit, probe, most) for option in options]
        lowest = min(costs)
        found = options[costs.index(lowest)]
        if lowest < most:
            break
    return found


def _cost(option: _Option, limit: int | None, probe: Probe, most: int) -> int:
    """Documents that will be looked at. Each condition that is left is guessed to keep one in ten."""
    source = option.plan.source
    if not option.bounded or not isinstance(source, Ranges) or len(source.ranges) > _PROBED_RANGES_MAX:
        entries = _UNKNOWN
    else:
        entries = probe(source, most)
        entries = entries if entries < most else most + (not option.equalities)
    if option.plan.ordered and limit is not None:
        return min(entries, limit * int(10 ** min(option.residuals, 4)))
    return entries


def _union(conditions: tuple[Node, ...], sort: Sort, indexes: list[IndexInfo]) -> Plan | None:
    """The branches of an Or, each by its own index; None if one of them has none."""
    for either in conditions:
        if not isinstance(either, Or) or not 1 < len(either.children) <= RANGES_MAX:
            continue
        rest = tuple(other for other in conditions if other is not either)
        sources: list[Ids | Ranges] = []
        for branch in either.children:
            source = plan(And((*rest, branch)), (), indexes, unions=True).source
            if isinstance(source, Scan | Rings):
                break
            sources += source.sources if isinstance(source, Union) else (source,)
        else:
            if len(sources) <= RANGES_MAX:
                return Plan(Union(tuple(sources)), not sort)
    return None
