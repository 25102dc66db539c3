"""Repeated queries: a filter of a known shape is bound to its operands without being parsed again.

The shape of a filter is its paths, its operators and the types of its operands. Only flat filters have one
here (equalities and comparisons of scalars, the bulk of what applications send); all others are parsed as
usual. What is made is the same tree and the same matcher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import lru_cache
from typing import Final, TypeAlias

from cloudlet.docdb.filter.ast import Compare, Node, Op, Path
from cloudlet.docdb.filter.match import compile_node, match_between
from cloudlet.docdb.filter.reader import joined, path_of
from cloudlet.docdb.filter.ways import Matcher, match_all, match_equal, match_field
from cloudlet.docdb.values import Document, ObjectId, Value

SHAPES_MAX: Final = 1_024
_FIELDS_MAX: Final = 8
_NAME_MAX: Final = 100

_SCALARS: Final = frozenset({str, int, float, bool, datetime, ObjectId, type(None)})
_PLAIN: Final = frozenset({str, datetime, ObjectId})
"""Types whose values Python compares as MongoDB does, whatever the value."""
_COMPARISONS: Final = {op.value: op for op in Op}

_FieldShape: TypeAlias = tuple[str, type | tuple[str, ...]]
"""A path, and the type of what it equals or the names of its comparisons."""
Shape: TypeAlias = tuple[_FieldShape, ...]
Bound: TypeAlias = tuple[Node, Matcher]
Binder: TypeAlias = Callable[[Value], Bound]


def shape_of(filter: Document) -> Shape | None:
    """The shape of a flat filter; None if it is not flat or larger than what is kept."""
    if not 0 < len(filter) <= _FIELDS_MAX:
        return None
    shape: list[_FieldShape] = []
    for name, value in filter.items():
        if name[:1] == "$" or len(name) > _NAME_MAX:
            return None
        kind = type(value)
        if kind in _SCALARS:
            shape.append((name, kind))
            continue
        if kind is not dict or not 0 < len(value) <= 2:
            return None
        for operator, operand in value.items():
            if operator not in _COMPARISONS or type(operand) not in _SCALARS:
                return None
        shape.append((name, tuple(value)))
    return tuple(shape)


@lru_cache(maxsize=SHAPES_MAX)
def _binders(shape: Shape) -> tuple[Binder, ...]:
    return tuple(_binder(path_of(name), what) for name, what in shape)


def bind(shape: Shape, values: Iterable[Value]) -> tuple[list[Node], list[Matcher]]:
    """The conditions of a filter of this shape (several: their shapes and values one after the other), as
    trees and as matchers. Raises InvalidFilter for a path.
    """
    nodes, matchers = [], []
    for binder, value in zip(_binders(shape), values, strict=True):
        node, matcher = binder(value)
        nodes.append(node)
        matchers.append(matcher)
    return nodes, matchers


def _binder(path: Path, what: type | tuple[str, ...]) -> Binder:
    if not isinstance(what, tuple):
        return _equality(path, what)
    ops = [_COMPARISONS[name] for name in what]
    if len(ops) == 1:
        return _comparison(path, what[0], ops[0])
    return _pair(path, (ops[0], ops[1]))


def _equality(path: Path, kind: type) -> Binder:
    if kind in _PLAIN:
        if len(path.segments) == 1:
            name = path.text
            return lambda value: (Compare(path, Op.EQ, value), match_field(name, value))
        return lambda value: (Compare(path, Op.EQ, value), match_equal(path, value))

    def bind(value: Value) -> Bound:
        node = Compare(path, Op.EQ, value)
        return node, compile_node(node)

    return bind


def _comparison(path: Path, name: str, op: Op) -> Binder:
    def bind(value: Value) -> Bound:
        node = Compare(path, op, value[name])
        return node, compile_node(node)

    return bind


def _pair(path: Path, ops: tuple[Op, Op]) -> Binder:
    first, second = ops

    def bind(value: Value) -> Bound:
        left, right = value.values()
        one, two = Compare(path, first, left), Compare(path, second, right)
        return joined([one, two]), match_between(one, two) or match_all(
            [compile_node(one), compile_node(two)]
        )

    return bind
