"""Dotted paths: splitting them, and finding what a path means in a document.

A path goes through arrays at every level: into each object an array holds, and into one element if the
segment is a number. What is found at the end is not taken apart here; a leaf that is an array is the
matcher's affair.
"""

from __future__ import annotations

from typing import TypeAlias

from cloudlet.docdb.limits import PATH_SEGMENTS_MAX
from cloudlet.docdb.values import MISSING, Document, Value
from cloudlet.model.errors import InvalidRequest

Segments: TypeAlias = tuple[tuple[str, int], ...]
"""Name and array index of each segment; the index is -1 where the name is no number."""

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
