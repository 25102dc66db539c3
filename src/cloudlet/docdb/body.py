"""How a document is written into a store: JSON in which no type is lost.

Text, booleans, null, integers and finite numbers are JSON's own (``1`` and ``1.0`` stay different).
Everything else is an object with exactly one key that starts with ``$``; a user's object of that shape is
wrapped in ``$esc``, so a stored document can never be mistaken for something it is not. SQLite keeps this
text as JSONB.
"""

from __future__ import annotations

import base64
import math
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec

from cloudlet.docdb.limits import DEPTH_MAX
from cloudlet.docdb.numeric import Decimal128, Long
from cloudlet.docdb.values import (
    MAX_KEY,
    MIN_KEY,
    Binary,
    Document,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
    Value,
    date_from_ms,
    date_to_ms,
)
from cloudlet.model.errors import Internal, InvalidDocument

_ESCAPE: Final = "$esc"
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def encode_body(document: Document, bytes_max: int) -> str:
    """The stored text of a document; raises InvalidDocument beyond ``bytes_max`` or ``DEPTH_MAX`` levels."""
    raw = _encoder.encode(_pack_object(document, DEPTH_MAX - 1))
    if len(raw) > bytes_max:
        raise InvalidDocument(f"the document has {len(raw)} bytes; the limit is {bytes_max}")
    return raw.decode()


def decode_body(text: str) -> Document:
    """The document of a stored text. Raises Internal if it was not written by ``encode_body``."""
    try:
        document = _decoder.decode(text)
        if (signs := text.count("$")) and type(document) is dict:
            document = _unpack_object(document, signs)
    except (msgspec.MsgspecError, LookupError, ValueError, TypeError) as exc:
        raise Internal("a stored document cannot be read") from exc
    if type(document) is not dict:
        raise Internal("a stored document is not an object")
    return document


def encode_value(value: Value) -> str:
    """The stored text of any prepared value (for jobs sent to a worker, not for collections)."""
    return _encoder.encode(_pack(value, DEPTH_MAX + 2)).decode()


def decode_value(text: str) -> Value:
    """The reverse of ``encode_value``."""
    return _unpack(_decoder.decode(text))


def _pack(value: Value, depth: int) -> Any:
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if depth <= 0 and (kind is dict or kind is list):
        raise InvalidDocument(f"the document is nested more than {DEPTH_MAX} levels deep")
    if kind is dict:
        return _pack_object(value, depth - 1)
    if kind is list:
        return [_pack(item, depth - 1) for item in value]
    if kind is float:
        return value if math.isfinite(value) else {"$num": repr(value)}
    if kind is datetime:
        return {"$date": date_to_ms(value)}
    if kind is ObjectId:
        return {"$oid": str(value)}
    if kind is bytes:
        return {"$bin": base64.b64encode(value).decode()}
    if kind is Regex:
        return {"$re": [value.pattern, value.options]}
    writer = _RARE.get(kind)
    if writer is None:
        raise Internal(f"a value of type {kind.__name__} reached the store")
    return writer(value)


def _pack_object(value: Document, depth: int) -> Any:
    """The object itself if JSON can hold all of it, otherwise a copy."""
    packed = value
    for name, item in value.items():
        kind = type(item)
        if kind in _PLAIN or (kind is float and item - item == 0):
            continue
        if kind is list and depth > 0 and _PLAIN.issuperset(map(type, item)):
            continue
        written = {"$date": date_to_ms(item)} if kind is datetime else _pack(item, depth)
        if written is not item:
            if packed is value:
                packed = value.copy()
            packed[name] = written
    return {_ESCAPE: packed} if len(packed) == 1 and next(iter(packed)).startswith("$") else packed


_PLAIN: Final = frozenset({str, int, bool, type(None)})
_RARE: Final[dict[type, Callable[[Any], Any]]] = {
    Long: lambda value: {"$long": int(value)},
    Decimal128: lambda value: {"$dec": str(value)},
    Binary: lambda value: {"$bin": [base64.b64encode(value.raw).decode(), value.subtype]},
    Timestamp: lambda value: {"$ts": [value.seconds, value.counter]},
    MinKey: lambda _: {"$min": 1},
    MaxKey: lambda _: {"$max": 1},
}


def _binary(content: Any) -> bytes | Binary:
    if isinstance(content, str):
        return base64.b64decode(content)
    text, subtype = content
    return Binary(base64.b64decode(text), subtype)


_WRAPPED: Final[dict[str, Callable[[Any], Value]]] = {
    "$date": date_from_ms,
    "$oid": ObjectId.from_hex,
    "$num": float,
    "$bin": _binary,
    "$re": lambda parts: Regex(*parts),
    "$long": Long,
    "$dec": Decimal128,
    "$ts": lambda parts: Timestamp(*parts),
    "$min": lambda _: MIN_KEY,
    "$max": lambda _: MAX_KEY,
    _ESCAPE: lambda value: {name: _unpack(item) for name, item in value.items()},
}


def _unpack(value: Any) -> Value:
    """The value that was written; objects and arrays, which nobody else has yet, are changed in place."""
    if type(value) is dict:
        return _unpack_object(value)
    if type(value) is list and not _PLAIN.issuperset(map(type, value)):
        for at, item in enumerate(value):
            if type(item) is dict or type(item) is list:
                value[at] = _unpack(item)
    return value


def _unpack_object(value: dict[str, Any], signs: int = sys.maxsize) -> Value:
    """``signs``: how many dollar signs there are in all of it. After the last one nothing has to be looked
    at: a document of which only one field is a date costs half as much.
    """
    if len(value) == 1:
        (name,) = value
        if name[:1] == "$":
            return _WRAPPED[name](value[name])
    for name, item in value.items():
        kind = type(item)
        if kind is dict:
            if len(item) == 1:
                ((inner, held),) = item.items()
                if inner[:1] == "$":
                    value[name] = _WRAPPED[inner](held)
                    signs -= 1
                    if not signs:
                        break
                    continue
            _unpack_object(item)
        elif kind is list:
            _unpack(item)
    return value
