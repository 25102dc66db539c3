"""Why a rule denies something: which clause, and against which value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from cloudlet.docdb.filter.ast import Compare, In, Node
from cloudlet.docdb.paths import leaves
from cloudlet.docdb.rules.compile import Clause
from cloudlet.docdb.rules.goals import All, Goal, Leaf, Never, Pair, Some, leaves_of, reaches
from cloudlet.docdb.rules.prove import Proof, path_text
from cloudlet.docdb.values import MISSING, Document, Value
from cloudlet.model.errors import PermissionDenied
from cloudlet.rules.ast import Span

_SHOWN_MAX: Final = 80
_ALTERNATIVES_MAX: Final = 3
_SAID_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """One condition of a rule that does not hold.

    ``hint`` says no more than the caller knows; ``detail`` also tells values of documents and is for the
    operator only.
    """

    clause: str
    hint: str
    detail: str


@dataclass(frozen=True, slots=True)
class Denial:
    """What was denied by which expression. Of several alternatives each one's first failure is there."""

    collection: str
    operation: str
    key: str
    source: str
    failures: tuple[Failure, ...]

    def short(self) -> str:
        """For the caller."""
        return self._text([f"{failure.clause} ({failure.hint})" for failure in self.failures])

    def full(self) -> str:
        """For the operator: with the values that were compared."""
        return self._text([f"{failure.clause} ({failure.detail})" for failure in self.failures])

    def _text(self, parts: list[str]) -> str:
        why = " and ".join(parts) or self.source
        return f"{self.operation} on {self.collection} is denied by the rule's {self.key}: {why}"


class RuleDenied(PermissionDenied):
    """A custom rule does not allow this."""

    def __init__(self, denial: Denial) -> None:
        super().__init__(denial.short())
        self.denial = denial


def explain_denial(error: PermissionDenied) -> str:
    """All that is known about a denial, for the operator: never for the caller."""
    return error.denial.full() if isinstance(error, RuleDenied) else error.message


def denied_query(collection: str, operation: str, clause: Clause, goal: Goal, query: Goal) -> Denial:
    """The denial of a query that does not prove a goal."""
    proof = Proof(query)
    failures = []
    for leaf in islice(_failing(goal, proof.of), _ALTERNATIVES_MAX):
        said = _said(leaf, query)
        failures.append(Failure(_source(leaf, clause), said, f"{shown_leaf(leaf)}; {said}"))
    return Denial(collection, operation, clause.key, clause.source, tuple(failures))


def denied_document(
    collection: str, operation: str, clause: Clause, goal: Goal, document: Document, written: bool
) -> Denial:
    """The denial of a stored or (``written``) of a new document that does not reach a goal."""
    which = "the written document" if written else "the stored document"
    failures = [
        Failure(
            _source(leaf, clause),
            leaf.reason if isinstance(leaf, Never) else f"it is not so in {which}",
            f"{shown_leaf(leaf)}; {which} has {_found(leaf, document)}",
        )
        for leaf in islice(_failing(goal, lambda part: reaches(part)(document)), _ALTERNATIVES_MAX)
    ]
    return Denial(collection, operation, clause.key, clause.source, tuple(failures))


def shown_leaf(leaf: Leaf | Pair | Never) -> str:
    """A condition with the values of this request, such as ``age > 10``."""
    match leaf:
        case Never(reason):
            return reason
        case Pair(left, op, right, positive):
            return f"{'' if positive else 'not '}{left.text} {_SYMBOLS[op.value]} {right.text}"
        case Leaf(node, positive):
            return shown_node(node) if positive else f"not {shown_node(node)}"


def shown_node(node: Node) -> str:
    """A condition of a query in the notation of rules where it has one."""
    match node:
        case Compare(path, op, value):
            return f"{path.text} {_SYMBOLS[op.value]} {_shown(value)}"
        case In(path, values, patterns):
            items = [_shown(value) for value in values[:5]] + [f"/{one.pattern}/" for one in patterns]
            return f"{path.text} in [{', '.join(items)}{', …' if len(values) > 5 else ''}]"
        case _:
            text = path_text(node)
            return f"a condition ({type(node).__name__}) on {text or 'the whole document'}"


_SYMBOLS: Final = {"$eq": "==", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


def _failing(goal: Goal, holds: Callable[[Goal], bool]) -> Iterator[Leaf | Pair | Never]:
    """The first failing condition, of each alternative where there are several."""
    match goal:
        case All(parts):
            for part in parts:
                if not holds(part):
                    yield from _failing(part, holds)
                    return
        case Some(parts):
            for part in parts:
                yield from _failing(part, holds)
        case _:
            yield goal


def _source(leaf: Leaf | Pair | Never, clause: Clause) -> str:
    span = leaf.span
    return clause.source if span == Span(0, 0) else span.of(clause.source)


def _said(leaf: Leaf | Pair | Never, query: Goal) -> str:
    """What the query says about the field, and how to say more."""
    if isinstance(leaf, Never):
        return leaf.reason
    if isinstance(leaf, Pair):
        return f"the query does not fix {leaf.left.text} and {leaf.right.text} to values"
    path = path_text(leaf.node)
    about = (other for other in leaves_of(query) if isinstance(other, Leaf) and path_text(other.node) == path)
    said = [shown_leaf(other) for other in islice(about, _SAID_MAX)]
    if not said:
        return f"the query says nothing about {path}"
    text = f"the query says {' and '.join(said)}"
    if not leaf.positive:
        text += f", which an array with other elements fits too; add the opposite, such as {path}: _.neq(…)"
    return text


def _found(leaf: Leaf | Pair | Never, document: Document) -> str:
    match leaf:
        case Leaf(node):
            path = getattr(node, "path", None)
            if path is None:
                return "other values"
            return f"{path.text}: {_values(leaves(document, path.segments))}"
        case Pair(left, _, right):
            one, other = leaves(document, left.segments), leaves(document, right.segments)
            return f"{left.text}: {_values(one)} and {right.text}: {_values(other)}"
        case _:
            return "no part in it"


def _values(values: list[Value]) -> str:
    return ", ".join(_shown(value) for value in values[:5]) or "nothing"


def _shown(value: Value) -> str:
    if value is MISSING:
        return "undefined"
    names = {None: "null", True: "true", False: "false"}
    if value is None or type(value) is bool:
        return names[value]
    return repr(value)[:_SHOWN_MAX]
