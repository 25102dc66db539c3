"""The update operators of arrays. Manual: "Array Update Operators"."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, TypeAlias

from cloudlet.docdb import numeric
from cloudlet.docdb.filter import is_costly
from cloudlet.docdb.filter.match import compile_node
from cloudlet.docdb.filter.parse import parse_filter
from cloudlet.docdb.sort import parse_sort, sort_documents
from cloudlet.docdb.update_errors import Code, refused, shown
from cloudlet.docdb.update_tree import Change, Context
from cloudlet.docdb.values import MISSING, Document, Regex, Value, equals, order_key, type_name
from cloudlet.model.errors import InvalidFilter, InvalidSort

Test: TypeAlias = Callable[[Value], bool]

ARRAY_MAX: Final = 1_500_000
"""Elements of an array that an update made; about as many as fit into a document."""
_ELEMENT: Final = "element"
_ON_DOCUMENTS: Final = frozenset({"$and", "$or", "$nor", "$expr", "$jsonSchema", "$comment"})
"""Operators that look at a whole document, which in a condition on elements is the element."""
_CLAUSES: Final = ("$each", "$position", "$slice", "$sort")


def push(path: str, operand: Value) -> Change:
    """``$push``: a value, or ``$each`` with ``$position``, ``$sort`` and ``$slice``, applied so in turn."""
    values, clauses = _pushed(path, operand)
    position, cut = _integer(clauses, "$position"), _integer(clauses, "$slice")
    arrange = _array_sort(clauses["$sort"]) if "$sort" in clauses else None

    def change(old: Value, context: Context) -> Value:
        if old is not MISSING and type(old) is not list:
            raise refused(
                Code.BadValue,
                f"The field '{path[:200]}' must be an array but is of type {type_name(old)} "
                f"in document {context.place()}",
            )
        array = [] if old is MISSING else old
        at = len(array) if position is None else position
        new = [*array[:at], *values, *array[at:]]
        if arrange is not None:
            arrange(new)
        if cut is not None:
            new = new[cut:] if cut < 0 else new[:cut]
        return _checked(new, path)

    return change


def add_to_set(path: str, operand: Value) -> Change:
    """``$addToSet``: a value, or each of ``$each``, if no equal one is there."""
    values = [operand]
    if type(operand) is dict and next(iter(operand), "") == "$each":
        values = operand["$each"]
        if type(values) is not list:
            raise refused(
                Code.TypeMismatch,
                f"The argument to $each in $addToSet must be an array but it was of type {type_name(values)}",
            )
        if len(operand) > 1:
            extra = list(operand)[1]
            raise refused(Code.BadValue, f"Found unexpected fields after $each in $addToSet: {extra[:80]}")

    def change(old: Value, context: Context) -> Value:
        if old is not MISSING and type(old) is not list:
            raise refused(
                Code.BadValue,
                "Cannot apply $addToSet to non-array field. "
                f"Field named '{path.rsplit('.', 1)[-1][:80]}' has non-array type {type_name(old)}",
            )
        array = [] if old is MISSING else old
        known = {order_key(item) for item in array}
        added = []
        for value in values:
            key = order_key(value)
            if key not in known:
                known.add(key)
                added.append(value)
        return _checked([*array, *added], path) if added or old is MISSING else old

    return change


def pop(path: str, operand: Value) -> Change:
    """``$pop``: the last element goes (1), or the first (-1)."""
    if not numeric.is_number(operand):
        raise refused(Code.FailedToParse, f"Expected a number in: {shown(path, operand)}")
    if numeric.whole_64(operand) not in (1, -1):
        raise refused(Code.FailedToParse, f"$pop expects 1 or -1, found: {operand}")

    def change(old: Value, context: Context) -> Value:
        if old is MISSING:
            return old
        if type(old) is not list:
            raise refused(
                Code.TypeMismatch,
                f"Path '{path[:200]}' contains an element of non-array type '{type_name(old)}'",
            )
        return (old[:-1] if operand == 1 else old[1:]) if old else old

    return change


def pull(path: str, operand: Value) -> Change:
    """``$pull``: every element goes that equals a value or satisfies a condition."""
    return _cull("$pull", _element_test(operand))


def pull_all(path: str, operand: Value) -> Change:
    """``$pullAll``: every element goes that equals one of the values."""
    if type(operand) is not list:
        raise refused(
            Code.BadValue, f"$pullAll requires an array argument but was given a {type_name(operand)}"
        )
    unwanted = {order_key(item) for item in operand}
    return _cull("$pullAll", lambda item: order_key(item) in unwanted)


def _cull(name: str, test: Test) -> Change:
    def change(old: Value, context: Context) -> Value:
        if old is MISSING:
            return old
        if type(old) is not list:
            raise refused(Code.BadValue, f"Cannot apply {name} to a non-array value")
        kept = [item for item in old if not test(item)]
        return old if len(kept) == len(old) else kept

    return change


def _element_test(operand: Value) -> Test:
    """Whether an element goes: a condition is an object or a regular expression, all else is a value.

    The fields of an object without operators are a filter on elements that are objects. Operators look at the
    element as at a field with that value, so of an element that is an array they see its elements, too.
    """
    is_object = type(operand) is dict
    if not is_object and type(operand) is not Regex:
        return lambda item: equals(item, operand)
    first = next(iter(operand), "") if is_object else "$regex"
    of_fields = not first.startswith("$") or first in _ON_DOCUMENTS
    try:
        node = parse_filter(operand if of_fields else {_ELEMENT: operand})
    except InvalidFilter as exc:
        raise refused(Code.BadValue, f"the condition of $pull is not valid: {exc.message}") from exc
    if is_costly(node):
        raise refused(Code.BadValue, "the regular expression of $pull is too costly; use a simpler one")
    match = compile_node(node)
    if of_fields:
        return lambda item: type(item) is dict and match(item)
    return lambda item: match({_ELEMENT: item})


def _pushed(path: str, operand: Value) -> tuple[list[Value], Document]:
    """The values to push, and the clauses beside them."""
    if type(operand) is not dict or "$each" not in operand:
        if type(operand) is dict and any(name in _CLAUSES for name in operand):
            raise refused(
                Code.DollarPrefixedFieldName, f"$push to '{path[:200]}' needs $each beside its other clauses"
            )
        return [operand], {}
    for name in operand:
        if name not in _CLAUSES:
            raise refused(Code.BadValue, f"Unrecognized clause in $push: {name[:80]}")
    values = operand["$each"]
    if type(values) is not list:
        raise refused(
            Code.BadValue,
            f"The argument to $each in $push must be an array but it was of type: {type_name(values)}",
        )
    return values, operand


def _array_sort(order: Value) -> Callable[[list[Value]], None]:
    if numeric.is_number(order):
        if numeric.whole_64(order) not in (1, -1):
            raise refused(Code.BadValue, "The $sort element value must be either 1 or -1")
        return lambda items: items.sort(key=order_key, reverse=order == -1)
    if type(order) is not dict:
        raise refused(
            Code.BadValue,
            "The $sort is invalid: use 1/-1 to sort the whole element, "
            "or {field:1/-1} to sort embedded fields",
        )
    if not order:
        raise refused(Code.BadValue, "The $sort pattern is empty when it should be a set of fields.")
    try:
        fields = parse_sort(order)
    except InvalidSort as exc:
        raise refused(Code.BadValue, f"the $sort of $push is not valid: {exc.message}") from exc
    return lambda items: sort_documents(items, fields, lambda item: item if type(item) is dict else {})


def _integer(clauses: Document, name: str) -> int | None:
    """A clause's number; what lies beyond every array's length is brought to where it means the same."""
    if name not in clauses:
        return None
    value = numeric.whole_64(clauses[name])
    if value is None:
        words = " but was given type:" if name == "$slice" else ", not of type:"
        raise refused(
            Code.BadValue,
            f"The value for {name} must be an integer value{words} {type_name(clauses[name])}",
        )
    return max(-sys.maxsize, min(value, sys.maxsize))


def _checked(array: list[Value], path: str) -> list[Value]:
    if len(array) > ARRAY_MAX:
        raise refused(Code.BadValue, f"the array '{path[:200]}' would have more than {ARRAY_MAX} elements")
    return array
