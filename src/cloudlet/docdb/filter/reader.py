"""The parser that the operators of a filter are read with: it descends, counts and knows the operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, TypeAlias

from cloudlet.docdb.filter.ast import And, Compare, In, Node, Op, Path
from cloudlet.docdb.filter.regex import compile_regex
from cloudlet.docdb.paths import split_path
from cloudlet.docdb.values import Document, Regex, Value, type_name
from cloudlet.model.errors import InvalidFilter

DEPTH_MAX: Final = 40
NODES_MAX: Final = 12_000
"""Conditions of one filter, alternatives included."""
PATTERNS_MAX: Final = 200
PATTERN_CHARACTERS_MAX: Final = 20_000
"""Regular expressions of one filter and their length together: compiling one may take milliseconds."""

ITSELF: Final = Path("", ())
"""The path of the value itself, inside ``$elemMatch``."""
_REFERENCE: Final = frozenset({"$ref", "$id", "$db"})
_CACHED_PATH_MAX: Final = 200

FieldReader: TypeAlias = Callable[["Parser", Path, str, Document, int], Node]
"""Reads one operator below a path: parser, path, name of the operator, all operators there, depth."""
TopReader: TypeAlias = Callable[["Parser", str, Value, int], Node | None]
"""Reads one operator in a path's place: parser, name, operand, depth. None: it says nothing."""


class Parser:
    """One parse of one filter."""

    __slots__ = (
        "_characters",
        "_fields",
        "_of_companions",
        "_patterns",
        "_tops",
        "inside_element",
        "nears",
        "nodes",
    )

    def __init__(
        self,
        fields: Mapping[str, FieldReader],
        tops: Mapping[str, TopReader],
        companions: Mapping[str, frozenset[str]],
    ) -> None:
        self._fields = fields
        self._tops = tops
        self._of_companions = companions
        self._patterns = 0
        self._characters = 0
        self.nodes = 0
        self.inside_element = 0
        self.nears = 0

    def document(self, value: Value, depth: int) -> Node:
        """A filter on documents (or, inside ``$elemMatch``, on an array's objects)."""
        if type(value) is not dict:
            raise InvalidFilter(f"a filter must be an object, not {shown(value)}")
        if depth > DEPTH_MAX:
            raise InvalidFilter(f"the filter is nested more than {DEPTH_MAX} levels deep")
        self.count(len(value))
        children: list[Node] = []
        for name, item in value.items():
            if name[:1] != "$":
                children.append(self.field(path_of(name), item, depth))
                continue
            reader = self._tops.get(name)
            if reader is None:
                raise InvalidFilter(f"unknown top level operator: {name[:80]}")
            node = reader(self, name, item, depth)
            if node is not None:
                children.append(node)
        return joined(children)

    def count(self, amount: int = 1) -> None:
        """Raises InvalidFilter beyond NODES_MAX."""
        self.nodes += amount
        if self.nodes > NODES_MAX:
            raise InvalidFilter(f"the filter has more than {NODES_MAX} conditions")

    def field(self, path: Path, value: Value, depth: int) -> Node:
        """What is asked of a path: operators, or equality with a value."""
        if type(value) is dict and is_operators(value):
            return self.operators(path, value, depth)
        return self.equal(path, value)

    def equal(self, path: Path, value: Value) -> Node:
        """Equality as it is written without an operator: a regular expression is a pattern."""
        return self.pattern(path, value) if type(value) is Regex else Compare(path, Op.EQ, value)

    def pattern(self, path: Path, regex: Regex) -> Node:
        """A match with a regular expression. Raises InvalidFilter if it is not understood."""
        self.check_pattern(regex)
        return In(path, (), (regex,))

    def check_pattern(self, regex: Regex) -> None:
        """Raises InvalidFilter for a pattern that is not understood, and for one too many."""
        self._patterns += 1
        self._characters += len(regex.pattern)
        if self._patterns > PATTERNS_MAX:
            raise InvalidFilter(f"the filter has more than {PATTERNS_MAX} regular expressions")
        if self._characters > PATTERN_CHARACTERS_MAX:
            raise InvalidFilter(
                f"the regular expressions of the filter have more than {PATTERN_CHARACTERS_MAX} characters"
            )
        compile_regex(regex)

    def operators(self, path: Path, value: Document, depth: int) -> Node:
        """All of an object of operators."""
        self.count(len(value))
        children = []
        for name in value:
            reader = self._fields.get(name)
            if reader is not None:
                children.append(reader(self, path, name, value, depth))
                continue
            leaders = self._of_companions.get(name)
            if leaders is None:
                raise InvalidFilter(f"unknown operator: {name[:80]}")
            if leaders.isdisjoint(value):
                raise InvalidFilter(f"{name} needs a {' or '.join(sorted(leaders))}")
        return joined(children)

    def nested(self, path: Path, value: Document, depth: int) -> Node:
        """The operators inside an operator, one level deeper."""
        if depth > DEPTH_MAX:
            raise InvalidFilter(f"the filter is nested more than {DEPTH_MAX} levels deep")
        return self.operators(path, value, depth + 1)


@lru_cache(maxsize=4_096)
def _cached_path(text: str) -> Path:
    return Path(text, split_path(text, InvalidFilter))


def path_of(text: str) -> Path:
    """The path of a field name as it stands in a filter. Raises InvalidFilter."""
    return _cached_path(text) if len(text) <= _CACHED_PATH_MAX else _cached_path.__wrapped__(text)


def is_operators(value: Document) -> bool:
    """Whether an object holds operators; a reference to another document (``$ref``, ``$id``) is a value."""
    first = next(iter(value), "")
    return first[:1] == "$" and first not in _REFERENCE


def joined(children: list[Node]) -> Node:
    """All children, without a needless level."""
    return children[0] if len(children) == 1 else And(tuple(children))


def shown(value: Value) -> str:
    """A value in a message."""
    return f"{type_name(value)} {str(value)[:40]!r}"
