"""Operators that bring variables: ``$let``, ``$map``, ``$filter``, ``$reduce``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cloudlet.docdb.pipeline.expressions.base import (
    Builder,
    Compiler,
    Expression,
    Variables,
    checked_names,
    kind_name,
    nullish,
    refused,
    spend,
    truthy,
)
from cloudlet.docdb.pipeline.expressions.numbers import whole_number
from cloudlet.docdb.values import Document, Value


def user_name(name: Value) -> str:
    """A name as a user may choose it for a variable. Raises InvalidFilter."""
    if type(name) is not str or not name:
        raise refused(16866, "empty variable names are not allowed")
    if name == "CURRENT":
        return name
    first = name[0]
    if first.isascii() and not first.islower():
        raise refused(16867, f"'{name[:80]}' starts with an invalid character for a user variable name")
    for letter in name:
        if letter.isascii() and not letter.isalnum() and letter != "_":
            raise refused(
                16868, f"'{name[:80]}' contains an invalid character for a variable name: '{letter}'"
            )
    return name


def _let(compiler: Compiler, name: str, operand: Value) -> Expression:
    given = checked_names(name, operand, ("vars", "in"))
    if type(given["vars"]) is not dict:
        raise refused(
            16876, f"invalid parameter: expected an object (vars), found: {kind_name(given['vars'])}"
        )
    bindings = [(user_name(key), compiler.compile(item)) for key, item in given["vars"].items()]
    body = compiler.inner(*[key for key, _ in bindings]).compile(given["in"])

    def evaluate(document: Document, variables: Variables) -> Value:
        inner = dict(variables)
        for key, item in bindings:
            inner[key] = item(document, variables)
        return body(document, inner)

    return evaluate


def _map(compiler: Compiler, name: str, operand: Value) -> Expression:
    given = checked_names(name, operand, ("input", "in"), ("as",))
    source, variable = compiler.compile(given["input"]), user_name(given.get("as", "this"))
    body = compiler.inner(variable).compile(given["in"])

    def evaluate(document: Document, variables: Variables) -> Value:
        items = source(document, variables)
        if nullish(items):
            return None
        if type(items) is not list:
            raise refused(16883, f"input to $map must be an array not {kind_name(items)}")
        spend(variables, len(items))
        inner = dict(variables)
        made = []
        for item in items:
            inner[variable] = item
            found = body(document, inner)
            made.append(None if nullish(found) else found)
        return made

    return evaluate


def _filter(compiler: Compiler, name: str, operand: Value) -> Expression:
    given = checked_names(name, operand, ("input", "cond"), ("as", "limit"))
    source, variable = compiler.compile(given["input"]), user_name(given.get("as", "this"))
    condition = compiler.inner(variable).compile(given["cond"])
    limit = compiler.compile(given["limit"]) if "limit" in given else None

    def evaluate(document: Document, variables: Variables) -> Value:
        items = source(document, variables)
        if nullish(items):
            return None
        if type(items) is not list:
            raise refused(28651, f"input to $filter must be an array not {kind_name(items)}")
        most = _limit(limit(document, variables)) if limit else None
        spend(variables, len(items))
        inner = dict(variables)
        kept: list[Value] = []
        for item in items:
            inner[variable] = item
            if truthy(condition(document, inner)):
                kept.append(item)
                if len(kept) == most:
                    break
        return kept

    return evaluate


def _limit(value: Value) -> int | None:
    if nullish(value):
        return None
    limit = whole_number(value, 327391, "$filter: limit")
    if limit <= 0:
        raise refused(327392, f"$filter: limit must be greater than 0, found: {limit}")
    return limit


def _reduce(compiler: Compiler, name: str, operand: Value) -> Expression:
    given = checked_names(name, operand, ("input", "initialValue", "in"))
    source, start = compiler.compile(given["input"]), compiler.compile(given["initialValue"])
    body = compiler.inner("this", "value").compile(given["in"])

    def evaluate(document: Document, variables: Variables) -> Value:
        items = source(document, variables)
        if nullish(items):
            return None
        if type(items) is not list:
            raise refused(40080, f"$reduce requires that 'input' be an array, found: {kind_name(items)}")
        spend(variables, len(items))
        inner = dict(variables)
        found = start(document, variables)
        for item in items:
            inner["this"], inner["value"] = item, found
            found = body(document, inner)
        return found

    return evaluate


OPERATORS: Final[Mapping[str, Builder]] = {
    "$let": _let,
    "$map": _map,
    "$filter": _filter,
    "$reduce": _reduce,
}
"""Operators with variables of their own."""
