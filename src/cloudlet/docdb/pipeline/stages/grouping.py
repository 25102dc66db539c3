"""Stages that put documents together: ``$group``, buckets, counts by value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias

from cloudlet.docdb.pipeline.accumulators import Accumulation, Accumulator, parse_accumulator
from cloudlet.docdb.pipeline.expressions import Constant, Expression, Variables, refused
from cloudlet.docdb.pipeline.expressions.base import checked_names, full_key, kind_name, shown
from cloudlet.docdb.pipeline.expressions.numbers import integral
from cloudlet.docdb.pipeline.granularity import GRANULARITIES, Granularity
from cloudlet.docdb.pipeline.memory import Held
from cloudlet.docdb.pipeline.stages.base import Documents, Flow, Parsing, Run, Stage, StageParser, Whole
from cloudlet.docdb.values import MISSING, Document, Value, rank

FIELDS_MAX: Final = 500

_Step: TypeAlias = tuple[Expression, Callable[[Value], None]]
_Group: TypeAlias = tuple[Value, list[Accumulator], list[_Step]]
"""Its id, its accumulators, and what each of them is given."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The accumulated fields of a stage."""

    names: tuple[str, ...]
    accumulations: tuple[Accumulation, ...]

    def start(self) -> list[Accumulator]:
        """The accumulators of one group."""
        return [item.make() for item in self.accumulations]

    def finished(self, id: Value, accumulators: list[Accumulator]) -> Document:
        """The document of one group."""
        made = {"_id": id}
        for name, accumulator in zip(self.names, accumulators, strict=True):
            made[name] = accumulator.result()
        return made

    def add(
        self, accumulators: list[Accumulator], document: Document, variables: Variables, held: Held
    ) -> None:
        """One more document of a group."""
        for accumulation, accumulator in zip(self.accumulations, accumulators, strict=True):
            value = accumulation.evaluate(document, variables)
            if accumulation.grows:
                held.add(value)
            accumulator.add(value)


def parse_fields(parsing: Parsing, spec: Document) -> Fields:
    """Accumulators by field. Raises InvalidFilter."""
    if len(spec) > FIELDS_MAX:
        raise refused(2, f"a group may have {FIELDS_MAX} fields")
    made = [parse_accumulator(parsing.compiler, name, value) for name, value in spec.items()]
    return Fields(tuple(spec), tuple(made))


def _group(parsing: Parsing, name: str, spec: Value) -> Stage:
    if type(spec) is not dict:
        raise refused(15947, "a group's fields must be specified in an object")
    if "_id" not in spec:
        raise refused(15955, "a group specification must include an _id")
    by = parsing.compiler.compile(spec["_id"])
    fields = parse_fields(parsing, {key: value for key, value in spec.items() if key != "_id"})
    return grouped(name, by, fields)


def grouped(name: str, by: Expression, fields: Fields) -> Whole:
    """A stage that puts documents with equal values of ``by`` together."""

    def run(documents: Documents, _run: Run, variables: Variables) -> Iterator[Document]:
        held = Held(name)
        groups: dict[object, _Group] = {}
        grows = any(item.grows for item in fields.accumulations)
        for document in documents:
            id = by(document, variables)
            if id is MISSING:
                id = None
            key = id if type(id) is str else full_key(id)
            group = groups.get(key)
            if group is None:
                accumulators = fields.start()
                held.add([id, fields.names])
                pairs = zip(fields.accumulations, accumulators, strict=True)
                steps: list[_Step] = [
                    (accumulation.evaluate, accumulator.add) for accumulation, accumulator in pairs
                ]
                group = groups[key] = (id, accumulators, steps)
            if grows:
                fields.add(group[1], document, variables, held)
            else:
                for evaluate, add in group[2]:
                    add(evaluate(document, variables))
        for id, accumulators, _ in groups.values():
            yield fields.finished(id, accumulators)

    return Whole(name, Flow.RESETS, run)


def _sort_by_count(parsing: Parsing, name: str, spec: Value) -> Stage:
    is_path = type(spec) is str and spec.startswith("$")
    is_expression = type(spec) is dict and next(iter(spec), "").startswith("$")
    if not is_path and not is_expression:
        raise refused(
            40149,
            "the sortByCount field must be defined as a $-prefixed path or an expression inside an object",
        )
    inner = grouped(name, parsing.compiler.compile(spec), parse_fields(parsing, {"count": {"$sum": 1}}))

    def run(documents: Documents, run: Run, variables: Variables) -> Iterator[Document]:
        found = list(inner.run(documents, run, variables))
        found.sort(key=lambda item: item["count"], reverse=True)
        yield from found

    return Whole(name, Flow.RESETS, run)


# Buckets with given boundaries.


def _bucket(parsing: Parsing, name: str, spec: Value) -> Stage:
    given = checked_names(name, spec, ("groupBy", "boundaries"), ("default", "output"))
    by = _bucket_by(parsing, name, given["groupBy"], 40202)
    boundaries = _boundaries(parsing, given["boundaries"])
    default = _default(parsing, given, boundaries)
    fields = parse_fields(parsing, _output(name, given))
    keys = [full_key(item) for item in boundaries]

    def place(document: Document, variables: Variables) -> Value:
        key = full_key(by(document, variables))
        if keys[0] <= key < keys[-1]:
            for at in range(1, len(keys)):
                if key < keys[at]:
                    return boundaries[at - 1]
        if default is MISSING:
            raise refused(
                40066,
                "$bucket could not find a bucket for an input, and no default was specified: "
                f"{shown(by(document, variables))}",
            )
        return default

    inner = grouped(name, place, fields)

    def run(documents: Documents, run: Run, variables: Variables) -> Iterator[Document]:
        found = list(inner.run(documents, run, variables))
        found.sort(key=lambda item: full_key(item["_id"]))
        yield from found

    return Whole(name, Flow.RESETS, run)


