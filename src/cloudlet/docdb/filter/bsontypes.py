"""The names and numbers by which ``$type`` and ``bsonType`` call the types of values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cloudlet.docdb.numeric import is_number, whole_64
from cloudlet.docdb.values import Value

_NUMBERS: Final = {
    -1: "minKey",
    1: "double",
    2: "string",
    3: "object",
    4: "array",
    5: "binData",
    6: "undefined",
    7: "objectId",
    8: "bool",
    9: "date",
    10: "null",
    11: "regex",
    12: "dbPointer",
    13: "javascript",
    14: "symbol",
    15: "javascriptWithScope",
    16: "int",
    17: "timestamp",
    18: "long",
    19: "decimal",
    127: "maxKey",
}
_NAMES: Final = frozenset(_NUMBERS.values()) | {"number"}


def is_type_name(name: str) -> bool:
    """Whether a type is called so (``number`` stands for all four kinds of numbers)."""
    return name in _NAMES


def type_names(values: Iterable[Value]) -> frozenset[str]:
    """The names of types given by name or number. Raises LookupError with the one that is not known."""
    return frozenset(map(_name, values))


def _name(value: Value) -> str:
    if type(value) is str and value in _NAMES:
        return value
    number = whole_64(value) if is_number(value) else None
    if number is None or number not in _NUMBERS:
        raise LookupError(value)
    return _NUMBERS[number]
