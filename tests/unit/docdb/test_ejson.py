"""The values on the wire, in each of the forms the SDKs send."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from cloudlet.docdb.ejson import decode, encode_canonical, encode_plain, encode_relaxed
from cloudlet.docdb.values import (
    MAX_KEY,
    MIN_KEY,
    Binary,
    Decimal128,
    Long,
    ObjectId,
    Regex,
    ServerDate,
    Timestamp,
    identical,
    prepare,
)
from cloudlet.model.errors import InvalidDocument, InvalidFilter, MalformedBody

DATE = datetime(2026, 11, 20, 12, 30, 1, 234000, tzinfo=UTC)
MS = 1795177801234
HEX = "0123456789abcdef01234567"
ID = ObjectId.from_hex(HEX)
UUID = bytes.fromhex("c8edabc3f7384ca3b68dab92a91478a3")


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ('{"a":{"$numberInt":"1"}}', {"a": 1}),
        ('{"$numberLong":"9007199254740993"}', 2**53 + 1),
        ('{"$numberDouble":"1.0"}', 1.0),
        ('{"$numberDouble":"1e3"}', 1000.0),
        ('{"$numberDouble":"-Infinity"}', -math.inf),
        ('{"$numberDouble":"NaN"}', math.nan),
        ('{"$date":{"$numberLong":"1795177801234"}}', DATE),
        ('{"$date":1795177801234}', DATE),
        ('{"$date":"2026-11-20T12:30:01.234Z"}', DATE),
        ('{"$date":"2026-11-20T20:30:01.234+08:00"}', DATE),
        ('{"$date":{"offset":5000}}', ServerDate(5000)),
        ('{"$tcb_server_date":{"offset":{"$numberInt":"0"}}}', ServerDate(0)),
        ('{"$regularExpression":{"pattern":"a","options":"mi"}}', Regex("a", "im")),
        ('{"$regex":"a","$options":"gi"}', Regex("a", "i")),
        ('{"$regex":"a"}', Regex("a")),
        ('{"$regex":{"$regularExpression":{"pattern":"a","options":"i"}}}', Regex("a", "i")),
        ('{"$oid":"0123456789abcdef01234567"}', ID),
        ('{"$binary":{"base64":"AAE=","subType":"00"}}', b"\0\1"),
        ('{"$binary":"AAE=","$type":"00"}', b"\0\1"),
        ('{"$binary":"AAE=","$type":4}', Binary(b"\0\1", 4)),
        ('{"$binary":{"base64":"AAE=","subType":"4"}}', Binary(b"\0\1", 4)),
        ('{"$binary":{"base64":"","subType":"ff"}}', Binary(b"", 255)),
        ('{"$uuid":"c8edabc3-f738-4ca3-b68d-ab92a91478a3"}', Binary(UUID, 4)),
        ('{"$numberLong":"5"}', Long(5)),
        ('{"$numberLong":"-2147483649"}', -(2**31) - 1),
        ('{"$numberInt":"-0"}', 0),
        ('{"$numberDouble":"-0.0"}', -0.0),
        ('{"$numberDecimal":"1.50"}', Decimal128("1.50")),
        ('{"$numberDecimal":"1E+3"}', Decimal128("1E+3")),
        ('{"$numberDecimal":"-inf"}', Decimal128("-Infinity")),
        ('{"$numberDecimal":"NaN"}', Decimal128("NaN")),
        ('{"$timestamp":{"t":5,"i":{"$numberInt":"1"}}}', Timestamp(5, 1)),
        ('{"$minKey":1}', MIN_KEY),
        ('{"$maxKey":{"$numberInt":"1"}}', MAX_KEY),
        ('{"$date":{"$numberLong":"5"}}', datetime(1970, 1, 1, 0, 0, 0, 5000, tzinfo=UTC)),
        ('{"$date":{"$numberLong":"-62135596800000"}}', datetime(1, 1, 1, tzinfo=UTC)),
        ("9007199254740993", 2**53 + 1),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", float(2**63)),
        ("-0", 0),
        ("-0.0", -0.0),
        ("1e3", 1000.0),
        ('{"$ref":"c","$id":{"$oid":"0123456789abcdef01234567"}}', {"$ref": "c", "$id": ID}),
        ('{"$ref":"c","$id":1,"$db":"d"}', {"$ref": "c", "$id": 1, "$db": "d"}),
        ('{"__proto__":{"x":1},"constructor":null}', {"__proto__": {"x": 1}, "constructor": None}),
        ('{"type":"Point","coordinates":[1,2.5]}', {"type": "Point", "coordinates": [1, 2.5]}),
        ('{"$undefined":true}', None),
        ('{"$symbol":"s"}', "s"),
        ('{"a":1,"a":2}', {"a": 2}),
        ('{"$gt":{"$numberInt":"1"}}', {"$gt": 1}),
        ('{"n":{"$inc":{"$numberInt":"-1"}}}', {"n": {"$inc": -1}}),
        ('{"$regex":"a","$ne":"b"}', {"$regex": "a", "$ne": "b"}),
        ('{"$oid":"0123456789abcdef01234567","x":1}', {"$oid": HEX, "x": 1}),
        ("[1,1.0,18446744073709551616]", [1, 1.0, float(2**64)]),
        ({"a": {"$date": MS}}, {"a": DATE}),
        (b'"\xc3\xa9"', "é"),
    ],
)
def test_decodes(source: Any, value: Any) -> None:
    assert identical(decode(source), value)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ('{"$numberDecimal":1}', "not the content of a \\$numberDecimal"),
        ('{"$numberDecimal":"1_0"}', "not a decimal number"),
        ('{"$numberDecimal":"x"}', "not a decimal number"),
        ('{"$numberDecimal":"1E+9999"}', "exponent"),
        ('{"$numberDecimal":"1.0000000000000000000000000000000001"}', "34 digits"),
        ('{"$timestamp":{"t":-1,"i":1}}', "timestamp"),
        ('{"$timestamp":{"t":1}}', "timestamp"),
        ('{"$timestamp":{"t":4294967296,"i":0}}', "timestamp"),
        ('{"$minKey":2}', "minKey"),
        ('{"$maxKey":true}', "integer"),
        ('{"$uuid":"c8edabc3f7384ca3b68dab92a91478a3"}', "uuid"),
        ('{"$binary":{"base64":"AA==","subType":"100"}}', "integer"),
        ('{"$binary":{"base64":"AA==","subType":256}}', "subtype"),
        ('{"$binary":{"base64":"AA==","kind":"00"}}', "binary"),
        ('{"$code":"x"}', "not supported"),
        ('{"$dbPointer":{}}', "not supported"),
        ('{"$date":{"$numberLong":"253402300800000"}}', "years 1 to 9999"),
        ('{"$regularExpression":{"pattern":"a\\u0000"}}', "regex"),
        ("NaN", "valid JSON"),
        ("1e999", "valid JSON"),
        ('{"a":1', "valid JSON"),
        ('"\\ud800"', "valid JSON"),
        ('["' + "[" * 10 + '"]' + "x", "valid JSON"),
        ("[" * 101 + "]" * 101, "nested more than 100"),
    ],
)
def test_says_what_is_wrong(source: str, reason: str) -> None:
    with pytest.raises(MalformedBody, match=reason):
        decode(source)


@pytest.mark.parametrize(
    "source",
    [
        "{",
        "",
        '"\\ud800"',
        b"\xff",
        '{"$oid":"xyz"}',
        '{"$oid":"0123456789abcdef012345678"}',
        '{"$numberInt":"1.5"}',
        '{"$numberInt":1}',
        '{"$numberLong":"99999999999999999999"}',
        '{"$numberLong":"9223372036854775808"}',
        '{"$numberDouble":"x"}',
        '{"$date":"yesterday"}',
        '{"$date":"2026-13-40T00:00:00Z"}',
        '{"$date":[]}',
        '{"$date":9e18}',
        '{"$date":{"offset":"x"}}',
        '{"$tcb_server_date":5}',
        '{"$regularExpression":{"pattern":1}}',
        '{"$regularExpression":{"pattern":"a","options":"q"}}',
        '{"$regex":5}',
        '{"$binary":{"base64":"*"}}',
        '{"$numberDecimal":"."}',
        '{"$timestamp":5}',
        '{"$symbol":1}',
        "[" * 150 + "]" * 150,
        "[" * 100_000,
        '{"a":' * 150 + "1" + "}" * 150,
    ],
)
def test_refuses(source: Any) -> None:
    with pytest.raises(MalformedBody):
        decode(source)


def test_the_error_is_the_one_that_fits() -> None:
    with pytest.raises(InvalidFilter, match="valid JSON"):
        decode("{", InvalidFilter)


RARE = {
    "long": Long(1),
    "dec": Decimal128("-1.50"),
    "bin": Binary(b"\0", 4),
    "ts": Timestamp(1, 2),
    "min": MIN_KEY,
    "max": MAX_KEY,
}
RARE_TEXT = (
    '"dec":{"$numberDecimal":"-1.50"},"bin":{"$binary":{"base64":"AA==","subType":"04"}},'
    '"ts":{"$timestamp":{"t":1,"i":2}},"min":{"$minKey":1},"max":{"$maxKey":1}'
)


def test_encodes_rare_types_alike_in_relaxed_and_plain() -> None:
    assert encode_relaxed(RARE) == '{"long":1,' + RARE_TEXT + "}"
    assert encode_plain(RARE) == '{"long":1,' + RARE_TEXT + "}"


def test_encodes_canonically() -> None:
    value = {
        "i": 1,
        "l": 2**40,
        "d": 1.0,
        "n": math.nan,
        "t": DATE,
        "o": ObjectId.from_hex(HEX),
        "r": Regex("a", "i"),
        **RARE,
    }
    assert encode_canonical(value) == (
        '{"i":{"$numberInt":"1"},"l":{"$numberLong":"1099511627776"},"d":{"$numberDouble":"1.0"},'
        '"n":{"$numberDouble":"NaN"},"t":{"$date":{"$numberLong":"1795177801234"}},"o":{"$oid":"0123456789abcdef01234567"},'
        '"r":{"$regularExpression":{"pattern":"a","options":"i"}},'
        '"long":{"$numberLong":"1"},' + RARE_TEXT + "}"
    )


def test_encodes_relaxed() -> None:
    early = datetime(1960, 1, 1, tzinfo=UTC)
    value = {"i": 1, "d": 1.5, "t": DATE, "e": early, "x": math.inf, "b": b"\0"}
    assert encode_relaxed(value) == (
        '{"i":1,"d":1.5,"t":{"$date":"2026-11-20T12:30:01.234Z"},"e":{"$date":{"$numberLong":"-315619200000"}},'
        '"x":{"$numberDouble":"Infinity"},"b":{"$binary":{"base64":"AA==","subType":"00"}}}'
    )


def test_encodes_plainly() -> None:
    value = {"i": 1, "d": [DATE], "o": ObjectId.from_hex(HEX), "x": math.nan, "r": Regex("a", "i"), "z": None}
    assert encode_plain(value) == (
        '{"i":1,"d":[{"$date":1795177801234}],"o":"0123456789abcdef01234567","x":null,"r":{"$regex":"a","$options":"i"},"z":null}'
    )


def test_server_dates_are_resolved_at_any_depth() -> None:
    assert prepare({"a": [ServerDate(), {"b": ServerDate(-234)}]}, MS) == {
        "a": [DATE, {"b": DATE.replace(microsecond=0)}]
    }


@pytest.mark.parametrize(
    "value",
    [
        2**63,
        Long(2**63),
        "\ud800",
        {"a\0": 1},
        {"\udfff": 1},
        datetime(2026, 1, 1),  # noqa: DTZ001 - the point of the test
        {1: 1},
        (1,),
        ServerDate(10**17),
    ],
)
def test_what_no_document_may_hold(value: Any) -> None:
    with pytest.raises(InvalidDocument):
        prepare({"x": value}, 0)
