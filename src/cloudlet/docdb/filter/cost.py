"""What a filter may cost for one document, and so where it may run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cloudlet.docdb.filter.ast import (
    And,
    Compare,
    ElemMatch,
    Expr,
    GeoIntersects,
    GeoWithin,
    In,
    Node,
    Not,
    Or,
    Schema,
)
from cloudlet.docdb.filter.match import merged
from cloudlet.docdb.filter.regex import is_cheap

TESTS_MAX: Final = 300
"""Tests per document in the server's own process: about 50 microseconds."""

POINTS_PER_TEST: Final = 4
"""So many points of a shape cost one test."""


@dataclass(slots=True)
class Cost:
    """The cost of some trees."""

    tests: int = 0
    """Tests that one document may take."""
    patterned: bool = False
    """There is a regular expression."""
    backtracking: bool = False
    """There is something that may take long for one document."""

    @property
    def high(self) -> bool:
        """Whether it must not run in the server's own process."""
        return self.backtracking or self.tests > TESTS_MAX


def cost_of(nodes: Iterable[Node]) -> Cost:
    """The cost of all trees together."""
    cost = Cost()
    _add(nodes, cost)
    return cost


def _add(nodes: Iterable[Node], cost: Cost) -> None:
    for node in nodes:
        kind = type(node)
        cost.tests += 1
        if kind is Compare:
            continue
        match node:
            case Or(children):
                # Many equalities about one path are one look into a set.
                _add(merged(children) if len(children) > TESTS_MAX else children, cost)
            case And(children):
                _add(children, cost)
            case Not(child) | ElemMatch(_, child, _):
                _add((child,), cost)
            case In(_, _, patterns) | Schema(_, patterns, _) if patterns:
                cost.patterned = True
                cost.tests += len(patterns)
                cost.backtracking = cost.backtracking or not all(map(is_cheap, patterns))
            case GeoWithin(_, shape) | GeoIntersects(_, shape):
                cost.tests += shape.size // POINTS_PER_TEST
            case Expr(_, _, costly, patterned, _):
                cost.patterned = cost.patterned or patterned
                cost.backtracking = cost.backtracking or costly
        if isinstance(node, Schema | Expr):
            cost.tests += node.size
