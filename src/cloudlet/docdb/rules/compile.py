"""From the JSON of a collection's rule to its expressions, checked once and kept.

::

    {"read": "doc.public == true || doc._openid == auth.openid",
     "write": "doc._openid == auth.openid",          create, update and delete fall back to it
     "create": "auth != null", "update": …, "delete": …,
     "fields": {"phone": {"read": "doc._openid == auth.openid", "write": false}}}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from cloudlet.docdb.filter.regex import is_cheap
from cloudlet.docdb.limits import PATH_SEGMENTS_MAX
from cloudlet.docdb.paths import split_path
from cloudlet.docdb.values import Regex
from cloudlet.model.errors import InvalidParameter
from cloudlet.rules.ast import Expr, Get, Known, Member, Name, Span, member_path, walk
from cloudlet.rules.lexer import RuleSyntax, failure
from cloudlet.rules.parse import Language, parse

RULE_LENGTH_MAX: Final = 65_536
STEADY_LENGTH_MAX: Final = 500
FIELDS_MAX: Final = 50
FIELD_DEPTH_MAX: Final = 16
_AUTH_FIELDS: Final = ("openid", "uid", "loginType")
_KEPT: Final = ("_id", "_openid")
"""Fields without which a document could be neither found nor owned."""


class Operation(Enum):
    """What a rule allows or denies."""

    READ = "read"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, eq=False)
class Clause:
    """One expression of a rule. ``key`` is where it stands: ``read``, ``write``, ``fields.phone.read`` …

    Each is equal to itself only, so that it is a cheap key.
    """

    key: str
    source: str
    expr: Expr
    get_paths: tuple[tuple[str, ...], ...] = ()
    """Fields of the document that ``get()`` uses."""
    steady: bool = False
    """It looks at nothing but the caller and the document, and is short: its goals may be kept."""


@dataclass(frozen=True, slots=True)
class FieldClause:
    """Who may see and who may write one field; None: everybody who may read or write the document."""

    path: tuple[str, ...]
    read: Clause | None = None
    write: Clause | None = None


@dataclass(frozen=True, slots=True)
class CollectionRule:
    """A compiled rule."""

    clauses: Mapping[Operation, Clause]
    fields: tuple[FieldClause, ...] = field(default=())


@lru_cache(maxsize=1_024)
def compile_rule(text: str) -> CollectionRule:
    """The rule of a JSON text. Raises InvalidParameter with key, position and what to write instead."""
    if len(text) > RULE_LENGTH_MAX:
        raise InvalidParameter(f"a rule may have {RULE_LENGTH_MAX} characters")
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()  # Half a surrogate pair is not text.
        value = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as exc:
        raise InvalidParameter(f"the rule is not JSON: {exc}") from exc
    if type(value) is not dict:
        raise InvalidParameter('a rule must be an object such as {"read": true, "write": false}')
    keys = [operation.value for operation in Operation]
    _refuse_unknown(value, (*keys, "write", "fields"), "a rule")
    fallback = _clause(value, "write", "write") if "write" in value else _denied("write")
    clauses = {}
    for operation in Operation:
        key = operation.value
        if key in value:
            clauses[operation] = _clause(value, key, key)
        else:
            clauses[operation] = _denied(key) if operation is Operation.READ else fallback
    return CollectionRule(MappingProxyType(clauses), tuple(_fields(value.get("fields", {}))))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return found


def _refuse_unknown(value: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in value:
        if key not in known:
            raise InvalidParameter(f"{what} has the keys {', '.join(known)}, not {key[:80]!r}")


def _denied(key: str) -> Clause:
    return Clause(key, "false", Known(False, Span(0, 5), written=True))


def _clause(value: Mapping[str, Any], key: str, where: str) -> Clause:
    given = value[key]
    if type(given) is bool:
        source = "true" if given else "false"
    elif type(given) is str:
        source = given
    else:
        raise InvalidParameter(f"rule {where}: write true, false or an expression as text")
    try:
        expr = parse(source, LANGUAGE)
        _check_names(expr)
    except RuleSyntax as exc:
        raise InvalidParameter(f"rule {where}: {exc.message}") from exc
    return Clause(where, source, expr, tuple(sorted(set(_get_paths(expr)))), _is_steady(source, expr))


def _is_steady(source: str, expr: Expr) -> bool:
    if len(source) > STEADY_LENGTH_MAX:
        return False
    return not any(
        isinstance(item, Get) or (isinstance(item, Name) and item.name in ("now", "request"))
        for item in walk(expr)
    )


def _get_paths(expr: Expr) -> Iterator[tuple[str, ...]]:
    for item in walk(expr):
        if isinstance(item, Get):
            for below in walk(item.path):
                found = member_path(below)
                if found is not None and found[0] == "doc" and found[1]:
                    yield found[1]


def _check_names(expr: Expr) -> None:
    for item in walk(expr):
        if not isinstance(item, Member) or not isinstance(item.object, Name):
            continue
        name, key = item.object.name, item.key.value if isinstance(item.key, Known) else None
        if name == "request" and key != "data":
            raise failure(item.span.start, "request has one field; write request.data")
        if name == "now":
            raise failure(item.span.start, "now is a number of milliseconds and has no fields")
        if name == "auth" and isinstance(key, str):
            for known in _AUTH_FIELDS:
                if key != known and key.lower().replace("_", "") == known.lower():
                    raise failure(item.span.start, f"write auth.{known} instead of auth.{key}")


def _check_pattern(pattern: str, options: str) -> None:
    if not is_cheap(Regex(pattern, options)):
        raise RuleSyntax(
            "this regular expression could take too long on some texts; "
            "anchor it with ^ and use at most one * or +"
        )


LANGUAGE: Final = Language(frozenset({"auth", "doc", "request", "now"}), _check_pattern)


def _fields(value: Any) -> Iterator[FieldClause]:
    if type(value) is not dict:
        raise InvalidParameter('fields must be an object such as {"phone": {"read": false}}')
    if len(value) > FIELDS_MAX:
        raise InvalidParameter(f"a rule may restrict {FIELDS_MAX} fields")
    for path, wanted in value.items():
        names = tuple(name for name, _ in split_path(path, InvalidParameter))
        if names[0] in _KEPT or len(names) > min(FIELD_DEPTH_MAX, PATH_SEGMENTS_MAX):
            raise InvalidParameter(f"fields.{path[:80]}: the field cannot be restricted")
        if any(name.isdecimal() or name.startswith("$") for name in names):
            raise InvalidParameter(f"fields.{path[:80]}: name a field, not an element or operator")
        if type(wanted) is not dict:
            raise InvalidParameter(f'fields.{path[:80]} must be an object such as {{"read": false}}')
        _refuse_unknown(wanted, ("read", "write"), f"fields.{path[:80]}")
        made = {key: _clause(wanted, key, f"fields.{path[:80]}.{key}") for key in wanted}
        for clause in made.values():
            if clause.get_paths:
                raise InvalidParameter(f"rule {clause.key}: get() cannot depend on doc in a rule of a field")
        yield FieldClause(names, made.get("read"), made.get("write"))
