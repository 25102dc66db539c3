"""From a list of stages to a ``Pipeline``: what a store can do first, and what has to run over documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from cloudlet.docdb.limits import PATTERN_SUBJECT_MAX
from cloudlet.docdb.pipeline.expressions import Variables, compiler, refused
from cloudlet.docdb.pipeline.reader import Sought
from cloudlet.docdb.pipeline.stages import basic, combining, grouping, joining, special
from cloudlet.docdb.pipeline.stages.base import (
    Collected,
    Documents,
    Flow,
    Parsing,
    Place,
    Run,
    Stage,
    StageParser,
    counted,
)
from cloudlet.docdb.pipeline.stages.basic import Limited, Ordered, Skipped
from cloudlet.docdb.pipeline.stages.matching import Match
from cloudlet.docdb.pipeline.stages.special import Sourced
from cloudlet.docdb.pipeline.writing import WRITES, Write
from cloudlet.docdb.sort import Sort
from cloudlet.docdb.values import Document, Value

STAGES_MAX: Final = 200
"""Stages of one pipeline, those of its inner pipelines included. Each is a frame or two of Python's stack."""
DEPTH_MAX: Final = 20
"""Pipelines inside pipelines."""

STAGES: Final[dict[str, StageParser]] = {
    **basic.STAGES,
    **combining.STAGES,
    **grouping.STAGES,
    **joining.STAGES,
    **special.STAGES,
}
"""Every stage that reads, by name."""
_FIRST_ONLY: Final = frozenset(special.STAGES)


@dataclass(frozen=True, slots=True)
class Head:
    """What the first stages want from the store."""

    matches: tuple[Match, ...] = ()
    sort: Sort = ()
    skip: int = 0
    limit: int | None = None

    def sought(self, collection: str, variables: Variables, fields: frozenset[str] | None) -> Sought:
        """The read they come to."""
        conditions = [condition for match in self.matches for condition in match.conditions(variables)]
        return Sought(collection, tuple(conditions), self.sort, self.skip, self.limit, fields)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A parsed pipeline, which can run as often as wanted."""

    stages: tuple[Stage, ...]
    head: Head
    rest: tuple[Stage, ...]
    """What is left to do with the documents that ``head`` has brought."""
    fields: frozenset[str] | None
    """Top-level fields that are looked at; None: all."""
    variables: frozenset[str]
    """Variables of an outer pipeline that are read."""
    costly: bool = False
    """Must not run in the server's own process, however few documents there are."""
    foreign: frozenset[str] = frozenset()
    """Other collections that are read."""
    nodes: int = 0
    """Parts of all its expressions."""
    write: Write | None = None
    """``$out`` or ``$merge``, which the caller does with the result."""

    @property
    def sources(self) -> bool:
        """Whether the first stage makes documents itself instead of reading the collection."""
        return bool(self.stages) and isinstance(self.stages[0], Sourced)

    def over(self, run: Run, collection: str, variables: Variables) -> Iterator[Document]:
        """The result over a collection."""
        if self.sources:
            return self.through((), replace(run, collection=collection), variables)
        found = run.reader.find(self.head.sought(collection, variables, self.fields))
        return self.after_head(found, run, variables)

    def after_head(self, found: Documents, run: Run, variables: Variables) -> Iterator[Document]:
        """The result from what ``head`` wants."""
        return _through(self.rest, found, run, variables)

    def through(self, documents: Documents, run: Run, variables: Variables) -> Iterator[Document]:
        """The result over documents at hand."""
        return _through(self.stages, documents, run, variables)


def parse_pipeline(stages: Value, subject_max: int | None = PATTERN_SUBJECT_MAX) -> Pipeline:
    """A pipeline of prepared stages. Raises InvalidFilter (or InvalidSort) that names stage and operator.

    ``subject_max``: characters of a text that ``$match`` may search (None where a process can be killed).
    """
    collected = Collected()
    parsing = Parsing(compiler(), collected, Place.MAIN, _inner, 0, subject_max)
    found = _parsed(parsing, stages)
    foreign = frozenset(collected.foreign)
    return replace(found, costly=collected.costly, foreign=foreign, nodes=collected.nodes)


def has_stage(stages: Value, name: str) -> bool:
    """Whether a stage stands in the pipeline itself (not in an inner one)."""
    return type(stages) is list and any(type(stage) is dict and name in stage for stage in stages)


