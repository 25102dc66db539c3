"""Filters of partial indexes, and when a query is sure to find only documents that such a filter holds.

The proof is sound and not complete: where it is unsure it says no, and the index is not used.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cloudlet.docdb.filter.ast import And, Compare, ElemMatch, Exists, In, Mod, Node, Op, Or, Path, Size
from cloudlet.docdb.filter.match import Matcher, compile_node
from cloudlet.docdb.filter.parse import parse_filter
from cloudlet.docdb.values import Document, Value, compare, rank
from cloudlet.model.errors import InvalidFilter, InvalidParameter

_FIELD: Path = Path("v", (("v", -1),))
_SCALARS = (str, int, float, bool)
_STRICTER = {
    Op.GT: {Op.GT: 0, Op.GTE: 0},
    Op.GTE: {Op.GT: 1, Op.GTE: 0},
    Op.LT: {Op.LT: 0, Op.LTE: 0},
    Op.LTE: {Op.LT: 1, Op.LTE: 0},
}
"""For a query's comparison and a partial filter's: how far the query's bound must lie inside the other's."""


@dataclass(frozen=True, slots=True)
class PartialFilter:
    """The condition on the documents of a partial index; equal if the filters are."""

    filter: Document = field(hash=False)
    node: Node = field(compare=False, repr=False)
    match: Matcher = field(compare=False, repr=False)


def partial_filter(document: Document) -> PartialFilter:
    """Compile the filter of a partial index.

    Raises InvalidParameter for what such a filter may not hold: everything but comparisons, ``$in``,
    ``$exists: true``, ``$and`` and ``$or``.
    """
    try:
        node = parse_filter(document)
    except InvalidFilter as exc:
        raise InvalidParameter(f"the filter of the partial index is wrong: {exc.message}") from exc
    if not _allowed(node):
        raise InvalidParameter(
            "the filter of a partial index may only hold $eq, $gt, $gte, $lt, $lte, $in, $exists: true, "
            "$and and $or"
        )
    return PartialFilter(document, node, compile_node(node))


def implies(query: Node, condition: Node) -> bool:
    """Whether every document that ``query`` matches is sure to match ``condition``."""
    match condition:
        case And(children):
            return all(implies(query, child) for child in children)
        case Or(children) if any(implies(query, child) for child in children):
            return True
    match query:
        case And(children):
            return any(implies(child, condition) for child in children)
        case Or(children):
            return bool(children) and all(implies(child, condition) for child in children)
    match condition:
        case Exists(path):
            return implies_exists(query, path.text)
        case Compare() | In():
            return _implies_test(query, condition)
        case _:
            return False


def implies_exists(query: Node, path: str) -> bool:
    """Whether every document that ``query`` matches is sure to have something at ``path``."""
    match query:
        case And(children):
            return any(implies_exists(child, path) for child in children)
        case Or(children):
            return bool(children) and all(implies_exists(child, path) for child in children)
        case Compare(at, _, value):
            return at.text == path and _is_plain(value)
        case In(at, values, patterns):
            return at.text == path and bool(values or patterns) and all(map(_is_plain, values))
        case Exists(at) | Size(at) | Mod(at) | ElemMatch(at):
            return at.text == path
        case _:
            return False


def _implies_test(query: Node, condition: Compare | In) -> bool:
    """Value by value: if some value at the path passes the query's test, it passes the condition's."""
    match query:
        case Compare(path, Op.EQ, value) if path.text == condition.path.text:
            return _passes(value, condition)
        case In(path, values, ()) if values and path.text == condition.path.text:
            return all(_passes(value, condition) for value in values)
        case Compare(path, op, value) if isinstance(condition, Compare):
            if path.text != condition.path.text or not _is_plain(value) or not _is_plain(condition.value):
                return False
            inside = _STRICTER.get(op, {}).get(condition.op)
            if inside is None or rank(value) != rank(condition.value):
                return False
            distance = compare(value, condition.value)
            return (distance if op in (Op.GT, Op.GTE) else -distance) >= inside
        case _:
            return False


def _passes(value: Value, condition: Compare | In) -> bool:
    """Whether a document that holds this value, alone or in an array, meets the condition for sure."""
    if not _is_plain(value):
        return False
    if isinstance(condition, Compare):
        test: Node = Compare(_FIELD, condition.op, condition.value)
    else:
        test = In(_FIELD, condition.values)
    return compile_node(test)({"v": value})


def _is_plain(value: Value) -> bool:
    """A value that a missing field never equals, that is no container and orders like every other."""
    return isinstance(value, _SCALARS) and value == value


def _allowed(node: Node) -> bool:
    match node:
        case And(children) | Or(children):
            return all(map(_allowed, children))
        case In(_, _, patterns):
            return not patterns
        case Compare() | Exists():
            return True
        case _:
            return False
