"""``$jsonSchema``: MongoDB's part of JSON Schema draft 4, with ``bsonType`` added.

A schema is checked completely when the filter is parsed (``parse_schema``); a keyword that is not known is
refused by name. ``schema_test`` turns a checked schema into one test of a value. A keyword about numbers,
texts, arrays or objects says nothing about values of other types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from cloudlet.docdb.filter.ast import Schema
from cloudlet.docdb.filter.bsontypes import is_type_name, type_names
from cloudlet.docdb.filter.leaf import regex_test, type_test
from cloudlet.docdb.numeric import CONTEXT, is_nan, is_number, is_whole, to_decimal, whole_64
from cloudlet.docdb.paths import Test
from cloudlet.docdb.values import Document, OrderKey, Regex, Value, order_key, type_name
from cloudlet.model.errors import InvalidFilter

SCHEMAS_MAX: Final = 2_000
"""Schemas inside one schema, itself included."""
SCHEMA_DEPTH_MAX: Final = 40

_JSON_TYPES: Final = {
    "object": "object",
    "array": "array",
    "number": "number",
    "boolean": "bool",
    "string": "string",
    "null": "null",
}
_UNSUPPORTED: Final = frozenset({"$ref", "$schema", "default", "definitions", "format", "id"})


def parse_schema(value: Value, check_pattern: Callable[[Regex], None]) -> Schema:
    """The node of a schema. Raises InvalidFilter that names the keyword."""
    if type(value) is not dict:
        raise InvalidFilter("$jsonSchema must be an object")
    check = _Check(check_pattern)
    check.schema(value, 0)
    return Schema(value, tuple(check.patterns), check.schemas)


class _Check:
    """One walk through a schema; gathers its patterns."""

    def __init__(self, check_pattern: Callable[[Regex], None]) -> None:
        self._check_pattern = check_pattern
        self.patterns: list[Regex] = []
        self.schemas = 0

    def schema(self, value: Value, depth: int, place: str = "$jsonSchema") -> None:
        if type(value) is not dict:
            raise InvalidFilter(f"$jsonSchema: {place} must be an object")
        self.schemas += 1
        if self.schemas > SCHEMAS_MAX:
            raise InvalidFilter(f"$jsonSchema has more than {SCHEMAS_MAX} schemas")
        if depth > SCHEMA_DEPTH_MAX:
            raise InvalidFilter(f"$jsonSchema is nested more than {SCHEMA_DEPTH_MAX} levels deep")
        for keyword, content in value.items():
            checker = _CHECKS.get(keyword)
            if checker is None:
                state = "not supported" if keyword in _UNSUPPORTED else "not known"
                raise InvalidFilter(f"the $jsonSchema keyword '{keyword[:80]}' is {state}")
            checker(self, keyword, content, depth)
        for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if exclusive in value and bound not in value:
                raise InvalidFilter(f"$jsonSchema: {exclusive} needs {bound}")
        if "type" in value and "bsonType" in value:
            raise InvalidFilter("$jsonSchema cannot have both type and bsonType")

    def text(self, keyword: str, content: Value, _depth: int) -> None:
        if type(content) is not str:
            _wrong(keyword, "text", content)

    def flag(self, keyword: str, content: Value, _depth: int) -> None:
        if type(content) is not bool:
            _wrong(keyword, "true or false", content)

    def number(self, keyword: str, content: Value, _depth: int) -> None:
        if not is_number(content) or is_nan(content):
            _wrong(keyword, "a number", content)

    def divisor(self, keyword: str, content: Value, depth: int) -> None:
        self.number(keyword, content, depth)
        if content <= 0:
            _wrong(keyword, "a number above 0", content)

    def count(self, keyword: str, content: Value, _depth: int) -> None:
        whole = whole_64(content)
        if whole is None or whole < 0:
            _wrong(keyword, "a whole number from 0 on", content)

    def types(self, keyword: str, content: Value, _depth: int) -> None:
        names = content if type(content) is list else [content]
        if not names or not all(type(name) is str for name in names) or len(set(names)) != len(names):
            _wrong(keyword, "a name of a type or an array of different ones", content)
        for name in names:
            if not (name in _JSON_TYPES if keyword == "type" else is_type_name(name)):
                raise InvalidFilter(f"$jsonSchema: {keyword} does not know the type '{name[:80]}'")

    def pattern(self, keyword: str, content: Value, _depth: int) -> None:
        if type(content) is not str:
            _wrong(keyword, "text", content)
        self._check_pattern(Regex(content))
        self.patterns.append(Regex(content))

    def values(self, keyword: str, content: Value, _depth: int) -> None:
        if type(content) is not list or not content or len(content) > SCHEMAS_MAX:
            _wrong(keyword, f"an array of 1 to {SCHEMAS_MAX} values", content)
        if len({_unordered_key(item) for item in content}) != len(content):
            raise InvalidFilter(f"$jsonSchema: {keyword} has the same value twice")

    def names(self, keyword: str, content: Value, _depth: int) -> None:
        if type(content) is not list or not content or not all(type(name) is str for name in content):
            _wrong(keyword, "an array of names", content)
        if len(set(content)) != len(content):
            raise InvalidFilter(f"$jsonSchema: {keyword} has the same name twice")

    def one(self, keyword: str, content: Value, depth: int) -> None:
        self.schema(content, depth + 1, keyword)

    def one_or_flag(self, keyword: str, content: Value, depth: int) -> None:
        if type(content) is not bool:
            self.schema(content, depth + 1, keyword)

    def several(self, keyword: str, content: Value, depth: int) -> None:
        if type(content) is not list or not content:
            _wrong(keyword, "a nonempty array of schemas", content)
        for item in content:
            self.schema(item, depth + 1, keyword)

    def one_or_several(self, keyword: str, content: Value, depth: int) -> None:
        for item in content if type(content) is list else [content]:
            self.schema(item, depth + 1, keyword)

    def named(self, keyword: str, content: Value, depth: int) -> None:
        if type(content) is not dict:
            _wrong(keyword, "an object of schemas", content)
        for item in content.values():
            self.schema(item, depth + 1, keyword)

    def by_pattern(self, keyword: str, content: Value, depth: int) -> None:
        self.named(keyword, content, depth)
        for pattern in content:
            self.pattern(keyword, pattern, depth)

    def dependencies(self, keyword: str, content: Value, depth: int) -> None:
        if type(content) is not dict:
            _wrong(keyword, "an object", content)
        for item in content.values():
            if type(item) is list:
                self.names(keyword, item, depth)
            else:
                self.schema(item, depth + 1, keyword)


_CHECKS: Final[dict[str, Callable[[_Check, str, Value, int], None]]] = {
    "title": _Check.text,
    "description": _Check.text,
    "type": _Check.types,
    "bsonType": _Check.types,
    "enum": _Check.values,
    "minimum": _Check.number,
    "maximum": _Check.number,
    "exclusiveMinimum": _Check.flag,
    "exclusiveMaximum": _Check.flag,
    "multipleOf": _Check.divisor,
    "minLength": _Check.count,
    "maxLength": _Check.count,
    "pattern": _Check.pattern,
    "items": _Check.one_or_several,
    "additionalItems": _Check.one_or_flag,
    "minItems": _Check.count,
    "maxItems": _Check.count,
    "uniqueItems": _Check.flag,
    "required": _Check.names,
    "properties": _Check.named,
    "patternProperties": _Check.by_pattern,
    "additionalProperties": _Check.one_or_flag,
    "minProperties": _Check.count,
    "maxProperties": _Check.count,
    "dependencies": _Check.dependencies,
    "allOf": _Check.several,
    "anyOf": _Check.several,
    "oneOf": _Check.several,
    "not": _Check.one,
}


def _wrong(keyword: str, wanted: str, content: Value) -> None:
    raise InvalidFilter(f"$jsonSchema: {keyword} must be {wanted}, not {type_name(content)}")


def schema_test(schema: Document, subject_max: int | None) -> Test:
    """The test of a value by a checked schema. It raises Overrun before searching a longer text."""
    tests = list(_Tests(schema, subject_max).all())
    return lambda value: all(test(value) for test in tests)


class _Tests:
    """The tests of one schema, each of which passes values it says nothing about."""

    def __init__(self, schema: Document, subject_max: int | None) -> None:
        self.schema = schema
        self.subject_max = subject_max

    def all(self) -> Iterator[Test]:
        yield from self.of_any_value()
        for kinds, made in ((_is_text, self.of_text()), (is_number, self.of_number())):
            yield from (_only(kinds, test) for test in made)
        for kind, tests in ((list, self.of_array()), (dict, self.of_object())):
            yield from (_only_type(kind, test) for test in tests)

    def inner(self, schema: Value) -> Test:
        if type(schema) is bool:
            return lambda _: schema
        return schema_test(schema, self.subject_max)

    def of_any_value(self) -> Iterator[Test]:
        schema = self.schema
        for keyword in ("type", "bsonType"):
            if keyword in schema:
                given = schema[keyword] if type(schema[keyword]) is list else [schema[keyword]]
                names = type_names([_JSON_TYPES[name] for name in given] if keyword == "type" else given)
                yield type_test(names)
        if "enum" in schema:
            keys = frozenset(map(_unordered_key, schema["enum"]))
            yield lambda value: _unordered_key(value) in keys
        if "allOf" in schema:
            yield from map(self.inner, schema["allOf"])
        if "anyOf" in schema:
            yield _count_of(list(map(self.inner, schema["anyOf"])), lambda count: count > 0)
        if "oneOf" in schema:
            yield _count_of(list(map(self.inner, schema["oneOf"])), lambda count: count == 1)
        if "not" in schema:
            unwanted = self.inner(schema["not"])
            yield lambda value: not unwanted(value)

    def of_number(self) -> Iterator[Test]:
        schema = self.schema
        if "minimum" in schema:
            low, above = schema["minimum"], schema.get("exclusiveMinimum", False)
            yield lambda value: value > low if above else value >= low
        if "maximum" in schema:
            high, below = schema["maximum"], schema.get("exclusiveMaximum", False)
            yield lambda value: value < high if below else value <= high
        if "multipleOf" in schema:
            divisor = schema["multipleOf"]
            yield lambda value: _is_multiple(value, divisor)

    def of_text(self) -> Iterator[Test]:
        schema = self.schema
        if "minLength" in schema:
            yield lambda value: len(value) >= schema["minLength"]
        if "maxLength" in schema:
            yield lambda value: len(value) <= schema["maxLength"]
        if "pattern" in schema:
            yield regex_test(Regex(schema["pattern"]), self.subject_max)

    def of_array(self) -> Iterator[Test]:
        schema = self.schema
        if "minItems" in schema:
            yield lambda value: len(value) >= schema["minItems"]
        if "maxItems" in schema:
            yield lambda value: len(value) <= schema["maxItems"]
        if schema.get("uniqueItems"):
            yield lambda value: len({_unordered_key(item) for item in value}) == len(value)
        items = schema.get("items", [])
        if type(items) is dict:
            each = self.inner(items)
            yield lambda value: all(map(each, value))
            return
        first = list(map(self.inner, items))
        if first:
            yield lambda value: all(test(item) for test, item in zip(first, value, strict=False))
        if first and "additionalItems" in schema:
            rest = self.inner(schema["additionalItems"])
            yield lambda value: all(map(rest, value[len(first) :]))

    def of_object(self) -> Iterator[Test]:
        schema = self.schema
        if "required" in schema:
            required = frozenset(schema["required"])
            yield lambda value: required <= value.keys()
        if "minProperties" in schema:
            yield lambda value: len(value) >= schema["minProperties"]
        if "maxProperties" in schema:
            yield lambda value: len(value) <= schema["maxProperties"]
        yield from self.of_fields()
        for name, needed in schema.get("dependencies", {}).items():
            yield _dependency(name, needed, self.inner)

    def of_fields(self) -> Iterator[Test]:
        schema = self.schema
        named = [(name, self.inner(inner)) for name, inner in schema.get("properties", {}).items()]
        for name, test in named:
            yield _field(name, test)
        patterns = [
            (regex_test(Regex(pattern), self.subject_max), self.inner(inner))
            for pattern, inner in schema.get("patternProperties", {}).items()
        ]
        for found, test in patterns:
            yield _fields_like(found, test)
        if "additionalProperties" in schema:
            known = frozenset(name for name, _ in named)
            rest = self.inner(schema["additionalProperties"])
            yield lambda value: all(
                rest(item)
                for name, item in value.items()
                if name not in known and not any(found(name) for found, _ in patterns)
            )


def _is_text(value: Value) -> bool:
    return type(value) is str


def _only(applies: Test, test: Test) -> Test:
    return lambda value: not applies(value) or test(value)


def _only_type(kind: type, test: Test) -> Test:
    return lambda value: type(value) is not kind or test(value)


def _count_of(tests: list[Test], right: Callable[[int], bool]) -> Test:
    return lambda value: right(sum(test(value) for test in tests))


def _field(name: str, test: Test) -> Test:
    return lambda value: name not in value or test(value[name])


def _fields_like(found: Test, test: Test) -> Test:
    return lambda value: all(test(item) for name, item in value.items() if found(name))


def _dependency(name: str, needed: Value, inner: Callable[[Value], Test]) -> Test:
    if type(needed) is list:
        return lambda value: name not in value or all(other in value for other in needed)
    test = inner(needed)
    return lambda value: name not in value or test(value)


def _is_multiple(value: Value, divisor: Value) -> bool:
    if is_whole(value) and is_whole(divisor):
        return bool(value % divisor == 0)
    return bool(CONTEXT.remainder(to_decimal(value), to_decimal(divisor)) == 0)


def _unordered_key(value: Value) -> OrderKey:
    """The key of a value for a schema, to which the order of fields is nothing."""
    return order_key(_sorted(value))


def _sorted(value: Value) -> Value:
    if type(value) is dict:
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if type(value) is list else value
