"""From the tree to one closure that says whether a document matches.

A new kind of leaf needs an entry in ``_TESTS``, and one in ``_OF_WHOLE_ARRAYS`` if arrays are not to be taken
apart for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cloudlet.docdb.filter.ast import (
    And,
    AnyBut,
    Bits,
    Compare,
    ElemMatch,
    Exists,
    Expr,
    GeoIntersects,
    GeoWithin,
    In,
    Leaf,
    Mod,
    Near,
    Node,
    Not,
    Op,
    Or,
    Path,
    Schema,
    Size,
    TypeIs,
)
from cloudlet.docdb.filter.expr import expr_test
from cloudlet.docdb.filter.geo import intersects_test, near_test, within_test
from cloudlet.docdb.filter.leaf import (
    between_test,
    bits_test,
    compare_test,
    in_test,
    is_plain,
    mod_test,
    type_test,
)
from cloudlet.docdb.filter.schema import schema_test
from cloudlet.docdb.filter.ways import (
    Matcher,
    expanded,
    match_all,
    match_along,
    match_any,
    match_equal,
    match_generally,
)
from cloudlet.docdb.limits import PATTERN_SUBJECT_MAX
from cloudlet.docdb.paths import Test
from cloudlet.docdb.values import MISSING, Document, Value

__all__ = ["Matcher", "Test", "compile_node", "match_between", "merged", "value_test"]

_MERGED_FROM: Final = 3
"""So many alternatives about one path become one set."""


def compile_node(node: Node, subject_max: int | None = PATTERN_SUBJECT_MAX) -> Matcher:
    """The matcher of documents.

    With a ``subject_max`` it raises Overrun before searching a longer text and before an expression takes
    too many steps.
    """
    if isinstance(node, Compare) and node.op is Op.EQ and is_plain(node.value):
        return match_equal(node.path, node.value)
    if isinstance(node, And):
        return _conjunction(_flattened(node.children), subject_max)
    if isinstance(node, Or):
        return match_any([compile_node(child, subject_max) for child in merged(node.children)])
    if isinstance(node, Not):
        inner = compile_node(node.child, subject_max)
        return lambda document: not inner(document)
    test = value_test(node, subject_max)
    return test if isinstance(node, Expr | Schema | Near) else _at(node, test)


def value_test(node: Node, subject_max: int | None = PATTERN_SUBJECT_MAX) -> Test:
    """The test of one value, without the way to it. Logical nodes test the same value with every child."""
    if isinstance(node, And):
        return match_all([value_test(child, subject_max) for child in node.children])
    if isinstance(node, Or):
        return match_any([value_test(child, subject_max) for child in merged(node.children)])
    if isinstance(node, Not):
        inner = value_test(node.child, subject_max)
        return lambda value: not inner(value)
    return _TESTS[type(node)](node, subject_max)


def match_between(one: Compare, other: Compare) -> Matcher | None:
    """The matcher of a lower and an upper bound about one path; None if they are not of one type."""
    test = between_test(one, other)
    if test is None:
        return None
    apart: list[Matcher] = []

    def general(document: Document) -> bool:
        # In an array one element may be above the one and another below the other bound.
        if not apart:
            apart.append(match_all([compile_node(one), compile_node(other)]))
        return apart[0](document)

    return match_along(one.path, test, general)


def merged(children: tuple[Node, ...]) -> list[Node]:
    """Alternatives, in which several equalities about one path are one set."""
    if len(children) < _MERGED_FROM:
        return list(children)
    values: dict[Path, list[Value]] = {}
    others: list[Node] = []
    for child in children:
        match child:
            case Compare(path, Op.EQ, value):
                values.setdefault(path, []).append(value)
            case In(path, several, ()):
                values.setdefault(path, []).extend(several)
            case _:
                others.append(child)
    return [*(In(path, tuple(several)) for path, several in values.items()), *others]


def _exists_test(_node: Exists, _subject_max: int | None) -> Test:
    return lambda value: value is not MISSING


def _size_test(node: Size, _subject_max: int | None) -> Test:
    size = node.size
    return lambda value: type(value) is list and len(value) == size


def _element_test(node: ElemMatch, subject_max: int | None) -> Test:
    if not node.of_objects:
        test = value_test(node.child, subject_max)
        return lambda value: type(value) is list and any(map(test, value))
    matches = compile_node(node.child, subject_max)

    def one(item: Value) -> bool:
        if type(item) is dict:
            return matches(item)
        # An array in the array counts as an object whose fields are its indexes.
        return type(item) is list and matches({str(at): inner for at, inner in enumerate(item)})

    return lambda value: type(value) is list and any(map(one, value))


_TESTS: Final[dict[type, Callable[[Any, int | None], Test]]] = {
    Compare: lambda node, _: compare_test(node),
    In: in_test,
    Exists: _exists_test,
    Size: _size_test,
    Mod: lambda node, _: mod_test(node),
    TypeIs: lambda node, _: type_test(node.names),
    Bits: lambda node, _: bits_test(node),
    AnyBut: lambda node, _: lambda value: value not in node.excluded,
    ElemMatch: _element_test,
    GeoWithin: lambda node, subject_max: within_test(node, subject_max is not None),
    GeoIntersects: lambda node, subject_max: intersects_test(node, subject_max is not None),
    Near: lambda node, _: near_test(node),
    Expr: lambda node, subject_max: expr_test(node, subject_max is not None),
    Schema: lambda node, subject_max: schema_test(node.source, subject_max),
}
"""How each kind of leaf tests a value."""
_OF_WHOLE_ARRAYS: Final[tuple[type, ...]] = (Exists, Size, ElemMatch)
"""Kinds that look at an array itself, not at its elements."""


def _flattened(children: tuple[Node, ...]) -> list[Node]:
    flat: list[Node] = []
    for child in children:
        if isinstance(child, And):
            flat += _flattened(child.children)
        else:
            flat.append(child)
    return flat


def _conjunction(children: list[Node], subject_max: int | None) -> Matcher:
    """All of them; two bounds about one path share the way to it."""
    matchers: list[Matcher] = []
    waiting: dict[str, Compare] = {}
    for child in children:
        if isinstance(child, Compare) and child.op is not Op.EQ:
            before = waiting.pop(child.path.text, None)
            between = None if before is None else match_between(before, child)
            if before is None:
                waiting[child.path.text] = child
            elif between is None:
                matchers += [compile_node(before, subject_max), compile_node(child, subject_max)]
            else:
                matchers.append(between)
        else:
            matchers.append(compile_node(child, subject_max))
    matchers += [compile_node(child, subject_max) for child in waiting.values()]
    return match_all(matchers)


def _at(node: Leaf, test: Test) -> Matcher:
    """A test where a path leads; arrays found there are tested element by element and as a whole."""
    if isinstance(node, _OF_WHOLE_ARRAYS):
        return match_along(node.path, test, match_generally(node.path, test, test))
    return match_along(node.path, test, match_generally(node.path, expanded(test), test))
