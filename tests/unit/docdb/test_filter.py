"""What a filter means: a table of documents and conditions, after MongoDB's documented rules."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from cloudlet.docdb.filter import where
from cloudlet.docdb.values import ObjectId, Regex
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
        ({"$or": [{"a": 1}] * 2_001}, "conditions"),
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


def test_conditions_are_joined() -> None:
    both = where({"_openid": "u1"}, {"$or": [{"a": 1}, {"_openid": "u2"}]})
    assert both.match({"_openid": "u1", "a": 1})
    assert not both.match({"_openid": "u2"})
