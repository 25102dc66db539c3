"""The frozen tree a filter is parsed into. Nothing here knows how it is matched or planned."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from cloudlet.docdb.paths import Segments
from cloudlet.docdb.values import Regex, Value


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


@dataclass(frozen=True, slots=True)
class And:
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


@dataclass(frozen=True, slots=True)
class Compare:
    """Some value at the path compares so with the operand; an array also element by element."""

    path: Path
    op: Op
    value: Value


@dataclass(frozen=True, slots=True)
class In:
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


Node: TypeAlias = And | Or | Not | Compare | In | Exists | Size | Mod | TypeIs | ElemMatch

EVERYTHING = And()
NOTHING = Or()
