"""The query language: a filter is parsed once into a frozen tree, and the tree compiled into a closure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cloudlet.docdb.filter.ast import And, ElemMatch, In, Node, Not, Or
from cloudlet.docdb.filter.match import Matcher, compile_node
from cloudlet.docdb.filter.parse import parse_filter
from cloudlet.docdb.filter.regex import is_cheap
from cloudlet.docdb.limits import PATTERN_SUBJECT_MAX
from cloudlet.docdb.values import Document, Regex

__all__ = ["Matcher", "Where", "is_costly", "where"]


@dataclass(frozen=True, slots=True)
class Where:
    """Conditions that all have to hold, in the three forms that are needed."""

    conditions: tuple[Document, ...]
    """As values: what is sent to a worker."""
    node: Node
    """As a tree: what is planned."""
    match: Matcher
    """As a closure: what is run."""
    costly: bool
    """Holds a regular expression that must not run in the server's own process."""
    patterned: bool
    """Holds any regular expression."""


def where(*conditions: Document, subject_max: int | None = PATTERN_SUBJECT_MAX) -> Where:
    """Compile prepared filters that all have to hold. Raises InvalidFilter.

    Matching raises Overrun for a regular expression on a text longer than ``subject_max`` (None: never).
    """
    nodes = [parse_filter(condition) for condition in conditions]
    node = nodes[0] if len(nodes) == 1 else And(tuple(nodes))
    patterns = list(_patterns(node))
    costly = not all(map(is_cheap, patterns))
    return Where(conditions, node, compile_node(node, subject_max), costly, bool(patterns))


def is_costly(node: Node) -> bool:
    """Whether the tree holds a regular expression that must not run in the server's own process."""
    return not all(map(is_cheap, _patterns(node)))


def _patterns(node: Node) -> Iterator[Regex]:
    match node:
        case And(children) | Or(children):
            for child in children:
                yield from _patterns(child)
        case Not(child) | ElemMatch(_, child, _):
            yield from _patterns(child)
        case In(_, _, patterns):
            yield from patterns
        case _:
            return
