"""What a query asks of an index: its shape, without the values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cloudlet.docdb.base import CreateIndex
from cloudlet.docdb.bytekeys import KeyPart
from cloudlet.docdb.catalog import INDEX_NAME_MAX, key_part
from cloudlet.docdb.filter.ast import And, Compare, In, Node, Op
from cloudlet.docdb.paths import array_index
from cloudlet.docdb.sort import Sort
from cloudlet.docdb.values import Value
from cloudlet.model.errors import InvalidParameter

AUTOMATIC_PREFIX: Final = "auto_"
_PATHS_MAX: Final = 4
"""More equalities than this narrow nothing any more, and a long key costs every write."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Fields compared for equality (by name), fields with bounds (by name), and the order."""

    equal: tuple[str, ...]
    ranged: tuple[str, ...]
    sort: tuple[tuple[str, bool], ...]
    """Path, and whether descending."""


def shape_of(node: Node, sort: Sort) -> Shape | None:
    """The shape of a query; None if no index that we would make could help it.

    An ``_id`` that is compared has its own index, and conditions inside Or, Not and the like are not looked
    at.
    """
    equal: set[str] = set()
    ranged: set[str] = set()
    for condition in _conditions(node):
        match condition:
            case Compare(path, Op.EQ, value) if _helps(path.text, value):
                equal.add(path.text)
            case In(path, values, ()) if values and all(_helps(path.text, value) for value in values):
                equal.add(path.text)
            case Compare(path, _, value) if _helps(path.text, value):
                ranged.add(path.text)
            case _:
                pass
    fields = [item for item in sort if item.distance is None]
    if "_id" in equal or not (equal or ranged or fields):
        return None
    order = tuple((item.path, item.descending) for item in fields if item.path not in equal)
    return Shape(tuple(sorted(equal)), tuple(sorted(ranged - equal)), order)


def index_parts(shape: Shape) -> tuple[KeyPart, ...]:
    """The fields of the index that serves a shape: equalities, then the order, then one bound.

    Empty if that would be an index on ``_id`` alone, or a path that cannot be indexed.
    """
    fields = [(path, False) for path in shape.equal[:_PATHS_MAX]]
    fields += [item for item in shape.sort[:_PATHS_MAX] if item not in fields]
    bounds = [path for path in shape.ranged if path not in [name for name, _ in fields]]
    fields += [(path, False) for path in bounds[:1]]
    if not fields or fields[0][0] == "_id":
        return ()
    try:
        return tuple(key_part(path, descending) for path, descending in fields)
    except InvalidParameter:
        return ()


def serves(parts: tuple[KeyPart, ...], wanted: tuple[KeyPart, ...]) -> bool:
    """Whether an index on ``parts`` makes one on ``wanted`` needless: it begins with the same fields, and
    holds every document (one on places does not).
    """
    if any(part.kind != "value" for part in parts):
        return False
    mine = [(part.path, part.descending) for part in parts]
    return mine[: len(wanted)] == [(part.path, part.descending) for part in wanted]


def automatic_index(collection: str, parts: tuple[KeyPart, ...]) -> CreateIndex:
    """The index, with a name that tells its fields."""
    name = AUTOMATIC_PREFIX + "_".join(("-" if part.descending else "") + part.path for part in parts)
    return CreateIndex(collection, name[:INDEX_NAME_MAX], parts, automatic=True)


def _conditions(node: Node) -> Iterator[Node]:
    if isinstance(node, And):
        for child in node.children:
            yield from _conditions(child)
    else:
        yield node


def _helps(path: str, value: Value) -> bool:
    """Values that a key tells well; a path through array positions is too special for an index."""
    kept = value is None or not isinstance(value, dict | list | bytes)
    return kept and bool(path) and all(array_index(name) < 0 for name in path.split("."))
