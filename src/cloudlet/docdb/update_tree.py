"""Where an update changes a document: its paths as one tree, walked once, copying only what lies on the way.

A leaf changes one field. A branch leads to the fields below it; beside names it may have the dynamic steps
``$`` (the element the filter matched), ``$[]`` (every element) and ``$[id]`` (those an array filter
matches), which mean something only in the document at hand. Children are visited by name, numbers by size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final, TypeAlias

from cloudlet.docdb.paths import Segments
from cloudlet.docdb.update_errors import Code, refused, shown
from cloudlet.docdb.values import MISSING, Document, Value, identical

ARRAY_PADDING_MAX: Final = 1_500_000
"""Nulls that may be put between an array's end and the index that is written."""
POSITION: Final = "$"
EVERY: Final = "$[]"

Position: TypeAlias = Callable[[tuple[str, ...]], int | None]
"""The index ``$`` stands for, below the array at this path."""


@dataclass(slots=True)
class Context:
    """What a change may depend on beside the old value. (Not frozen: one is made for each document.)"""

    document: Document
    """As it was before the update."""
    now: datetime
    position: Position
    inserting: bool = False
    filters: Mapping[str, Callable[[Value], bool]] = field(default_factory=dict)
    """Tests of elements, by identifier."""
    moved: Mapping[str, Value] = field(default_factory=dict)
    """Of each ``$rename`` the value that moves, by its new path; MISSING if there is none."""

    def place(self) -> str:
        """The document, for messages."""
        return shown("_id", self.document.get("_id"))


Change: TypeAlias = Callable[[Value, Context], Value]
"""Old value to new one. MISSING stands for no field; the same object back means "unchanged"."""


class Blocked(Enum):
    """What happens where the way to a field leads through something that has no fields."""

    REFUSED = "the field cannot be created"
    NOT_FOUND = "the way cannot be gone"
    IGNORED = "nothing to do"


@dataclass(slots=True)
class Leaf:
    """The change of one field."""

    path: str
    change: Change
    blocked: Blocked = Blocked.REFUSED
    only_on_insert: bool = False

    def apply(self, old: Value, context: Context, name: str) -> Value:
        new = self.change(old, context)
        return old if new is old or identical(old, new) else new

    def leaves(self) -> Iterator[Leaf]:
        yield self

    def is_idle(self, context: Context) -> bool:
        """Whether this changes nothing, whatever it meets."""
        if self.only_on_insert:
            return not context.inserting
        return context.moved.get(self.path, self) is MISSING


