"""The update operators: each turns a field's old value (or MISSING) into its new one (MISSING removes it)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from cloudlet.docdb.filter import is_costly
from cloudlet.docdb.filter.match import Test, compile_node, value_test
from cloudlet.docdb.filter.parse import parse_condition
from cloudlet.docdb.sort import parse_sort, sort_documents
from cloudlet.docdb.values import (
    INT64_MAX,
    INT64_MIN,
    MISSING,
    Document,
    Value,
    compare,
    equals,
    order_key,
    type_name,
)
from cloudlet.model.errors import InvalidFilter, InvalidSort, InvalidUpdate

Change: TypeAlias = Callable[[Value, datetime | None], Value]
"""Old value and the server's time to the new value; the same object back means "unchanged"."""

ARRAY_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Spec:
    """How one operator is read."""

    parse: Callable[[str, Value], Change]
    creates: bool = True
    """Whether a missing field comes into being."""


def _set(path: str, operand: Value) -> Change:
    return lambda _, __: operand


def _unset(path: str, operand: Value) -> Change:
    return lambda _, __: MISSING


def _arithmetic(name: str, operation: Callable[[Value, Value], Value], start: int) -> Spec:
    def parse(path: str, operand: Value) -> Change:
        if not _is_number(operand):
            raise InvalidUpdate(f"Cannot {name} with non-numeric argument: {{{path}: {type_name(operand)}}}")

        def change(old: Value, _now: datetime | None) -> Value:
            if old is MISSING:
                return operation(start, operand)
            if not _is_number(old):
                raise InvalidUpdate(
                    f"Cannot apply ${name} to a value of non-numeric type: "
                    f"the field '{path}' has the type {type_name(old)}"
                )
            new = operation(old, operand)
            if type(new) is int and not INT64_MIN <= new <= INT64_MAX:
                raise InvalidUpdate(f"Failed to apply ${name}: the field '{path}' would exceed 64 bits")
            return new

        return change

    return Spec(parse)


def _product(old: Value, operand: Value) -> Value:
    return old * operand


def _sum(old: Value, operand: Value) -> Value:
    return old + operand


def _limit(sign: int) -> Spec:
    def parse(path: str, operand: Value) -> Change:
        def change(old: Value, _now: datetime | None) -> Value:
            return operand if old is MISSING or compare(operand, old) * sign > 0 else old

        return change

    return Spec(parse)


def _current_date(path: str, operand: Value) -> Change:
    if operand is not True and operand != {"$type": "date"}:
        raise InvalidUpdate('$currentDate needs true or {"$type": "date"}')
    return lambda _, now: now


def _push(path: str, operand: Value) -> Change:
    values, modifiers = _each("$push", operand, ("$each", "$position", "$slice", "$sort"))
    position, cut = _whole(modifiers, "$position"), _whole(modifiers, "$slice")
    arrange = _array_sort(modifiers["$sort"]) if "$sort" in modifiers else None

    def change(old: Value, _now: datetime | None) -> Value:
        array = [] if old is MISSING else _array("$push", path, old)
        at = len(array) if position is None else position
        new = [*array[:at], *values, *array[at:]]
        if arrange is not None:
            arrange(new)
        if cut is not None:
            new = new[cut:] if cut < 0 else new[:cut]
        return _checked(new, path)

    return change


def _add_to_set(path: str, operand: Value) -> Change:
    values, _ = _each("$addToSet", operand, ("$each",))

    def change(old: Value, _now: datetime | None) -> Value:
        array = [] if old is MISSING else _array("$addToSet", path, old)
        known = {order_key(item) for item in array}
        added = []
        for value in values:
            key = order_key(value)
            if key not in known:
                known.add(key)
                added.append(value)
        return _checked([*array, *added], path) if added or old is MISSING else old

    return change


def _pop(path: str, operand: Value) -> Change:
    if not _is_number(operand) or operand not in (1, -1):
        raise InvalidUpdate("$pop needs 1 or -1")

    def change(old: Value, _now: datetime | None) -> Value:
        if old is MISSING or not _array("$pop", path, old):
            return old
        return old[:-1] if operand == 1 else old[1:]

    return change


def _pull(path: str, operand: Value) -> Change:
    test = _element_test(operand)

    def change(old: Value, _now: datetime | None) -> Value:
        if old is MISSING:
            return old
        kept = [item for item in _array("$pull", path, old) if not test(item)]
        return old if len(kept) == len(old) else kept

    return change


