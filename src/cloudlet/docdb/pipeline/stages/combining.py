"""``$facet``: several pipelines over the same documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, cast

from cloudlet.docdb.pipeline.expressions import Variables, refused
from cloudlet.docdb.pipeline.expressions.base import check_name
from cloudlet.docdb.pipeline.memory import Held
from cloudlet.docdb.pipeline.stages.base import (
    Documents,
    Flow,
    Parsing,
    Place,
    Run,
    Stage,
    StageParser,
    Whole,
)
from cloudlet.docdb.values import Document, Value

if TYPE_CHECKING:
    from cloudlet.docdb.pipeline.parse import Pipeline

FACETS_MAX: Final = 100


def _facet(parsing: Parsing, name: str, spec: Value) -> Stage:
    if type(spec) is not dict or not spec:
        raise refused(40169, "the $facet specification must be a non-empty object")
    if len(spec) > FACETS_MAX:
        raise refused(40169, f"$facet may have {FACETS_MAX} pipelines")
    if parsing.place is Place.FACET:
        raise refused(40600, "$facet is not allowed to be used within a $facet stage")
    facets: dict[str, Pipeline] = {}
    for key, stages in spec.items():
        check_name(key)
        if type(stages) is not list:
            raise refused(40170, f"arguments to $facet must be arrays, {key[:80]} is not")
        facets[key] = cast("Pipeline", parsing.pipeline(parsing, stages, (), Place.FACET))
        parsing.compiler.facts.variables |= facets[key].variables

    def run(documents: Documents, run: Run, variables: Variables) -> Iterator[Document]:
        held = Held(name)
        kept: list[Document] = []
        for document in documents:
            held.add(document)
            kept.append(document)
        made: Document = {}
        for key, pipeline in facets.items():
            made[key] = found = []
            for document in pipeline.through(kept, run, variables):
                held.add(document)
                found.append(document)
        yield made

    return Whole(name, Flow.OPAQUE, run)


STAGES: Final[Mapping[str, StageParser]] = {"$facet": _facet}
"""Stages that run pipelines side by side."""