@dataclass(slots=True)
class Branch:
    """The fields below one field. ``prefix`` is the way here, as far as it is the same in all documents."""

    prefix: tuple[str, ...] | None = ()
    fixed: dict[str, tuple[int, Node]] = field(default_factory=dict)
    """Children by name, with the array index the name means (or -1)."""
    dynamic: dict[str, Node] = field(default_factory=dict)

    def apply(self, old: Value, context: Context, name: str) -> Value:
        kind = type(old)
        if kind is dict:
            return self.in_object(old, context, name)
        if kind is list:
            return self.in_array(old, context, name)
        self.refuse_dynamic(old, context, name)
        if old is MISSING:
            empty: Document = {}
            made = self.in_object(empty, context, name)
            return MISSING if made is empty else made
        for step, (_, child) in self.fixed.items():
            _refuse(child, step, name, old, context)
        return old

    def in_object(self, value: Document, context: Context, name: str) -> Value:
        new: Document | None = None
        for step, (_, child) in self.fixed.items():
            old = value.get(step, MISSING)
            made = child.apply(old, context, step)
            if made is old:
                continue
            if new is None:
                new = value.copy()
            if made is MISSING:
                del new[step]
            else:
                new[step] = made
        if self.dynamic:
            self.refuse_dynamic(value, context, name)
        return value if new is None else new

    def in_array(self, value: list[Value], context: Context, name: str) -> Value:
        targets = self.targets(value, context, name) if self.dynamic else self.indexed(value, context, name)
        new: list[Value] | None = None
        for index, child in targets.items():
            old = value[index] if index < len(value) else MISSING
            made = child.apply(old, context, str(index))
            if made is old:
                continue
            if new is None:
                new = value.copy()
            if index >= len(new):
                if index - len(new) > ARRAY_PADDING_MAX:
                    raise refused(
                        Code.CannotBackfillArray, f"can't backfill more than {ARRAY_PADDING_MAX} elements"
                    )
                new.extend([None] * (index + 1 - len(new)))
            # Removing an element by its index leaves a hole, so that the others keep theirs.
            new[index] = None if made is MISSING else made
        return value if new is None else new

    def indexed(self, value: list[Value], context: Context, name: str) -> dict[int, Node]:
        """The children whose names are indexes."""
        targets = {}
        for step, (index, child) in self.fixed.items():
            if index < 0:
                _refuse(child, step, name, value, context)
            else:
                targets[index] = child
        return targets

    def targets(self, value: list[Value], context: Context, name: str) -> dict[int, Node]:
        """What happens to which element; one element may be meant by several children."""
        targets = self.indexed(value, context, name)
        merged: dict[tuple[int, int], Node] = {}
        for step, child in self.dynamic.items():
            for index in self.indexes(step, child, value, context):
                other = targets.get(index)
                if other is None:
                    targets[index] = child
                    continue
                pair = (id(other), id(child))
                if pair not in merged:
                    merged[pair] = _merged(other, child, (*(self.prefix or ("…",)), str(index)))
                targets[index] = merged[pair]
        return targets

    def indexes(self, step: str, child: Node, value: list[Value], context: Context) -> Iterator[int]:
        if step == EVERY:
            yield from range(len(value))
        elif step == POSITION:
            yield self.position(child, context)
        else:
            test = context.filters[step]
            yield from (index for index, item in enumerate(value) if test(item))

    def position(self, child: Node, context: Context) -> int:
        index = None if self.prefix is None else context.position(self.prefix)
        if index is None:
            raise _not_found(child)
        return index

    def refuse_dynamic(self, value: Value, context: Context, name: str) -> None:
        """Raises if a step below stands for elements, of which ``value`` has none: it is no array."""
        for step, child in self.dynamic.items():
            if all(leaf.is_idle(context) for leaf in child.leaves()):
                continue
            if step == POSITION:
                raise _not_found(child)
            if value is MISSING:
                path = ".".join(self.prefix or (name,))
                raise refused(
                    Code.BadValue,
                    f"The path '{path[:200]}' must exist in the document in order to apply array updates.",
                )
            raise refused(
                Code.BadValue, f"Cannot apply array updates to non-array element {shown(name, value)}"
            )

    def children(self) -> Iterator[tuple[str, Node]]:
        for step, (_, child) in self.fixed.items():
            yield step, child
        yield from self.dynamic.items()

    def leaves(self) -> Iterator[Leaf]:
        for _, child in self.children():
            yield from child.leaves()

    def add(self, segments: Segments, leaf: Leaf) -> None:
        """Put a leaf in its place. Raises InvalidUpdate if another one is there, above or below."""
        branch = self
        for at, (step, index) in enumerate(segments[:-1] if len(segments) > 1 else ()):
            child = branch.child(step)
            if child is None:
                child = Branch(branch.below(step))
                branch.put(step, index, child)
            if isinstance(child, Leaf):
                raise _conflict(leaf.path, ".".join(name for name, _ in segments[: at + 1]))
            branch = child
        step, index = segments[-1]
        if branch.child(step) is not None:
            raise _conflict(leaf.path, leaf.path)
        branch.put(step, index, leaf)

    def child(self, step: str) -> Node | None:
        found = self.fixed.get(step)
        return found[1] if found is not None else self.dynamic.get(step)

    def put(self, step: str, index: int, child: Node) -> None:
        if step == POSITION or step.startswith("$["):
            self.dynamic[step] = child
        else:
            self.fixed[step] = (index, child)

    def below(self, step: str) -> tuple[str, ...] | None:
        dynamic = step == POSITION or step.startswith("$[")
        return None if self.prefix is None or dynamic else (*self.prefix, step)

    def sort(self) -> None:
        """Bring all children into the order in which they are visited, and new fields are appended."""
        if len(self.fixed) > 1:
            self.fixed = dict(sorted(self.fixed.items(), key=_place))
        for _, child in self.children():
            if isinstance(child, Branch):
                child.sort()


Node: TypeAlias = Leaf | Branch


def _place(item: tuple[str, tuple[int, Node]]) -> tuple[str, int]:
    step, (index, _) = item
    return ("0", index) if index >= 0 else (step, -1)


def _merged(one: Node, other: Node, path: tuple[str, ...]) -> Node:
    """Both of two nodes that turned out to mean the same element. Raises InvalidUpdate if they cannot."""
    if isinstance(one, Leaf) or isinstance(other, Leaf):
        raise refused(
            Code.ConflictingUpdateOperators, f"Update created a conflict at '{'.'.join(path)[:200]}'"
        )
    prefix = other.prefix if one.prefix is None else one.prefix
    both = Branch(prefix, dict(one.fixed), dict(one.dynamic))
    for step, child in other.children():
        known = both.child(step)
        index = other.fixed[step][0] if step in other.fixed else -1
        both.put(step, index, child if known is None else _merged(known, child, (*path, step)))
    both.sort()
    return both


def _refuse(child: Node, step: str, name: str, old: Value, context: Context) -> None:
    """Raises unless everything below ``child`` may silently find nothing in ``old``."""
    for leaf in child.leaves():
        if leaf.blocked is Blocked.IGNORED or leaf.is_idle(context):
            continue
        if leaf.blocked is Blocked.NOT_FOUND:
            raise refused(
                Code.PathNotViable,
                f"Cannot use the part ({name[:80]}) of ({leaf.path[:200]}) to traverse the element "
                f"({shown(name, old)})",
            )
        raise refused(Code.PathNotViable, f"Cannot create field '{step[:80]}' in element {shown(name, old)}")


def _not_found(child: Node) -> Exception:
    path = next(child.leaves()).path
    return refused(
        Code.BadValue,
        f"The positional operator did not find the match needed from the query for the path '{path[:200]}'",
    )


def _conflict(path: str, place: str) -> Exception:
    return refused(
        Code.ConflictingUpdateOperators,
        f"Updating the path '{path[:200]}' would create a conflict at '{place[:200]}'",
    )
