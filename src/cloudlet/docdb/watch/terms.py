"""Which queries a change may concern: found by what they ask to be equal, not by asking each of them.

A query is entered under one of its *terms*: a path and the scalar values one of which has to stand there. A
change is looked up with the values its document has at those paths, before and after. Too many queries may be
found, never too few; the matcher decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from cloudlet.docdb.filter.ast import And, Compare, In, Node, Op, Path
from cloudlet.docdb.limits import WatchLimits
from cloudlet.docdb.paths import Segments, leaves
from cloudlet.docdb.values import MISSING, Document, OrderKey, Rank, Value, order_key
from cloudlet.model.errors import LimitExceeded

Q = TypeVar("Q")

VALUES_MAX: Final = 16
"""A query is entered once for each value of its term."""
_COARSE: Final = frozenset({Rank.BOOL, Rank.NUMBER})
_NO_SCALARS: Final = frozenset({Rank.NULL, Rank.OBJECT, Rank.ARRAY, Rank.REGEX})
"""What does not stand at a path in one way only: null is also "missing"."""


@dataclass(frozen=True, slots=True)
class Term:
    """At the path stands one of these values, or an array that has it as an element."""

    path: Path
    keys: tuple[OrderKey, ...]

    @property
    def rank(self) -> tuple[int, int]:
        """The lower the fewer documents it finds, as far as one can tell from the term alone."""
        coarse = any(key[0] in _COARSE for key in self.keys)
        return (0 if self.path.text == "_id" else 2 if coarse else 1, len(self.keys))


def terms_of(node: Node) -> list[Term]:
    """The terms of a filter, all of which hold for what it matches."""
    if isinstance(node, And):
        return [term for child in node.children for term in terms_of(child)]
    if isinstance(node, Compare) and node.op is Op.EQ:
        return _term(node.path, (node.value,))
    if isinstance(node, In) and not node.patterns:
        return _term(node.path, node.values)
    return []


class TermIndex(Generic[Q]):
    """The queries of one collection."""

    def __init__(self, limits: WatchLimits) -> None:
        self._limits = limits
        self._paths: dict[str, _Values[Q]] = {}
        self._unindexed: dict[Q, None] = {}

    @property
    def empty(self) -> bool:
        """Whether no query is entered."""
        return not (self._paths or self._unindexed)

    def add(self, query: Q, node: Node) -> Term | None:
        """Enter a query; what is returned is what ``remove`` asks for. Raises LimitExceeded for one more
        query without a term than there may be.
        """
        terms = [term for term in terms_of(node) if self._has_room(term)]
        if not terms:
            if len(self._unindexed) >= self._limits.unindexed_max:
                raise LimitExceeded(
                    f"{self._limits.unindexed_max} different watches of this collection have to look at "
                    "every change; ask for an equal value of some field, such as _id or _openid"
                )
            self._unindexed[query] = None
            return None
        term = min(terms, key=lambda item: (item.rank, self._load(item)))
        self._paths.setdefault(term.path.text, _Values(term.path.segments)).add(query, term)
        return term

    def remove(self, query: Q, term: Term | None) -> None:
        """Forget a query."""
        if term is None:
            self._unindexed.pop(query, None)
            return
        values = self._paths[term.path.text]
        values.remove(query, term)
        if not values.queries:
            del self._paths[term.path.text]

    def concerned(self, before: Document | None, after: Document | None) -> Iterator[Q]:
        """The queries that one of the two states may match, each once."""
        found: dict[Q, None] = {}
        for values in self._paths.values():
            for document in (before, after):
                if document is not None:
                    for key in values.keys_of(document):
                        found.update(values.queries.get(key, {}))
        yield from found
        yield from list(self._unindexed)

    def _has_room(self, term: Term) -> bool:
        return term.path.text in self._paths or len(self._paths) < self._limits.paths_max

    def _load(self, term: Term) -> int:
        values = self._paths.get(term.path.text)
        return 0 if values is None else max(len(values.queries.get(key, ())) for key in term.keys)


class _Values(Generic[Q]):
    """The queries with a term about one path, by value."""

    def __init__(self, segments: Segments) -> None:
        self._segments = segments
        self.queries: dict[OrderKey, dict[Q, None]] = {}

    def add(self, query: Q, term: Term) -> None:
        for key in term.keys:
            self.queries.setdefault(key, {})[query] = None

    def remove(self, query: Q, term: Term) -> None:
        for key in term.keys:
            queries = self.queries[key]
            queries.pop(query, None)
            if not queries:
                del self.queries[key]

    def keys_of(self, document: Document) -> Iterator[OrderKey]:
        for leaf in leaves(document, self._segments):
            if type(leaf) is list:
                yield from (order_key(item) for item in leaf)
            elif leaf is not MISSING:
                yield order_key(leaf)


def _term(path: Path, values: tuple[Value, ...]) -> list[Term]:
    keys = tuple(dict.fromkeys(order_key(value) for value in values))
    if not 0 < len(keys) <= VALUES_MAX or any(key[0] in _NO_SCALARS for key in keys):
        return []
    return [Term(path, keys)]
