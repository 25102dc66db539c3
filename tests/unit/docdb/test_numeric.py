"""Numbers of four types: their texts, their sums, their keys."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest

from cloudlet.docdb.numberkeys import number_key
from cloudlet.docdb.numeric import (
    Decimal128,
    Long,
    add,
    fits_long,
    is_nan,
    is_number,
    long_number,
    multiply,
    number_kind,
    parse_decimal,
    rounded,
    subtract,
    to_decimal,
    truncated_64,
    whole_64,
)
from cloudlet.docdb.values import identical, type_name
from cloudlet.model.errors import InvalidDocument, MalformedBody


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("1.50", "1.50"),
        ("-0", "-0"),
        ("1E+3", "1E+3"),
        ("12e-4", "0.0012"),
        (".5", "0.5"),
        ("5.", "5"),
        ("0E-7000", "0E-6176"),
        ("1E+6144", "1.000000000000000000000000000000000E+6144"),
        ("9.999999999999999999999999999999999E+6144", "9.999999999999999999999999999999999E+6144"),
        ("1E-6176", "1E-6176"),
        ("Infinity", "Infinity"),
        ("-inf", "-Infinity"),
        ("nan", "NaN"),
        ("-NaN", "NaN"),
        ("00012", "12"),
        ("1234567890123456789012345678901234", "1234567890123456789012345678901234"),
    ],
)
def test_decimal_texts(text: str, kept: str) -> None:
    assert str(Decimal128(text)) == kept
    assert identical(Decimal128(kept), Decimal128(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a decimal"),
        ("1 ", "not a decimal"),
        ("1_0", "not a decimal"),
        ("٣", "not a decimal"),
        ("0x1", "not a decimal"),
        ("sNaN", "not a decimal"),
        ("NaN5", "not a decimal"),
        ("1" * 401, "not a decimal"),
        ("1" * 35, "34 digits"),
        ("0." + "3" * 35, "34 digits"),
        ("1E-6177", "34 digits"),
        ("1E+6145", "exponent"),
        ("1E999999999", "exponent"),
    ],
)
def test_texts_that_are_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidDocument, match=reason):
        Decimal128(text)
    with pytest.raises(MalformedBody, match=reason):
        parse_decimal(text, MalformedBody)


def test_numbers_equal_and_order_by_value() -> None:
    assert Decimal128("1.0") == 1 == Long(1) == 1.0 == Decimal128("1.00")
    assert len({Decimal128("1.0"), 1, Long(1)}) == 1
    assert Decimal128("0.1") < 0.1 < Decimal128("0.11")
    assert Decimal128("9007199254740993") > float(2**53)
    nan = Decimal128("NaN")
    for other in (nan, 1, 1.5, Decimal128("1"), math.nan):
        assert not (nan < other or nan > other or nan <= other or nan >= other or nan == other)
        assert not (other < nan or other > nan or other <= nan or other >= nan)


def test_representations_differ_though_values_are_equal() -> None:
    assert not identical(Decimal128("1.0"), Decimal128("1.00"))
    assert not identical(1, Long(1))
    assert not identical(1, 1.0)
    assert identical(Decimal128("NaN"), Decimal128("NaN"))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0, "int"),
        (2**31 - 1, "int"),
        (2**31, "long"),
        (-(2**31), "int"),
        (-(2**31) - 1, "long"),
        (Long(0), "long"),
        (0.0, "double"),
        (Decimal128("0"), "decimal"),
    ],
)
def test_kinds(value: Any, kind: str) -> None:
    assert number_kind(value) == type_name(value) == kind
    assert is_number(value)


def test_booleans_and_texts_are_no_numbers() -> None:
    for value in (True, "1", None, Decimal("1")):
        assert not is_number(value)
        assert whole_64(value) is None or isinstance(value, Decimal)
        assert not is_nan(value)


@pytest.mark.parametrize(
    ("a", "b", "total"),
    [
        (1, 2, 3),
        (2**31 - 1, 1, 2**31),
        (Long(1), 2, Long(3)),
        (2**40, -(2**40), Long(0)),
        (1, 0.5, 1.5),
        (Long(1), 0.5, 1.5),
        (1, Decimal128("0.1"), Decimal128("1.1")),
        (0.1, Decimal128("0.2"), Decimal128("0.300000000000000")),
        (math.nan, Decimal128("1"), Decimal128("NaN")),
        (math.inf, Decimal128("1"), Decimal128("Infinity")),
        (
            Decimal128("9.999999999999999999999999999999999E+6144"),
            Decimal128("1E+6144"),
            Decimal128("Infinity"),
        ),
    ],
)
def test_sums(a: Any, b: Any, total: Any) -> None:
    assert identical(add(a, b), total)
    assert identical(add(b, a), total)


def test_differences_and_products() -> None:
    assert identical(subtract(Long(5), 3), Long(2))
    assert identical(subtract(Decimal128("1.0"), 1), Decimal128("0.0"))
    assert identical(multiply(Long(5), 3), Long(15))
    assert identical(multiply(2**31, 2), 2**32)
    assert identical(multiply(Decimal128("1.50"), 2), Decimal128("3.00"))
    assert not fits_long(multiply(2**62, 4))
    assert fits_long(2.0**70)


def test_a_double_becomes_a_decimal_of_fifteen_digits() -> None:
    assert identical(to_decimal(2.5), Decimal128("2.50000000000000"))
    assert identical(to_decimal(0.1), Decimal128("0.100000000000000"))
    assert identical(to_decimal(0.0), Decimal128("0"))
    assert identical(to_decimal(7), Decimal128("7"))
    assert identical(rounded(Decimal(1) / Decimal(3)), Decimal128("0.3333333333333333333333333333"))
    assert identical(rounded(Decimal("1E+9999")), Decimal128("Infinity"))


@pytest.mark.parametrize(
    ("value", "whole", "cut"),
    [
        (5, 5, 5),
        (5.0, 5, 5),
        (5.9, None, 5),
        (-5.9, None, -5),
        (Decimal128("5.00"), 5, 5),
        (Decimal128("-0.5"), None, 0),
        (2.0**63, None, None),
        (-(2.0**63), -(2**63), -(2**63)),
        (2**63, None, None),
        (math.nan, None, None),
        (math.inf, None, None),
        (Decimal128("1E+6000"), None, None),
        (Decimal128("NaN"), None, None),
        (True, None, None),
        ("5", None, None),
    ],
)
def test_whole_numbers(value: Any, whole: int | None, cut: int | None) -> None:
    assert whole_64(value) == whole
    assert truncated_64(value) == cut


def test_keys_of_numbers_stay_in_order() -> None:
    ascending: list[Any] = [
        math.nan,
        -math.inf,
        Decimal128("-1E+400"),
        -1.7976931348623157e308,
        -(2**63),
        Decimal128("-9007199254740993.5"),
        -(2**53) - 1,
        -(2**53),
        Decimal128("-0.1"),
        -5e-324,
        Decimal128("-1E-6176"),
        0,
        Decimal128("1E-6176"),
        Decimal128("0.1"),
        0.1,
        Decimal128("0.1000000000000000055511151231257828"),
        1,
        Decimal128("1.000000000000000000000000000000001"),
        2**53,
        Decimal128("9007199254740992.5"),
        2**53 + 1,
        Decimal128("9007199254740993.5"),
        2**63 - 1,
        Decimal128("9223372036854775807.5"),
        2.0**63,
        Decimal128("18446744073709551617"),
        1.7976931348623157e308,
        Decimal128("1.8E+308"),
        math.inf,
    ]
    keys = [number_key(value) for value in ascending]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert number_key(Long(7)) == number_key(7) == number_key(7.0) == number_key(Decimal128("7.00"))
    assert number_key(long_number(2**53 + 1)) == number_key(Decimal128("9007199254740993"))
    assert number_key(-0.0) == number_key(0) == number_key(Decimal128("-0E+5"))
    assert number_key(2**70) < number_key(10**40)