def _bucket_by(parsing: Parsing, name: str, value: Value, code: int) -> Expression:
    is_path = type(value) is str and value.startswith("$")
    if not is_path and type(value) is not dict:
        raise refused(
            code, f"The {name} 'groupBy' field must be defined as a $-prefixed path or an expression object"
        )
    return parsing.compiler.compile(value)


def _boundaries(parsing: Parsing, value: Value) -> list[Value]:
    if type(value) is not list:
        raise refused(
            40200, f"The $bucket 'boundaries' field must be an array, but found type: {kind_name(value)}"
        )
    if len(value) < 2:
        raise refused(
            40192, f"The $bucket 'boundaries' field must have at least 2 values, but found {len(value)}"
        )
    found = [_constant(parsing, item, 40191, "The $bucket 'boundaries' field") for item in value]
    for low, high in pairwise(found):
        if rank(low) != rank(high):
            raise refused(40193, "All values in the 'boundaries' option to $bucket must have the same type")
        if not full_key(low) < full_key(high):
            raise refused(40194, "The 'boundaries' option to $bucket must be sorted and without equal values")
    return found


def _default(parsing: Parsing, given: Document, boundaries: list[Value]) -> Value:
    if "default" not in given:
        return MISSING
    value = _constant(parsing, given["default"], 40195, "The $bucket 'default' field")
    inside = full_key(boundaries[0]) <= full_key(value) < full_key(boundaries[-1])
    if inside and rank(value) == rank(boundaries[0]):
        raise refused(
            40199,
            "The $bucket 'default' field must be less than the lowest boundary or not below the highest",
        )
    return value


def _constant(parsing: Parsing, value: Value, code: int, what: str) -> Value:
    found = parsing.compiler.compile(value)
    if isinstance(found, Constant):
        return found.value
    raise refused(code, f"{what} must hold constant values")


def _output(name: str, given: Document) -> Document:
    output = given.get("output", {"count": {"$sum": 1}})
    if type(output) is not dict:
        raise refused(
            40196, f"The {name} 'output' field must be an object, but found type: {kind_name(output)}"
        )
    if "_id" in output:
        raise refused(40197, f"The {name} 'output' field cannot name _id")
    return output


# Buckets of about the same size.


def _bucket_auto(parsing: Parsing, name: str, spec: Value) -> Stage:
    given = checked_names(name, spec, ("groupBy", "buckets"), ("output", "granularity"))
    by = _bucket_by(parsing, name, given["groupBy"], 40239)
    count = integral(given["buckets"])
    if count is None or not 0 < count < 2**31:
        raise refused(
            40241,
            f"The $bucketAuto 'buckets' field must be a positive 32-bit integer: {shown(given['buckets'])}",
        )
    granularity = _granularity(given)
    fields = parse_fields(parsing, _output(name, given))

    def run(documents: Documents, _run: Run, variables: Variables) -> Iterator[Document]:
        held = Held(name)
        pairs: list[tuple[Value, Document]] = []
        for document in documents:
            held.add(document)
            value = by(document, variables)
            pairs.append((None if value is MISSING else value, document))
            if granularity is not None:
                granularity.check(pairs[-1][0])
        pairs.sort(key=lambda pair: full_key(pair[0]))
        for low, high, bucket in _cut(pairs, count, granularity):
            accumulators = fields.start()
            for _, document in bucket:
                fields.add(accumulators, document, variables, held)
            yield fields.finished({"min": low, "max": high}, accumulators)

    return Whole(name, Flow.RESETS, run)


def _granularity(given: Document) -> Granularity | None:
    if "granularity" not in given:
        return None
    found = GRANULARITIES.get(given["granularity"]) if type(given["granularity"]) is str else None
    if found is None:
        raise refused(
            40257,
            f"Unknown rounding granularity '{shown(given['granularity'])}'; "
            f"known are {', '.join(GRANULARITIES)}",
        )
    return found


_Pairs = list[tuple[Value, Document]]


def _cut(pairs: _Pairs, count: int, granularity: Granularity | None) -> Iterator[tuple[Value, Value, _Pairs]]:
    """Lower end, upper end and documents of each bucket; equal values are never separated."""
    total = len(pairs)
    if not total:
        return
    size = max(1, int(total / count + 0.5))
    start, made = 0, 0
    low = granularity.down(pairs[0][0]) if granularity else pairs[0][0]
    while start < total:
        made += 1
        end = total if made == count else min(total, start + size)
        if granularity is not None:
            high = granularity.up(pairs[end - 1][0])
            while end < total and full_key(pairs[end][0]) < full_key(high):
                end += 1
            if not pairs[end - 1][0]:
                # Zero is rounded to itself: the bucket ends below the first number that is not zero.
                while end < total and not pairs[end][0]:
                    end += 1
                high = granularity.down(pairs[end][0]) if end < total else high
        else:
            while end < total and full_key(pairs[end][0]) == full_key(pairs[end - 1][0]):
                end += 1
            high = pairs[end][0] if end < total else pairs[-1][0]
        yield low, high, pairs[start:end]
        start, low = end, high


STAGES: Final[Mapping[str, StageParser]] = {
    "$bucket": _bucket,
    "$bucketAuto": _bucket_auto,
    "$group": _group,
    "$sortByCount": _sort_by_count,
}
"""Stages that group."""
