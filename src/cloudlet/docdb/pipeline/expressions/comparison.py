"""Comparisons over all types, logic and conditions.

Comparisons use MongoDB's order of all values; unlike in filters a missing value is below null, nothing is
looked for inside arrays, and types do not separate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from cloudlet.docdb.pipeline.expressions.base import (
    Builder,
    Compiler,
    Expression,
    Variables,
    binary,
    checked_names,
    full_key,
    kind_name,
    nullish,
    refused,
    truthy,
    unary,
)
from cloudlet.docdb.values import Document, Value


def compare(left: Value, right: Value) -> int:
    """-1, 0 or 1."""
    one, two = full_key(left), full_key(right)
    return (one > two) - (one < two)


def same(left: Value, right: Value) -> bool:
    """Equality: ``1`` equals ``1.0``, missing does not equal null."""
    kind = type(left)
    if (kind is str or kind is int) and kind is type(right):
        return bool(left == right)
    return full_key(left) == full_key(right)


def _ordered(operation: Callable[[tuple[Any, ...], tuple[Any, ...]], bool]) -> Builder:
    return binary(lambda left, right: operation(full_key(left), full_key(right)))


def _and(compiler: Compiler, name: str, operand: Value) -> Expression:
    items = compiler.arguments(name, operand, 0, None)

    def every(document: Document, variables: Variables) -> Value:
        for item in items:  # noqa: SIM110 - a generator would cost a frame per document
            if not truthy(item(document, variables)):
                return False
        return True

    return every


def _or(compiler: Compiler, name: str, operand: Value) -> Expression:
    items = compiler.arguments(name, operand, 0, None)

    def some(document: Document, variables: Variables) -> Value:
        for item in items:  # noqa: SIM110 - a generator would cost a frame per document
            if truthy(item(document, variables)):
                return True
        return False

    return some


def _cond(compiler: Compiler, name: str, operand: Value) -> Expression:
    if type(operand) is dict:
        parts = compiler.named(name, operand, ("if", "then", "else"))
        test, yes, no = parts["if"], parts["then"], parts["else"]
    else:
        test, yes, no = compiler.arguments(name, operand, 3, 3)
    return lambda document, variables: (
        yes(document, variables) if truthy(test(document, variables)) else no(document, variables)
    )


def _if_null(compiler: Compiler, name: str, operand: Value) -> Expression:
    items = compiler.arguments(name, operand, 2, None)
    first, last = items[:-1], items[-1]

    def choose(document: Document, variables: Variables) -> Value:
        for item in first:
            found = item(document, variables)
            if not nullish(found):
                return found
        return last(document, variables)

    return choose


def _switch(compiler: Compiler, name: str, operand: Value) -> Expression:
    given = checked_names(name, operand, ("branches",), ("default",))
    if type(given["branches"]) is not list or not given["branches"]:
        raise refused(40068, "$switch requires at least one branch")
    branches = []
    for branch in given["branches"]:
        parts = compiler.named("$switch branch", branch, ("case", "then"))
        branches.append((parts["case"], parts["then"]))
    default = compiler.compile(given["default"]) if "default" in given else None

    def choose(document: Document, variables: Variables) -> Value:
        for case, then in branches:
            if truthy(case(document, variables)):
                return then(document, variables)
        if default is None:
            raise refused(
                40066,
                "$switch could not find a matching branch for an input, and no default was specified.",
            )
        return default(document, variables)

    return choose


def _in(left: Value, right: Value) -> Value:
    if type(right) is not list:
        raise refused(40081, f"$in requires an array as a second argument, found: {kind_name(right)}")
    wanted = full_key(left)
    return any(full_key(item) == wanted for item in right)


OPERATORS: Final[Mapping[str, Builder]] = {
    "$cmp": binary(compare),
    "$eq": binary(same),
    "$ne": binary(lambda left, right: not same(left, right)),
    "$gt": _ordered(lambda left, right: left > right),
    "$gte": _ordered(lambda left, right: left >= right),
    "$lt": _ordered(lambda left, right: left < right),
    "$lte": _ordered(lambda left, right: left <= right),
    "$and": _and,
    "$or": _or,
    "$not": unary(lambda value: not truthy(value)),
    "$cond": _cond,
    "$ifNull": _if_null,
    "$switch": _switch,
    "$in": binary(_in),
}
"""Comparisons and conditions."""
