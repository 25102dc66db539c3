"""What SQLite may throw away by itself when a collection is scanned: never a document that matches.

Only equalities with text, numbers and booleans are told to it. Whatever could meet an array on its way, or a
number that is not stored as JSON's own, passes and is left to the matcher. Names and values are bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from cloudlet.docdb.filter.ast import And, Compare, In, Node, Op, Path
from cloudlet.docdb.numeric import NUMBERS, is_nan
from cloudlet.docdb.values import Value

VALUES_MAX: Final = 32
NUMBER_MAX: Final = 1e15
"""Beyond this doubles and integers part, and what is close is hard to say."""
_CLOSE: Final = 1e-12
"""A stored number is read by SQLite, which may be off in the last digits."""
_TEXT_MAX: Final = 1_000

Condition = tuple[str, tuple[Any, ...]]


def prefilter(node: Node) -> Condition | None:
    """A condition in SQL that every matching body meets, and its values; None if there is none to tell."""
    found = list(_conditions(node))
    if not found:
        return None
    return " AND ".join(text for text, _ in found), tuple(value for _, values in found for value in values)


def _conditions(node: Node) -> Iterator[Condition]:
    match node:
        case And(children):
            for child in children:
                yield from _conditions(child)
        case Compare(path, Op.EQ, value) if _is_named(path):
            condition = _equal(path, (value,))
            if condition is not None:
                yield condition
        case In(path, values, ()) if _is_named(path) and 0 < len(values) <= VALUES_MAX:
            condition = _equal(path, values)
            if condition is not None:
                yield condition


def _equal(path: Path, values: Sequence[Value]) -> Condition | None:
    """The value at the path is one of these, or something that the matcher has to look at."""
    tests: list[str] = []
    bound: list[Any] = []
    ways = _ways(path)
    for value in values:
        if type(value) is str and "\0" not in value and len(value) <= _TEXT_MAX:
            tests.append("json_extract(body, ?) = ?")
            bound += [ways[-1], value]
        elif type(value) is bool:
            tests.append("json_type(body, ?) = ?")
            bound += [ways[-1], "true" if value else "false"]
        elif type(value) in NUMBERS and not is_nan(value) and abs(value) < NUMBER_MAX:
            number = float(value)
            tests.append("json_extract(body, ?) BETWEEN ? AND ? OR json_type(body, ?) = 'object'")
            near = abs(number) * _CLOSE
            bound += [ways[-1], number - near, number + near, ways[-1]]
        else:
            return None
    for way in ways:
        tests.append("json_type(body, ?) = 'array'")
        bound.append(way)
    return f"({' OR '.join(tests)})", tuple(bound)


def _ways(path: Path) -> list[str]:
    """The path and all that lead to it, as SQLite writes them."""
    ways = []
    way = "$"
    for name, _ in path.segments:
        way += f'."{name}"'
        ways.append(way)
    return ways


def _is_named(path: Path) -> bool:
    """Names that are stored as they are written; bodies wrap what begins with a dollar."""
    return bool(path.segments) and all(
        name.isprintable() and name[:1] != "$" and '"' not in name and "\\" not in name
        for name, _ in path.segments
    )
