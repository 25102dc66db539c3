"""The query language: a filter is parsed once into a frozen tree, and the tree compiled into a closure."""

from __future__ import annotations

import msgspec

from cloudlet.docdb.filter.ast import Node
from cloudlet.docdb.filter.cost import cost_of
from cloudlet.docdb.filter.geo import check_nears, near_of
from cloudlet.docdb.filter.match import Matcher, compile_node
from cloudlet.docdb.filter.parse import parse_filter
from cloudlet.docdb.filter.reader import joined
from cloudlet.docdb.filter.shapes import Shape, bind, shape_of
from cloudlet.docdb.filter.ways import match_all
from cloudlet.docdb.limits import PATTERN_SUBJECT_MAX
from cloudlet.docdb.sort import Sort, by_distance
from cloudlet.docdb.values import Document, Value

__all__ = ["Matcher", "Where", "is_costly", "where"]


class Where(msgspec.Struct, frozen=True):
    """Conditions that all have to hold, in the three forms that are needed."""

    conditions: tuple[Document, ...]
    """As values: what is sent to a worker."""
    node: Node
    """As a tree: what is planned."""
    match: Matcher
    """As a closure: what is run."""
    costly: bool
    """Must not run in the server's own process: has a pattern that can backtrack, or very many conditions."""
    patterned: bool
    """Holds any regular expression."""
    order: Sort = ()
    """The order the conditions ask for by themselves: nearest first."""
    only_id: Value = None
    """The text that ``_id`` has to equal, if the conditions are plain and say so: no plan is needed."""


def where(*conditions: Document, subject_max: int | None = PATTERN_SUBJECT_MAX) -> Where:
    """Compile prepared filters that all have to hold. Raises InvalidFilter.

    Matching raises Overrun for a regular expression on a text longer than ``subject_max`` and for an
    expression that takes many steps (None: never).
    """
    shape: Shape = ()
    values: list[Value] = []
    others: list[Node] = []
    only_id: Value = None
    for condition in conditions:
        own = shape_of(condition) if type(condition) is dict else None
        if own is None:
            others.append(parse_filter(condition))
            continue
        shape += own
        values += condition.values()
        if type(named := condition.get("_id")) is str:
            only_id = named
    nodes, matchers = bind(shape, values)
    if not others:
        return Where(conditions, joined(nodes), match_all(matchers), False, False, (), only_id)
    matchers += [compile_node(other, subject_max) for other in others]
    node = joined(nodes + others)
    cost = cost_of(others)
    near = near_of(node)
    if near is None:
        return Where(conditions, node, match_all(matchers), cost.high, cost.patterned)
    check_nears(node)
    order = by_distance(near.path.text, near.search.distance)
    return Where(conditions, node, match_all(matchers), cost.high, cost.patterned, order)


def is_costly(node: Node) -> bool:
    """Whether the tree holds something that must not run in the server's own process."""
    return cost_of([node]).high
