"""Running a pipeline: the records that cross the seam to the engines, and the run itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from cloudlet.docdb.base import Read
from cloudlet.docdb.filter import where
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.pipeline.expressions import Budget
from cloudlet.docdb.pipeline.memory import size_of
from cloudlet.docdb.pipeline.parse import Pipeline, parse_pipeline
from cloudlet.docdb.pipeline.reader import CollectionReader, RestrictedReader, RowsReader
from cloudlet.docdb.pipeline.stages.base import Run
from cloudlet.docdb.values import Document, Value, date_from_ms
from cloudlet.model.errors import QueryTooCostly, ResultTooLarge

NOTHING: Final[tuple[Document, ...]] = ({"$nor": [{}]},)
"""What no document matches."""
STEPS_PER_DOCUMENT: Final = 10
"""Steps of a pipeline in the server's own process, for each document a plain read may look at there."""
NODES_PER_STEP: Final = 20
"""Parts of expressions that come with a step; of a pipeline with more each step counts for several."""


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One pipeline to be run over one collection, in one snapshot."""

    collection: str
    stages: Value
    """As prepared values: what is sent to a worker."""
    pipeline: Pipeline
    """Parsed: what is run in the server's own process."""
    now_ms: int
    conditions: Mapping[str, tuple[Document, ...]] | None = None
    """What each collection is narrowed by; collections without an entry cannot be read. None: everything."""

    @property
    def collections(self) -> frozenset[str]:
        """All collections that are read."""
        return self.pipeline.foreign | {self.collection}


@dataclass(frozen=True, slots=True)
class Aggregated:
    """The documents of a result, and how many were looked at for it."""

    documents: list[Document]
    examined: int = 0


def make_aggregation(
    collection: str,
    stages: Value,
    now_ms: int,
    conditions: Mapping[str, tuple[Document, ...]] | None = None,
) -> Aggregation:
    """Parse prepared stages. Raises InvalidFilter or InvalidSort."""
    return Aggregation(collection, stages, parse_pipeline(stages), now_ms, conditions)


def run_here(work: Aggregation, reader: CollectionReader, limits: DocdbLimits) -> list[Document]:
    """The result, in the server's own process: Overrun is raised when it takes too many steps.

    The documents may share parts with those of the reader.
    """
    return run_through(work, work.pipeline, reader, limits, _budget(work.pipeline, limits))


def head_read(work: Aggregation) -> Read | None:
    """What a pipeline reads first, if that is all it reads: for engines that cannot be read synchronously."""
    pipeline = work.pipeline
    if pipeline.sources or pipeline.foreign:
        return None
    sought = pipeline.head.sought(work.collection, {}, pipeline.fields)
    conditions = sought.conditions
    if work.conditions is not None:
        conditions = (*work.conditions.get(work.collection, NOTHING), *conditions)
    return Read(work.collection, where(*conditions), sought.sort, sought.skip, sought.limit)


def finish_here(work: Aggregation, found: Iterable[Document], limits: DocdbLimits) -> list[Document]:
    """The result from the documents that ``pipeline.head`` wants, for an engine that has read them itself.

    Only for pipelines that have a ``head_read``.
    """
    budget = _budget(work.pipeline, limits)
    run = Run(RowsReader({}), work.collection, date_from_ms(work.now_ms), Random(), budget)
    return _collected(work.pipeline.after_head(found, run, run.variables()), limits)


def run_through(
    work: Aggregation,
    pipeline: Pipeline,
    reader: CollectionReader,
    limits: DocdbLimits,
    budget: Budget | None = None,
) -> list[Document]:
    """The result of a parsed pipeline. Raises ResultTooLarge, QueryTooCostly, InvalidFilter."""
    seen = reader if work.conditions is None else RestrictedReader(reader, work.conditions)
    now = date_from_ms(work.now_ms)
    run = Run(seen, work.collection, now, Random(), budget, limits.document_bytes_max)
    return _collected(pipeline.over(run, work.collection, run.variables()), limits)


def _budget(pipeline: Pipeline, limits: DocdbLimits) -> Budget:
    steps = STEPS_PER_DOCUMENT * limits.examined_inline_max
    return Budget(steps // (1 + pipeline.nodes // NODES_PER_STEP))


def _collected(documents: Iterable[Document], limits: DocdbLimits) -> list[Document]:
    found, size = [], 0
    try:
        for document in documents:
            size += size_of(document)
            if size > limits.result_bytes_max:
                raise ResultTooLarge(
                    f"the result is larger than {limits.result_bytes_max} bytes; use $limit or $project"
                )
            found.append(document)
    except RecursionError as exc:
        raise QueryTooCostly("the pipeline makes values that are nested too deeply") from exc
    return found
