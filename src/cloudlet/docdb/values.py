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

import msgspec

from cloudlet.docdb.limits import DEPTH_MAX
from cloudlet.docdb.numeric import INT64_MAX, INT64_MIN, Decimal128, Long, long_number, number_kind
from cloudlet.model.errors import InvalidDocument, InvalidRequest

__all__ = [
    "EPOCH",
    "INT64_MAX",
    "INT64_MIN",
    "MAX_KEY",
    "MIN_KEY",
    "MISSING",
    "UNDEFINED_KEY",
    "Binary",
    "Decimal128",
    "Document",
    "Long",
    "MaxKey",
    "MinKey",
    "Missing",
    "ObjectId",
    "OrderKey",
    "Rank",
    "Regex",
    "ServerDate",
    "Timestamp",
    "Value",
    "binary",
    "compare",
    "date_from_ms",
    "date_to_ms",
    "equals",
    "identical",
    "order_key",
    "prepare",
    "rank",
    "type_name",
]

Document: TypeAlias = dict[str, Any]
Value: TypeAlias = Any
OrderKey: TypeAlias = tuple[Any, ...]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_from_timestamp: Final = datetime.fromtimestamp
_NEAR_MS: Final = 4_000_000_000_000
"""Up to here (the year 2096) a double of seconds is exact to the microsecond, which is twice as fast."""


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
class Binary:
    """Bytes with a subtype other than 0; those of subtype 0 are ``bytes``. Make it with ``binary``."""

    raw: bytes
    subtype: int


def binary(raw: bytes, subtype: int) -> bytes | Binary:
    """Bytes of a subtype from 0 to 255."""
    return Binary(raw, subtype) if subtype else raw


@dataclass(frozen=True, slots=True, order=True)
class Timestamp:
    """MongoDB's internal time: seconds since 1970 and a counter, 32 bits each."""

    seconds: int
    counter: int

    def __post_init__(self) -> None:
        if not (0 <= self.seconds < 2**32 and 0 <= self.counter < 2**32):
            raise InvalidDocument("the two numbers of a timestamp lie between 0 and 2^32 - 1")


@dataclass(frozen=True, slots=True)
class MinKey:
    """The value below all values."""


@dataclass(frozen=True, slots=True)
class MaxKey:
    """The value above all values."""


MIN_KEY: Final = MinKey()
MAX_KEY: Final = MaxKey()


@dataclass(frozen=True, slots=True)
class ServerDate:
    """ "Now plus ``offset_ms``", to be replaced by a date before anything is stored or matched."""

    offset_ms: int = 0


class Rank:
    """Type brackets in MongoDB's order. A value compares with values of its own rank only."""

    MIN_KEY = 1
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
    TIMESTAMP = 100
    REGEX = 110
    MAX_KEY = 120


_RANKS: Final[dict[type, int]] = {
    type(None): Rank.NULL,
    Missing: Rank.NULL,
    int: Rank.NUMBER,
    float: Rank.NUMBER,
    Long: Rank.NUMBER,
    Decimal128: Rank.NUMBER,
    str: Rank.STRING,
    dict: Rank.OBJECT,
    list: Rank.ARRAY,
    bytes: Rank.BINARY,
    Binary: Rank.BINARY,
    ObjectId: Rank.OBJECT_ID,
    bool: Rank.BOOL,
    datetime: Rank.DATE,
    Timestamp: Rank.TIMESTAMP,
    Regex: Rank.REGEX,
    MinKey: Rank.MIN_KEY,
    MaxKey: Rank.MAX_KEY,
}

_TYPE_NAMES: Final[dict[int, str]] = {
    Rank.MIN_KEY: "minKey",
    Rank.NULL: "null",
    Rank.STRING: "string",
    Rank.OBJECT: "object",
    Rank.ARRAY: "array",
    Rank.BINARY: "binData",
    Rank.OBJECT_ID: "objectId",
    Rank.BOOL: "bool",
    Rank.DATE: "date",
    Rank.TIMESTAMP: "timestamp",
    Rank.REGEX: "regex",
    Rank.MAX_KEY: "maxKey",
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
    kind = rank(value)
    return number_kind(value) if kind == Rank.NUMBER else _TYPE_NAMES[kind]


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
    bytes: lambda value: (Rank.BINARY, (len(value), 0, value)),
    Binary: lambda value: (Rank.BINARY, (len(value.raw), value.subtype, value.raw)),
    Long: lambda value: (Rank.NUMBER, value),
    Decimal128: lambda value: (Rank.NUMBER, value) if value == value else _NAN_KEY,
    Timestamp: lambda value: (Rank.TIMESTAMP, (value.seconds, value.counter)),
    MinKey: lambda _: (Rank.MIN_KEY, 0),
    MaxKey: lambda _: (Rank.MAX_KEY, 0),
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
    if type(a) is Decimal128:
        return bool(a.as_tuple() == b.as_tuple())
    return bool(a == b)


def date_from_ms(ms: int, error: type[InvalidRequest] = InvalidDocument) -> datetime:
    """The date ``ms`` milliseconds after 1970; raises ``error`` outside the years 1 to 9999."""
    if -_NEAR_MS < ms < _NEAR_MS:
        return _from_timestamp(ms / 1000, UTC)
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


class _Preparation(msgspec.Struct):
    now_ms: int
    error: type[InvalidRequest]

    def value(self, value: Value, depth: int) -> Value:
        kind = type(value)
        if kind is str:
            return self.text(value)
        if kind is dict:
            self.deeper(depth)
            made = {}
            for name, item in value.items():
                if type(name) is not str or not name.isascii() or "\0" in name:
                    self.name(name)
                plain = type(item) is str and item.isascii()
                made[name] = item if plain else self.value(item, depth - 1)
            return made
        if kind is list:
            self.deeper(depth)
            return [self.value(item, depth - 1) for item in value]
        if kind is int or kind is Long:
            if not INT64_MIN <= value <= INT64_MAX:
                raise self.error(f"the integer {str(value)[:30]} does not fit into 64 bits")
            return value if kind is int else long_number(value)
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

    def name(self, name: object) -> None:
        if type(name) is not str:
            raise self.error("a field name must be text")
        if "\0" in name:
            raise self.error(f"the field name {name!r} holds a null character")
        self.text(name)

    def date(self, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise self.error("a date needs a time zone")
        if value.tzinfo is UTC and value.microsecond % 1000 == 0:
            return value
        return date_from_ms(date_to_ms(value), self.error)
