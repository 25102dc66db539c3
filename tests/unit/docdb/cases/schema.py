"""``$jsonSchema``."""

from __future__ import annotations

import math
from typing import Any

from cloudlet.docdb.values import Decimal128, Long, ObjectId
from tests.unit.docdb.cases.table import MISSING, Case, Table, no, table, whole, yes

PAGE = "reference/operator/query/jsonSchema/"


def field(schema: dict[str, Any]) -> dict[str, Any]:
    return {"$jsonSchema": {"properties": {"a": schema}}}


def schema_table(name: str, *groups: list[Case]) -> Table:
    return table(name, PAGE, *groups)


TYPES = schema_table(
    "type, bsonType",
    yes(field({"bsonType": "int"}), 1, MISSING),
    no(field({"bsonType": "int"}), 1.0, Long(1), "1", None, [1], True),
    yes(field({"bsonType": ["string", "null"]}), "x", None, MISSING),
    no(field({"bsonType": ["string", "null"]}), 1, [], {}),
    yes(field({"bsonType": "number"}), 1, 1.5, Long(1), Decimal128("1")),
    yes(field({"bsonType": "objectId"}), ObjectId(b"0" * 12)),
    yes(field({"type": "number"}), 1, 1.5, Decimal128("NaN")),
    no(field({"type": "number"}), "1", True, None),
    yes(field({"type": ["boolean", "array"]}), True, [], [1]),
    no(field({"type": ["boolean", "array"]}), 1, {}, "x"),
    yes(field({"type": "object"}), {}),
    no(field({"type": "object"}), [], 1),
    whole({"$jsonSchema": {"bsonType": "object"}}, {}, True),
    whole({"$jsonSchema": {"type": "string"}}, {"a": "x"}, False),
)
NUMBERS = schema_table(
    "minimum, maximum, multipleOf",
    yes(field({"minimum": 1, "maximum": 5}), 1, 5, 2.5, Decimal128("4.99"), "x", None, MISSING, [9]),
    no(field({"minimum": 1, "maximum": 5}), 0, 6, math.inf, Decimal128("5.01"), math.nan),
    no(field({"minimum": 1, "exclusiveMinimum": True}), 1, 1.0, 0),
    yes(field({"minimum": 1, "exclusiveMinimum": True}), 1.1),
    yes(field({"minimum": 1, "exclusiveMinimum": False}), 1),
    no(field({"maximum": 1, "exclusiveMaximum": True}), 1, 2),
    yes(field({"maximum": 1, "exclusiveMaximum": True}), 0.9),
    yes(field({"multipleOf": 3}), 9, 0, -3, 9.0, Decimal128("9.0"), "x", MISSING),
    no(field({"multipleOf": 3}), 10, 9.5, math.nan, math.inf),
    yes(field({"multipleOf": 0.5}), 1.5, 2, Decimal128("0.5")),
    no(field({"multipleOf": 0.5}), 0.7),
)
TEXTS = schema_table(
    "minLength, maxLength, pattern",
    yes(field({"minLength": 2, "maxLength": 3}), "ab", "中文字", 1, None, MISSING, ["a"]),
    no(field({"minLength": 2, "maxLength": 3}), "a", "abcd", ""),
    yes(field({"pattern": "^a"}), "ab", 5, MISSING, None),
    no(field({"pattern": "^a"}), "ba", ""),
)
ARRAYS = schema_table(
    "items, minItems, uniqueItems",
    yes(field({"items": {"bsonType": "int"}}), [1, 2], [], "x", MISSING, None),
    no(field({"items": {"bsonType": "int"}}), [1, "x"], [None]),
    yes(field({"items": [{"bsonType": "int"}, {"bsonType": "string"}]}), [1, "x"], [1], [1, "x", None]),
    no(field({"items": [{"bsonType": "int"}, {"bsonType": "string"}]}), ["x"], [1, 2]),
    no(field({"items": [{}], "additionalItems": False}), [1, 2]),
    yes(field({"items": [{}], "additionalItems": False}), [1], []),
    no(field({"items": [{}], "additionalItems": {"bsonType": "int"}}), [1, "x"]),
    yes(field({"items": {}, "additionalItems": False}), [1, 2]),
    yes(field({"minItems": 1, "maxItems": 2}), [1], [1, 2], "x", MISSING),
    no(field({"minItems": 1, "maxItems": 2}), [], [1, 2, 3]),
    yes(field({"uniqueItems": True}), [1, 2], [1, "1"], [], [{"x": 1}, {"x": 2}]),
    no(field({"uniqueItems": True}), [1, 1.0], [{"x": 1, "y": 2}, {"y": 2, "x": 1}], [None, None]),
)
OBJECTS = schema_table(
    "required, properties, additionalProperties",
    whole({"$jsonSchema": {"required": ["a", "b"]}}, {"a": None, "b": 1}, True),
    whole({"$jsonSchema": {"required": ["a", "b"]}}, {"a": 1}, False),
    whole({"$jsonSchema": {"properties": {"a": {}}, "additionalProperties": False}}, {"a": 1}, True),
    whole({"$jsonSchema": {"properties": {"a": {}}, "additionalProperties": False}}, {"b": 1}, False),
    whole({"$jsonSchema": {"additionalProperties": {"bsonType": "int"}}}, {"b": 1}, True),
    whole({"$jsonSchema": {"additionalProperties": {"bsonType": "int"}}}, {"b": "x"}, False),
    whole({"$jsonSchema": {"patternProperties": {"^n": {"bsonType": "int"}}}}, {"n1": 1, "x": "y"}, True),
    whole({"$jsonSchema": {"patternProperties": {"^n": {"bsonType": "int"}}}}, {"n1": "x"}, False),
    whole({"$jsonSchema": {"patternProperties": {"^n": {}}, "additionalProperties": False}}, {"n1": 1}, True),
    whole({"$jsonSchema": {"patternProperties": {"^n": {}}, "additionalProperties": False}}, {"m": 1}, False),
    whole({"$jsonSchema": {"minProperties": 1, "maxProperties": 2}}, {}, False),
    whole({"$jsonSchema": {"minProperties": 1, "maxProperties": 2}}, {"a": 1}, True),
    whole({"$jsonSchema": {"minProperties": 1, "maxProperties": 2}}, {"a": 1, "b": 1, "c": 1}, False),
    whole({"$jsonSchema": {"dependencies": {"a": ["b"]}}}, {"a": 1}, False),
    whole({"$jsonSchema": {"dependencies": {"a": ["b"]}}}, {"a": 1, "b": None}, True),
    whole({"$jsonSchema": {"dependencies": {"a": ["b"]}}}, {"c": 1}, True),
    whole({"$jsonSchema": {"dependencies": {"a": {"required": ["b"]}}}}, {"a": 1}, False),
    yes(field({"properties": {"b": {"minimum": 1}}, "required": ["b"]}), {"b": 1}, 5, MISSING, [{}]),
    no(field({"properties": {"b": {"minimum": 1}}, "required": ["b"]}), {}, {"b": 0}),
)
COMBINED = schema_table(
    "$jsonSchema",
    yes(field({"enum": [1, "x", None, {"k": 1, "l": 2}]}), 1, 1.0, "x", None, {"l": 2, "k": 1}, MISSING),
    no(field({"enum": [1, "x", None]}), 2, "y", [1], True),
    yes(field({"allOf": [{"minimum": 1}, {"maximum": 5}]}), 3, "x", MISSING),
    no(field({"allOf": [{"minimum": 1}, {"maximum": 5}]}), 0, 6),
    yes(field({"anyOf": [{"bsonType": "int"}, {"minLength": 2}]}), 1, "ab", None),
    no(field({"anyOf": [{"bsonType": "int"}, {"bsonType": "string", "minLength": 2}]}), "a", None, []),
    yes(field({"oneOf": [{"minimum": 5}, {"maximum": 5}]}), 6, 4),
    no(field({"oneOf": [{"minimum": 5}, {"maximum": 5}]}), 5, "x"),
    yes(field({"not": {"bsonType": "string"}}), 1, None, MISSING),
    no(field({"not": {"bsonType": "string"}}), "x"),
    yes(field({"title": "t", "description": "d"}), 1, MISSING),
    whole({"$jsonSchema": {}}, {}, True),
    whole({"$jsonSchema": {"required": ["a"]}, "b": 1}, {"a": 1, "b": 1}, True),
    whole({"$jsonSchema": {"required": ["a"]}, "b": 1}, {"a": 1}, False),
    whole({"$nor": [{"$jsonSchema": {"required": ["a"]}}]}, {"b": 1}, True),
    whole({"a": {"$elemMatch": {"$jsonSchema": {"required": ["x"]}}}}, {"a": [{"y": 1}, {"x": 1}]}, True),
    whole({"a": {"$elemMatch": {"$jsonSchema": {"required": ["x"]}}}}, {"a": [{"y": 1}]}, False),
)

TABLES = (TYPES, NUMBERS, TEXTS, ARRAYS, OBJECTS, COMBINED)
