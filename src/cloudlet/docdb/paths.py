"""Dotted paths: splitting them, and finding what a path means in a document.

A path goes through arrays at every level: into each object an array holds, and into one element if the
segment is a number. What is found at the end is not taken apart here; a leaf that is an array is the
matcher's affair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from cloudlet.docdb.limits import PATH_SEGMENTS_MAX
from cloudlet.docdb.values import MISSING, Document, Value
from cloudlet.model.errors import InvalidRequest

Segments: TypeAlias = tuple[tuple[str, int], ...]
"""Name and array index of each segment; the index is -1 where the name is no number."""

Test: TypeAlias = Callable[[Value], bool]
"""A test of one value, which may be MISSING."""

_INDEX_DIGITS_MAX = 7


def split_path(path: str, error: type[InvalidRequest]) -> Segments:
    """The segments of ``path``; raises ``error`` if it is empty, too deep or has an empty segment."""
    names = path.split(".")
    if len(names) > PATH_SEGMENTS_MAX:
        raise error(f"a path has more than {PATH_SEGMENTS_MAX} segments")
    if "" in names or "\0" in path:
        raise error(f"the path {path[:80]!r} has an empty field name or a null character")
    return tuple((name, array_index(name)) for name in names)


def array_index(name: str) -> int:
    """The array index a segment means, or -1. ``01`` is a name, not an index."""
    if (
        name.isdecimal()
        and name.isascii()
        and len(name) <= _INDEX_DIGITS_MAX
        and (name == "0" or name[0] != "0")
    ):
        return int(name)
    return -1


def resolve(document: Document, segments: Segments) -> list[Value]:
    """All values the path leads to; MISSING where an object on the way lacks the field.

    Nothing at all is found where the way ends in an array without suitable elements.
    """
    found: list[Value] = []
    _walk(document, segments, 0, found)
    return found


def leaves(document: Document, segments: Segments) -> list[Value]:
    """What a condition on the path looks at: ``resolve``, and one thing more.

    A segment that is a number is tried as an index of an array and as a field of each of its objects; an
    object without that field counts as MISSING here, while ``resolve`` (for sorting) passes over it.
    """
    found: list[Value] = []

    def collect(value: Value) -> bool:
        found.append(value)
        return False

    reaches(document, segments, 0, collect, collect)
    return found


def reaches(value: Document, segments: Segments, at: int, leaf: Test, element: Test) -> bool:
    """Whether something the path leads to passes its test.

    ``leaf`` tests what stands at the end of the path (MISSING included), ``element`` an array's element that
    the last segment names by its index: such an element is not taken apart if it is an array itself.
    """
    last = len(segments) - 1
    while True:
        found = value.get(segments[at][0], MISSING)
        if at == last:
            return leaf(found)
        at += 1
        kind = type(found)
        if kind is dict:
            value = found
        elif kind is list:
            return reaches_through(found, segments, at, leaf, element)
        else:
            return leaf(MISSING)


def reaches_through(array: list[Value], segments: Segments, at: int, leaf: Test, element: Test) -> bool:
    """``reaches`` from an array on, of which ``segments[at]`` is an index or a field of its objects."""
    index = segments[at][1]
    last = at + 1 == len(segments)
    for number, item in enumerate(array):
        kind = type(item)
        if kind is dict and reaches(item, segments, at, leaf, element):
            return True
        if number != index:
            continue
        if last:
            if element(item):
                return True
        elif (kind is dict and reaches(item, segments, at + 1, leaf, element)) or (
            kind is list and reaches_through(item, segments, at + 1, leaf, element)
        ):
            return True
    return False


def _walk(value: Value, segments: Segments, at: int, found: list[Value]) -> None:
    while at < len(segments):
        kind = type(value)
        if kind is dict:
            value = value.get(segments[at][0], MISSING)
            if value is MISSING:
                break
            at += 1
        elif kind is list:
            _walk_array(value, segments, at, found)
            return
        else:
            value = MISSING
            break
    found.append(value)


def _walk_array(value: list[Value], segments: Segments, at: int, found: list[Value]) -> None:
    name, index = segments[at]
    if 0 <= index < len(value):
        item = value[index]
        if at + 1 == len(segments) or type(item) is dict or type(item) is list:
            _walk(item, segments, at + 1, found)
    for item in value:
        if type(item) is dict and (index < 0 or name in item):
            _walk(item, segments, at, found)
