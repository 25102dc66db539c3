"""Choosing which fields of a document are returned. Manual: "Project Fields to Return from Query".

A projection includes fields or excludes them; ``$slice``, ``$elemMatch`` and the positional ``$`` choose
elements of arrays. A numeric segment is a field name here, never an index.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cloudlet.docdb import numeric
from cloudlet.docdb.filter import is_costly
from cloudlet.docdb.filter.ast import EVERYTHING, Node
from cloudlet.docdb.filter.match import compile_node
from cloudlet.docdb.filter.parse import parse_filter
from cloudlet.docdb.filter.position import has_condition_below, matched_index
from cloudlet.docdb.limits import PATH_SEGMENTS_MAX
from cloudlet.docdb.values import Document, Value, type_name
from cloudlet.model.errors import InvalidFilter, InvalidProjection

Projector: TypeAlias = Callable[[Document], Document]
Slice: TypeAlias = Callable[[list[Value]], list[Value]]

FIELDS_MAX: Final = 500
_SUFFIX: Final = ".$"


def compile_projection(value: Value, node: Node = EVERYTHING) -> Projector | None:
    """What makes the returned document, or None if documents are returned whole. Raises InvalidProjection.

    ``node`` is the query's filter, which the positional ``$`` refers to. Fields are all included (1, true) or
    all excluded (0, false); only ``_id`` may differ, and it is included unless it is excluded by name.
    """
    if value is None or value == {}:
        return None
    if type(value) is not dict:
        raise InvalidProjection("a projection must be an object")
    parser = _Parser(node)
    parser.fields(value, ())
    return parser.projector()


@dataclass(slots=True)
class _Tree:
    """What happens to a field: something to its children, or something to itself."""

    children: dict[str, _Tree] = field(default_factory=dict)
    is_whole: bool = False
    """The field itself is included or excluded."""
    cut: Slice | None = None


@dataclass(slots=True)
class _Parser:
    """One projection being read."""

    node: Node
    tree: _Tree = field(default_factory=_Tree)
    count: int = 0
    including: bool | None = None
    with_id: bool | None = None
    sliced: bool = False
    matchers: dict[str, Callable[[Value], bool]] = field(default_factory=dict)
    """Of each field with ``$elemMatch`` the test of its elements."""
    positional: tuple[str, ...] | None = None

    def fields(self, value: Document, above: tuple[str, ...]) -> None:
        for path, choice in value.items():
            self.count += 1
            if self.count > FIELDS_MAX:
                raise InvalidProjection(f"a projection may have {FIELDS_MAX} fields")
            if type(choice) is dict:
                self.object(path, choice, above)
            elif type(choice) is bool or numeric.is_number(choice):
                self.choice(path, bool(choice != 0), above)
            else:
                raise InvalidProjection(
                    f"the projection of {path[:80]!r} must be 0 or 1, not {type_name(choice)}; "
                    "for computed fields use an aggregation's $project"
                )

    def object(self, path: str, choice: Document, above: tuple[str, ...]) -> None:
        names = _names(path, above)
        first = next(iter(choice), "")
        if path.endswith(_SUFFIX):
            raise InvalidProjection("positional projection cannot be used with an expression or sub object")
        if first == "$slice" and len(choice) == 1:
            self.sliced = True
            self.place(names).cut = _slice(choice["$slice"])
        elif first == "$elemMatch" and len(choice) == 1:
            self.element(names, choice["$elemMatch"])
        elif first.startswith("$"):
            raise InvalidProjection(
                f"the projection operator {first[:40]} is not supported: "
                "$slice, $elemMatch and the positional $ are"
            )
        elif not choice:
            raise InvalidProjection(f"the projection of {path[:80]!r} is an empty object")
        else:
            self.fields(choice, names)

    def choice(self, path: str, wanted: bool, above: tuple[str, ...]) -> None:
        if wanted and path.endswith(_SUFFIX):
            self.position(path, above)
            return
        names = _names(path, above)
        self.place(names).is_whole = True
        if names == ("_id",):
            self.with_id = wanted
        elif self.including is not None and self.including is not wanted:
            kinds = ("inclusion", "exclusion") if wanted else ("exclusion", "inclusion")
            raise InvalidProjection(
                f"Cannot do {kinds[0]} on field {path[:80]} in {kinds[1]} projection: "
                "a projection cannot both include and exclude fields"
            )
        else:
            self.including = wanted

    def position(self, path: str, above: tuple[str, ...]) -> None:
        if self.positional is not None:
            raise InvalidProjection("Cannot specify more than one positional projection per query.")
        names = _names(path.removesuffix(_SUFFIX), above)
        if not has_condition_below(self.node, names[0]):
            raise InvalidProjection(
                f"Positional projection '{path[:80]}' does not match the query document: "
                f"the filter needs a condition on '{names[0][:80]}'"
            )
        self.choice(path.removesuffix(_SUFFIX), True, above)
        self.positional = names

    def element(self, names: tuple[str, ...], condition: Value) -> None:
        if len(names) > 1:
            raise InvalidProjection("Cannot use $elemMatch projection on a nested field.")
        if type(condition) is not dict:
            raise InvalidProjection(
                f"elemMatch: Invalid argument, object required, but got {type_name(condition)}"
            )
        self.place(names).is_whole = True
        self.matchers[names[0]] = _element_test(condition)

    def place(self, names: tuple[str, ...]) -> _Tree:
        """The place of a path in the tree. Raises InvalidProjection if it is taken, above or below."""
        at = self.tree
        for depth, name in enumerate(names):
            if depth and (at.is_whole or at.cut is not None):
                rest = ".".join(names[depth:])
                raise InvalidProjection(
                    f"Path collision at {'.'.join(names)[:80]} remaining portion {rest[:80]}"
                )
            known = name in at.children
            at = at.children.setdefault(name, _Tree())
            if known and depth == len(names) - 1:
                raise InvalidProjection(f"Path collision at {'.'.join(names)[:80]}")
        return at

    def projector(self) -> Projector:
        if self.positional is not None and self.matchers:
            raise InvalidProjection("Cannot specify positional operator and $elemMatch.")
        including = self.is_including()
        if including and self.with_id is None and "_id" not in self.tree.children:
            self.tree.children["_id"] = _Tree(is_whole=True)
        elif self.with_id is not None and self.with_id is not including:
            del self.tree.children["_id"]
        tree, how = self.tree, _included if including else _excluded

        def project(document: Document) -> Document:
            return how(document, tree)

        if self.matchers:
            return _with_elements(project, self.matchers)
        return project if self.positional is None else _at_position(project, self.node, self.positional)

    def is_including(self) -> bool:
        """The kind of a projection that does not say it by a field of its own."""
        if self.including is not None:
            return self.including
        if self.sliced:
            return self.with_id is True
        return bool(self.matchers) or self.with_id is True


def _names(path: str, above: tuple[str, ...]) -> tuple[str, ...]:
    names = (*above, *path.split("."))
    if len(names) > PATH_SEGMENTS_MAX:
        raise InvalidProjection(f"a path has more than {PATH_SEGMENTS_MAX} segments")
    if "" in names or "\0" in path:
        raise InvalidProjection(f"the path {path[:80]!r} has an empty field name or a null character")
    if any(name.startswith("$") for name in names):
        raise InvalidProjection(
            f"the path {path[:80]!r} cannot be projected: a field name starts with $, "
            "and the positional $ may only be its last part, with 1 or true"
        )
    return names


def _slice(operand: Value) -> Slice:
    """``n``: the first n elements, or the last -n. ``[skip, n]``: n elements after (or from the end) skip."""
    if type(operand) is list:
        if len(operand) != 2:
            raise InvalidProjection("$slice array argument should be of form [skip, limit]")
        for name, number in zip(("skip", "limit"), operand, strict=True):
            if numeric.truncated_64(number) is None:
                raise InvalidProjection(
                    f"$slice expects the {name} argument to be a number, got {type_name(number)}"
                )
        skip, limit = (int(number) for number in operand)
        if limit <= 0:
            raise InvalidProjection(f"$slice limit must be positive, got {limit}")
        return lambda items: items[
            (start := skip if skip >= 0 else max(0, len(items) + skip)) : start + limit
        ]
    count = numeric.truncated_64(operand)
    if count is None:
        raise InvalidProjection("$slice only supports numbers and [skip, limit] arrays")
    return lambda items: items[:count] if count >= 0 else items[count:]


def _element_test(condition: Document) -> Callable[[Value], bool]:
    try:
        node = parse_filter({"value": {"$elemMatch": condition}})
    except InvalidFilter as exc:
        raise InvalidProjection(f"the $elemMatch of the projection is not valid: {exc.message}") from exc
    if is_costly(node):
        raise InvalidProjection("the regular expression of a projection's $elemMatch is too costly")
    match = compile_node(node)
    return lambda element: match({"value": [element]})


def _included(document: Document, tree: _Tree) -> Document:
    result: Document = {}
    children = tree.children
    for name, item in document.items():
        below = children.get(name)
        if below is None:
            continue
        if below.is_whole:
            result[name] = item
        elif below.cut is not None:
            result[name] = below.cut(item) if type(item) is list else item
        elif type(item) is dict:
            result[name] = _included(item, below)
        elif type(item) is list:
            result[name] = _included_items(item, below)
    return result


def _included_items(items: list[Value], tree: _Tree) -> list[Value]:
    """Of an array's elements the objects (and arrays) are kept, each with its included fields."""
    result: list[Value] = []
    for item in items:
        if type(item) is dict:
            result.append(_included(item, tree))
        elif type(item) is list:
            result.append(_included_items(item, tree))
    return result


