"""Element and bitwise operators."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from cloudlet.docdb.values import (
    MAX_KEY,
    MIN_KEY,
    Binary,
    Decimal128,
    Long,
    ObjectId,
    Regex,
    Timestamp,
)
from tests.unit.docdb.cases.table import MISSING, Case, Table, no, table, whole, yes

EXISTS = table(
    "$exists",
    "reference/operator/query/exists/",
    yes({"a": {"$exists": True}}, 1, None, [], {}, False, "", [None], MIN_KEY),
    no({"a": {"$exists": True}}, MISSING),
    yes({"a": {"$exists": False}}, MISSING),
    no({"a": {"$exists": False}}, None, 1, []),
    yes({"a": {"$exists": 1}}, None),
    yes({"a": {"$exists": "no"}}, None),
    no({"a": {"$exists": 0}}, None),
    yes({"a": {"$exists": Decimal128("0.0")}}, MISSING),
    yes({"a": {"$exists": None}}, MISSING),
    yes({"a.b": {"$exists": True}}, {"b": None}, [1, {"b": 2}], [{"b": []}]),
    no({"a.b": {"$exists": True}}, {}, [], [1], 5, None, MISSING, [[{"b": 1}]]),
    yes({"a.b": {"$exists": False}}, {}, [], [1], 5, None, MISSING, [{}, {"c": 1}]),
    no({"a.b": {"$exists": False}}, [{}, {"b": 1}]),
    yes({"a.0": {"$exists": True}}, [1], [None], {"0": 1}),
    no({"a.0": {"$exists": True}}, [], 1, {}, MISSING),
    yes({"a.1.b": {"$exists": True}}, [0, {"b": 1}]),
    no({"a.1.b": {"$exists": True}}, [{"b": 1}], [0, 1]),
)

VALUES: dict[str, list[Any]] = {
    "minKey": [MIN_KEY],
    "double": [1.0, math.nan, -0.0, math.inf],
    "string": ["", "1"],
    "object": [{}, {"x": 1}],
    "array": [[]],
    "binData": [b"", Binary(b"x", 4)],
    "objectId": [ObjectId.from_hex("0" * 24)],
    "bool": [True, False],
    "date": [datetime(2026, 1, 1, tzinfo=UTC)],
    "null": [None],
    "regex": [Regex("a")],
    "int": [0, 2**31 - 1, -(2**31)],
    "timestamp": [Timestamp(1, 1)],
    "long": [Long(0), 2**31, -(2**31) - 1],
    "decimal": [Decimal128("0"), Decimal128("NaN")],
    "maxKey": [MAX_KEY],
}
NUMBERS = {"minKey": -1, "double": 1, "string": 2, "object": 3, "array": 4, "binData": 5, "objectId": 7} | {
    "bool": 8,
    "date": 9,
    "null": 10,
    "regex": 11,
    "int": 16,
    "timestamp": 17,
    "long": 18,
    "decimal": 19,
    "maxKey": 127,
}


def each_type() -> list[Case]:
    """Every type by name and number against a value of every type, alone and in an array."""
    cases = []
    for wanted, number in NUMBERS.items():
        for name, values in VALUES.items():
            for value in values:
                same = wanted == name
                cases.append(Case({"a": {"$type": wanted}}, {"a": value}, same))
                cases.append(Case({"a": {"$type": number}}, {"a": value}, same))
                cases.append(Case({"a": {"$type": wanted}}, {"a": [value]}, same or wanted == "array"))
    return cases


TYPE = table(
    "$type",
    "reference/operator/query/type/",
    each_type(),
    yes({"a": {"$type": "number"}}, 1, 1.5, Long(1), Decimal128("1"), ["x", 1]),
    no({"a": {"$type": "number"}}, "1", True, None, MISSING, [], ["x"]),
    yes({"a": {"$type": ["string", 8]}}, "x", True, [False]),
    no({"a": {"$type": ["string", 8]}}, 1, None, MISSING, []),
    yes({"a": {"$type": [2.0, Long(10)]}}, "x", None),
    no({"a": {"$type": "null"}}, MISSING, 0),
    no({"a": {"$type": "undefined"}}, MISSING, None),
    no({"a": {"$type": "javascript"}}, "x"),
    yes({"a": {"$type": "array"}}, [], [1], [[]]),
    no({"a": {"$type": "array"}}, 1, {"0": 1}, MISSING),
    yes({"a.b": {"$type": "int"}}, {"b": 1}, [{"b": "x"}, {"b": 1}], {"b": ["x", 1]}),
    no({"a.b": {"$type": "int"}}, {"b": "x"}, [1], MISSING),
)


def bits(name: str, operand: Any) -> dict[str, Any]:
    return {"a": {name: operand}}


_NEVER: tuple[Any, ...] = (
    None,
    MISSING,
    [],
    "54",
    True,
    1.5,
    math.nan,
    math.inf,
    2.0**63,
    Decimal128("1.5"),
    {},
)
"""What no bit operator matches. 54 is 00110110."""


def bit_table(name: str, *groups: list[Case]) -> Table:
    return table(name, f"reference/operator/query/{name[1:]}/", *groups, no(bits(name, [1, 5]), *_NEVER))


ALL_SET = bit_table(
    "$bitsAllSet",
    yes(
        bits("$bitsAllSet", [1, 5]),
        54,
        54.0,
        Long(54),
        Decimal128("54"),
        [0, 54],
        b"\x36",
        Binary(b"\x36", 2),
    ),
    no(bits("$bitsAllSet", [1, 5]), 2, 0, 20, b"", b"\2"),
    yes(bits("$bitsAllSet", 50), 54, b"\x36"),
    no(bits("$bitsAllSet", 50), 20, -64),
    yes(bits("$bitsAllSet", b"\x30"), 54),
    yes(bits("$bitsAllSet", [63, 200]), -1, -(2**63)),
    no(bits("$bitsAllSet", [63, 200]), 2**62, b"\xff" * 8),
    yes(bits("$bitsAllSet", b"\0" * 8 + b"\1"), b"\0" * 8 + b"\1", -1),
    yes(bits("$bitsAllSet", []), 0, 54, b""),
    yes(bits("$bitsAllSet", 0), 0),
)
ALL_CLEAR = bit_table(
    "$bitsAllClear",
    yes(bits("$bitsAllClear", [0, 3]), 54, 54.0, 0, Long(0), [9, 54], b"", b"\x36", -16),
    no(bits("$bitsAllClear", [0, 3]), 1, 8, -1, b"\1"),
    yes(bits("$bitsAllClear", 9), 54, Decimal128("0")),
    yes(bits("$bitsAllClear", b"\x09"), 54),
    yes(bits("$bitsAllClear", [100]), 5, b"\xff"),
    no(bits("$bitsAllClear", [100]), -5),
    yes(bits("$bitsAllClear", []), 7),
)
ANY_SET = bit_table(
    "$bitsAnySet",
    yes(bits("$bitsAnySet", [1, 3]), 54, 8, [1, 2], b"\2", -1, Decimal128("2"), Long(2), 2.0),
    no(bits("$bitsAnySet", [1, 3]), 1, 0, b"", b"\1"),
    yes(bits("$bitsAnySet", 35), 54),
    no(bits("$bitsAnySet", 9), 54),
    yes(bits("$bitsAnySet", b"\x30"), 54),
    no(bits("$bitsAnySet", []), 7, -1, b"\xff"),
)
ANY_CLEAR = bit_table(
    "$bitsAnyClear",
    yes(bits("$bitsAnyClear", [1, 3]), 54, 0, 2, [10, 0], b"", -4, 2.0, Decimal128("2")),
    no(bits("$bitsAnyClear", [1, 3]), 10, -1, b"\x0a"),
    yes(bits("$bitsAnyClear", 35), 54),
    no(bits("$bitsAnyClear", 54), 54),
    yes(bits("$bitsAnyClear", b"\x09"), 54),
    no(bits("$bitsAnyClear", []), 0),
    whole({"f.n": {"$bitsAnyClear": 1}}, {"f": [{"n": 1}, {"n": 2}]}, True),
)

TABLES = (EXISTS, TYPE, ALL_SET, ALL_CLEAR, ANY_SET, ANY_CLEAR)
