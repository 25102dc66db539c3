"""Order-preserving byte keys: comparing two keys as bytes is comparing the values in MongoDB's order.

A key is a type byte and a payload; the parts of a compound key follow each other, each one self-delimiting,
those of descending parts bit-inverted. Two kinds exist. *Candidate* keys are short and lossy (long text is
cut, objects and nested arrays are only their type byte): order among keys is right but ties may hide a
difference, so whoever uses them filters and sorts again. *Lossless* keys separate every two different values
and serve ids and unique indexes.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any, Final

from cloudlet.docdb.limits import INDEX_ENTRIES_MAX
from cloudlet.docdb.paths import Segments, resolve
from cloudlet.docdb.values import Document, ObjectId, Rank, Regex, Value, date_to_ms, rank
from cloudlet.model.errors import InvalidDocument

NULL_KEY: Final = bytes((Rank.NULL,))
UNDEFINED_KEY: Final = bytes((Rank.UNDEFINED,))
"""The key of an empty array."""

CANDIDATE_BYTES_MAX: Final = 128
"""Bytes of a text that take part in a candidate key."""
LOSSLESS_BYTES_MAX: Final = 1_024
"""A longer lossless key is its first bytes and a hash of all of it."""
UNIQUE_PREFIX: Final = LOSSLESS_BYTES_MAX - 32

_INVERT: Final = bytes(range(255, -1, -1))
_DOUBLE: Final = struct.Struct(">d")
_SIGN: Final = 1 << 63
_ALL: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class KeyPart:
    """One field of an index."""

    path: str
    segments: Segments
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Entries:
    """What one document puts into one index."""

    keys: frozenset[bytes]
    multikey: bool
    """An array was met: the index gives no order, and two bounds on one field must not be combined."""
    lossy: bool
    """Different values may share a key: the index gives no exact order."""


def lossless_key(value: Value) -> bytes:
    """The key that is equal for equal values only. Long keys are not shortened here."""
    kind = rank(value)
    return bytes((kind,)) + _LOSSLESS[kind](value)


def candidate_key(value: Value) -> tuple[bytes, bool]:
    """The short key of one value, and whether it may hide a difference."""
    kind = rank(value)
    if kind == Rank.STRING:
        raw = value.encode()
        if len(raw) > CANDIDATE_BYTES_MAX:
            return bytes((kind,)) + _delimited(raw[:CANDIDATE_BYTES_MAX]), True
    elif kind in _TYPE_ONLY:
        return bytes((kind,)), True
    return bytes((kind,)) + _LOSSLESS[kind](value), False


def text_prefix_key(prefix: str) -> bytes:
    """What the keys of all texts with this prefix begin with."""
    return bytes((Rank.STRING,)) + _escaped(prefix.encode()[:CANDIDATE_BYTES_MAX])


def invert(key: bytes) -> bytes:
    """The part of a descending field."""
    return key.translate(_INVERT)


def successor(prefix: bytes) -> bytes:
    """The smallest key above every key that begins with ``prefix`` (which has a byte below 255)."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes((trimmed[-1] + 1,)) if trimmed else b"\xff" * (LOSSLESS_BYTES_MAX + 1)


def index_entries(document: Document, parts: tuple[KeyPart, ...], unique: bool) -> Entries:
    """The keys of one document in one index; one per array element, and every combination over several
    fields.

    Raises InvalidDocument if there are more than ``INDEX_ENTRIES_MAX``.
    """
    columns: list[list[bytes]] = []
    multikey = lossy = False
    total = 1
    for part in parts:
        column, many, cut = _column(document, part, unique)
        multikey, lossy = multikey or many, lossy or cut
        total *= len(column)
        if total > INDEX_ENTRIES_MAX:
            raise InvalidDocument(
                f"the document has more than {INDEX_ENTRIES_MAX} entries in the index on {part.path!r}"
            )
        columns.append(column)
    keys = [b"".join(combination) for combination in product(*columns)] if len(columns) > 1 else columns[0]
    if unique and any(len(key) > LOSSLESS_BYTES_MAX for key in keys):
        lossy = True
        keys = [shortened(key) for key in keys]
    return Entries(frozenset(keys), multikey, lossy)


def shortened(key: bytes) -> bytes:
    """A lossless key, hashed at the end if it is long. Equal results mean equal keys, for all practical
    purposes.
    """
    if len(key) <= LOSSLESS_BYTES_MAX:
        return key
    return key[:UNIQUE_PREFIX] + hashlib.sha256(key).digest()


def _column(document: Document, part: KeyPart, unique: bool) -> tuple[list[bytes], bool, bool]:
    found = resolve(document, part.segments)
    many = len(found) != 1
    lossy = False
    keys: set[bytes] = set()
    for leaf in found:
        elements = leaf if type(leaf) is list else (leaf,)
        if elements is leaf:
            many = True
            if not leaf:
                keys.add(UNDEFINED_KEY)
        for element in elements:
            key, cut = (lossless_key(element), False) if unique else candidate_key(element)
            lossy = lossy or cut
            keys.add(key)
    column = list(keys) if keys else [NULL_KEY]
    return ([invert(key) for key in column] if part.descending else column), many, lossy


def _escaped(raw: bytes) -> bytes:
    return raw.replace(b"\0", b"\0\xff")


def _delimited(raw: bytes) -> bytes:
    return _escaped(raw) + b"\0\0"


def _number(value: int | float) -> bytes:
    """A sortable double, then what a 64-bit integer differs from it."""
    try:
        double = float(value)
    except OverflowError:  # A filter may compare with an integer that no document can hold.
        double = math.inf if value > 0 else -math.inf
    if double != double:
        return b"\0" * 10
    bits = int.from_bytes(_DOUBLE.pack(double + 0.0), "big")
    bits = bits ^ _ALL if bits & _SIGN else bits | _SIGN
    rest = value - int(double) if type(value) is int and math.isfinite(double) else 0
    return bits.to_bytes(8, "big") + (rest + 0x8000).to_bytes(2, "big")


def _object(value: Document) -> bytes:
    parts = []
    for name, item in value.items():
        kind = rank(item)
        parts.append(bytes((kind,)) + _delimited(name.encode()) + _LOSSLESS[kind](item))
    return b"".join(parts) + b"\0"


def _array(value: list[Value]) -> bytes:
    return b"".join(map(lossless_key, value)) + b"\0"


def _oid(value: ObjectId) -> bytes:
    return value.raw


def _date(value: datetime) -> bytes:
    return (date_to_ms(value) + _SIGN).to_bytes(8, "big")


def _regex(value: Regex) -> bytes:
    return _delimited(value.pattern.encode()) + _delimited(value.options.encode())


_TYPE_ONLY: Final = frozenset({Rank.OBJECT, Rank.ARRAY, Rank.BINARY, Rank.REGEX})
_LOSSLESS: Final[dict[int, Callable[[Any], bytes]]] = {
    Rank.NULL: lambda _: b"",
    Rank.NUMBER: _number,
    Rank.STRING: lambda value: _delimited(value.encode()),
    Rank.OBJECT: _object,
    Rank.ARRAY: _array,
    Rank.BINARY: lambda value: len(value).to_bytes(4, "big") + value,
    Rank.OBJECT_ID: _oid,
    Rank.BOOL: lambda value: b"\1" if value else b"\0",
    Rank.DATE: _date,
    Rank.REGEX: _regex,
}