def _inner(parsing: Parsing, stages: Value, names: tuple[str, ...], place: Place) -> Pipeline:
    """A pipeline inside a stage, which may use these variables."""
    if parsing.depth >= DEPTH_MAX:
        raise refused(5655, f"pipelines may be nested {DEPTH_MAX} deep")
    made = compiler(parsing.compiler.names | frozenset(names))
    return _parsed(replace(parsing, compiler=made, place=place, depth=parsing.depth + 1), stages)


def _parsed(parsing: Parsing, specs: Value) -> Pipeline:
    if type(specs) is not list:
        raise refused(14, "a pipeline must be an array of stages")
    stages: list[Stage] = []
    write: Write | None = None
    fields: set[str] | None = set()
    open_fields, variables = True, set[str]()
    for position, spec in enumerate(specs):
        name, operand = _named(parsing, spec)
        if name in WRITES:
            write = _write(parsing, name, operand, position == len(specs) - 1)
            continue
        own = parsing.fresh()
        stage = _stage(own, name, operand, position)
        facts = own.compiler.facts
        parsing.learn(facts)
        variables |= facts.variables
        stages.append(stage)
        if open_fields and fields is not None:
            fields = None if stage.flow is Flow.OPAQUE or facts.whole else fields | facts.fields
            open_fields = stage.flow is Flow.PASSES
    head, rest = _split(stages)
    needed = None if fields is None or open_fields else frozenset(fields)
    return Pipeline(tuple(stages), head, tuple(rest), needed, frozenset(variables), write=write)


def _named(parsing: Parsing, spec: Value) -> tuple[str, Value]:
    parsing.collected.stages += 1
    if parsing.collected.stages > STAGES_MAX:
        raise refused(7749501, f"a pipeline may have {STAGES_MAX} stages")
    if type(spec) is not dict or len(spec) != 1:
        raise refused(40323, "A pipeline stage specification object must contain exactly one field.")
    ((name, operand),) = spec.items()
    return name, operand


def _stage(parsing: Parsing, name: str, operand: Value, position: int) -> Stage:
    parser = STAGES.get(name)
    if parser is None:
        known = ", ".join(sorted([*STAGES, *WRITES]))
        raise refused(40324, f"Unrecognized pipeline stage name: '{name[:80]}'; known are {known}")
    if name in _FIRST_ONLY and (position or parsing.place is Place.FACET):
        raise refused(40602, f"{name} is only valid as the first stage in a pipeline")
    return parser(parsing, name, operand)


def _write(parsing: Parsing, name: str, operand: Value, is_last: bool) -> Write:
    if parsing.place is not Place.MAIN:
        raise refused(51047, f"{name} is not allowed inside {parsing.place.value}")
    if not is_last:
        raise refused(40601, f"{name} can only be the final stage in the pipeline")
    return WRITES[name](parsing, operand)


def _split(stages: list[Stage]) -> tuple[Head, list[Stage]]:
    """The first stages as one read, as far as it gives exactly what they give."""
    head, at, exact = Head(), 0, True
    while at < len(stages):
        stage = stages[at]
        if not isinstance(stage, Match):
            break
        head = replace(head, matches=(*head.matches, stage))
        exact = exact and stage.rest is None
        at += 1
    rest = stages[at:]
    left: list[Stage] = [_residual(match) for match in head.matches if match.rest is not None]
    if exact:
        head, rest = _ordered_head(head, rest)
    return head, left + rest


def _residual(match: Match) -> Match:
    return replace(match, plain={})


def _ordered_head(head: Head, stages: list[Stage]) -> tuple[Head, list[Stage]]:
    at = 0
    if stages and isinstance(stages[0], Ordered):
        head = replace(head, sort=stages[0].sort)
        at = 1
    while at < len(stages):
        stage = stages[at]
        if isinstance(stage, Limited):
            limit = stage.count if head.limit is None else min(head.limit, stage.count)
            head = replace(head, limit=limit)
        elif isinstance(stage, Skipped):
            limited = None if head.limit is None else max(0, head.limit - stage.count)
            head = replace(head, skip=head.skip + stage.count, limit=limited)
        else:
            break
        at += 1
    return head, stages[at:]


def _through(
    stages: tuple[Stage, ...], documents: Documents, run: Run, variables: Variables
) -> Iterator[Document]:
    for stage in stages:
        documents = stage.run(counted(documents, variables), run, variables)
    return iter(documents)
