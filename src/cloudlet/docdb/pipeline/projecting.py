"""Shaping documents: ``$project``, ``$addFields``, ``$set`` and ``$unset``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cloudlet.docdb.pipeline.expressions import Compiler, Expression, Variables, refused
from cloudlet.docdb.pipeline.expressions.base import kind_name, split_names
from cloudlet.docdb.pipeline.expressions.numbers import number_kind
from cloudlet.docdb.values import MISSING, Document, Value

Shape: TypeAlias = Callable[[Document, Variables], Document]

FIELDS_MAX: Final = 1_000


@dataclass(slots=True)
class _Node:
    """What happens to the fields of one object."""

    included: set[str] = field(default_factory=set)
    excluded: set[str] = field(default_factory=set)
    computed: dict[str, Expression] = field(default_factory=dict)
    children: dict[str, _Node] = field(default_factory=dict)
    additions: list[str] = field(default_factory=list)
    """Computed fields and children that hold some, in the order they were given."""

    def taken(self, name: str) -> bool:
        return name in self.included or name in self.excluded or name in self.computed


@dataclass(frozen=True, slots=True)
class Projection:
    """A parsed ``$project``."""

    shape: Shape
    including: bool
    """Only named fields are left: what else the documents hold does not matter."""


def parse_project(compiler: Compiler, spec: Value) -> Projection:
    """``$project``: fields are included, excluded or computed. Raises InvalidFilter."""
    if type(spec) is not dict:
        raise refused(15969, "$project specification must be an object")
    if not spec:
        raise refused(51272, "Invalid $project :: projection specification must have at least one field")
    reading = _Reading(compiler, "$project", literal_numbers=False)
    reading.fields(reading.root, spec, "")
    root = reading.root
    if reading.including:
        if reading.excluding:
            raise refused(
                31254,
                "Invalid $project :: Cannot do exclusion on field "
                f"{reading.excluding[:80]} in inclusion projection",
            )
        if not root.taken("_id") and "_id" not in root.children:
            root.included.add("_id")
            compiler.facts.fields.add("_id")
        return Projection(lambda document, variables: _included(document, root, variables), True)
    if not reading.excluding and "_id" in root.included:
        return Projection(lambda document, variables: _included(document, root, variables), True)
    return Projection(lambda document, _: _excluded(document, root), False)


def parse_add_fields(compiler: Compiler, name: str, spec: Value) -> Shape:
    """``$addFields`` and ``$set``: every field is computed. Raises InvalidFilter."""
    if type(spec) is not dict:
        raise refused(40272, f"{name} specification stage must be an object, got {kind_name(spec)}")
    if not spec:
        raise refused(40177, f"Invalid {name} :: specification must have at least one field")
    reading = _Reading(compiler, name, literal_numbers=True)
    reading.fields(reading.root, spec, "")
    root = reading.root
    return lambda document, variables: _with_computed(dict(document), root, document, variables)


def parse_unset(spec: Value) -> Shape:
    """``$unset``: a field or an array of fields. Raises InvalidFilter."""
    paths = [spec] if type(spec) is str else spec
    if type(paths) is not list or not paths or not all(type(path) is str and path for path in paths):
        raise refused(31002, "$unset specification must be a string or an array of strings")
    root = _Node()
    for path in paths:
        at, names = root, split_names(path)
        for name in names[:-1]:
            if name in at.excluded:
                raise refused(31249, f"Path collision at {path[:80]}")
            at = at.children.setdefault(name, _Node())
        if names[-1] in at.children or names[-1] in at.excluded:
            raise refused(31250, f"Path collision at {path[:80]}")
        at.excluded.add(names[-1])
    return lambda document, _: _excluded(document, root)


@dataclass(slots=True)
class _Reading:
    """The reading of one specification into a tree."""

    compiler: Compiler
    stage: str
    literal_numbers: bool
    root: _Node = field(default_factory=_Node)
    count: int = 0
    including: str = ""
    """A field that is included or computed, or nothing; ``_id`` does not count."""
    excluding: str = ""

    def fields(self, node: _Node, spec: Document, prefix: str) -> None:
        for path, value in spec.items():
            self.count += 1
            if self.count > FIELDS_MAX:
                raise refused(2, f"{self.stage} may have {FIELDS_MAX} fields")
            names = split_names(path)
            at = node
            for name in names[:-1]:
                at = self.child(at, name, path)
            self.field(at, names[-1], value, f"{prefix}{path}")

    def child(self, node: _Node, name: str, path: str) -> _Node:
        if node.taken(name):
            raise refused(31249, f"Invalid {self.stage} :: Path collision at {path[:80]}")
        if name not in node.children:
            node.children[name] = _Node()
            node.additions.append(name)
        return node.children[name]

    def field(self, node: _Node, name: str, value: Value, path: str) -> None:
        if node.taken(name) or (name in node.children and not self.nests(value)):
            raise refused(31250, f"Invalid {self.stage} :: Path collision at {path[:80]}")
        if self.nests(value):
            if not value and not self.literal_numbers:
                raise refused(
                    51270, f"An empty sub-projection is not a valid value. Found empty object at {path[:80]}"
                )
            self.fields(self.child(node, name, path), value, f"{path}.")
        elif not self.literal_numbers and (type(value) is bool or number_kind(value)):
            self.choose(node, name, bool(value), path)
        else:
            node.computed[name] = self.compiler.compile(value)
            node.additions.append(name)
            self.including = self.including or path

    def nests(self, value: Value) -> bool:
        if type(value) is not dict:
            return False
        first = next(iter(value), "")
        return bool(value or not self.literal_numbers) and not first.startswith("$")

    def choose(self, node: _Node, name: str, include: bool, path: str) -> None:
        (node.included if include else node.excluded).add(name)
        if include:
            self.compiler.facts.fields.add(path.split(".", 1)[0])
        if path != "_id":
            if include:
                self.including = self.including or path
            else:
                self.excluding = self.excluding or path


def _included(document: Document, node: _Node, variables: Variables) -> Document:
    made = _picked(document, node)
    return _with_computed(made, node, document, variables) if node.additions else made


def _picked(document: Document, node: _Node) -> Document:
    made: Document = {}
    included, children = node.included, node.children
    for name, value in document.items():
        if name in included:
            made[name] = value
        elif name in children:
            found = _picked_value(value, children[name])
            if found is not MISSING:
                made[name] = found
    return made


def _picked_value(value: Value, node: _Node) -> Value:
    kind = type(value)
    if kind is dict:
        return _picked(value, node)
    if kind is list:
        found = [_picked_value(item, node) for item in value]
        # Elements that are no objects vanish, unless fields are computed, which makes objects of them.
        return found if _computes(node) else [item for item in found if item is not MISSING]
    return MISSING


def _with_computed(made: Document, node: _Node, root: Document, variables: Variables) -> Document:
    """Set the computed fields in ``made``, which may be changed; its parts are copied before."""
    for name in node.additions:
        expression = node.computed.get(name)
        if expression is None:
            child = node.children[name]
            if _computes(child):
                made[name] = _computed_value(made.get(name, MISSING), child, root, variables)
            continue
        value = expression(root, variables)
        if value is MISSING:
            made.pop(name, None)
        else:
            made[name] = value
    return made


def _computed_value(value: Value, node: _Node, root: Document, variables: Variables) -> Value:
    """An object gets the fields, an array in each element; anything else gives way to a new object."""
    if type(value) is list:
        return [_computed_value(item, node, root, variables) for item in value]
    return _with_computed(dict(value) if type(value) is dict else {}, node, root, variables)


def _computes(node: _Node) -> bool:
    return bool(node.computed) or any(_computes(child) for child in node.children.values())


def _excluded(document: Document, node: _Node) -> Document:
    made: Document = {}
    excluded, children = node.excluded, node.children
    for name, value in document.items():
        if name in excluded:
            continue
        made[name] = _excluded_value(value, children[name]) if name in children else value
    return made


def _excluded_value(value: Value, node: _Node) -> Value:
    kind = type(value)
    if kind is dict:
        return _excluded(value, node)
    if kind is list:
        return [_excluded_value(item, node) for item in value]
    return value
