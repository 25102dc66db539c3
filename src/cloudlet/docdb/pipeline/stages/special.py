"""Stages that can only come first, because they make the documents themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cloudlet.docdb.base import CollectionInfo
from cloudlet.docdb.bytekeys import KeyPart
from cloudlet.docdb.pipeline.expressions import Variables, refused
from cloudlet.docdb.pipeline.geonear import parse_geo_near
from cloudlet.docdb.pipeline.stages.base import Documents, Flow, Parsing, Run, Stage, StageParser
from cloudlet.docdb.planner import ID_INDEX
from cloudlet.docdb.values import Document, Value


@dataclass(frozen=True, slots=True)
class Sourced:
    """A stage that needs no documents to begin with."""

    name: str
    function: Callable[[Run, Variables], Iterator[Document]]
    flow: Flow = Flow.OPAQUE

    def run(self, documents: Documents, run: Run, variables: Variables) -> Iterator[Document]:
        return self.function(run, variables)


def _index_stats(_parsing: Parsing, name: str, spec: Value) -> Stage:
    if spec != {}:
        raise refused(28803, "The $indexStats stage specification must be an empty object")

    def run(run: Run, _variables: Variables) -> Iterator[Document]:
        info = run.reader.info(run.collection)
        for index in () if info is None else (ID_INDEX, *info.indexes):
            key = {part.path: _direction(part) for part in index.parts}
            yield {
                "name": index.name,
                "key": key,
                "spec": {"v": 2, "key": key, "name": index.name, "unique": index.unique},
                "building": not index.ready,
            }

    return Sourced(name, run)


def _direction(part: KeyPart) -> Value:
    return part.kind if part.kind != "value" else -1 if part.descending else 1


def _coll_stats(_parsing: Parsing, name: str, spec: Value) -> Stage:
    if type(spec) is not dict:
        raise refused(5447000, "$collStats must take a nested object")
    for key in spec:
        if key not in ("count", "storageStats"):
            raise refused(40415, f"$collStats knows 'count' and 'storageStats', not '{key[:80]}'")

    def run(run: Run, _variables: Variables) -> Iterator[Document]:
        info = run.reader.info(run.collection)
        if info is None:
            return
        made: Document = {"ns": run.collection, "localTime": run.now}
        count = run.reader.count(run.collection)
        if "storageStats" in spec:
            made["storageStats"] = _storage_stats(info, count)
        if "count" in spec:
            made["count"] = count
        yield made

    return Sourced(name, run)


def _storage_stats(info: CollectionInfo, count: int) -> Document:
    return {"ns": info.name, "count": count, "nindexes": 1 + len(info.indexes)}


def _geo_near(parsing: Parsing, name: str, spec: Value) -> Stage:
    return Sourced(name, parse_geo_near(parsing, spec))


STAGES: Final[Mapping[str, StageParser]] = {
    "$collStats": _coll_stats,
    "$geoNear": _geo_near,
    "$indexStats": _index_stats,
}
"""Stages that come first."""
