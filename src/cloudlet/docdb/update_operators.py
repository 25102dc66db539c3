"""The update operators that change a field as a whole. Those of arrays are in ``update_arrays``.

Each reads its operand once and gives a change: old value (or MISSING) to new one (MISSING removes it).
Manual: "Field Update Operators", "Bitwise Update Operator".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cloudlet.docdb import numeric
from cloudlet.docdb import update_arrays as arrays
from cloudlet.docdb.update_errors import Code, refused, shown
from cloudlet.docdb.update_tree import Blocked, Change, Context
from cloudlet.docdb.values import MISSING, Timestamp, Value, compare, date_to_ms, type_name


@dataclass(frozen=True, slots=True)
class Spec:
    """How one operator is read."""

    parse: Callable[[str, Value], Change]
    blocked: Blocked = Blocked.REFUSED


def _set(path: str, operand: Value) -> Change:
    return lambda _, __: operand


def _set_on_insert(path: str, operand: Value) -> Change:
    return lambda old, context: operand if context.inserting else old


def _unset(path: str, operand: Value) -> Change:
    return lambda _, __: MISSING


def _arithmetic(name: str, verb: str, operation: Callable[[Value, Value], Value]) -> Spec:
    def parse(path: str, operand: Value) -> Change:
        if not numeric.is_number(operand):
            raise refused(
                Code.TypeMismatch, f"Cannot {verb} with non-numeric argument: {shown(path, operand)}"
            )

        def change(old: Value, context: Context) -> Value:
            if old is MISSING:
                return operation(0, operand)
            if not numeric.is_number(old):
                field = path.rsplit(".", 1)[-1]
                raise refused(
                    Code.TypeMismatch,
                    f"Cannot apply {name} to a value of non-numeric type. {context.place()} "
                    f"has the field '{field[:80]}' of non-numeric type {type_name(old)}",
                )
            new = operation(old, operand)
            if not numeric.fits_long(new):
                raise refused(
                    Code.BadValue,
                    f"Failed to apply {name} operations to current value ({old}) "
                    f"for document {context.place()}",
                )
            return new

        return change

    return Spec(parse)


def _limit(sign: int) -> Spec:
    def parse(path: str, operand: Value) -> Change:
        return lambda old, _: operand if old is MISSING or compare(operand, old) * sign > 0 else old

    return Spec(parse)


def _current_date(path: str, operand: Value) -> Change:
    if type(operand) is bool or operand == {"$type": "date"}:
        return lambda _, context: context.now
    if operand == {"$type": "timestamp"}:
        return lambda _, context: Timestamp(max(0, date_to_ms(context.now) // 1000), 1)
    if type(operand) is not dict:
        raise refused(
            Code.BadValue,
            f"{type_name(operand)} is not valid type for $currentDate. Please use a boolean ('true') "
            "or a $type expression ({$type: 'timestamp/date'}).",
        )
    for name in operand:
        if name != "$type":
            raise refused(Code.BadValue, f"Unrecognized $currentDate option: {name[:80]}")
    raise refused(
        Code.BadValue,
        "The '$type' string field is required to be 'date' or 'timestamp': "
        "{$currentDate: {field : {$type: 'date'}}}",
    )


_BITS: Final[dict[str, Callable[[int, int], int]]] = {
    "and": lambda number, mask: number & mask,
    "or": lambda number, mask: number | mask,
    "xor": lambda number, mask: number ^ mask,
}


def _bit(path: str, operand: Value) -> Change:
    steps = _bit_steps(operand)

    def change(old: Value, context: Context) -> Value:
        number = 0 if old is MISSING else old
        if not numeric.is_whole(number):
            raise refused(
                Code.BadValue,
                f"Cannot apply $bit to a value of non-integral type.{context.place()} "
                f"has the field {path.rsplit('.', 1)[-1][:80]} of non-integer type {type_name(old)}",
            )
        for operation, mask in steps:
            number = _combined(operation, number, mask)
        return number

    return change


def _combined(operation: Callable[[int, int], int], number: int, mask: int) -> int:
    """A long if one of the two is a long."""
    result = operation(int(number), int(mask))
    is_long = "long" in (type_name(number), type_name(mask))
    return numeric.long_number(result) if is_long else result


def _bit_steps(operand: Value) -> list[tuple[Callable[[int, int], int], int]]:
    if type(operand) is not dict:
        raise refused(
            Code.BadValue,
            f"The $bit modifier is not compatible with a {type_name(operand)}. "
            "You must pass in an embedded document: {$bit: {field: {and/or/xor: #}}",
        )
    if not operand:
        raise refused(
            Code.BadValue,
            "You must pass in at least one bitwise operation. The format is: {$bit: {field: {and/or/xor: #}}",
        )
    for name, mask in operand.items():
        if name not in _BITS:
            raise refused(
                Code.BadValue,
                f"The $bit modifier only supports 'and', 'or', and 'xor', not '{name[:80]}' "
                f"which is an unknown operator: {shown(name, mask)}",
            )
        if not numeric.is_whole(mask):
            raise refused(
                Code.BadValue,
                "The $bit modifier field must be an Integer(32/64 bit); "
                f"a '{type_name(mask)}' is not supported here: {shown(name, mask)}",
            )
    return [(_BITS[name], mask) for name, mask in operand.items()]


OPERATORS: Final[dict[str, Spec]] = {
    "$set": Spec(_set),
    "$setOnInsert": Spec(_set_on_insert),
    "$unset": Spec(_unset, Blocked.IGNORED),
    "$inc": _arithmetic("$inc", "increment", numeric.add),
    "$mul": _arithmetic("$mul", "multiply", numeric.multiply),
    "$min": _limit(-1),
    "$max": _limit(1),
    "$currentDate": Spec(_current_date),
    "$bit": Spec(_bit),
    "$push": Spec(arrays.push),
    "$addToSet": Spec(arrays.add_to_set),
    "$pop": Spec(arrays.pop, Blocked.NOT_FOUND),
    "$pull": Spec(arrays.pull, Blocked.NOT_FOUND),
    "$pullAll": Spec(arrays.pull_all, Blocked.NOT_FOUND),
}
