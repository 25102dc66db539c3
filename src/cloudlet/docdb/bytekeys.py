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
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any, Final, Literal, TypeAlias

from cloudlet.docdb.geo.keys import geo_keys
from cloudlet.docdb.limits import INDEX_ENTRIES_MAX
from cloudlet.docdb.numberkeys import number_key
from cloudlet.docdb.paths import Segments, leaves, resolve
from cloudlet.docdb.values import (
    MISSING,
    Binary,
    Decimal128,
    Document,
    Long,
    ObjectId,
    Rank,
    Regex,
    Timestamp,
    Value,
    date_to_ms,
    rank,
)
from cloudlet.model.errors import InvalidDocument

NULL_KEY: Final = bytes((Rank.NULL,))
UNDEFINED_KEY: Final = bytes((Rank.UNDEFINED,))
"""The key of an empty array."""

CANDIDATE_BYTES_MAX: Final = 128
"""Bytes of a text that take part in a candidate key."""
LOSSLESS_BYTES_MAX: Final = 1_024
"""A longer lossless key is its first bytes and a hash of all of it; a longer candidate key is cut."""
UNIQUE_PREFIX: Final = LOSSLESS_BYTES_MAX - 32

_STRING: Final = bytes((Rank.STRING,))
_PLAIN: Final = frozenset({int, float, bool, type(None), datetime, ObjectId, Long, Decimal128})
"""Types whose short key hides nothing (text beside them)."""
KeyKind: TypeAlias = Literal["value", "2d", "2dsphere"]

_INVERT: Final = bytes(range(255, -1, -1))
_SIGN: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class KeyPart:
    """One field of an index. ``kind`` says what its keys are made of: the value itself, or a place."""

    path: str
    segments: Segments
    descending: bool = False
    kind: KeyKind = "value"


@dataclass(slots=True)
class Entries:
    """What one document puts into one index."""

    keys: frozenset[bytes]
    multikey: bool
    """An array was met: the index gives no order, and two bounds on one field must not be combined."""
    lossy: bool
    """Different values may share a key: the index gives no exact order."""


def lossless_key(value: Value) -> bytes:
    """The key that is equal for equal values only. Long keys are not shortened here."""
    if type(value) is str:
        return _STRING + _delimited(value.encode())
    kind = rank(value)
    return bytes((kind,)) + _LOSSLESS[kind](value)


def candidate_key(value: Value) -> tuple[bytes, bool]:
    """The short key of one value, and whether it may hide a difference."""
    kind = rank(value)
    if kind == Rank.STRING:
        raw = value.encode()
        return _STRING + _delimited(raw[:CANDIDATE_BYTES_MAX]), len(raw) > CANDIDATE_BYTES_MAX
    if kind in _TYPE_ONLY:
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


def plain_key(document: Document, parts: tuple[KeyPart, ...], unique: bool, sparse: bool) -> bytes | None:
    """The one key of a document that has a plain value or nothing in every field; None: ask
    ``index_entries``.

    The same answer, several times faster, for what nearly all documents are.
    """
    keys = []
    present = not sparse
    for part in parts:
        if part.kind != "value":
            return None
        value: Value = document
        for name, _ in part.segments:
            if type(value) is not dict:
                if type(value) is list:
                    return None
                value = MISSING
                break
            value = value.get(name, MISSING)
        if type(value) is str:
            raw = value.encode()
            if len(raw) > CANDIDATE_BYTES_MAX and not unique:
                return None
            key = _STRING + _delimited(raw)
        elif value is MISSING:
            key = NULL_KEY
        elif type(value) in _PLAIN:
            key = lossless_key(value)
        else:
            return None
        present = present or value is not MISSING
        keys.append(invert(key) if part.descending else key)
    whole = b"".join(keys)
    return whole if present and len(whole) <= LOSSLESS_BYTES_MAX else None


def index_entries(
    document: Document, parts: tuple[KeyPart, ...], unique: bool, sparse: bool = False
) -> Entries:
    """The keys of one document in one index; one per array element.

    ``sparse``: none if the document has none of the fields. Raises InvalidDocument if there are more than
    ``INDEX_ENTRIES_MAX``, or two different arrays (of which every combination would be a key).
    """
    columns = [_column(document, part, unique) for part in parts]
    if sparse and not any(column.exists for column in columns):
        return Entries(frozenset(), False, False)
    places = [column for column, part in zip(columns, parts, strict=True) if part.kind != "value"]
    if places and not any(column.exists for column in places):
        return Entries(frozenset(), False, False)
    array = _the_array(document, parts, columns)
    if unique and array is not None and _shared(parts, columns, array):
        keys = _by_element(document, parts, array)
    else:
        keys = _combinations(columns, parts)
    lossy = any(column.lossy for column in columns)
    if any(len(key) > LOSSLESS_BYTES_MAX for key in keys):
        lossy = True
        keys = [shortened(key) for key in keys] if unique else [key[:LOSSLESS_BYTES_MAX] for key in keys]
    return Entries(frozenset(keys), array is not None or any(column.many for column in places), lossy)


