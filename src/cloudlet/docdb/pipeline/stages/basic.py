"""Stages that look at one document after the other, and the order, the number and a sample of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from cloudlet.docdb.numeric import INT64_MAX, long_number
from cloudlet.docdb.pipeline.expressions import ROOT, Compiler, Variables, refused
from cloudlet.docdb.pipeline.expressions.base import (
    Marker,
    checked_names,
    kind_name,
    shown,
    split_names,
)
from cloudlet.docdb.pipeline.expressions.numbers import integral, number_kind
from cloudlet.docdb.pipeline.memory import Held
from cloudlet.docdb.pipeline.projecting import parse_add_fields, parse_project, parse_unset
from cloudlet.docdb.pipeline.stages.base import (
    Documents,
    Flow,
    Mapped,
    Parsing,
    Run,
    Stage,
    StageParser,
    Whole,
)
from cloudlet.docdb.pipeline.stages.matching import parse_match
from cloudlet.docdb.sort import Sort, parse_sort, sort_documents
from cloudlet.docdb.values import MISSING, Document, Value


@dataclass(frozen=True, slots=True)
class Ordered:
    """``$sort``."""

    sort: Sort
    name: str = "$sort"
    flow: Flow = Flow.PASSES

    def run(self, documents: Documents, run: Run, variables: Variables) -> Iterator[Document]:
        held = Held(self.name)
        kept: list[Document] = []
        for document in documents:
            held.add(document)
            kept.append(document)
        sort_documents(kept, self.sort, lambda document: document)
        yield from kept


@dataclass(frozen=True, slots=True)
class Limited:
    """``$limit``."""

    count: int
    name: str = "$limit"
    flow: Flow = Flow.PASSES

    def run(self, documents: Documents, run: Run, variables: Variables) -> Iterator[Document]:
        return islice(documents, self.count)


@dataclass(frozen=True, slots=True)
class Skipped:
    """``$skip``."""

    count: int
    name: str = "$skip"
    flow: Flow = Flow.PASSES

    def run(self, documents: Documents, run: Run, variables: Variables) -> Iterator[Document]:
        return islice(documents, self.count, None)


def _project(parsing: Parsing, name: str, spec: Value) -> Stage:
    found = parse_project(parsing.compiler, spec)
    return Mapped(name, Flow.RESETS if found.including else Flow.PASSES, found.shape)


def _add_fields(parsing: Parsing, name: str, spec: Value) -> Stage:
    return Mapped(name, Flow.PASSES, parse_add_fields(parsing.compiler, name, spec))


def _unset(parsing: Parsing, name: str, spec: Value) -> Stage:
    return Mapped(name, Flow.PASSES, parse_unset(spec))


def _replace(parsing: Parsing, name: str, spec: Value) -> Stage:
    if name == "$replaceRoot":
        spec = checked_names(name, spec, ("newRoot",))["newRoot"]
    evaluate = parsing.compiler.compile(spec)

    def replaced(document: Document, variables: Variables) -> Document:
        found = evaluate(document, variables)
        if type(found) is not dict:
            raise refused(
                40228,
                "'newRoot' expression must evaluate to an object, but resulting value was: "
                f"{shown(found)}. Type of resulting value: '{kind_name(found)}'",
            )
        return found

    return Mapped(name, Flow.RESETS, replaced)


def parse_order(parsing: Parsing, _name: str, spec: Value) -> Ordered:
    """``$sort``. Raises InvalidFilter or InvalidSort."""
    if type(spec) is not dict:
        raise refused(15973, "the $sort key specification must be an object")
    if not spec:
        raise refused(15976, "$sort stage must have at least one sort key")
    sort = parse_sort(spec)
    parsing.compiler.facts.fields.update(item.segments[0][0] for item in sort)
    return Ordered(sort)


def _whole_count(name: str, spec: Value, code: int, low: int) -> int:
    number = integral(spec)
    if not number_kind(spec) or number is None or not low <= number <= INT64_MAX:
        kind = "positive" if low else "non-negative"
        raise refused(
            code, f"invalid argument to {name} stage: expected a {kind} integer, found: {shown(spec)}"
        )
    return number


def _limit(_parsing: Parsing, name: str, spec: Value) -> Stage:
    return Limited(_whole_count(name, spec, 15958, 1))


def _skip(_parsing: Parsing, name: str, spec: Value) -> Stage:
    return Skipped(_whole_count(name, spec, 15956, 0))


def _count(_parsing: Parsing, name: str, spec: Value) -> Stage:
    if type(spec) is not str or not spec:
        raise refused(40156, "the count field must be a non-empty string")
    if spec.startswith("$") or "." in spec or "\0" in spec:
        raise refused(40158, "the count field cannot be a $-prefixed path or contain '.' or null bytes")

    def run(documents: Documents, _run: Run, _variables: Variables) -> Iterator[Document]:
        total = sum(1 for _ in documents)
        if total:
            yield {spec: total}

    return Whole(name, Flow.RESETS, run)


def _sample(_parsing: Parsing, name: str, spec: Value) -> Stage:
    given = checked_names(name, spec, ("size",))
    size = _whole_count(name, given["size"], 28747, 0)

    def run(documents: Documents, run: Run, _variables: Variables) -> Iterator[Document]:
        held = Held(name)
        kept: list[Document] = []
        for position, document in enumerate(documents):
            if len(kept) < size:
                held.add(document)
                kept.append(document)
            else:
                at = run.random.randint(0, position)
                if at < size:
                    kept[at] = document
        run.random.shuffle(kept)
        yield from kept

    return Whole(name, Flow.PASSES, run)


# Arrays taken apart.


def _unwind(parsing: Parsing, name: str, spec: Value) -> Stage:
    given = {"path": spec} if type(spec) is str else spec
    if type(given) is not dict:
        raise refused(
            15981,
            f"expected either a string or an object as specification for $unwind, got {kind_name(spec)}",
        )
    for key in given:
        if key not in ("path", "includeArrayIndex", "preserveNullAndEmptyArrays"):
            raise refused(28811, f"unrecognized option to $unwind stage: {key[:80]}")
    path, index = given.get("path"), given.get("includeArrayIndex")
    preserve = given.get("preserveNullAndEmptyArrays", False)
    if type(path) is not str:
        raise refused(28812, "no path specified to $unwind stage")
    if not path.startswith("$"):
        raise refused(28818, f"path option to $unwind stage should be prefixed with a '$': {path[:80]}")
    if type(preserve) is not bool:
        raise refused(28809, "expected a boolean for the preserveNullAndEmptyArrays option to $unwind stage")
    if index is not None and (type(index) is not str or not index or index.startswith("$")):
        raise refused(
            28810, "expected a non-empty string without '$' for the includeArrayIndex option to $unwind stage"
        )
    names = split_names(path[1:])
    index_names = split_names(index) if index else ()
    parsing.compiler.facts.fields.add(names[0])

    def run(documents: Documents, _run: Run, _variables: Variables) -> Iterator[Document]:
        for document in documents:
            yield from _unwound(document, names, index_names, preserve)

    return Whole(name, Flow.PASSES, run)


def _unwound(
    document: Document, names: tuple[str, ...], index_names: tuple[str, ...], preserve: bool
) -> Iterator[Document]:
    value = nested(document, names)
    if type(value) is list and value:
        for position, item in enumerate(value):
            made = with_nested(document, names, item)
            yield with_nested(made, index_names, long_number(position)) if index_names else made
    elif type(value) is list or value is None or value is MISSING:
        if preserve:
            made = with_nested(document, names, MISSING) if type(value) is list else document
            yield with_nested(made, index_names, None) if index_names else made
    else:
        yield with_nested(document, index_names, None) if index_names else document


def nested(document: Document, names: tuple[str, ...]) -> Value:
    """What a path leads to through objects only."""
    value: Value = document
    for name in names:
        if type(value) is not dict:
            return MISSING
        value = value.get(name, MISSING)
    return value


def with_nested(document: Document, names: tuple[str, ...], value: Value) -> Document:
    """A copy with the path set (or removed for MISSING); what is no object on the way gives way to one."""
    made = dict(document)
    name = names[0]
    if len(names) > 1:
        below = made.get(name)
        if value is MISSING and type(below) is not dict:
            return made
        made[name] = with_nested(below if type(below) is dict else {}, names[1:], value)
    elif value is MISSING:
        made.pop(name, None)
    else:
        made[name] = value
    return made


# Levels of a document.


def _redact(parsing: Parsing, name: str, spec: Value) -> Stage:
    inner = parsing.compiler
    compiler = Compiler(inner.operators, inner.names, True, inner.facts)
    evaluate = compiler.compile(spec)

    def level(document: Document, variables: Variables) -> Value:
        decision = evaluate(document, variables)
        if decision is Marker.KEEP:
            return document
        if decision is Marker.PRUNE:
            return MISSING
        if decision is not Marker.DESCEND:
            raise refused(
                17053,
                "$redact's expression should not return anything aside from the variables $$KEEP, $$DESCEND, "
                f"and $$PRUNE, but returned {shown(decision)}",
            )
        found = {key: below(value, variables) for key, value in document.items()}
        return {key: value for key, value in found.items() if value is not MISSING}

    def below(value: Value, variables: Variables) -> Value:
        if type(value) is dict:
            return level(value, variables)
        if type(value) is list:
            found = [below(item, variables) for item in value]
            return [item for item in found if item is not MISSING]
        return value

    def run(documents: Documents, _run: Run, variables: Variables) -> Iterator[Document]:
        for document in documents:
            found = level(document, {**variables, ROOT: document})
            if found is not MISSING:
                yield found

    return Whole(name, Flow.OPAQUE, run)


def _matching(parsing: Parsing, name: str, spec: Value) -> Stage:
    return parse_match(parsing, name, spec)


def _ordering(parsing: Parsing, name: str, spec: Value) -> Stage:
    return parse_order(parsing, name, spec)


STAGES: Final[Mapping[str, StageParser]] = {
    "$addFields": _add_fields,
    "$count": _count,
    "$limit": _limit,
    "$match": _matching,
    "$project": _project,
    "$redact": _redact,
    "$replaceRoot": _replace,
    "$replaceWith": _replace,
    "$sample": _sample,
    "$set": _add_fields,
    "$skip": _skip,
    "$sort": _ordering,
    "$unset": _unset,
    "$unwind": _unwind,
}
"""Stages on single documents."""
