"""What a filter means: a table of documents and conditions, after MongoDB's documented rules."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from cloudlet.docdb.filter import where
from cloudlet.docdb.limits import Overrun
from cloudlet.docdb.values import Decimal128, ObjectId, Regex
from cloudlet.model.errors import InvalidFilter

DATE = datetime(2026, 11, 20, tzinfo=UTC)
OID = ObjectId.from_hex("0123456789abcdef01234567")

MATCHES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"a": 1}),
    ({"a": 1}, {"a": 1}),
    ({"a": 1}, {"a": 1.0}),
    ({"a": 2**53 + 1}, {"a": 2**53 + 1}),
    ({"a": None}, {"a": None}),
    ({"a": None}, {}),
    ({"a": None}, {"a": [1, None]}),
    ({"a.b": None}, {"a": 1}),
    ({"a.b": None}, {"a": [{"b": 1}, {}]}),
    ({"a": math.nan}, {"a": math.nan}),
    ({"a": 1}, {"a": [3, 1]}),
    ({"a": [3, 1]}, {"a": [3, 1]}),
    ({"a": [3, 1]}, {"a": [[3, 1], 0]}),
    ({"a": []}, {"a": []}),
    ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 2}}),
    ({"a": {}}, {"a": {}}),
    ({"a.b.c": 5}, {"a": {"b": {"c": 5}}}),
    ({"a.b": 5}, {"a": [{"b": 4}, {"b": 5}]}),
    ({"a.1.b": 5}, {"a": [{"b": 4}, {"b": 5}]}),
    ({"a.0": 7}, {"a": [7, 8]}),
    ({"a.0": 7}, {"a": {"0": 7}}),
    ({"a.b.c": 1}, {"a": [{"b": [{"c": 0}, {"c": 1}]}]}),
    ({"a": {"$gt": 1}}, {"a": 2}),
    ({"a": {"$gt": 1, "$lt": 3}}, {"a": [0, 9]}),
    ({"a": {"$gte": DATE}}, {"a": DATE}),
    ({"a": {"$lt": "b"}}, {"a": "a"}),
    ({"a": {"$gte": None}}, {}),
    ({"a": {"$lt": True}}, {"a": False}),
    ({"a": {"$gt": {"b": 1}}}, {"a": {"b": 2}}),
    ({"a": {"$ne": 1}}, {}),
    ({"a": {"$ne": 1}}, {"a": 2}),
    ({"a": {"$in": [1, "x"]}}, {"a": "x"}),
    ({"a": {"$in": [None]}}, {}),
    ({"a": {"$in": [Regex("^ab")]}}, {"a": ["zz", "abc"]}),
    ({"a": {"$in": [[1, 2]]}}, {"a": [1, 2]}),
    ({"a": {"$nin": [1, 2]}}, {"a": 3}),
    ({"a": {"$nin": [1, 2]}}, {}),
    ({"a": {"$exists": True}}, {"a": None}),
    ({"a": {"$exists": False}}, {"b": 1}),
    ({"a.b": {"$exists": False}}, {"a": [1]}),
    ({"a": {"$exists": True}}, {"a": []}),
    ({"a": Regex("B", "i")}, {"a": "abc"}),
    ({"a": {"$regex": "^a.c$", "$options": "s"}}, {"a": "a\nc"}),
    ({"a": {"$regex": "é", "$options": "i"}}, {"a": "É"}),
    ({"a": {"$regex": "(?<year>2026)"}}, {"a": "in 2026"}),
    ({"a": {"$regex": ".*b.*"}}, {"a": "x\nabc"}),
    ({"a": {"$not": {"$gt": 1}}}, {"a": "text"}),
    ({"a": {"$not": Regex("^x")}}, {"a": "abc"}),
    ({"a": {"$not": {"$eq": 1}}}, {}),
    ({"$and": [{"a": 1}, {"b": 2}]}, {"a": 1, "b": 2}),
    ({"$or": [{"a": 1}, {"b": 2}]}, {"b": 2}),
    ({"$nor": [{"a": 1}, {"b": 2}]}, {"a": 2}),
    ({"a": {"$all": [1, 2]}}, {"a": [2, 3, 1]}),
    ({"a": {"$all": [1]}}, {"a": 1}),
    ({"a": {"$all": [{"$elemMatch": {"b": 1}}]}}, {"a": [{"b": 1}]}),
    ({"a": {"$size": 2}}, {"a": [[], 1]}),
    ({"a": {"$elemMatch": {"$gt": 1, "$lt": 3}}}, {"a": [0, 2, 9]}),
    ({"a": {"$elemMatch": {"b": 1, "c": 2}}}, {"a": [{"b": 1}, {"b": 1, "c": 2}]}),
    ({"a": {"$elemMatch": {"$or": [{"b": 1}, {"b": 2}]}}}, {"a": [{"b": 2}]}),
    ({"a": {"$mod": [4, 1]}}, {"a": 5}),
    ({"a": {"$mod": [4, -1]}}, {"a": -5}),
    ({"a": {"$mod": [4, 1]}}, {"a": 5.7}),
    ({"a": {"$type": "number"}}, {"a": 1.5}),
    ({"a": {"$type": ["string", 8]}}, {"a": True}),
    ({"a": {"$type": "array"}}, {"a": [[]]}),
    ({"_id": OID}, {"_id": OID}),
    ({"a": b"x"}, {"a": b"x"}),
    ({"$comment": "why", "a": 1}, {"a": 1}),
]
MISSES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"a": 1}, {"a": True}),
    ({"a": True}, {"a": 1}),
    ({"a": 1}, {"a": "1"}),
    ({"a": float(2**53)}, {"a": 2**53 + 1}),
    ({"a": None}, {"a": []}),
    ({"a.b": None}, {"a": [1, 2]}),
    ({"a.b": None}, {"a": []}),
    ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2, "b": 1}}),
    ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}),
    ({"a": [1, 3]}, {"a": [3, 1]}),
    ({"a": {"$gt": 1}}, {"a": "2"}),
    ({"a": {"$gt": 1}}, {"a": None}),
    ({"a": {"$gt": None}}, {"a": None}),
    ({"a": {"$gt": 1}}, {"a": True}),
    ({"a": {"$lt": 1}}, {"a": math.nan}),
    ({"a": {"$lt": "b"}}, {"a": 1}),
    ({"a": {"$ne": 1}}, {"a": [2, 1]}),
    ({"a": {"$nin": [None]}}, {}),
    ({"a": {"$in": []}}, {"a": 1}),
    ({"a": {"$in": [True]}}, {"a": 1}),
    ({"a": {"$exists": True}}, {}),
    ({"a": {"$exists": False}}, {"a": None}),
    ({"a": Regex("b")}, {"a": 1}),
    ({"a": {"$regex": "^b$"}}, {"a": "a\nb"}),
    ({"a": {"$not": {"$gt": 1}}}, {"a": [0, 2]}),
    ({"a": {"$all": []}}, {"a": []}),
    ({"a": {"$size": 0}}, {"a": 1}),
    ({"a": {"$size": 0}}, {}),
    ({"a": {"$elemMatch": {"$gt": 1}}}, {"a": 2}),
    ({"a": {"$elemMatch": {"$gt": 1}}}, {"a": [[2]]}),
    ({"a": {"$elemMatch": {"b": 1, "c": 2}}}, {"a": [{"b": 1}, {"c": 2}]}),
    ({"a": {"$mod": [4, 1]}}, {"a": "5"}),
    ({"a": {"$type": "int"}}, {"a": True}),
    ({"a": {"$type": "null"}}, {}),
    ({"a.01": 7}, {"a": [0, 7]}),
]


@pytest.mark.parametrize(("condition", "document"), MATCHES)
def test_matches(condition: dict[str, Any], document: dict[str, Any]) -> None:
    assert where(condition).match(document)


@pytest.mark.parametrize(("condition", "document"), MISSES)
def test_does_not_match(condition: dict[str, Any], document: dict[str, Any]) -> None:
    assert not where(condition).match(document)


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ([], "must be an object"),
        ({"$where": "1"}, r"unknown top level operator: \$where"),
        ({"a": {"$foo": 1}}, r"unknown operator: \$foo"),
        ({"a": {"$gt": 1, "b": 2}}, "unknown operator: b"),
        ({"a": {"$nearSphere": {}}}, r"\$nearSphere"),
        ({"$and": []}, "nonempty"),
        ({"$or": {"a": 1}}, "nonempty"),
        ({"$or": [1]}, "must be an object"),
        ({"a": {"$in": 1}}, "array"),
        ({"a": {"$in": [{"$gt": 1}]}}, "nest"),
        ({"a": {"$not": 1}}, r"\$not"),
        ({"a": {"$not": {"b": 1}}}, r"\$not"),
        ({"a": {"$size": -1}}, r"\$size"),
        ({"a": {"$size": 1.5}}, r"\$size"),
        ({"a": {"$size": True}}, r"\$size"),
        ({"a": {"$mod": [0, 1]}}, "divisor"),
        ({"a": {"$mod": [1]}}, r"\$mod"),
        ({"a": {"$mod": [math.nan, 1]}}, r"\$mod"),
        ({"a": {"$type": "thing"}}, r"\$type"),
        ({"a": {"$type": []}}, r"\$type"),
        ({"a": {"$options": "i"}}, r"\$regex"),
        ({"a": {"$regex": "(", "$options": ""}}, "not understood"),
        ({"a": {"$regex": "a", "$options": "q"}}, r"\$options"),
        ({"a": {"$regex": "[[:letter:]]"}}, r"\[:letter:\]"),
        ({"a": {"$regex": "[[:^alpha:]]"}}, r"\[:\^alpha:\]"),
        ({"a": {"$regex": "\\p{Han}"}}, "not understood"),
        ({"a": {"$regex": 5}}, r"\$regex"),
        ({"a": Regex("x" * 2_000)}, "characters"),
        ({"a": {"$ne": Regex("x")}}, r"\$not"),
        ({"a": {"$gt": Regex("x")}}, "regular expression"),
        ({"a": {"$elemMatch": 1}}, "object"),
        ({"a": {"$all": [{"$gt": 1}]}}, r"\$all"),
        ({"a..b": 1}, "empty field name"),
        ({"": 1}, "empty field name"),
        ({".".join("a" * 101): 1}, "segments"),
        ({"a": {"$in": list(range(10_001))}}, "10000 values"),
        ({"$or": [{"a": 1}] * 12_001}, "conditions"),
        ({"a": {"$in": [Regex("x")] * 10_001}}, "10000 values"),
        ({"$or": [{"a": {"$in": [Regex("x")] * 101}}] * 2}, "200 regular expressions"),
        ({"$or": [{"a": Regex("x" * 1_000)}] * 21}, "20000 characters"),
        ({"$jsonSchema": {"patternProperties": {f"x{n}": {} for n in range(201)}}}, "200 regular"),
        ({"a": {"$all": [1] * 12_001}}, "conditions"),
        ({"a": {"$all": [{"$elemMatch": {"b": 1}}, 5]}}, r"\$all with \$elemMatch"),
        ({"a": {"$mod": [2**70, 1]}}, "64 bits"),
        ({"a": {"$mod": ["4", 1]}}, "64 bits"),
        ({"a": {"$mod": [0.5, 1]}}, "divisor"),
        ({"a": {"$type": 0}}, r"\$type"),
        ({"a": {"$type": True}}, r"\$type"),
        ({"a": {"$type": ["int", "thing"]}}, "thing"),
        ({"a": {"$type": 2.5}}, r"\$type"),
        ({"a": {"$size": "1"}}, r"\$size"),
        ({"a": {"$size": Decimal128("1.5")}}, r"\$size"),
        ({"a": {"$bitsAllSet": -1}}, "from 0 on"),
        ({"a": {"$bitsAllSet": 1.5}}, "from 0 on"),
        ({"a": {"$bitsAnySet": "1"}}, "positions"),
        ({"a": {"$bitsAnyClear": [-1]}}, "position"),
        ({"a": {"$bitsAllClear": [2**31]}}, "position"),
        ({"a": {"$bitsAllClear": [0] * 10_001}}, "10000 positions"),
        ({"a": {"$bitsAllSet": b"x" * 1_025}}, "1024 bytes"),
        ({"a": {"$lt": {"$foo": 1}, "$foo": 2}}, r"unknown operator: \$foo"),
        ({"$expr": {"$foo": 1}}, r"\$foo"),
        ({"a": {"$elemMatch": {"$expr": {"$eq": [1, 1]}}}}, r"inside \$elemMatch"),
        ({"a": {"$expr": 1}}, r"unknown operator: \$expr"),
        ({"a": {"$regex": "a\0"}}, "null character"),
        ({"a": {"$not": {}}}, r"\$not"),
        ({"$text": {"$search": "x"}}, r"\$text"),
        ({"$jsonSchema": 1}, "object"),
        ({"$jsonSchema": {"foo": 1}}, "'foo' is not known"),
        ({"$jsonSchema": {"$ref": "x"}}, "not supported"),
        ({"$jsonSchema": {"type": "integer"}}, "integer"),
        ({"$jsonSchema": {"bsonType": "thing"}}, "thing"),
        ({"$jsonSchema": {"type": "object", "bsonType": "object"}}, "both"),
        ({"$jsonSchema": {"required": []}}, "required"),
        ({"$jsonSchema": {"required": ["a", "a"]}}, "twice"),
        ({"$jsonSchema": {"properties": {"a": 1}}}, "properties must be an object"),
        ({"$jsonSchema": {"enum": []}}, "enum"),
        ({"$jsonSchema": {"enum": [1, 1.0]}}, "twice"),
        ({"$jsonSchema": {"minLength": -1}}, "minLength"),
        ({"$jsonSchema": {"multipleOf": 0}}, "above 0"),
        ({"$jsonSchema": {"exclusiveMinimum": True}}, "needs minimum"),
        ({"$jsonSchema": {"pattern": "("}}, "not understood"),
        ({"$jsonSchema": {"allOf": []}}, "nonempty"),
        ({"$jsonSchema": {"uniqueItems": 1}}, "true or false"),
        ({"$jsonSchema": {"dependencies": {"a": []}}}, "dependencies"),
        ({"$jsonSchema": {"allOf": [{}] * 2_000}}, "2000 schemas"),
    ],
)
def test_refuses_by_name(condition: Any, reason: str) -> None:
    with pytest.raises(InvalidFilter, match=reason):
        where(condition)


def test_refuses_what_is_nested_too_deeply() -> None:
    logical: Any = {"a": 1}
    negated: Any = {"$gt": 1}
    elements: Any = {"a": 1}
    for _ in range(60):
        logical, negated, elements = {"$and": [logical]}, {"$not": negated}, {"a": {"$elemMatch": elements}}
    for condition in (logical, {"a": negated}, elements):
        with pytest.raises(InvalidFilter, match="nested"):
            where(condition)


@pytest.mark.parametrize(
    ("pattern", "options", "costly"),
    [
        ("abc", "", False),
        ("^abc", "", False),
        ("中文", "i", False),
        (".*abc.*", "", False),
        ("[a-z]{2,5}x?", "i", False),
        ("^1[3-9]\\d{9}$", "", False),
        ("^\\d+$", "", False),
        ("a|b|c", "", False),
        ("\\d+", "", False),
        ("[a]" * 300, "", True),
        ("(a+)+$", "", True),
        ("(a|aa)+$", "", True),
        ("a.*b.*c", "", True),
        ("^a*b*c", "", True),
        ("^(a*){0,9}x", "", True),
        ("^a+b", "m", True),
        ("(a)\\1", "", True),
        ("(?=a)b", "", True),
        ("a?" * 12 + "a" * 12, "", True),
    ],
)
def test_what_may_backtrack_is_recognised(pattern: str, options: str, costly: bool) -> None:
    assert where({"$or": [{"x": 1}, {"a": {"$not": Regex(pattern, options)}}]}).costly is costly


def test_a_schema_that_is_nested_too_deeply_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(45):
        schema = {"not": schema}
    with pytest.raises(InvalidFilter, match="nested"):
        where({"$jsonSchema": schema})


def test_ten_thousand_alternatives_are_one_look() -> None:
    many = where({"$or": [{"a": number} for number in range(10_000)]})
    assert many.match({"a": 9_999})
    assert many.match({"a": ["x", 3.0]})
    assert not many.match({"a": 10_000})
    assert not many.match({"a": True})


def test_what_may_take_long_is_known_wherever_it_stands() -> None:
    costly = "(a+)+$"
    filters: list[dict[str, Any]] = [
        {"$jsonSchema": {"properties": {"a": {"pattern": costly}}}},
        {"$jsonSchema": {"patternProperties": {costly: {}}}},
        {"$expr": {"$regexMatch": {"input": "$a", "regex": costly}}},
        {"a": {"$elemMatch": {"$regex": costly}}},
    ]
    for filter in filters:
        assert where(filter).costly
        assert where(filter).patterned
    cheap = where({"$jsonSchema": {"properties": {"a": {"pattern": "^a"}}}}, {"b": 1})
    assert cheap.patterned
    assert not cheap.costly
    assert not where({"$expr": {"$eq": ["$a", 1]}}).patterned


def test_very_many_conditions_do_not_run_in_the_own_process() -> None:
    assert where({"$or": [{f"f{number}": 1} for number in range(400)]}).costly
    assert where({f"f{number}": {"$gt": 1} for number in range(400)}).costly
    assert where({"$jsonSchema": {"anyOf": [{"required": ["a"]}] * 400}}).costly
    assert where({"$expr": {"$and": [{"$eq": ["$a", number]} for number in range(200)]}}).costly
    assert not where({"$or": [{"a": number} for number in range(10_000)]}).costly
    assert not where({"a": {"$in": list(range(10_000))}}).costly
    assert not where({"$or": [{f"f{number}": 1} for number in range(100)]}).costly


def test_long_work_in_the_own_process_is_an_overrun() -> None:
    long_text = {"a": "x" * 5_000}
    for filter in ({"a": Regex("y")}, {"$jsonSchema": {"properties": {"a": {"pattern": "y"}}}}):
        with pytest.raises(Overrun):
            where(filter).match(long_text)
        where(filter, subject_max=None).match(long_text)
    steps = {"$expr": {"$eq": [{"$size": {"$range": [0, 500_000]}}, 500_000]}}
    with pytest.raises(Overrun):
        where(steps).match({})
    assert where(steps, subject_max=None).match({})


def test_a_repeated_shape_keeps_nothing_of_earlier_operands() -> None:
    for number in range(3):
        filter = {"_openid": f"u{number}", "n": {"$gte": number, "$lt": number + 1}}
        assert where(filter).match({"_openid": f"u{number}", "n": number})
        assert not where(filter).match({"_openid": f"u{number}", "n": number + 1})
        assert not where(filter).match({"_openid": "u9", "n": number})


def test_conditions_are_joined() -> None:
    both = where({"_openid": "u1"}, {"$or": [{"a": 1}, {"_openid": "u2"}]})
    assert both.match({"_openid": "u1", "a": 1})
    assert not both.match({"_openid": "u2"})
