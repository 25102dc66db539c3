"""The values on the wire: MongoDB Extended JSON and the older forms of the CloudBase dialects.

Read: canonical and relaxed Extended JSON v2, and beside them ``{"$date": ms}``, ``{"$date": {"offset": n}}``
and ``{"$tcb_server_date": {"offset": n}}`` (both the server's clock), ``{"$regex": …, "$options": …}`` and
``{"$binary": base64, "$type": subtype}``. Undefined is read as null, a symbol as text; code is refused. Every
form is accepted in every dialect, because the SDKs mix them. Written: canonical, relaxed, or plain with
``{"$date": ms}``.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from cloudlet.docdb.limits import DEPTH_MAX
from cloudlet.docdb.numeric import (
    INT32_MAX,
    INT32_MIN,
    INT64_MAX,
    INT64_MIN,
    Decimal128,
    Long,
    long_number,
    parse_decimal,
)
from cloudlet.docdb.values import (
    MAX_KEY,
    MIN_KEY,
    Binary,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    ServerDate,
    Timestamp,
    Value,
    binary,
    date_from_ms,
    date_to_ms,
)
from cloudlet.model.errors import InvalidRequest, MalformedBody

_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()

_ISO_DATE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)\Z")
_OPTIONS: Final = frozenset("imsxu")
_REFUSED: Final = frozenset({"$code", "$dbPointer"})
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_UUID_SUBTYPE: Final = 4
_JSON: Final = frozenset({str, int, bool, type(None)})
"""What is written as it is in plain JSON."""
_TEXT_MAX: Final = 64 * 1024 * 1024


def decode(source: str | bytes | object, error: type[InvalidRequest] = MalformedBody) -> Value:
    """The value of a JSON text, or of an object that is JSON already.

    Raises ``error`` for text that is not JSON, for nesting beyond ``DEPTH_MAX`` and for wrappers whose
    content is wrong. Of a key given twice the last value counts. A ServerDate stays one; the service resolves
    it.
    """
    if isinstance(source, str | bytes):
        if len(source) > _TEXT_MAX:
            raise error(f"the value has more than {_TEXT_MAX} bytes")
        try:
            source = _decoder.decode(source)
        except (msgspec.MsgspecError, UnicodeError) as exc:
            raise error(f"the value is not valid JSON: {exc}") from exc
        except RecursionError as exc:
            raise error(f"the value is nested more than {DEPTH_MAX} levels deep") from exc
    return _Decoding(error).value(source, DEPTH_MAX)


def encode_canonical(value: Value, *, ids_as_text: bool = False) -> str:
    """Canonical Extended JSON: every number says its type.

    ``ids_as_text``: an ObjectId is its 24 digits, as upstream answers (SDKs make ``{}`` of any other form).
    """
    return _encoder.encode(_canonical(value, ids_as_text)).decode()


def encode_relaxed(value: Value) -> str:
    """Relaxed Extended JSON: numbers are JSON numbers, dates from 1970 on are ISO text."""
    return _encoder.encode(_relaxed(value)).decode()


def encode_plain(value: Value) -> str:
    """The JSON text of ``to_plain``."""
    return _encoder.encode(to_plain(value)).decode()


def to_plain(value: Value) -> Any:
    """Plain JSON of the dialects B, C and D: ``{"$date": ms}``, ids as text, no number types.

    What JSON has no number for (infinity, not a number) is null.
    """
    kind = type(value)
    if kind in _JSON:
        return value
    if kind is dict:
        return {name: item if type(item) in _JSON else to_plain(item) for name, item in value.items()}
    if kind is list:
        return [item if type(item) in _JSON else to_plain(item) for item in value]
    if kind is float:
        return value if math.isfinite(value) else None
    if kind is datetime:
        return {"$date": date_to_ms(value)}
    if kind is ObjectId:
        return str(value)
    if kind is Long:
        return int(value)
    if kind is Regex:
        return {"$regex": value.pattern, "$options": value.options}
    return _same_in_both(value)


def _canonical(value: Value, ids_as_text: bool) -> Any:
    kind = type(value)
    if kind is dict:
        return {name: _canonical(item, ids_as_text) for name, item in value.items()}
    if kind is list:
        return [_canonical(item, ids_as_text) for item in value]
    if kind is ObjectId and ids_as_text:
        return str(value)
    if kind is int:
        return {"$numberInt" if INT32_MIN <= value <= INT32_MAX else "$numberLong": str(value)}
    if kind is Long:
        return {"$numberLong": str(int(value))}
    if kind is float:
        return {"$numberDouble": _double_text(value)}
    if kind is datetime:
        return {"$date": {"$numberLong": str(date_to_ms(value))}}
    return _same_in_both(value)


def _relaxed(value: Value) -> Any:
    kind = type(value)
    if kind is dict:
        return {name: _relaxed(item) for name, item in value.items()}
    if kind is list:
        return [_relaxed(item) for item in value]
    if kind is float:
        return value if math.isfinite(value) else {"$numberDouble": _double_text(value)}
    if kind is Long:
        return int(value)
    if kind is datetime:
        ms = date_to_ms(value)
        if ms < 0:
            return {"$date": {"$numberLong": str(ms)}}
        return {"$date": f"{value:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"}
    return _same_in_both(value)


def _same_in_both(value: Value) -> Any:
    kind = type(value)
    if kind is ObjectId:
        return {"$oid": str(value)}
    if kind is Regex:
        return {"$regularExpression": {"pattern": value.pattern, "options": value.options}}
    if kind is bytes:
        return _binary(value, 0)
    if kind is Binary:
        return _binary(value.raw, value.subtype)
    if kind is Decimal128:
        return {"$numberDecimal": str(value)}
    if kind is Timestamp:
        return {"$timestamp": {"t": value.seconds, "i": value.counter}}
    return {"$minKey": 1} if kind is MinKey else {"$maxKey": 1} if kind is MaxKey else value


def _binary(raw: bytes, subtype: int) -> Any:
    return {"$binary": {"base64": base64.b64encode(raw).decode(), "subType": f"{subtype:02x}"}}


def _double_text(value: float) -> str:
    if value != value:
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value)


@dataclass(frozen=True, slots=True)
class _Decoding:
    """One decoding; carries the error class that fits what is being decoded."""

    error: type[InvalidRequest]

    def value(self, value: Any, depth: int) -> Value:
        kind = type(value)
        if kind is dict:
            if depth <= 0:
                raise self.error(f"the value is nested more than {DEPTH_MAX} levels deep")
            if value and len(value) <= 2:
                wrapped = self.wrapper(value, depth)
                if wrapped is not None:
                    return wrapped[0]
            return {name: self.value(item, depth - 1) for name, item in value.items()}
        if kind is list:
            if depth <= 0:
                raise self.error(f"the value is nested more than {DEPTH_MAX} levels deep")
            return [self.value(item, depth - 1) for item in value]
        if kind is int and not INT64_MIN <= value <= INT64_MAX:
            return float(value) if abs(value) < 2**1023 else self.wrong("number", value)
        return value

    def wrapper(self, value: dict[str, Any], depth: int) -> tuple[Value] | None:
        """A one-tuple of the wrapped value, or None if this is an ordinary object."""
        name = next(iter(value))
        if not name.startswith("$"):
            return None
        if "$regex" in value:
            return self.old_regex(value)
        if len(value) != 1:
            return self.old_binary(value)
        if name in _REFUSED:
            raise self.error(f"values of type {name} are not supported")
        reader = _READERS.get(name)
        return None if reader is None else (reader(self, value[name]),)

    def wrong(self, name: str, content: object) -> Any:
        raise self.error(f"{str(content)[:60]!r} is not the content of a {name} value")

    def integer(self, content: Any) -> int:
        """An integer given as a number or as a wrapped number."""
        if type(content) is dict and len(content) == 1:
            content = self.value(content, 2)
        if type(content) is float and content.is_integer():
            return int(content)
        if type(content) is not int and type(content) is not Long:
            self.wrong("integer", content)
        return int(content)

    def number(self, content: Any) -> int:
        if not isinstance(content, str) or not re.fullmatch(r"-?\d{1,19}", content, re.ASCII):
            self.wrong("integer", content)
        number = int(content)
        return number if INT64_MIN <= number <= INT64_MAX else int(self.wrong("64-bit integer", content))

    def long(self, content: Any) -> int:
        return long_number(self.number(content))

    def decimal(self, content: Any) -> Decimal128:
        if not isinstance(content, str):
            self.wrong("$numberDecimal", content)
        return parse_decimal(content, self.error)

    def timestamp(self, content: Any) -> Timestamp:
        if type(content) is not dict or set(content) != {"t", "i"}:
            self.wrong("$timestamp", content)
        parts = [self.integer(content[name]) for name in ("t", "i")]
        if not all(0 <= part < 2**32 for part in parts):
            self.wrong("$timestamp", content)
        return Timestamp(*parts)

    def min_key(self, content: Any) -> MinKey:
        return MIN_KEY if self.integer(content) == 1 else self.wrong("$minKey", content)

    def max_key(self, content: Any) -> MaxKey:
        return MAX_KEY if self.integer(content) == 1 else self.wrong("$maxKey", content)

    def uuid(self, content: Any) -> bytes | Binary:
        if not isinstance(content, str) or not _UUID.fullmatch(content):
            self.wrong("$uuid", content)
        return binary(bytes.fromhex(content.replace("-", "")), _UUID_SUBTYPE)

    def double(self, content: Any) -> float:
        names = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
        if isinstance(content, str) and content in names:
            return names[content]
        pattern = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?"
        if isinstance(content, str) and len(content) < 400 and re.fullmatch(pattern, content, re.ASCII):
            return float(content)
        return (
            float(content) if type(content) in (int, float) else float(self.wrong("$numberDouble", content))
        )

    def object_id(self, content: Any) -> ObjectId:
        if not isinstance(content, str) or not re.fullmatch(r"[0-9a-fA-F]{24}", content):
            self.wrong("$oid", content)
        return ObjectId.from_hex(content)

    def date(self, content: Any) -> Value:
        if isinstance(content, str):
            return self.iso_date(content)
        if type(content) is dict and "offset" in content:
            return self.server_date(content)
        return date_from_ms(self.integer(content), self.error)

    def iso_date(self, content: str) -> datetime:
        if not _ISO_DATE.match(content):
            self.wrong("$date", content)
        try:
            parsed = datetime.fromisoformat(content).astimezone(UTC)
        except (ValueError, OverflowError) as exc:
            raise self.error(f"{content!r} is not a date") from exc
        return date_from_ms(date_to_ms(parsed))

    def server_date(self, content: Any) -> ServerDate:
        offset = content.get("offset", 0) if type(content) is dict else self.wrong("server date", content)
        return ServerDate(self.integer(offset))

    def regular_expression(self, content: Any) -> Regex:
        if type(content) is not dict or not set(content) <= {"pattern", "options"}:
            self.wrong("$regularExpression", content)
        return self.regex(content.get("pattern"), content.get("options", ""))

    def old_regex(self, value: dict[str, Any]) -> tuple[Value] | None:
        if not set(value) <= {"$regex", "$options"}:
            return None
        pattern = value["$regex"]
        if type(pattern) is dict:
            inner = self.value(pattern, 3)
            if type(inner) is not Regex:
                self.wrong("$regex", pattern)
            return (self.regex(inner.pattern, value.get("$options", inner.options)),)
        return (self.regex(pattern, value.get("$options", "")),)

    def regex(self, pattern: Any, options: Any) -> Regex:
        if not isinstance(pattern, str) or "\0" in pattern:
            self.wrong("$regex", pattern)
        letters = options.replace("g", "").replace("y", "") if isinstance(options, str) else "?"
        if not set(letters) <= _OPTIONS:
            raise self.error(
                f"the options {str(options)[:20]!r} of a regular expression are not among i, m, s, x, u"
            )
        return Regex(pattern, "".join(sorted(set(letters))))

    def old_binary(self, value: dict[str, Any]) -> tuple[Value] | None:
        if set(value) != {"$binary", "$type"}:
            return None
        return (self.bytes_of(value["$binary"], value["$type"]),)

    def binary(self, content: Any) -> bytes | Binary:
        if type(content) is not dict:
            return self.bytes_of(content, 0)
        if not set(content) <= {"base64", "subType"}:
            self.wrong("$binary", content)
        return self.bytes_of(content.get("base64"), content.get("subType", 0))

    def bytes_of(self, text: Any, subtype: Any) -> bytes | Binary:
        """Bytes given as base64, and their subtype as one or two hexadecimal digits or as a number."""
        if not isinstance(text, str):
            self.wrong("$binary", text)
        if isinstance(subtype, str) and re.fullmatch(r"[0-9a-fA-F]{1,2}", subtype):
            subtype = int(subtype, 16)
        number = self.integer(subtype)
        if not 0 <= number <= 255:
            self.wrong("$binary subtype", subtype)
        try:
            return binary(base64.b64decode(text, validate=True), number)
        except (binascii.Error, ValueError) as exc:
            raise self.error("the content of a $binary value is not base64") from exc

    def symbol(self, content: Any) -> str:
        return content if isinstance(content, str) else str(self.wrong("$symbol", content))

    def undefined(self, _content: Any) -> None:
        return None


_READERS: Final[dict[str, Callable[[_Decoding, Any], Value]]] = {
    "$numberInt": _Decoding.number,
    "$numberLong": _Decoding.long,
    "$numberDouble": _Decoding.double,
    "$numberDecimal": _Decoding.decimal,
    "$timestamp": _Decoding.timestamp,
    "$minKey": _Decoding.min_key,
    "$maxKey": _Decoding.max_key,
    "$uuid": _Decoding.uuid,
    "$oid": _Decoding.object_id,
    "$date": _Decoding.date,
    "$tcb_server_date": _Decoding.server_date,
    "$regularExpression": _Decoding.regular_expression,
    "$binary": _Decoding.binary,
    "$symbol": _Decoding.symbol,
    "$undefined": _Decoding.undefined,
}
