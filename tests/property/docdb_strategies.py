"""Strategies for values, documents, filters and updates. Few names and values, so that things meet."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from cloudlet.docdb.numeric import long_number, rounded
from cloudlet.docdb.values import (
    INT64_MAX,
    INT64_MIN,
    MAX_KEY,
    MIN_KEY,
    Binary,
    Decimal128,
    Long,
    ObjectId,
    Regex,
    Timestamp,
    date_from_ms,
)

FIELDS = ("a", "b", "c")
PATHS = ("a", "b", "a.b", "a.c", "b.0", "a.b.c", "a.0.b", "b.1.a", "_openid")

small_numbers = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([0.0, -0.0, 1.0, 1.5, -2.5, float("inf"), float("-inf"), float("nan")]),
    st.integers(-3, 3).map(Long),
    st.sampled_from(["0", "-0", "1", "1.0", "1.5", "-2.50", "0.1", "Infinity", "-Infinity", "NaN"]).map(
        Decimal128
    ),
)
EDGES = (
    "9007199254740992.5",
    "9007199254740993",
    "-9007199254740993.000001",
    "18446744073709551616.1",
    "9223372036854775807.999",
    "1E-6176",
    "-1E-6176",
    "4.9E-324",
    "1.7976931348623157081E+308",
    "9.999999999999999999999999999999999E+6144",
    "-1E+400",
)
decimals = st.one_of(
    st.sampled_from(EDGES).map(Decimal128),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(rounded),
    st.builds(
        lambda number, digits: rounded(Decimal(number) + Decimal(digits).scaleb(-20)),
        st.one_of(st.integers(INT64_MIN, INT64_MAX), st.floats(allow_nan=False, allow_infinity=False)),
        st.integers(-5, 5),
    ),
    st.integers(INT64_MIN, INT64_MAX).map(lambda number: rounded(Decimal(number))),
    st.floats().map(lambda number: rounded(Decimal(number))),
)
wide_numbers = st.one_of(
    st.integers(INT64_MIN, INT64_MAX),
    st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, INT64_MAX, INT64_MIN, 2.0**63, 2.0**53]),
    st.floats(),
    st.integers(-(2**33), 2**33).map(long_number),
    decimals,
)
texts = st.one_of(
    st.sampled_from(
        ["", "a", "ab", "a\0", "a\0b", "é", "\U0001f600", "x" * 127, "x" * 128, "x" * 200, "x" * 200 + "y"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
dates = st.one_of(
    st.integers(-(2**40), 2**42).map(date_from_ms),
    st.just(datetime(1, 1, 1, tzinfo=UTC)),
    st.just(datetime(9999, 12, 31, tzinfo=UTC)),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    small_numbers,
    wide_numbers,
    texts,
    dates,
    st.binary(min_size=12, max_size=12).map(ObjectId),
    st.binary(max_size=4),
    st.builds(Binary, st.binary(max_size=4), st.sampled_from([1, 4, 255])),
    st.builds(Timestamp, st.sampled_from([0, 1, 2**32 - 1]), st.integers(0, 2)),
    st.sampled_from([MIN_KEY, MAX_KEY]),
    st.builds(Regex, st.sampled_from(["a", "b+"]), st.sampled_from(["", "i"])),
)
names = st.one_of(
    st.sampled_from(FIELDS),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=6,
)
odd_names = st.sampled_from(
    ["$date", "$oid", "$esc", "$re", "$num", "$bin", "$long", "$dec", "$ts", "$min", "$", "a", "$inc"]
)
odd_values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(odd_names, inner, max_size=2)),
    max_leaves=6,
)

few_scalars = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        2,
        1.0,
        1.5,
        Long(1),
        Decimal128("1.50"),
        Decimal128("9007199254740992.5"),
        2**53,
        2**53 + 1,
        float("nan"),
        "",
        "a",
        "ab",
        "b",
        "x" * 200,
        "x" * 200 + "y",
    ]
)
few_values = st.recursive(
    few_scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(FIELDS), inner, max_size=2)
    ),
    max_leaves=5,
)
documents = st.fixed_dictionaries({}, optional=dict.fromkeys((*FIELDS, "_openid"), few_values))
"""Documents without an id, with few fields and few values."""

_comparisons = st.sampled_from(["$eq", "$gt", "$gte", "$lt", "$lte", "$ne"])
_conditions: st.SearchStrategy[Any] = st.one_of(
    few_values,
    st.dictionaries(_comparisons, few_values, min_size=1, max_size=2),
    st.builds(lambda values: {"$in": values}, st.lists(few_values, max_size=4)),
    st.builds(lambda values: {"$nin": values}, st.lists(few_values, max_size=3)),
    st.builds(lambda flag: {"$exists": flag}, st.booleans()),
    st.sampled_from(
        [{"$regex": "^a"}, {"$regex": "b", "$options": "i"}, Regex("^ab?"), {"$in": [Regex("^x"), 1]}]
    ),
    st.builds(lambda size: {"$size": size}, st.integers(0, 2)),
    st.builds(lambda value: {"$not": {"$gt": value}}, few_scalars),
    st.builds(lambda values: {"$all": values}, st.lists(few_scalars, max_size=2)),
    st.builds(lambda value: {"$elemMatch": {"$gte": value}}, few_scalars),
    st.builds(lambda value: {"$elemMatch": {"b": value}}, few_scalars),
    st.builds(lambda value: {"$elemMatch": {"0": value}}, few_values),
    st.builds(lambda value: {"$elemMatch": {"$elemMatch": {"$lte": value}}}, few_scalars),
    st.builds(lambda value: {"$all": [{"$elemMatch": {"$in": [value, 1]}}]}, few_scalars),
    st.builds(lambda mask: {"$bitsAnySet": mask}, st.sampled_from([1, 2, [0, 70], b"\1"])),
    st.builds(lambda mask: {"$bitsAllClear": mask}, st.sampled_from([1, 2, [0, 70], b"\1"])),
    st.builds(lambda key, op: {op: key}, st.sampled_from([MIN_KEY, MAX_KEY]), _comparisons),
    st.sampled_from(
        [{"$mod": [2, 1]}, {"$type": "string"}, {"$type": "array"}, {"$type": ["number", "null"]}]
    ),
)
_simple_filters = st.dictionaries(st.sampled_from(PATHS), _conditions, max_size=3)
filters: st.SearchStrategy[dict[str, Any]] = st.recursive(
    _simple_filters,
    lambda inner: st.builds(
        lambda name, parts: {name: parts},
        st.sampled_from(["$and", "$or", "$nor"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=4,
)
_bounds: st.SearchStrategy[Any] = st.one_of(
    few_values,
    st.fixed_dictionaries({}, optional=dict.fromkeys(("$gt", "$gte", "$lt", "$lte"), few_values)).filter(
        bool
    ),
    st.builds(lambda values: {"$in": values}, st.lists(few_values, min_size=1, max_size=3)),
)
_bound_filters = st.dictionaries(st.sampled_from(["a", "b", "a.b"]), _bounds, min_size=1, max_size=2)
indexable_filters: st.SearchStrategy[dict[str, Any]] = st.one_of(
    _bound_filters,
    st.builds(lambda one, other: {"$and": [one, other]}, _bound_filters, filters),
    st.builds(lambda one, other: {"$or": [one, other]}, _bound_filters, _bound_filters),
)
"""Filters of which an index can use at least a part."""
sorts = st.one_of(
    st.none(),
    st.dictionaries(
        st.sampled_from(("a", "b", "a.b", "_id")), st.sampled_from([1, -1]), min_size=1, max_size=2
    ),
)

_operands: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(lambda value: {"$set": value}, few_values),
    st.just({"$unset": ""}),
    st.builds(lambda value: {"$inc": value}, st.sampled_from([1, 1.5, 2**62, "no"])),
    st.builds(lambda value: {"$mul": value}, st.sampled_from([2, 0.5])),
    st.builds(lambda value: {"$min": value}, few_scalars),
    st.builds(lambda value: {"$max": value}, few_scalars),
    st.builds(lambda value: {"$push": value}, few_scalars),
    st.builds(
        lambda each, at, cut: {"$push": {"$each": each, "$position": at, "$slice": cut, "$sort": 1}},
        st.lists(few_scalars, max_size=3),
        st.integers(-2, 2),
        st.integers(-3, 3),
    ),
    st.builds(lambda value: {"$pull": value}, few_scalars),
    st.builds(lambda value: {"$pull": {"$gte": value}}, few_scalars),
    st.builds(lambda value: {"$addToSet": {"$each": value}}, st.lists(few_scalars, max_size=3)),
    st.builds(lambda value: {"$pop": value}, st.sampled_from([1, -1])),
)


def _merge(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    update: dict[str, Any] = {}
    for path, operator in parts.items():
        for name, operand in operator.items():
            update.setdefault(name, {})[path] = operand
    return update


updates: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from(["a", "b", "c.a", "c.b", "a.b", "b.1", "a.0.c"]), _operands, min_size=1, max_size=3
).map(_merge)
"""Updates, many of which are refused."""
