"""Which indexes the platform makes and removes by itself: decided from what queries have cost.

Nothing here waits or reads a clock. The counts live in memory: after a restart they begin anew, and an index
has its fourteen days again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from cloudlet.docdb.base import CollectionInfo, CreateIndex, DropIndex
from cloudlet.docdb.bytekeys import KeyPart
from cloudlet.docdb.indexes.shapes import Shape, automatic_index, index_parts, serves

SHAPES_MAX: Final = 64
"""Shapes that are counted per collection; beyond that the one that cost least goes."""
COLLECTIONS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class AutomaticPolicy:
    """When an index is worth its writes."""

    examined_min: int = 1_000
    """Documents a query must have looked at, on average."""
    ratio_min: int = 100
    """Documents looked at for one that was returned."""
    hits_min: int = 10
    """Such queries before an index is made."""
    window_ms: int = 24 * 3_600_000
    """Within which they must come."""
    indexes_max: int = 8
    """Automatic indexes per collection."""
    idle_ms: int = 14 * 24 * 3_600_000
    """An automatic index that answered nothing for so long is removed."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What the queries of one shape have cost since ``since_ms``."""

    hits: int
    examined: int
    returned: int
    since_ms: int


@dataclass(slots=True)
class CollectionUse:
    """What is known about one collection's queries."""

    costs: dict[Shape, Cost] = field(default_factory=dict)
    used_ms: dict[str, int] = field(default_factory=dict)
    """When an automatic index last answered, or was first seen."""
    refused: set[tuple[KeyPart, ...]] = field(default_factory=set)
    """Indexes that could not be made, or that somebody removed: they are not made again."""

    def note(self, shape: Shape, examined: int, returned: int, now_ms: int, window_ms: int) -> None:
        """Count one query that looked at many documents."""
        known = self.costs.get(shape)
        if known is None or now_ms - known.since_ms > window_ms:
            known = Cost(0, 0, 0, now_ms)
        self.costs[shape] = replace(
            known, hits=known.hits + 1, examined=known.examined + examined, returned=known.returned + returned
        )
        if len(self.costs) > SHAPES_MAX:
            del self.costs[min(self.costs, key=lambda item: (item == shape, self.costs[item].examined))]


def decide(
    info: CollectionInfo, use: CollectionUse, policy: AutomaticPolicy, now_ms: int, indexes_max: int
) -> CreateIndex | DropIndex | None:
    """The next change for a collection: first away with what is of no use, then the dearest shape's index.

    ``indexes_max`` is the limit of all indexes of a collection.
    """
    automatic = [index for index in info.indexes if index.automatic]
    for index in automatic:
        since = use.used_ms.setdefault(index.name, now_ms)
        if not index.ready or now_ms - since > policy.idle_ms:
            return DropIndex(info.name, index.name)
    if len(automatic) >= policy.indexes_max or len(info.indexes) >= indexes_max:
        return None
    for parts in _wanted(use, policy, now_ms):
        known = any(
            serves(index.parts, parts) and index.partial is None and not index.sparse
            for index in info.indexes
        )
        change = automatic_index(info.name, parts)
        if not known and parts not in use.refused and all(i.name != change.name for i in info.indexes):
            return change
    return None


def _wanted(use: CollectionUse, policy: AutomaticPolicy, now_ms: int) -> Iterator[tuple[KeyPart, ...]]:
    """Indexes that would pay, the best first."""
    dear = [
        (cost.examined, shape)
        for shape, cost in use.costs.items()
        if cost.hits >= policy.hits_min
        and now_ms - cost.since_ms <= policy.window_ms
        and cost.examined >= policy.examined_min * cost.hits
        and cost.examined >= policy.ratio_min * max(cost.returned, 1)
    ]
    for _, shape in sorted(dear, key=lambda item: -item[0]):
        parts = index_parts(shape)
        if parts:
            yield parts
