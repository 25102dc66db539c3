"""Values: byte keys order as the values do, codecs lose nothing."""

from __future__ import annotations

import math
from contextlib import closing
from datetime import datetime

import apsw
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudlet.docdb.body import decode_body, decode_value, encode_body, encode_value
from cloudlet.docdb.bytekeys import candidate_key, invert, lossless_key, successor
from cloudlet.docdb.ejson import decode, encode_canonical, encode_plain, encode_relaxed
from cloudlet.docdb.numeric import Decimal128, add, fits_long, is_number, multiply, subtract
from cloudlet.docdb.values import MISSING, ObjectId, Value, compare, equals, identical, order_key, prepare
from tests.property.docdb_strategies import odd_values, scalars, small_numbers, values, wide_numbers

numbers = st.one_of(small_numbers, wide_numbers)


def sign(number: int) -> int:
    return (number > 0) - (number < 0)


def by_bytes(a: bytes, b: bytes) -> int:
    return (a > b) - (a < b)


@settings(deadline=None)
@given(values, values)
def test_lossless_keys_order_exactly_as_values(a: Value, b: Value) -> None:
    assert by_bytes(lossless_key(a), lossless_key(b)) == compare(a, b)


@settings(deadline=None)
@given(values, values)
def test_candidate_keys_never_contradict_the_order(a: Value, b: Value) -> None:
    (left, cut_left), (right, cut_right) = candidate_key(a), candidate_key(b)
    order = by_bytes(left, right)
    assert order in (0, compare(a, b))
    if order == 0 and not (cut_left or cut_right):
        assert equals(a, b)


@settings(deadline=None)
@given(values, values)
def test_inverted_keys_order_backwards(a: Value, b: Value) -> None:
    assert by_bytes(invert(lossless_key(a)), invert(lossless_key(b))) == -compare(a, b)


@settings(deadline=None)
@given(st.tuples(values, values), st.tuples(values, values), st.tuples(st.booleans(), st.booleans()))
def test_compound_keys_order_field_by_field(
    a: tuple[Value, Value], b: tuple[Value, Value], descending: tuple[bool, bool]
) -> None:
    def key(pair: tuple[Value, Value]) -> bytes:
        parts = [lossless_key(value) for value in pair]
        return b"".join(invert(p) if down else p for p, down in zip(parts, descending, strict=True))

    orders = [-compare(x, y) if down else compare(x, y) for x, y, down in zip(a, b, descending, strict=True)]
    assert by_bytes(key(a), key(b)) == next((order for order in orders if order), 0)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=4).filter(lambda raw: raw.strip(b"\xff") != b""), st.binary(max_size=3))
def test_the_successor_is_above_everything_with_the_prefix(prefix: bytes, rest: bytes) -> None:
    assert prefix + rest < successor(prefix)


@settings(deadline=None)
@given(values, values, values)
def test_the_order_is_total(a: Value, b: Value, c: Value) -> None:
    assert compare(a, b) == -compare(b, a)
    assert compare(a, a) == 0
    if compare(a, b) <= 0 and compare(b, c) <= 0:
        assert compare(a, c) <= 0


@settings(deadline=None)
@given(st.one_of(values, odd_values))
def test_stored_bodies_lose_nothing(value: Value) -> None:
    document = {"_id": 1, "value": value}
    assert identical(decode_body(encode_body(document, 10**6)), document)
    assert identical(decode_value(encode_value(value)), value)


@settings(deadline=None)
@given(st.one_of(values, odd_values))
def test_sqlite_keeps_stored_bodies_as_they_are(value: Value) -> None:
    document = {"_id": 1, "value": value}
    with closing(apsw.Connection(":memory:")) as connection:
        kept = connection.execute("SELECT json(jsonb(?))", (encode_body(document, 10**6),)).get
    assert identical(decode_body(str(kept)), document)


@settings(deadline=None)
@given(values)
def test_canonical_extended_json_loses_nothing(value: Value) -> None:
    assert identical(decode(encode_canonical(value)), value)


@settings(deadline=None)
@given(values)
def test_relaxed_extended_json_keeps_values(value: Value) -> None:
    assert equals(decode(encode_relaxed(value)), value)


def plainly(value: Value) -> Value:
    """What the plain form can keep of a value."""
    if type(value) is dict:
        return {name: plainly(item) for name, item in value.items()}
    if type(value) is list:
        return [plainly(item) for item in value]
    if type(value) is float and not math.isfinite(value):
        return None
    return str(value) if type(value) is ObjectId else value


@settings(deadline=None)
@given(values)
def test_plain_json_keeps_all_but_ids_and_odd_numbers(value: Value) -> None:
    assert equals(decode(encode_plain(value)), plainly(value))


@settings(deadline=None)
@given(values)
def test_every_form_is_stable_after_one_round(value: Value) -> None:
    for encode in (encode_canonical, encode_relaxed, encode_plain):
        once = decode(encode(value))
        assert identical(decode(encode(once)), once)


@settings(deadline=None)
@given(scalars, scalars)
def test_equal_values_share_key_and_hash(a: Value, b: Value) -> None:
    if equals(a, b):
        assert lossless_key(a) == lossless_key(b)
        assert hash(order_key(a)) == hash(order_key(b))
    else:
        assert lossless_key(a) != lossless_key(b)
    assert equals(a, MISSING) == (a is None)


@settings(deadline=None)
@given(numbers, numbers)
def test_sums_are_of_the_wider_type(a: Value, b: Value) -> None:
    for operation in (add, subtract, multiply):
        result = operation(a, b)
        assert is_number(result)
        if type(a) is Decimal128 or type(b) is Decimal128:
            assert type(result) is Decimal128
        elif type(a) is float or type(b) is float:
            assert type(result) is float
        else:
            assert isinstance(result, int)
        if fits_long(result):
            assert identical(prepare(result, 0), result)


@settings(deadline=None)
@given(values)
def test_preparing_what_is_prepared_changes_nothing(value: Value) -> None:
    assert identical(prepare(value, 0), value)


@settings(deadline=None)
@given(st.datetimes(timezones=st.timezones()))
def test_dates_are_kept_in_utc_to_the_millisecond(date: datetime) -> None:
    try:
        stored = prepare(date, 0)
    except Exception as exc:
        assert type(exc).__name__ in ("InvalidDocument", "OverflowError")
        return
    assert abs((stored - date).total_seconds()) < 0.001
    assert stored.microsecond % 1000 == 0
