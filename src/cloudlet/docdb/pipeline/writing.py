"""``$out`` and ``$merge``: what is to be written with the result of a pipeline.

Nothing is written here; the document service does it once the reading part is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias, TypeVar

from cloudlet.docdb.pipeline.expressions import refused
from cloudlet.docdb.pipeline.expressions.base import checked_names, kind_name, shown
from cloudlet.docdb.pipeline.stages.base import Parsing
from cloudlet.docdb.values import Value

E = TypeVar("E", bound=Enum)


class WhenMatched(Enum):
    """What happens to a document that is there already."""

    MERGE = "merge"
    REPLACE = "replace"
    KEEP = "keepExisting"
    FAIL = "fail"


class WhenNotMatched(Enum):
    """What happens if there is none."""

    INSERT = "insert"
    DISCARD = "discard"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Out:
    """Put the result in the place of a collection's documents."""

    collection: str


@dataclass(frozen=True, slots=True)
class Merge:
    """Put each document of the result where one with the same values of ``on`` is."""

    collection: str
    on: tuple[str, ...]
    matched: WhenMatched
    not_matched: WhenNotMatched


Write: TypeAlias = Out | Merge


def _out(_parsing: Parsing, spec: Value) -> Write:
    if type(spec) is dict:
        spec = checked_names("$out", spec, ("coll",), ("db",))["coll"]
    if type(spec) is not str or not spec:
        raise refused(16990, f"$out needs the name of a collection, found: {kind_name(spec)}")
    return Out(spec)


def _merge(_parsing: Parsing, spec: Value) -> Write:
    given = (
        {"into": spec}
        if type(spec) is str
        else checked_names("$merge", spec, ("into",), ("on", "whenMatched", "whenNotMatched"))
    )
    into = given["into"]
    if type(into) is dict:
        into = checked_names("$merge into", into, ("coll",), ("db",))["coll"]
    if type(into) is not str or not into:
        raise refused(51178, f"$merge 'into' must be the name of a collection, found: {kind_name(into)}")
    on = given.get("on", "_id")
    paths = on if type(on) is list else [on]
    if not paths or not all(type(path) is str and path and not path.startswith("$") for path in paths):
        raise refused(51186, "$merge 'on' must be a field or an array of fields")
    matched, not_matched = given.get("whenMatched", "merge"), given.get("whenNotMatched", "insert")
    if type(matched) is list:
        raise refused(51199, "$merge with a pipeline in 'whenMatched' is not supported; use merge or replace")
    return Merge(
        into,
        tuple(paths),
        _choice("whenMatched", WhenMatched, matched),
        _choice("whenNotMatched", WhenNotMatched, not_matched),
    )


def _choice(name: str, kind: type[E], value: Value) -> E:
    for item in kind:
        if item.value == value:
            return item
    known = ", ".join(str(item.value) for item in kind)
    raise refused(51199, f"$merge '{name}' must be one of {known}, found: {shown(value)}")


WRITES: Final[Mapping[str, Callable[[Parsing, Value], Write]]] = {"$out": _out, "$merge": _merge}
"""Stages that write, by name."""
