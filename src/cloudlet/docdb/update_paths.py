"""The paths of an update, and the array filters they refer to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from cloudlet.docdb.filter import is_costly
from cloudlet.docdb.filter.match import compile_node
from cloudlet.docdb.filter.parse import parse_filter
from cloudlet.docdb.limits import PATH_SEGMENTS_MAX
from cloudlet.docdb.paths import Segments, array_index
from cloudlet.docdb.update_errors import Code, refused
from cloudlet.docdb.update_tree import EVERY, POSITION
from cloudlet.docdb.values import Value
from cloudlet.model.errors import InvalidFilter

ARRAY_FILTERS_MAX: Final = 100
_IDENTIFIER: Final = re.compile(r"[a-z][A-Za-z0-9]*\Z")
_REFERENCE_FIELDS: Final = frozenset({"$id", "$ref", "$db"})

Tests = Mapping[str, Callable[[Value], bool]]


def update_path(path: str, filters: Tests) -> Segments:
    """The steps of a path that is to be written. Raises InvalidUpdate."""
    if not path.isascii() or not path.replace("_", "").isalnum():
        return _checked(path, filters)
    return ((path, array_index(path)),)


def is_dynamic(step: str) -> bool:
    """Whether a step stands for elements that only the document at hand can tell."""
    return step == POSITION or (step.startswith("$[") and step.endswith("]"))


def array_filters(value: Value) -> Tests:
    """The tests of elements by step (``$[id]``). Raises InvalidUpdate that names the filter."""
    if value is None:
        return {}
    if type(value) is not list:
        raise refused(Code.TypeMismatch, "arrayFilters must be an array of filters")
    if len(value) > ARRAY_FILTERS_MAX:
        raise refused(Code.BadValue, f"an update may have {ARRAY_FILTERS_MAX} array filters")
    tests: dict[str, Callable[[Value], bool]] = {}
    for item in value:
        name = _identifier(item)
        if f"$[{name}]" in tests:
            raise refused(
                Code.FailedToParse, f"Found multiple array filters with the same top-level field name {name}"
            )
        tests[f"$[{name}]"] = _test(name, item)
    return tests


def check_all_used(filters: Tests, paths: list[Segments]) -> None:
    """Raises InvalidUpdate if a filter is named by no path: it would be a slip of the pen."""
    used = {step for segments in paths for step, _ in segments}
    for step in filters:
        if step not in used:
            raise refused(
                Code.FailedToParse,
                f"The array filter for identifier '{step[2:-1]}' was not used in the update",
            )


def _checked(path: str, filters: Tests) -> Segments:
    names = path.split(".")
    if len(names) > PATH_SEGMENTS_MAX:
        raise refused(Code.BadValue, f"a path has more than {PATH_SEGMENTS_MAX} segments")
    if path == "":
        raise refused(Code.EmptyFieldName, "An empty update path is not valid.")
    if "" in names:
        raise refused(
            Code.EmptyFieldName,
            f"The update path '{path[:200]}' contains an empty field name, which is not allowed.",
        )
    if "\0" in path:
        raise refused(Code.BadValue, f"the update path {path[:200]!r} holds a null character")
    if names.count(POSITION) > 1:
        raise refused(Code.BadValue, f"Too many positional (i.e. '$') elements found in path '{path[:200]}'")
    return tuple((_step(path, at, name, filters), array_index(name)) for at, name in enumerate(names))


def _step(path: str, at: int, name: str, filters: Tests) -> str:
    if not name.startswith("$"):
        return name
    if not is_dynamic(name):
        if at and name in _REFERENCE_FIELDS:
            return name
        raise refused(
            Code.DollarPrefixedFieldName,
            f"The dollar ($) prefixed field '{name[:80]}' in '{path[:200]}' is not valid for storage.",
        )
    if at == 0:
        kind = "positional (i.e. '$')" if name == POSITION else "array filter identifier (i.e. '$[<id>]')"
        raise refused(
            Code.BadValue, f"Cannot have {kind} element in the first position in path '{path[:200]}'"
        )
    if name not in (POSITION, EVERY) and name not in filters:
        raise refused(
            Code.BadValue, f"No array filter found for identifier '{name[2:-1][:80]}' in path '{path[:200]}'"
        )
    return name


def _identifier(item: Value) -> str:
    if type(item) is not dict:
        raise refused(Code.TypeMismatch, "an array filter must be an object")
    names = list(dict.fromkeys(_top_names(item, 0)))
    if not names:
        raise refused(
            Code.FailedToParse, "Cannot use an expression without a top-level field name in arrayFilters"
        )
    if len(names) > 1:
        raise refused(
            Code.FailedToParse,
            "Error parsing array filter: Expected a single top-level field name, "
            f"found '{names[0][:80]}' and '{names[1][:80]}'",
        )
    if not _IDENTIFIER.match(names[0]):
        raise refused(
            Code.BadValue,
            "Error parsing array filter: The top-level field name must be an alphanumeric string "
            f"beginning with a lowercase letter, found '{names[0][:80]}'",
        )
    return names[0]


def _top_names(item: Value, depth: int) -> list[str]:
    """First segments of all paths of a filter; how deep it may be is the filter parser's affair."""
    found = []
    for name, operand in item.items() if type(item) is dict else ():
        if not name.startswith("$"):
            found.append(name.split(".", 1)[0])
        elif type(operand) is list and depth < PATH_SEGMENTS_MAX:
            for child in operand:
                found += _top_names(child, depth + 1)
    return found


def _test(name: str, item: Value) -> Callable[[Value], bool]:
    try:
        node = parse_filter(item)
    except InvalidFilter as exc:
        raise refused(Code.BadValue, f"Error parsing array filter: {exc.message}") from exc
    if is_costly(node):
        raise refused(Code.BadValue, "the regular expression of an array filter is too costly")
    match = compile_node(node)
    return lambda element: match({name: element})