def _pull_all(path: str, operand: Value) -> Change:
    if type(operand) is not list:
        raise InvalidUpdate("$pullAll needs an array")
    unwanted = {order_key(item) for item in operand}

    def change(old: Value, _now: datetime | None) -> Value:
        if old is MISSING:
            return old
        kept = [item for item in _array("$pullAll", path, old) if order_key(item) not in unwanted]
        return old if len(kept) == len(old) else kept

    return change


def _bit(path: str, operand: Value) -> Change:
    if type(operand) is not dict or len(operand) != 1 or not set(operand) <= {"and", "or", "xor"}:
        raise InvalidUpdate("$bit needs one of and, or, xor")
    name, mask = next(iter(operand.items()))
    if type(mask) is not int:
        raise InvalidUpdate("$bit needs an integer")

    def change(old: Value, _now: datetime | None) -> Value:
        number = 0 if old is MISSING else old
        if type(number) is not int:
            raise InvalidUpdate(f"Cannot apply $bit to the field '{path}' of type {type_name(old)}")
        return number & mask if name == "and" else number | mask if name == "or" else number ^ mask

    return change


def _element_test(operand: Value) -> Test:
    if type(operand) is list:
        return lambda item: equals(item, operand)
    try:
        node, of_objects = parse_condition(operand)
    except InvalidFilter as exc:
        raise InvalidUpdate(f"the condition of $pull is not valid: {exc.message}") from exc
    if is_costly(node):
        raise InvalidUpdate("the regular expression of $pull is too costly; use a simpler one")
    if of_objects:
        match = compile_node(node)
        return lambda item: type(item) is dict and match(item)
    return value_test(node)


def _each(name: str, operand: Value, known: Sequence[str]) -> tuple[list[Value], Document]:
    """The values to add, and the modifiers."""
    if type(operand) is not dict or not any(key.startswith("$") for key in operand):
        return [operand], {}
    for key in operand:
        if key not in known:
            raise InvalidUpdate(f"unrecognized clause in {name}: {key[:80]}")
    values = operand.get("$each")
    if type(values) is not list:
        raise InvalidUpdate(f"the modifiers of {name} need an array in $each")
    return values, operand


def _array_sort(direction: Value) -> Callable[[list[Value]], None]:
    if _is_number(direction) and direction in (1, -1):
        return lambda items: items.sort(key=order_key, reverse=direction == -1)
    try:
        order = parse_sort(direction)
    except InvalidSort as exc:
        raise InvalidUpdate(f"the $sort of $push is not valid: {exc.message}") from exc
    return lambda items: sort_documents(items, order, lambda item: item)


def _array(name: str, path: str, old: Value) -> list[Value]:
    if type(old) is not list:
        raise InvalidUpdate(
            f"Cannot apply {name} to a non-array field: the field '{path}' has the type {type_name(old)}"
        )
    return old


def _checked(array: list[Value], path: str) -> list[Value]:
    if len(array) > ARRAY_MAX:
        raise InvalidUpdate(f"the array '{path}' would have more than {ARRAY_MAX} elements")
    return array


def _whole(modifiers: Document, name: str) -> int | None:
    if name not in modifiers:
        return None
    value = modifiers[name]
    if not _is_number(value) or value != value or abs(value) > ARRAY_MAX * 1000 or value != int(value):
        raise InvalidUpdate(f"{name} needs a whole number")
    return int(value)


def _is_number(value: Value) -> bool:
    return type(value) is int or type(value) is float


OPERATORS: Final[dict[str, Spec]] = {
    "$set": Spec(_set),
    "$setOnInsert": Spec(_set),
    "$unset": Spec(_unset, creates=False),
    "$inc": _arithmetic("inc", _sum, 0),
    "$mul": _arithmetic("mul", _product, 0),
    "$min": _limit(-1),
    "$max": _limit(1),
    "$currentDate": Spec(_current_date),
    "$push": Spec(_push),
    "$addToSet": Spec(_add_to_set),
    "$pop": Spec(_pop, creates=False),
    "$pull": Spec(_pull, creates=False),
    "$pullAll": Spec(_pull_all, creates=False),
    "$bit": Spec(_bit),
}
