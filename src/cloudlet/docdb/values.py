"""Document values in Python, their order and their equality.

The order, the type brackets and the equality are MongoDB's ("Comparison/Sort Order" of its manual): a missing
value and null sort together, numbers compare across types, ``true`` is not ``1``, the order of an object's
keys matters. Everything that compares values (matcher, sort, updates, byte keys) starts from here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, TypeAlias

from cloudlet.docdb.limits import DEPTH_MAX
from cloudlet.model.errors import InvalidDocument, InvalidRequest

Document: TypeAlias = dict[str, Any]
Value: TypeAlias = Any
OrderKey: TypeAlias = tuple[Any, ...]

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


class Missing(Enum):
    """The one value that stands for "this field does not exist"."""

    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING


@dataclass(frozen=True, slots=True, order=True)
class ObjectId:
    """A MongoDB object id: 12 bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 12:
            raise InvalidDocument("an ObjectId has 12 bytes")

    @classmethod
    def from_hex(cls, text: str) -> ObjectId:
        """Raises InvalidDocument unless ``text`` is 24 hexadecimal digits."""
        try:
            return cls(bytes.fromhex(text) if len(text) == 24 else b"")
        except ValueError as exc:
            raise InvalidDocument(f"{text[:40]!r} is not an ObjectId of 24 hexadecimal digits") from exc

    def __str__(self) -> str:
        return self.raw.hex()


@dataclass(frozen=True, slots=True)
class Regex:
    """A regular expression as a value; ``options`` are letters of ``imsxu`` in alphabetical order."""

    pattern: str
    options: str = ""


@dataclass(frozen=True, slots=True)
class ServerDate:
    """ "Now plus ``offset_ms``", to be replaced by a date before anything is stored or matched."""

    offset_ms: int = 0


class Rank:
    """Type brackets in MongoDB's order. A value compares with values of its own rank only."""

    UNDEFINED = 5
    NULL = 10
    NUMBER = 20
    STRING = 30
    OBJECT = 40
    ARRAY = 50
    BINARY = 60
    OBJECT_ID = 70
    BOOL = 80
    DATE = 90
    REGEX = 110


_RANKS: Final[dict[type, int]] = {
    type(None): Rank.NULL,
    Missing: Rank.NULL,
    int: Rank.NUMBER,
    float: Rank.NUMBER,
    str: Rank.STRING,
    dict: Rank.OBJECT,
    list: Rank.ARRAY,
    bytes: Rank.BINARY,
    ObjectId: Rank.OBJECT_ID,
    bool: Rank.BOOL,
    datetime: Rank.DATE,
    Regex: Rank.REGEX,
}

_TYPE_NAMES: Final[dict[int, str]] = {
    Rank.NULL: "null",
    Rank.STRING: "string",
    Rank.OBJECT: "object",
    Rank.ARRAY: "array",
    Rank.BINARY: "binData",
    Rank.OBJECT_ID: "objectId",
    Rank.BOOL: "bool",
    Rank.DATE: "date",
    Rank.REGEX: "regex",
}

UNDEFINED_KEY: Final[OrderKey] = (Rank.UNDEFINED, 0)
"""Where an empty array sorts: below null."""


class _Lowest:
    """Not-a-number as a sort key: equal to itself and below every number."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other is self

    def __hash__(self) -> int:
        return 0

    def __lt__(self, other: object) -> bool:
        return other is not self

    def __le__(self, other: object) -> bool:
        return True

    def __gt__(self, other: object) -> bool:
        return False

    def __ge__(self, other: object) -> bool:
        return other is self


_NAN_KEY: Final[OrderKey] = (Rank.NUMBER, _Lowest())


def rank(value: Value) -> int:
    """The type bracket of a value (missing counts as null)."""
    return _RANKS[type(value)]


def type_name(value: Value) -> str:
    """MongoDB's name of the value's type, for messages and ``$type``."""
    if type(value) is float:
        return "double"
    if type(value) is int:
        return "int" if -(2**31) <= value < 2**31 else "long"
    return _TYPE_NAMES[rank(value)]


def order_key(value: Value) -> OrderKey:
    """A tuple that Python orders exactly as MongoDB orders the values."""
    kind = type(value)
    if kind is str:
        return (Rank.STRING, value)
    if kind is int:
        return (Rank.NUMBER, value)
    if kind is float:
        return (Rank.NUMBER, value) if value == value else _NAN_KEY
    return _RARE_KEYS[kind](value)


def _object_key(value: Document) -> OrderKey:
    parts = []
    for name, item in value.items():
        key = order_key(item)
        parts.append((key[0], name, key[1]))
    return (Rank.OBJECT, tuple(parts))


_RARE_KEYS: Final[dict[type, Callable[[Any], OrderKey]]] = {
    type(None): lambda _: (Rank.NULL, 0),
    Missing: lambda _: (Rank.NULL, 0),
    dict: _object_key,
    list: lambda value: (Rank.ARRAY, tuple(order_key(item) for item in value)),
    bytes: lambda value: (Rank.BINARY, (len(value), value)),
    ObjectId: lambda value: (Rank.OBJECT_ID, value.raw),
    bool: lambda value: (Rank.BOOL, value),
    datetime: lambda value: (Rank.DATE, value),
    Regex: lambda value: (Rank.REGEX, (value.pattern, value.options)),
}


def compare(a: Value, b: Value) -> int:
    """-1, 0 or 1 in MongoDB's order of all values; missing equals null here."""
    left, right = order_key(a), order_key(b)
    return (left > right) - (left < right)


