"""``$match``: a filter, in which ``$expr`` may use the pipeline's variables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from cloudlet.docdb.filter import where
from cloudlet.docdb.pipeline.expressions import Expression, Variables, refused, truthy
from cloudlet.docdb.pipeline.stages.base import Documents, Flow, Parsing, Run
from cloudlet.docdb.values import MISSING, Document, Regex, Value

Test: TypeAlias = Callable[[Document, Variables], bool]

DEPTH_MAX = 40
_LOGICAL = ("$and", "$or", "$nor")


@dataclass(frozen=True, slots=True)
class Match:
    """A filter in two parts that both have to hold."""

    plain: Document
    """What a store can look for: no ``$expr`` in it."""
    plain_test: Test
    rest: Test | None
    """What only the pipeline can decide."""
    hints: tuple[tuple[str, Expression], ...] = ()
    """Paths that ``rest`` wants to be equal to a value that no document decides about."""
    name: str = "$match"
    flow: Flow = Flow.PASSES

    def run(self, documents: Documents, run: Run, variables: Variables) -> Iterator[Document]:
        tests = [self.plain_test] if self.plain else []
        tests += [self.rest] if self.rest else []
        for test in tests:
            documents = _kept(documents, test, variables)
        return iter(documents)

    def conditions(self, variables: Variables) -> tuple[Document, ...]:
        """Filters that are implied: a store that looks for them finds at least what is kept."""
        found = [self.plain] if self.plain else []
        for path, expression in self.hints:
            value = expression({}, variables)
            # An array compares as a whole here, but element by element in a filter; a pattern is searched.
            if type(value) is not list and type(value) is not Regex:
                found.append({path: {"$eq": None if value is MISSING else value}})
        return tuple(found)


def parse_match(parsing: Parsing, _name: str, spec: Value) -> Match:
    """Raises InvalidFilter."""
    if type(spec) is not dict:
        raise refused(15959, "the match filter must be an expression in an object")
    plain, rest = _separated(spec, 0)
    tests = [_compiled(parsing, condition, 0) for condition in rest]
    note_fields(parsing, plain)
    hints = [hint for condition in rest for hint in _hints(parsing, condition.get("$expr"))]
    return Match(plain, _plain_test(parsing, plain), _all(tests) if tests else None, tuple(hints))


def _hints(parsing: Parsing, value: Value) -> list[tuple[str, Expression]]:
    """Equalities of a field with a variable or a constant that an expression demands."""
    if type(value) is not dict or len(value) != 1:
        return []
    ((name, operand),) = value.items()
    if name == "$and" and type(operand) is list:
        return [hint for item in operand for hint in _hints(parsing, item)]
    if name != "$eq" or type(operand) is not list or len(operand) != 2:
        return []
    for path, other in (operand, operand[::-1]):
        if type(path) is str and path.startswith("$") and not path.startswith("$$") and _is_fixed(other):
            return [(path[1:], parsing.compiler.compile(other))]
    return []


def _is_fixed(value: Value) -> bool:
    if type(value) is str and value.startswith("$"):
        return value.startswith("$$") and value[2:3].islower()
    return type(value) is not dict and type(value) is not list


def note_fields(parsing: Parsing, spec: Value) -> None:
    """Remember which top-level fields a filter without ``$expr`` looks at."""
    for name, value in spec.items():
        if name in _LOGICAL and type(value) is list:
            for item in value:
                note_fields(parsing, item)
        elif name == "$jsonSchema":
            parsing.compiler.facts.whole = True
        elif not name.startswith("$"):
            parsing.compiler.facts.fields.add(name.split(".", 1)[0])


def _kept(documents: Documents, test: Test, variables: Variables) -> Iterator[Document]:
    return (document for document in documents if test(document, variables))


def _separated(spec: Document, depth: int) -> tuple[Document, list[Document]]:
    """The part of a filter without ``$expr``, and the conditions that have one somewhere."""
    plain: Document = {}
    rest: list[Document] = []
    for name, value in spec.items():
        if not _has_expression({name: value}, depth):
            plain[name] = value
        elif name == "$and" and type(value) is list:
            parts = [_separated(item, depth + 1) for item in value]
            kept = [part for part, _ in parts if part]
            if kept:
                plain["$and"] = kept
            rest += [condition for _, conditions in parts for condition in conditions]
        else:
            rest.append({name: value})
    return plain, rest


def _has_expression(spec: Value, depth: int) -> bool:
    if depth > DEPTH_MAX:
        raise refused(2, f"the filter is nested more than {DEPTH_MAX} levels deep")
    if type(spec) is not dict:
        return False
    for name, value in spec.items():
        if name == "$expr":
            return True
        if (
            name in _LOGICAL
            and type(value) is list
            and any(_has_expression(item, depth + 1) for item in value)
        ):
            return True
    return False


def _compiled(parsing: Parsing, spec: Value, depth: int) -> Test:
    """The test of a filter that may hold ``$expr`` where whole documents are looked at."""
    if not _has_expression(spec, depth):
        if type(spec) is dict:
            note_fields(parsing, spec)
        return _plain_test(parsing, spec)
    tests = []
    for name, value in spec.items():
        if name == "$expr":
            tests.append(_expression(parsing, value))
        elif name in _LOGICAL and type(value) is list and value:
            parts = [_compiled(parsing, item, depth + 1) for item in value]
            tests.append(_all(parts) if name == "$and" else _any(parts, name == "$or"))
        else:
            tests.append(_compiled(parsing, {name: value}, depth + 1))
    return _all(tests)


def _expression(parsing: Parsing, value: Value) -> Test:
    evaluate = parsing.compiler.compile(value)
    return lambda document, variables: truthy(evaluate(document, variables))


def _plain_test(parsing: Parsing, spec: Document) -> Test:
    found = where(spec, subject_max=parsing.subject_max)
    if found.order:
        raise refused(5626500, "$geoNear, $near, and $nearSphere are not allowed in this context")
    parsing.compiler.facts.costly = parsing.compiler.facts.costly or found.costly
    match = found.match
    return lambda document, _: match(document)


def _all(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    return lambda document, variables: all(test(document, variables) for test in tests)


def _any(tests: list[Test], wanted: bool) -> Test:
    return lambda document, variables: any(test(document, variables) for test in tests) is wanted
