"""Stages that bring documents of other collections: ``$lookup``, ``$graphLookup``, ``$unionWith``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, cast

from cloudlet.docdb.numeric import long_number
from cloudlet.docdb.paths import Segments, resolve, split_path
from cloudlet.docdb.pipeline.expressions import Expression, Variables, refused
from cloudlet.docdb.pipeline.expressions.base import (
    checked_names,
    group_key,
    kind_name,
    shown,
    spend,
    split_names,
    walk,
)
from cloudlet.docdb.pipeline.expressions.numbers import integral
from cloudlet.docdb.pipeline.expressions.variables import user_name
from cloudlet.docdb.pipeline.memory import Held, size_of
from cloudlet.docdb.pipeline.reader import Sought
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
from cloudlet.docdb.pipeline.stages.basic import with_nested
from cloudlet.docdb.values import MISSING, Document, Regex, Value, order_key
from cloudlet.model.errors import InvalidFilter, QueryTooCostly

if TYPE_CHECKING:
    from cloudlet.docdb.pipeline.parse import Pipeline

BATCH: Final = 200
"""Documents that are joined with one read, and values of one ``$in``: below what the planner still ranges."""


def local_values(document: Document, segments: Segments) -> list[Value]:
    """What a document wants to be joined by: each element of an array by itself; null for nothing."""
    found: list[Value] = []
    for leaf in resolve(document, segments):
        if type(leaf) is list:
            found += leaf
        elif leaf is not MISSING:
            found.append(leaf)
    return found or [None]


def wanted_condition(path: str, values: Sequence[Value]) -> Document:
    """A filter for documents with one of these values; a pattern counts as the value it is."""
    plain = [value for value in values if type(value) is not Regex]
    patterns: list[Document] = [{path: {"$eq": value}} for value in values if type(value) is Regex]
    if not patterns:
        return {path: {"$in": plain}}
    return {"$or": [{path: {"$in": plain}}, *patterns]}


def _key(value: Value) -> object:
    """Equal for values that a filter holds for equal: missing is null here."""
    return value if type(value) is str else order_key(value)


@dataclass(slots=True)
class Table:
    """Documents of another collection by the values at one path."""

    segments: Segments
    documents: list[Document] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    by_key: dict[object, list[int]] = field(default_factory=dict)

    def add(self, document: Document) -> None:
        """One more document."""
        position = len(self.documents)
        self.documents.append(document)
        self.sizes.append(size_of(document))
        keys = set()
        for leaf in resolve(document, self.segments):
            keys.add(_key(leaf))
            if type(leaf) is list:
                keys.update(map(_key, leaf))
        for key in keys:
            self.by_key.setdefault(key, []).append(position)

    def matching(self, values: Iterable[Value]) -> list[int]:
        """The positions of the documents that have one of the values, in order."""
        found: set[int] = set()
        for value in values:
            found.update(self.by_key.get(_key(value), ()))
        return sorted(found)


class Near:
    """The documents that a pipeline of ``$lookup`` starts from, for one document after the other."""

    def __init__(
        self,
        collection: str,
        kept: list[Document] | None = None,
        hint: tuple[str, Expression] | None = None,
    ) -> None:
        self._collection = collection
        self._kept = kept
        self._wanted: Expression | None = None
        self._by_key: dict[object, list[Document]] = {}
        if kept is not None and hint is not None:
            path, self._wanted = hint
            names = split_names(path)
            for document in kept:
                self._by_key.setdefault(group_key(walk(document, names, 0)), []).append(document)

    def result(self, inner: Pipeline, run: Run, bound: Variables) -> Iterator[Document]:
        """What the pipeline makes with these variables."""
        if self._kept is None:
            return inner.over(run, self._collection, bound)
        if self._wanted is None:
            return inner.through(self._kept, run, bound)
        key = group_key(self._wanted({}, bound))
        return inner.through(self._by_key.get(key, ()), run, bound)


@dataclass(frozen=True, slots=True)
class Lookup:
    """``$lookup`` in all its forms."""

    collection: str
    as_names: tuple[str, ...]
    local: Segments = ()
    foreign: Segments = ()
    foreign_path: str = ""
    bindings: tuple[tuple[str, Expression], ...] = ()
    inner: Pipeline | None = None
    name: str = "$lookup"
    flow: Flow = Flow.PASSES

    def run(self, documents: Documents, run: Run, variables: Variables) -> Iterator[Document]:
        if self.local:
            yield from self._joined(documents, run, variables)
            return
        inner = self.inner
        if inner is None:
            raise refused(9, "$lookup needs localField and foreignField, or a pipeline")
        if not inner.variables & {name for name, _ in self.bindings}:
            yield from self._same_for_all(inner, documents, run, variables)
            return
        near: Near | None = None
        for document in documents:
            bound = self._bound(document, variables)
            near = near or self._nearby(inner, run, bound)
            found = self._bounded(near.result(inner, run, bound), run)
            spend(variables, len(found))
            yield with_nested(document, self.as_names, found)

    def _same_for_all(
        self, inner: Pipeline, documents: Documents, run: Run, variables: Variables
    ) -> Iterator[Document]:
        """The other pipeline uses no variable of this one: it runs once."""
        found: list[Document] | None = None
        for document in documents:
            if found is None:
                found = self._bounded(inner.over(run, self.collection, dict(variables)), run)
            spend(variables, len(found))
            yield with_nested(document, self.as_names, list(found))

    def _nearby(self, inner: Pipeline, run: Run, bound: Variables) -> Near:
        """Where the other pipeline finds its documents: by an index each time, or all at hand."""
        if inner.sources:
            return Near(self.collection)
        sought = inner.head.sought(self.collection, bound, None)
        if run.reader.is_indexed(sought):
            return Near(self.collection)
        held = Held(self.name)
        kept: list[Document] = []
        plain = tuple(match.plain for match in inner.head.matches if match.plain)
        try:
            for document in run.reader.find(Sought(self.collection, plain)):
                held.add(document)
                kept.append(document)
        except QueryTooCostly:
            if run.budget is not None:
                raise
            return Near(self.collection)
        hints = [hint for match in inner.head.matches for hint in match.hints]
        return Near(self.collection, kept, hints[0] if hints else None)

    def _joined(self, documents: Documents, run: Run, variables: Variables) -> Iterator[Document]:
        source = iter(documents)
        table: Table | None = None
        while batch := list(islice(source, BATCH)):
            wanted = [local_values(document, self.local) for document in batch]
            if table is None:
                table = self._everything(run, wanted)
            near = table or self._near(run, wanted)
            for document, values in zip(batch, wanted, strict=True):
                yield self._with_found(document, near, near.matching(values), run, variables)

    def _with_found(
        self, document: Document, table: Table, positions: list[int], run: Run, variables: Variables
    ) -> Document:
        spend(variables, len(positions))
        if sum(table.sizes[at] for at in positions) > run.document_bytes_max:
            raise self._explosion(run)
        found = [table.documents[at] for at in positions]
        if self.inner is not None and self.inner.stages:
            bound = self._bound(document, variables)
            found = self._bounded(self.inner.through(found, run, bound), run)
        return with_nested(document, self.as_names, found)

    def _everything(self, run: Run, wanted: list[list[Value]]) -> Table | None:
        """The whole collection, if no index leads to what is wanted: it is read once, not per batch."""
        first = Sought(self.collection, (wanted_condition(self.foreign_path, wanted[0][:BATCH]),))
        if run.reader.is_indexed(first):
            return None
        return self._filled(run.reader.find(Sought(self.collection)))

    def _near(self, run: Run, wanted: list[list[Value]]) -> Table:
        values = list({_key(value): value for values in wanted for value in values}.values())
        rows = chain.from_iterable(
            run.reader.find(
                Sought(self.collection, (wanted_condition(self.foreign_path, values[at : at + BATCH]),))
            )
            for at in range(0, len(values), BATCH)
        )
        seen: set[object] = set()
        distinct = []
        for document in rows:
            key = _key(document.get("_id", MISSING))
            if key not in seen:
                seen.add(key)
                distinct.append(document)
        return self._filled(distinct)

    def _filled(self, documents: Iterable[Document]) -> Table:
        held = Held(self.name)
        table = Table(self.foreign)
        for document in documents:
            held.add(document)
            table.add(document)
        return table

    def _bound(self, document: Document, variables: Variables) -> Variables:
        bound = dict(variables)
        for name, expression in self.bindings:
            bound[name] = expression(document, variables)
        return bound

    def _bounded(self, documents: Iterable[Document], run: Run) -> list[Document]:
        found, size = [], 0
        for document in documents:
            size += size_of(document)
            if size > run.document_bytes_max:
                raise self._explosion(run)
            found.append(document)
        return found

    def _explosion(self, run: Run) -> QueryTooCostly:
        return QueryTooCostly(
            f"Total size of documents in {self.collection} matching pipeline's $lookup stage exceeds "
            f"{run.document_bytes_max} bytes; match or project in its pipeline (code 4568)"
        )


def _lookup(parsing: Parsing, name: str, spec: Value) -> Stage:
    known = ("localField", "foreignField", "let", "pipeline")
    given = checked_names(name, spec, ("from", "as"), known)
    collection = _collection(parsing, name, given["from"])
    as_names = split_names(_text(name, "as", given["as"]))
    by_field = "localField" in given or "foreignField" in given
    if by_field and not ("localField" in given and "foreignField" in given):
        raise refused(9, "$lookup requires both or neither of 'localField' and 'foreignField'")
    if not by_field and "pipeline" not in given:
        raise refused(9, "$lookup requires either 'pipeline' or both 'localField' and 'foreignField'")
    if "let" in given and "pipeline" not in given:
        raise refused(9, "$lookup with 'let' needs a 'pipeline'")
    bindings = _bindings(parsing, given.get("let", {}))
    inner = None
    if "pipeline" in given:
        names = tuple(key for key, _ in bindings)
        inner = cast("Pipeline", parsing.pipeline(parsing, given["pipeline"], names, Place.LOOKUP))
        parsing.compiler.facts.variables |= inner.variables - frozenset(names)
    if not by_field:
        return Lookup(collection, as_names, bindings=bindings, inner=inner)
    local, foreign = (_text(name, key, given[key]) for key in ("localField", "foreignField"))
    parsing.compiler.facts.fields.add(local.split(".", 1)[0])
    return Lookup(
        collection,
        as_names,
        split_path(local, InvalidFilter),
        split_path(foreign, InvalidFilter),
        foreign,
        bindings,
        inner,
    )


def _bindings(parsing: Parsing, value: Value) -> tuple[tuple[str, Expression], ...]:
    if type(value) is not dict:
        raise refused(9, f"$lookup argument 'let' must be an object, is type {kind_name(value)}")
    return tuple((user_name(key), parsing.compiler.compile(item)) for key, item in value.items())


def _collection(parsing: Parsing, name: str, value: Value) -> str:
    collection = _text(name, "from", value)
    parsing.collected.foreign.add(collection)
    return collection


def _text(name: str, key: str, value: Value) -> str:
    if type(value) is not str or not value:
        raise refused(9, f"{name} argument '{key}' must be a string, found: {kind_name(value)}")
    if key not in ("from", "coll") and value.startswith("$"):
        raise refused(16410, f"{name} argument '{key}' must be a field name without '$'")
    return value


# Graphs.


def _graph_lookup(parsing: Parsing, name: str, spec: Value) -> Stage:
    needed = ("from", "startWith", "connectFromField", "connectToField", "as")
    given = checked_names(name, spec, needed, ("maxDepth", "depthField", "restrictSearchWithMatch"))
    collection = _collection(parsing, name, given["from"])
    as_names = split_names(_text(name, "as", given["as"]))
    connect_from = split_path(_text(name, "connectFromField", given["connectFromField"]), InvalidFilter)
    connect_to = _text(name, "connectToField", given["connectToField"])
    split_path(connect_to, InvalidFilter)
    start = parsing.compiler.compile(given["startWith"])
    depth_max = _depth_max(given.get("maxDepth"))
    depth_names = split_names(_text(name, "depthField", given["depthField"])) if "depthField" in given else ()
    restriction = given.get("restrictSearchWithMatch", {})
    if type(restriction) is not dict:
        raise refused(40185, "restrictSearchWithMatch must be an object")

    def search(document: Document, run: Run, variables: Variables) -> list[Document]:
        first = start(document, variables)
        values = first if type(first) is list else [] if first is MISSING else [first]
        frontier = {_key(value): value for value in values}
        held, depth = Held(name), 0
        found: dict[object, Document] = {}
        asked: set[object] = set()
        while frontier and (depth_max is None or depth <= depth_max):
            asked.update(frontier)
            following: dict[object, Value] = {}
            for near in _step(run, collection, connect_to, list(frontier.values()), restriction):
                key = _key(near.get("_id", MISSING))
                if key in found:
                    continue
                held.add(near)
                spend(variables, 1)
                found[key] = with_nested(near, depth_names, long_number(depth)) if depth_names else near
                for leaf in resolve(near, connect_from):
                    for value in leaf if type(leaf) is list else (leaf,):
                        if value is not MISSING and _key(value) not in asked:
                            following[_key(value)] = value
            frontier, depth = following, depth + 1
        return list(found.values())

    def run_all(documents: Documents, run: Run, variables: Variables) -> Iterator[Document]:
        for document in documents:
            yield with_nested(document, as_names, search(document, run, variables))

    return Whole(name, Flow.PASSES, run_all)


def _step(
    run: Run, collection: str, path: str, values: list[Value], restriction: Document
) -> Iterator[Document]:
    for at in range(0, len(values), BATCH):
        condition = wanted_condition(path, values[at : at + BATCH])
        conditions = (condition, restriction) if restriction else (condition,)
        yield from run.reader.find(Sought(collection, conditions))


def _depth_max(value: Value) -> int | None:
    if value is None:
        return None
    found = integral(value)
    if found is None or found < 0:
        raise refused(40101, f"maxDepth requires a nonnegative argument, found: {shown(value)}")
    return found


# More documents at the end.


def _union(parsing: Parsing, name: str, spec: Value) -> Stage:
    given = {"coll": spec} if type(spec) is str else checked_names(name, spec, ("coll",), ("pipeline",))
    collection = _collection(parsing, name, _text(name, "coll", given["coll"]))
    stages: Value = given.get("pipeline", [])
    inner = cast("Pipeline", parsing.pipeline(parsing, stages, (), Place.UNION))
    parsing.compiler.facts.variables |= inner.variables

    def run(documents: Documents, run: Run, variables: Variables) -> Iterator[Document]:
        yield from documents
        yield from inner.over(run, collection, variables)

    return Whole(name, Flow.OPAQUE, run)


STAGES: Final[Mapping[str, StageParser]] = {
    "$graphLookup": _graph_lookup,
    "$lookup": _lookup,
    "$unionWith": _union,
}
"""Stages that read other collections."""