def equals(a: Value, b: Value) -> bool:
    """Equality of values: ``1 == 1.0``, ``True != 1``, key order matters, missing equals null."""
    return order_key(a) == order_key(b)


def identical(a: Value, b: Value) -> bool:
    """Whether storing ``b`` in place of ``a`` would change nothing, number types included."""
    if type(a) is not type(b):
        return False
    if type(a) is dict:
        return list(a) == list(b) and all(identical(a[name], b[name]) for name in a)
    if type(a) is list:
        return len(a) == len(b) and all(identical(x, y) for x, y in zip(a, b, strict=True))
    if type(a) is float:
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (a != a and b != b)
    return bool(a == b)


def date_from_ms(ms: int, error: type[InvalidRequest] = InvalidDocument) -> datetime:
    """The date ``ms`` milliseconds after 1970; raises ``error`` outside the years 1 to 9999."""
    try:
        return EPOCH + timedelta(milliseconds=ms)
    except (OverflowError, ValueError) as exc:
        raise error(f"a date of {ms} ms lies outside the years 1 to 9999") from exc


def date_to_ms(value: datetime) -> int:
    """Milliseconds since 1970 (rounded down)."""
    return (value - EPOCH) // _MS


def prepare(value: Value, now_ms: int, error: type[InvalidRequest] = InvalidDocument) -> Value:
    """A checked copy of ``value`` in which every ServerDate is the date it stands for.

    Raises ``error`` for what no document may hold: nesting beyond ``DEPTH_MAX``, integers beyond 64 bits,
    text that is not Unicode, names with a null character, dates without a time zone, unknown types.
    """
    return _Preparation(now_ms, error).value(value, DEPTH_MAX)


@dataclass(frozen=True, slots=True)
class _Preparation:
    now_ms: int
    error: type[InvalidRequest]

    def value(self, value: Value, depth: int) -> Value:
        kind = type(value)
        if kind is str:
            return self.text(value)
        if kind is dict:
            self.deeper(depth)
            return {self.name(name): self.value(item, depth - 1) for name, item in value.items()}
        if kind is list:
            self.deeper(depth)
            return [self.value(item, depth - 1) for item in value]
        if kind is int:
            if not INT64_MIN <= value <= INT64_MAX:
                raise self.error(f"the integer {str(value)[:30]} does not fit into 64 bits")
            return value
        if kind is datetime:
            return self.date(value)
        if kind is ServerDate:
            return date_from_ms(self.now_ms + value.offset_ms, self.error)
        if kind not in _RANKS or kind is Missing:
            raise self.error(f"a value of type {kind.__name__} cannot be stored")
        return value

    def deeper(self, depth: int) -> None:
        if depth <= 0:
            raise self.error(f"the value is nested more than {DEPTH_MAX} levels deep")

    def text(self, value: str) -> str:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as exc:
                raise self.error("text holds half of a surrogate pair, which is not Unicode") from exc
        return value

    def name(self, name: object) -> str:
        if type(name) is not str:
            raise self.error("a field name must be text")
        if "\0" in name:
            raise self.error(f"the field name {name!r} holds a null character")
        return self.text(name)

    def date(self, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise self.error("a date needs a time zone")
        if value.tzinfo is UTC and value.microsecond % 1000 == 0:
            return value
        return date_from_ms(date_to_ms(value), self.error)
