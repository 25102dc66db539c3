"""Types and conversions between them: ``$convert``, its short forms, ``$type``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Final

from cloudlet.docdb.numeric import INT32_MAX, INT32_MIN
from cloudlet.docdb.pipeline.expressions.base import (
    Builder,
    Compiler,
    Constant,
    Expression,
    Variables,
    kind_name,
    nullish,
    refused,
    shown,
    truthy,
    unary,
)
from cloudlet.docdb.pipeline.expressions.dateparse import parse_date
from cloudlet.docdb.pipeline.expressions.numbers import (
    DECIMAL,
    DOUBLE,
    LONG,
    as_decimal,
    as_float,
    decimal,
    fits,
    integral,
    number_kind,
    whole,
)
from cloudlet.docdb.values import Document, ObjectId, Value, date_from_ms, date_to_ms
from cloudlet.model.errors import InvalidFilter

_WHOLE: Final = re.compile(r"[+-]?\d+", re.ASCII)
_FRACTION: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DIGITS_MAX: Final = 400
_NAMES: Final = {
    1: "double",
    2: "string",
    7: "objectId",
    8: "bool",
    9: "date",
    16: "int",
    18: "long",
    19: "decimal",
}


def number_text(value: Value) -> str:
    """A number as text."""
    kind = number_kind(value)
    if kind == DECIMAL:
        return str(as_decimal(value))
    if kind != DOUBLE:
        return str(int(value))
    number = float(value)
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    if number == math.floor(number) and abs(number) < 1e15:
        return str(int(number)) if number or math.copysign(1, number) > 0 else "-0"
    return repr(number)


def date_text(value: datetime) -> str:
    """A date as ISO text in UTC with milliseconds."""
    ms = date_to_ms(value)
    return f"{value.year:04d}-{value:%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def convert(value: Value, to: str) -> Value:
    """A value as another type; null stays null. Raises InvalidFilter."""
    if nullish(value):
        return None
    return _CONVERSIONS[to](value)


def _impossible(value: Value, to: str) -> InvalidFilter:
    return InvalidFilter(
        f"Unsupported conversion from {kind_name(value)} to {to} in $convert with no onError value (code 241)"
    )


def _unparsed(value: Value, to: str) -> InvalidFilter:
    return InvalidFilter(
        f"Failed to parse {to} '{shown(value)}' in $convert with no onError value (code 241)"
    )


def _to_int(value: Value) -> Value:
    return _integer(value, "int", INT32_MIN, INT32_MAX)


def _to_long(value: Value) -> Value:
    number = _integer(value, "long", -(2**63), 2**63 - 1)
    return whole(number, LONG)


def _integer(value: Value, to: str, low: int, high: int) -> int:
    kind = number_kind(value)
    if kind:
        number = as_float(value)
        if not math.isfinite(number):
            raise refused(
                241,
                f"Attempt to convert {shown(value)} value to integer type in $convert with no onError value",
            )
        found = int(as_decimal(value)) if kind == DECIMAL else int(value)
    elif type(value) is bool:
        return int(value)
    elif type(value) is str:
        if len(value) > _DIGITS_MAX or not _WHOLE.fullmatch(value):
            raise _unparsed(value, "number")
        found = int(value)
    elif type(value) is datetime and to == "long":
        return date_to_ms(value)
    else:
        raise _impossible(value, to)
    if not low <= found <= high:
        raise refused(
            241, f"Conversion would overflow target type in $convert with no onError value: {shown(value)}"
        )
    return found


def _to_double(value: Value) -> Value:
    if number_kind(value):
        number = as_float(value)
        if math.isinf(number) and number_kind(value) == DECIMAL and as_decimal(value).is_finite():
            raise refused(241, "Conversion would overflow target type in $convert with no onError value")
        return number
    if type(value) is bool:
        return float(value)
    if type(value) is datetime:
        return float(date_to_ms(value))
    if type(value) is str:
        return float(_number_text(value))
    raise _impossible(value, "double")


def _to_decimal(value: Value) -> Value:
    if number_kind(value):
        return decimal(as_decimal(value))
    if type(value) is bool:
        return decimal(Decimal(int(value)))
    if type(value) is datetime:
        return decimal(Decimal(date_to_ms(value)))
    if type(value) is str:
        try:
            return decimal(Decimal(_number_text(value)))
        except InvalidOperation as exc:
            raise _unparsed(value, "number") from exc
    raise _impossible(value, "decimal")


def _number_text(value: str) -> str:
    if value in ("NaN", "Infinity", "-Infinity", "+Infinity", "inf", "-inf"):
        return value
    if len(value) > _DIGITS_MAX or not _FRACTION.fullmatch(value):
        raise _unparsed(value, "number")
    return value


def _to_text(value: Value) -> Value:
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    if number_kind(value):
        return number_text(value)
    if type(value) is datetime:
        return date_text(value)
    if type(value) is ObjectId:
        return str(value)
    raise _impossible(value, "string")


def _to_date(value: Value) -> Value:
    kind = number_kind(value)
    if kind:
        if kind == 1:
            raise _impossible(value, "date")
        ms = as_float(value)
        if not math.isfinite(ms) or not fits(int(ms)):
            raise refused(
                241, f"Attempt to convert {shown(value)} to a date in $convert with no onError value"
            )
        return date_from_ms(int(value) if kind == LONG else int(ms), InvalidFilter)
    if type(value) is datetime:
        return value
    if type(value) is ObjectId:
        return date_from_ms(int.from_bytes(value.raw[:4], "big") * 1000, InvalidFilter)
    if type(value) is str:
        return parse_date(value)
    raise _impossible(value, "date")


def _to_object_id(value: Value) -> Value:
    if type(value) is ObjectId:
        return value
    if type(value) is str:
        if not re.fullmatch(r"[0-9a-fA-F]{24}", value, re.ASCII):
            raise _unparsed(value, "objectId")
        return ObjectId.from_hex(value)
    raise _impossible(value, "objectId")


def _to_bool(value: Value) -> Value:
    if number_kind(value):
        return truthy(value)
    if type(value) is bool:
        return value
    if type(value) in (str, datetime, ObjectId):
        return True
    raise _impossible(value, "bool")


_CONVERSIONS: Final[dict[str, Callable[[Value], Value]]] = {
    "int": _to_int,
    "long": _to_long,
    "double": _to_double,
    "decimal": _to_decimal,
    "string": _to_text,
    "date": _to_date,
    "objectId": _to_object_id,
    "bool": _to_bool,
}


def _short(to: str) -> Builder:
    return unary(lambda value: convert(value, to))


def _target(value: Value) -> str:
    if type(value) is str and value in _CONVERSIONS:
        return value
    number = integral(value)
    if number in _NAMES:
        return _NAMES[number]
    if type(value) is not str and not number_kind(value):
        raise refused(9, f"$convert's 'to' argument must be a string or number, but is {kind_name(value)}")
    raise refused(2, f"Unknown type name: {shown(value)}")


def _convert(compiler: Compiler, name: str, operand: Value) -> Expression:
    given = compiler.named(name, operand, ("input", "to"), ("onError", "onNull"))
    source, to = given["input"], given["to"]
    on_error, on_null = given.get("onError"), given.get("onNull", Constant(None))
    if isinstance(to, Constant) and not nullish(to.value):
        _target(to.value)

    def evaluate(document: Document, variables: Variables) -> Value:
        value, target = source(document, variables), to(document, variables)
        if nullish(value):
            return on_null(document, variables)
        if nullish(target):
            return None
        wanted = _target(target)
        try:
            return convert(value, wanted)
        except InvalidFilter:
            if on_error is None:
                raise
            return on_error(document, variables)

    return evaluate


def _is_number(value: Value) -> Value:
    return number_kind(value) > 0


def _binary_size(value: Value) -> Value:
    if nullish(value):
        return None
    if type(value) is str:
        return len(value.encode())
    if type(value) is not bytes:
        raise refused(51276, f"$binarySize requires a string or BinData argument, found: {kind_name(value)}")
    return len(value)


OPERATORS: Final[Mapping[str, Builder]] = {
    "$binarySize": unary(_binary_size),
    "$convert": _convert,
    "$isNumber": unary(_is_number),
    "$toBool": _short("bool"),
    "$toDate": _short("date"),
    "$toDecimal": _short("decimal"),
    "$toDouble": _short("double"),
    "$toInt": _short("int"),
    "$toLong": _short("long"),
    "$toObjectId": _short("objectId"),
    "$toString": _short("string"),
    "$type": unary(kind_name),
}
"""Types."""
