"""From a filter as the SDKs send it to the tree. Whatever is not understood is refused by name.

The operators stand in two tables: ``FIELD_OPERATORS`` for those below a path (``operators.py``) and
``TOP_OPERATORS`` for those in a path's place. A new one is an entry in a table and, if it needs one, a kind
of node with its test in ``match.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cloudlet.docdb.filter.ast import Node, Not, Or
from cloudlet.docdb.filter.expr import parse_expr
from cloudlet.docdb.filter.geo import check_nears
from cloudlet.docdb.filter.operators import COMPANIONS, FIELD_OPERATORS
from cloudlet.docdb.filter.reader import DEPTH_MAX, ITSELF, NODES_MAX, Parser, TopReader, joined
from cloudlet.docdb.filter.schema import parse_schema
from cloudlet.docdb.values import Value
from cloudlet.model.errors import InvalidFilter

__all__ = ["DEPTH_MAX", "NODES_MAX", "TOP_OPERATORS", "parse_condition", "parse_filter"]


def parse_filter(value: Value) -> Node:
    """The tree of a prepared filter; raises InvalidFilter that names the operator or limit."""
    parser = _parser()
    node = parser.document(value, 0)
    if parser.nears:
        check_nears(node, parser.nears)
    return node


def parse_condition(value: Value) -> tuple[Node, bool]:
    """A condition on one array element (``$pull``), and whether it is a filter on the fields of an object.

    Raises InvalidFilter.
    """
    if type(value) is dict and value and next(iter(value))[:1] != "$":
        return parse_filter(value), True
    parser = _parser()
    node = parser.field(ITSELF, value, 0)
    if parser.nears:
        raise InvalidFilter("an element of an array cannot be looked for with $near")
    return node, False


def _parser() -> Parser:
    return Parser(FIELD_OPERATORS, TOP_OPERATORS, COMPANIONS)


def _logical(parser: Parser, name: str, value: Value, depth: int) -> Node:
    if type(value) is not list or not value:
        raise InvalidFilter(f"{name} must be a nonempty array")
    children = [parser.document(item, depth + 1) for item in value]
    if name == "$and":
        return joined(children)
    return Or(tuple(children)) if name == "$or" else Not(Or(tuple(children)))


def _comment(_parser: Parser, _name: str, _value: Value, _depth: int) -> None:
    return None


def _expression(parser: Parser, _name: str, value: Value, _depth: int) -> Node:
    if parser.inside_element:
        raise InvalidFilter("$expr can look at whole documents only; it cannot stand inside $elemMatch")
    return parse_expr(value)


def _schema(parser: Parser, _name: str, value: Value, _depth: int) -> Node:
    return parse_schema(value, parser.check_pattern)


TOP_OPERATORS: Final[Mapping[str, TopReader]] = {
    "$and": _logical,
    "$or": _logical,
    "$nor": _logical,
    "$comment": _comment,
    "$expr": _expression,
    "$jsonSchema": _schema,
}
"""Every operator that may stand in a path's place."""
