"""Arrays as sets: equal values count once, the order of what is left is that of first appearance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cloudlet.docdb.pipeline.expressions.base import (
    Builder,
    binary,
    group_key,
    kind_name,
    nullish,
    refused,
    variadic,
)
from cloudlet.docdb.values import Value


def distinct(items: list[Value]) -> dict[object, Value]:
    """The values by key, the first of equal ones."""
    found: dict[object, Value] = {}
    for item in items:
        found.setdefault(group_key(item), item)
    return found


def _checked(name: str, code: int, sets: tuple[Value, ...]) -> None:
    for items in sets:
        if type(items) is not list:
            raise refused(
                code, f"All operands of {name} must be arrays. One argument is of type: {kind_name(items)}"
            )


def _union(*sets: Value) -> Value:
    if any(nullish(items) for items in sets):
        return None
    _checked("$setUnion", 17043, sets)
    return list(distinct([item for items in sets for item in items]).values())


def _intersection(*sets: Value) -> Value:
    if any(nullish(items) for items in sets):
        return None
    _checked("$setIntersection", 17047, sets)
    if not sets:
        return []
    found = distinct(sets[0])
    for items in sets[1:]:
        keys = distinct(items).keys()
        found = {key: item for key, item in found.items() if key in keys}
    return list(found.values())


def _difference(left: Value, right: Value) -> Value:
    if nullish(left) or nullish(right):
        return None
    _checked("$setDifference", 17048, (left, right))
    without = distinct(right).keys()
    return [item for key, item in distinct(left).items() if key not in without]


def _equal(*sets: Value) -> Value:
    _checked("$setEquals", 17044, sets)
    first = distinct(sets[0]).keys()
    return all(distinct(items).keys() == first for items in sets[1:])


def _is_subset(left: Value, right: Value) -> Value:
    _checked("$setIsSubset", 17046, (left, right))
    return distinct(left).keys() <= distinct(right).keys()


OPERATORS: Final[Mapping[str, Builder]] = {
    "$setDifference": binary(_difference),
    "$setEquals": variadic(_equal, 2),
    "$setIntersection": variadic(_intersection),
    "$setIsSubset": binary(_is_subset),
    "$setUnion": variadic(_union),
}
"""Sets."""
