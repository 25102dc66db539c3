"""Running pipelines over documents at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudlet.docdb.base import Row
from cloudlet.docdb.limits import DEFAULT_LIMITS, DocdbLimits
from cloudlet.docdb.pipeline.execute import make_aggregation, run_here, run_through
from cloudlet.docdb.pipeline.reader import RowsReader
from cloudlet.docdb.values import date_to_ms, prepare
from tests.unit.docdb.pipeline.cases.kit import NOW


def rows(documents: list[dict[str, Any]]) -> list[Row]:
    """Documents as rows of a store."""
    return [Row(at, bytes([at % 256]), 1, 1, document) for at, document in enumerate(documents)]


def run(
    stages: Any,
    documents: list[dict[str, Any]],
    limits: DocdbLimits = DEFAULT_LIMITS,
    bounded: bool = False,
    others: Mapping[str, list[dict[str, Any]]] | None = None,
) -> list[dict[str, Any]]:
    """The result over the collection ``c``; ``bounded``: with the limits of the server's own process."""
    now_ms = date_to_ms(NOW)
    everything = {"c": documents, **(others or {})}
    reader = RowsReader({name: rows(found) for name, found in everything.items()})
    work = make_aggregation("c", prepare(stages, now_ms), now_ms)
    if bounded:
        return run_here(work, reader, limits)
    return run_through(work, work.pipeline, reader, limits)
