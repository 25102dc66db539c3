"""What all stages share: how they are parsed and what they get when they run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from random import Random
from typing import Protocol, TypeAlias

from cloudlet.docdb.limits import PATTERN_SUBJECT_MAX
from cloudlet.docdb.pipeline.expressions import BUDGET, Budget, Compiler, Variables, compiler, variables_at
from cloudlet.docdb.pipeline.expressions.base import Facts
from cloudlet.docdb.pipeline.reader import CollectionReader
from cloudlet.docdb.values import Document, Value

Documents: TypeAlias = Iterable[Document]


class Flow(Enum):
    """What a stage does to the fields of the documents it gets."""

    PASSES = "passes"
    """Documents go on with all their fields, though some may be set or removed."""
    RESETS = "resets"
    """Only what the stage itself reads is left."""
    OPAQUE = "opaque"
    """The stage may look at everything."""


class Place(Enum):
    """Where a pipeline stands."""

    MAIN = "the pipeline"
    FACET = "$facet"
    LOOKUP = "the pipeline of $lookup"
    UNION = "the pipeline of $unionWith"


@dataclass(slots=True)
class Run:
    """What one running pipeline has to work with."""

    reader: CollectionReader
    collection: str
    now: datetime
    random: Random
    budget: Budget | None = None
    """Steps that may be taken where the pipeline runs; None: as many as the time limit allows."""
    document_bytes_max: int = 16 * 1024 * 1024

    def variables(self) -> Variables:
        """The variables at the start."""
        return variables_at(self.now, self.budget)


class Stage(Protocol):
    """One step: documents in, documents out, one after the other where it can."""

    @property
    def name(self) -> str:
        """As it is written, with ``$``."""
        ...

    @property
    def flow(self) -> Flow: ...

    def run(self, documents: Documents, run: Run, variables: Variables) -> Iterator[Document]:
        """The documents that go on. What comes in is never changed, only copied."""
        ...


@dataclass(slots=True)
class Collected:
    """What is learnt about a whole pipeline, its inner ones included."""

    nodes: int = 0
    stages: int = 0
    costly: bool = False
    foreign: set[str] = field(default_factory=set)
    """Other collections that are read."""


@dataclass(frozen=True, slots=True)
class Parsing:
    """Where a stage is being parsed."""

    compiler: Compiler
    collected: Collected
    place: Place
    pipeline: Callable[[Parsing, Value, tuple[str, ...], Place], object]
    """Parses an inner pipeline; the result is a ``Pipeline``."""
    depth: int = 0
    subject_max: int | None = PATTERN_SUBJECT_MAX
    """Texts that a regular expression of ``$match`` may search."""

    def fresh(self) -> Parsing:
        """The same place with facts of its own, for one stage."""
        made = compiler(self.compiler.names)
        made.facts.nodes = self.collected.nodes
        return replace(self, compiler=made)

    def learn(self, facts: Facts) -> None:
        """Add what was learnt from one stage."""
        self.collected.nodes = max(self.collected.nodes, facts.nodes)
        self.collected.costly = self.collected.costly or facts.costly


StageParser: TypeAlias = Callable[[Parsing, str, Value], Stage]


@dataclass(frozen=True, slots=True)
class Mapped:
    """A stage that makes one document out of one."""

    name: str
    flow: Flow
    function: Callable[[Document, Variables], Document]

    def run(self, documents: Documents, run: Run, variables: Variables) -> Iterator[Document]:
        function = self.function
        return (function(document, variables) for document in documents)


@dataclass(frozen=True, slots=True)
class Whole:
    """A stage that is a function of everything that comes in."""

    name: str
    flow: Flow
    function: Callable[[Documents, Run, Variables], Iterator[Document]]

    def run(self, documents: Documents, run: Run, variables: Variables) -> Iterator[Document]:
        return self.function(documents, run, variables)


def counted(documents: Documents, variables: Variables) -> Documents:
    """The documents, each of which is a step of the budget, if there is one."""
    budget = variables.get(BUDGET)
    return documents if budget is None else _counted(documents, budget)


def _counted(documents: Documents, budget: Budget) -> Iterator[Document]:
    for document in documents:
        budget.spend(1)
        yield document
