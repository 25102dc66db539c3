"""Objects: their fields as values and values as their fields; and ``$literal``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from cloudlet.docdb.pipeline.expressions.arrays import over_values
from cloudlet.docdb.pipeline.expressions.base import (
    Builder,
    Compiler,
    Constant,
    Expression,
    Variables,
    checked_names,
    kind_name,
    nullish,
    refused,
    unary,
)
from cloudlet.docdb.values import MISSING, Document, Value


def merged(values: Iterable[Value]) -> Document:
    """One object with the fields of all; later ones win. Raises InvalidFilter for what is no object."""
    found: Document = {}
    for value in values:
        if nullish(value):
            continue
        if type(value) is not dict:
            raise refused(
                40400, f"$mergeObjects requires object inputs, but input is of type {kind_name(value)}"
            )
        found.update(value)
    return found


def _to_array(value: Value) -> Value:
    if nullish(value):
        return None
    if type(value) is not dict:
        raise refused(40390, f"$objectToArray requires a document input, found: {kind_name(value)}")
    return [{"k": name, "v": item} for name, item in value.items()]


def _from_array(array: Value) -> Value:
    if nullish(array):
        return None
    if type(array) is not list:
        raise refused(40386, f"$arrayToObject requires an array input, found: {kind_name(array)}")
    pairs = array and type(array[0]) is list
    made: Document = {}
    for item in array:
        name, value = _pair(item) if pairs else _named_pair(item)
        if type(name) is not str:
            raise refused(40395, f"$arrayToObject requires keys of type string, found: {kind_name(name)}")
        if "\0" in name:
            raise refused(4940400, "Key field cannot contain an embedded null byte")
        made[name] = value
    return made


def _pair(item: Value) -> tuple[Value, Value]:
    if type(item) is not list:
        raise refused(
            40396, f"$arrayToObject requires a consistent input format: an array, found: {kind_name(item)}"
        )
    if len(item) != 2:
        raise refused(
            40397, f"$arrayToObject requires an array of size 2 arrays, found array of size: {len(item)}"
        )
    return item[0], item[1]


def _named_pair(item: Value) -> tuple[Value, Value]:
    if type(item) is not dict:
        raise refused(
            40391, f"$arrayToObject requires a consistent input format: objects, found: {kind_name(item)}"
        )
    if item.keys() != {"k", "v"}:
        raise refused(40392, "$arrayToObject requires an object keys of 'k' and 'v'")
    return item["k"], item["v"]


def _get_field(compiler: Compiler, name: str, operand: Value) -> Expression:
    if type(operand) is dict and not next(iter(operand), "").startswith("$"):
        given = checked_names(name, operand, ("field", "input"))
        field, source = _field_name(compiler, given["field"]), compiler.compile(given["input"])
    else:
        field, source = _field_name(compiler, operand), compiler.compile("$$CURRENT")

    def evaluate(document: Document, variables: Variables) -> Value:
        value = source(document, variables)
        if type(value) is dict:
            return value.get(field, MISSING)
        return None if value is None else MISSING

    return evaluate


def _set_field(compiler: Compiler, name: str, operand: Value) -> Expression:
    needed = ("field", "input") if name == "$unsetField" else ("field", "input", "value")
    given = checked_names(name, operand, needed)
    field, source = _field_name(compiler, given["field"]), compiler.compile(given["input"])
    made = compiler.compile(given["value"]) if "value" in given else Constant(MISSING)

    def evaluate(document: Document, variables: Variables) -> Value:
        value = source(document, variables)
        if nullish(value):
            return None
        if type(value) is not dict:
            raise refused(
                4161105, f"{name} requires 'input' to evaluate to type Object, found: {kind_name(value)}"
            )
        new = made(document, variables)
        if new is MISSING:
            return {key: item for key, item in value.items() if key != field}
        return {**value, field: new}

    return evaluate


def _field_name(compiler: Compiler, value: Value) -> str:
    """A constant name; unlike elsewhere it may hold dots and start with $ inside ``$literal``."""
    if type(value) is str and value.startswith("$"):
        raise refused(
            5654600,
            "A field path reference which is not allowed in this context. Did you mean {$literal: …}?",
        )
    found = compiler.compile(value)
    if not isinstance(found, Constant) or type(found.value) is not str:
        raise refused(5654602, "a field name must be a constant of type string")
    return found.value


def _literal(_compiler: Compiler, _name: str, operand: Value) -> Expression:
    return Constant(operand)


def _meta(_compiler: Compiler, _name: str, operand: Value) -> Expression:
    raise refused(17308, f"$meta has no {str(operand)[:40]!r} here: there are no text indexes")


OPERATORS: Final[Mapping[str, Builder]] = {
    "$arrayToObject": unary(_from_array),
    "$getField": _get_field,
    "$literal": _literal,
    "$const": _literal,
    "$mergeObjects": over_values(merged),
    "$meta": _meta,
    "$objectToArray": unary(_to_array),
    "$setField": _set_field,
    "$unsetField": _set_field,
}
"""Objects."""
