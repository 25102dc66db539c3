"""One caller's rule on one collection for one request: goals, stored documents, and what ``get()`` read.

Everything here is pure but for the documents read so far, which only ``settle`` adds to: a decision that
needs one more raises ``Unread`` and is made again when it is there. They are read at the time of the request
and not again inside a write's turn; the document that is itself written is always checked inside the turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice, product
from typing import Any, Final, TypeAlias, TypeVar

from cloudlet.docdb.filter.match import Matcher
from cloudlet.docdb.paths import split_path
from cloudlet.docdb.rules.compile import Clause
from cloudlet.docdb.rules.explain import RuleDenied, denied_document, denied_query
from cloudlet.docdb.rules.goals import All, Goal, Leaf, Never, Pair, Some, candidates, reaches
from cloudlet.docdb.rules.prove import Proof, is_pin, pinned_values
from cloudlet.docdb.rules.reduce import Request, goal_for
from cloudlet.docdb.values import Document, Value
from cloudlet.model.errors import InvalidFilter, PermissionDenied, RevisionConflict

T = TypeVar("T")

DOCUMENTS_MAX: Final = 10
"""Different documents that ``get()`` may read in one request."""
STEADY_MAX: Final = 2_048
"""Clauses and callers whose goals are kept."""
ASSIGNMENTS_MAX: Final = 64
"""Combinations of array elements that are tried as parts of a ``get()`` path."""

Fetch: TypeAlias = Callable[[str, str], Awaitable[Document | None]]
"""Reads a document by collection and id; None if there is none."""


class Unread(RevisionConflict):
    """A document that a rule looks at has not been read yet."""

    def __init__(self, path: str) -> None:
        super().__init__("a document that the collection's rule looks at was not read in time, try again")
        self.path = path


@dataclass(slots=True)
class Judge:
    """Decides for one request. ``collection`` is for messages."""

    collection: str
    fetch: Fetch
    read: dict[str, Document | None] = field(default_factory=dict)
    _tests: dict[str, tuple[Request, Matcher]] = field(default_factory=dict)

    async def settle(self, decide: Callable[[], T]) -> T:
        """The decision, once everything it looks at was read. Raises PermissionDenied beyond the limit."""
        while True:
            try:
                return decide()
            except Unread as need:
                await self.read_for(need)

    async def read_for(self, need: Unread) -> None:
        """Read what a decision lacked."""
        if len(self.read) >= DOCUMENTS_MAX:
            raise PermissionDenied(
                f"the rule of {self.collection} would read more than {DOCUMENTS_MAX} documents in a request"
            )
        parts = need.path.split(".", 2)
        found = None
        if len(parts) == 3 and parts[0] == "database" and parts[1] and parts[2]:
            found = await self.fetch(parts[1], parts[2])
        self.read[need.path] = found

    def goal(self, clause: Clause, request: Request, query: Goal) -> Goal:
        """What a document that the query finds has to reach. Raises Unread."""
        if clause.steady:
            return _steady(clause, _caller(request.auth))[0]
        return goal_for(clause.expr, request, self._document, pinned_values(query))

    def holds(self, clause: Clause, request: Request, document: Document) -> bool:
        """Whether the rule holds for a document. Raises Unread.

        An array that ``get()`` uses stands for each of its elements: one of them has to do.
        """
        if not clause.get_paths:
            return self._test(clause, request)(document)
        return any(
            reaches(self._goals(clause, request, pins))(document)
            for pins in assignments(clause.get_paths, document)
        )

    def require(self, clause: Clause, request: Request, document: Document, what: str, written: bool) -> None:
        """Raises RuleDenied unless the rule holds for the document; ``written``: it is a new one."""
        if self.holds(clause, request, document):
            return
        pins = next(iter(assignments(clause.get_paths, document)))
        goal = self._goals(clause, request, pins)
        raise RuleDenied(denied_document(self.collection, what, clause, goal, document, written))

    def refusal(self, clause: Clause, goal: Goal, query: Goal, what: str) -> RuleDenied:
        """The error for a query that does not prove the goal."""
        return RuleDenied(denied_query(self.collection, what, clause, goal, query))

    def _test(self, clause: Clause, request: Request) -> Matcher:
        """The test of documents for one request; the last one of each clause is kept."""
        if clause.steady:
            return _steady(clause, _caller(request.auth))[1]
        known = self._tests.get(clause.key)
        if known is None or known[0] is not request:
            known = (request, reaches(self._goals(clause, request, {})))
            self._tests[clause.key] = known
        return known[1]

    def _goals(self, clause: Clause, request: Request, pins: dict[tuple[str, ...], Value]) -> Goal:
        return goal_for(clause.expr, request, self._document, pins)

    def _document(self, path: str) -> Any:
        if path not in self.read:
            raise Unread(path)
        return self.read[path]


_Caller: TypeAlias = tuple[tuple[str, Any], ...] | None


def steady_test(clause: Clause, auth: Mapping[str, Any] | None) -> Matcher | None:
    """The test of documents by a clause that needs nothing but the caller to be known; None for others."""
    return _steady(clause, _caller(auth))[1] if clause.steady else None


def _caller(auth: Mapping[str, Any] | None) -> _Caller:
    return None if auth is None else tuple(auth.items())


@lru_cache(maxsize=STEADY_MAX)
def _steady(clause: Clause, caller: _Caller) -> tuple[Goal, Matcher]:
    """Goal and test of a clause that looks at the caller and the document only: the same in each request."""
    request = Request(None if caller is None else dict(caller), 0)
    goal = goal_for(clause.expr, request, _nothing, {})
    return goal, reaches(goal)


def _nothing(_path: str) -> None:
    return None


def assignments(
    paths: Sequence[tuple[str, ...]], document: Document
) -> Iterator[dict[tuple[str, ...], Value]]:
    """Values for the fields that ``get()`` uses; fields without a text or number have none."""
    choices: list[list[tuple[tuple[str, ...], Value] | None]] = []
    for path in paths:
        segments = split_path(".".join(path), InvalidFilter)
        values = [value for value in candidates(document, segments) if is_pin(value)]
        choices.append([(path, value) for value in values] or [None])
    for choice in islice(product(*choices), ASSIGNMENTS_MAX):
        yield dict(item for item in choice if item is not None)


def can_hold(goal: Goal) -> bool:
    """Whether there may be a document that reaches the goal, as far as its shape tells."""
    match goal:
        case All(parts):
            return all(can_hold(part) for part in parts)
        case Some(parts):
            return any(can_hold(part) for part in parts)
        case Never():
            return False
        case Leaf() | Pair():
            return True


def always(goal: Goal) -> bool:
    """Whether every document reaches the goal, as far as its shape tells."""
    match goal:
        case All(parts):
            return all(always(part) for part in parts)
        case Some(parts):
            return any(always(part) for part in parts)
        case _:
            return False


def proven(query: Goal, goal: Goal) -> bool:
    """Whether the query makes sure of the goal."""
    return always(goal) or Proof(query).of(goal)