def _excluded(document: Document, tree: _Tree) -> Document:
    result: Document = {}
    children = tree.children
    for name, item in document.items():
        below = children.get(name)
        if below is None:
            result[name] = item
        elif below.cut is not None:
            result[name] = below.cut(item) if type(item) is list else item
        elif not below.is_whole:
            result[name] = _excluded_below(item, below)
    return result


def _excluded_below(item: Value, tree: _Tree) -> Value:
    if type(item) is dict:
        return _excluded(item, tree)
    if type(item) is list:
        return [_excluded_below(entry, tree) for entry in item]
    return item


def _with_elements(project: Projector, matchers: dict[str, Callable[[Value], bool]]) -> Projector:
    """Of the arrays with ``$elemMatch`` the first element that matches, behind all other fields."""

    def with_elements(document: Document) -> Document:
        result = project(document)
        for name, test in matchers.items():
            items = document.get(name)
            result.pop(name, None)
            if type(items) is list:
                first = next(([item] for item in items if test(item)), None)
                if first is not None:
                    result[name] = first
        return result

    return with_elements


def _at_position(project: Projector, node: Node, names: tuple[str, ...]) -> Projector:
    """Of the first array on the path the element that made the document match."""

    def with_element(document: Document) -> Document:
        value: Value = document
        for depth, name in enumerate(names, 1):
            value = value.get(name)
            if type(value) is list:
                path = names[:depth]
                return project(_with_one(document, path, _index(node, document, path)))
            if type(value) is not dict:
                break
        return project(document)

    return with_element


def _index(node: Node, document: Document, path: tuple[str, ...]) -> int:
    index = matched_index(node, document, path)
    if index is None:
        raise InvalidProjection(
            "Executor error during find command :: caused by :: "
            "positional operator '.$' couldn't find a matching element in the array"
        )
    return index


def _with_one(value: Document, path: tuple[str, ...], index: int) -> Document:
    """``value`` with one element of the array at ``path``."""
    below = value[path[0]]
    kept = _with_one(below, path[1:], index) if len(path) > 1 else below[index : index + 1]
    return {**value, path[0]: kept}