def shortened(key: bytes) -> bytes:
    """A lossless key, hashed at the end if it is long. Equal results mean equal keys, for all practical
    purposes.
    """
    if len(key) <= LOSSLESS_BYTES_MAX:
        return key
    return key[:UNIQUE_PREFIX] + hashlib.sha256(key).digest()


@dataclass(slots=True)
class _Column:
    """What one field contributes: its keys; whether an array was met, a key hides a difference, it exists."""

    keys: list[bytes]
    many: bool
    lossy: bool
    exists: bool


def _column(document: Document, part: KeyPart, unique: bool) -> _Column:
    if part.kind != "value":
        places, several = geo_keys(document, part.segments, part.kind)
        return _Column(list(places) or [NULL_KEY], several, False, bool(places))
    found = leaves(document, part.segments)
    many, exists = len(found) != 1, False
    lossy = False
    keys: set[bytes] = set()
    for leaf in found:
        exists = exists or leaf is not MISSING
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
    return _Column([invert(key) for key in column] if part.descending else column, many, lossy, exists)


def _combinations(columns: list[_Column], parts: tuple[KeyPart, ...]) -> list[bytes]:
    if len(columns) == 1:
        keys = columns[0].keys
        total = len(keys)
    else:
        total = math.prod(len(column.keys) for column in columns)
        keys = []
    if total > INDEX_ENTRIES_MAX:
        paths = ", ".join(part.path for part in parts)[:200]
        raise InvalidDocument(
            f"the document has more than {INDEX_ENTRIES_MAX} entries in an index on {paths}"
        )
    return keys or [b"".join(combination) for combination in product(*(column.keys for column in columns))]


def _the_array(document: Document, parts: tuple[KeyPart, ...], columns: list[_Column]) -> Segments | None:
    """The way to the array that the fields go through or hold; raises InvalidDocument if there are two."""
    way: Segments | None = None
    path = ""
    for part, column in zip(parts, columns, strict=True):
        if not column.many or part.kind != "value":
            continue
        mine = _way_to_array(document, part.segments)
        if way is not None and mine != way:
            raise InvalidDocument(f"cannot index parallel arrays [{part.path}] [{path}]")
        way, path = mine, part.path
    return way


def _shared(parts: tuple[KeyPart, ...], columns: list[_Column], way: Segments) -> bool:
    """Whether several fields go through the array, none of them to an element by its number."""
    inside = [part for part, column in zip(parts, columns, strict=True) if column.many]
    below = [part.segments[len(way)] for part in inside if len(part.segments) > len(way)]
    return len(inside) > 1 and all(index < 0 for _, index in below)


def _way_to_array(document: Document, segments: Segments) -> Segments:
    value: Value = document
    for at, (name, _) in enumerate(segments):
        if type(value) is not dict:
            return segments[:at]
        value = value.get(name)
    return segments


def _by_element(document: Document, parts: tuple[KeyPart, ...], way: Segments) -> list[bytes]:
    """Keys of several fields of the objects in one array: only what stands together is a key."""
    (array,) = resolve(document, way)
    keys: set[bytes] = set()
    for element in array or (None,):
        alone = _substituted(document, way, [] if element is None and not array else [element])
        keys.update(_combinations([_column(alone, part, True) for part in parts], parts))
        if len(keys) > INDEX_ENTRIES_MAX:
            raise InvalidDocument(f"the document has more than {INDEX_ENTRIES_MAX} entries in an index")
    return list(keys)


def _substituted(document: Document, way: Segments, array: list[Value]) -> Document:
    name = way[0][0]
    inner = array if len(way) == 1 else _substituted(document[name], way[1:], array)
    return {**document, name: inner}


def _escaped(raw: bytes) -> bytes:
    return raw.replace(b"\0", b"\0\xff")


def _delimited(raw: bytes) -> bytes:
    return raw.replace(b"\0", b"\0\xff") + b"\0\0"


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


def _binary(value: bytes | Binary) -> bytes:
    raw, subtype = (value, 0) if isinstance(value, bytes) else (value.raw, value.subtype)
    return len(raw).to_bytes(4, "big") + bytes((subtype,)) + raw


def _timestamp(value: Timestamp) -> bytes:
    return value.seconds.to_bytes(4, "big") + value.counter.to_bytes(4, "big")


def _regex(value: Regex) -> bytes:
    return _delimited(value.pattern.encode()) + _delimited(value.options.encode())


_TYPE_ONLY: Final = frozenset({Rank.OBJECT, Rank.ARRAY, Rank.BINARY, Rank.REGEX})
_LOSSLESS: Final[dict[int, Callable[[Any], bytes]]] = {
    Rank.MIN_KEY: lambda _: b"",
    Rank.MAX_KEY: lambda _: b"",
    Rank.NULL: lambda _: b"",
    Rank.NUMBER: number_key,
    Rank.STRING: lambda value: _delimited(value.encode()),
    Rank.OBJECT: _object,
    Rank.ARRAY: _array,
    Rank.BINARY: _binary,
    Rank.OBJECT_ID: _oid,
    Rank.BOOL: lambda value: b"\1" if value else b"\0",
    Rank.DATE: _date,
    Rank.TIMESTAMP: _timestamp,
    Rank.REGEX: _regex,
}
