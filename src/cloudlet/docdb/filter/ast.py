"""The frozen tree a filter is parsed into. Nothing here knows how it is matched or planned.

The kinds that nearly every query has are structs, because making a frozen dataclass takes eight times as
long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

import msgspec

from cloudlet.docdb.geo.places import Place
from cloudlet.docdb.geo.regions import Region
from cloudlet.docdb.geo.rings import Search
from cloudlet.docdb.paths import Segments
from cloudlet.docdb.values import Document, Regex, Value


class Op(Enum):
    """Comparisons. All but EQ compare only with values of the operand's own type."""

    EQ = "$eq"
    GT = "$gt"
    GTE = "$gte"
    LT = "$lt"
    LTE = "$lte"


@dataclass(frozen=True, slots=True)
class Path:
    """A dotted path, split once. The empty path means the value itself (inside ``$elemMatch``)."""

    text: str
    segments: Segments


class And(msgspec.Struct, frozen=True):
    """All children hold; without children everything matches."""

    children: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Or:
    """One child holds; without children nothing matches."""

    children: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Not:
    """The child does not hold."""

    child: Node


class Compare(msgspec.Struct, frozen=True):
    """Some value at the path compares so with the operand; an array also element by element."""

    path: Path
    op: Op
    value: Value


class In(msgspec.Struct, frozen=True):
    """Some value at the path equals one of the values or is matched by one of the patterns."""

    path: Path
    values: tuple[Value, ...]
    patterns: tuple[Regex, ...] = ()


@dataclass(frozen=True, slots=True)
class Exists:
    """The path leads to something."""

    path: Path


@dataclass(frozen=True, slots=True)
class Size:
    """The path leads to an array of this length."""

    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class Mod:
    """A number at the path leaves this remainder (with the sign of the number, as in C)."""

    path: Path
    divisor: int
    remainder: int


@dataclass(frozen=True, slots=True)
class TypeIs:
    """A value at the path has one of these types (MongoDB's names, ``number`` for all numbers)."""

    path: Path
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class ElemMatch:
    """The path leads to an array, one element of which matches.

    ``of_objects``: the child is a filter on elements that are objects; otherwise its paths are empty and it
    looks at the element itself.
    """

    path: Path
    child: Node
    of_objects: bool


class BitOp(Enum):
    """Which of the bits have to be how."""

    ALL_SET = "$bitsAllSet"
    ALL_CLEAR = "$bitsAllClear"
    ANY_SET = "$bitsAnySet"
    ANY_CLEAR = "$bitsAnyClear"


@dataclass(frozen=True, slots=True)
class Bits:
    """A number or binary value at the path has these bits (0 is the lowest) so."""

    path: Path
    op: BitOp
    positions: frozenset[int]


@dataclass(frozen=True, slots=True)
class AnyBut:
    """Some value at the path, be it a missing one, differs from each of these.

    The only bounds that look at values of every type: "above MinKey", "below MaxKey".
    """

    path: Path
    excluded: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Expr:
    """An aggregation expression that is true for the document."""

    source: Value
    evaluate: Callable[[Document, dict[str, Any]], Value] = field(repr=False, compare=False)
    costly: bool
    """It holds something that may take long, such as a regular expression that can backtrack."""
    patterned: bool
    """It holds a regular expression."""
    size: int
    """Number of its parts."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The document (or the element, inside ``$elemMatch``) is what a JSON schema describes."""

    source: Document
    patterns: tuple[Regex, ...]
    size: int
    """Number of schemas inside it, itself included."""


@dataclass(frozen=True, slots=True)
class GeoWithin:
    """A place at the path lies in a region."""

    path: Path
    region: Region


@dataclass(frozen=True, slots=True)
class GeoIntersects:
    """A place at the path has a point in common with another."""

    path: Path
    place: Place


@dataclass(frozen=True, slots=True)
class Near:
    """The nearest place at the path is within some distances; without another order, nearest first.

    Only among conditions that all have to hold, and only once.
    """

    path: Path
    search: Search = field(compare=False)
    kinds: tuple[str, ...]
    """Kinds of geographic indexes that can answer, the best first."""


Leaf: TypeAlias = (
    Compare | In | Exists | Size | Mod | TypeIs | ElemMatch | Bits | AnyBut | GeoWithin | GeoIntersects
)
"""What is about one path."""
Node: TypeAlias = And | Or | Not | Leaf | Near | Expr | Schema

EVERYTHING = And()
NOTHING = Or()
