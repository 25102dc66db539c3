"""Plans of repeated queries: where a query is answered by the same steps whatever its operands, those are
remembered, and only the keys are made anew.

That is so for equalities that an index answers exactly and in the wanted order: it reads nothing but what is
returned, so no other way can be better.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

import msgspec

from cloudlet.docdb.bytekeys import candidate_key, lossless_key, successor
from cloudlet.docdb.filter.ast import And, Compare, Node, Op
from cloudlet.docdb.planner import IndexInfo, Plan, Probe, Ranges, plan
from cloudlet.docdb.sort import Sort
from cloudlet.docdb.values import ObjectId

PLANS_MAX: Final = 1_024
_SCALARS: Final = frozenset({str, int, bool, ObjectId, datetime})
"""Types of which every value has its own key (but for long text, which is looked at)."""

_Shape: TypeAlias = tuple[Any, ...]
"""Path, type, path, type and so on."""


class _Way(msgspec.Struct, frozen=True):
    """How queries of one shape and order are answered."""

    indexes: tuple[IndexInfo, ...]
    """Of the collection when this was found."""
    index: IndexInfo
    operands: tuple[int, ...]
    """Which condition gives each leading field of the index its value."""
    reverse: bool

    def plan(self, conditions: Sequence[Compare]) -> Plan | None:
        """The plan with the operands of these conditions; None if a text is too long for an exact key."""
        prefix = key = b""
        for at in self.operands:
            prefix += key
            if self.index.unique:
                key = lossless_key(conditions[at].value)
            else:
                key, lossy = candidate_key(conditions[at].value)
                if lossy:
                    return None
        return Plan(Ranges(self.index, ((prefix + key, prefix + successor(key)),), self.reverse), True, True)


class Plans:
    """The plans of one store. Collections are told apart by the tuple of their indexes."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, _Shape, Sort], _Way] = {}

    def plan(
        self,
        collection: int,
        node: Node,
        sort: Sort,
        indexes: tuple[IndexInfo, ...],
        limit: int | None,
        probe: Probe,
    ) -> Plan:
        """What ``planner.plan`` says. ``collection``: its number."""
        conditions = node.children if type(node) is And else (node,)
        shape = _shape(conditions) if limit is not None else None
        if shape is None:
            return plan(node, sort, indexes, limit, probe, unions=True)
        place = (collection, shape, sort)
        way = self._known.get(place)
        if way is not None and way.indexes is indexes:
            made = way.plan(conditions)  # type: ignore[arg-type] # the shape has only these
            if made is not None:
                return made
        chosen = plan(node, sort, indexes, limit, probe, unions=True)
        way = _way(conditions, indexes, chosen)  # type: ignore[arg-type]
        if way is not None:
            if len(self._known) >= PLANS_MAX:
                self._known.clear()
            self._known[place] = way
        return chosen


def _shape(conditions: Sequence[Node]) -> _Shape | None:
    """The paths and types of conditions that are all plain equalities."""
    shape: list[Any] = []
    for condition in conditions:
        if type(condition) is not Compare or condition.op is not Op.EQ:
            return None
        kind = type(condition.value)
        if kind not in _SCALARS or condition.path.text == "_id":
            return None
        shape += (condition.path.text, kind)
    return tuple(shape)


def _way(conditions: Sequence[Compare], indexes: tuple[IndexInfo, ...], chosen: Plan) -> _Way | None:
    """What of a plan holds for every query of its shape; None if it is not one of those."""
    source = chosen.source
    if not chosen.exact or not chosen.ordered or type(source) is not Ranges:
        return None
    index = source.index
    if index.partial is not None or len(index.parts) < len(conditions):
        return None
    places = {condition.path.text: at for at, condition in enumerate(conditions)}
    leading = index.parts[: len(conditions)]
    if any(part.descending or part.kind != "value" or part.path not in places for part in leading):
        return None
    way = _Way(indexes, index, tuple(places[part.path] for part in leading), source.reverse)
    return way if way.plan(conditions) == chosen else None
