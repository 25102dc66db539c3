"""A pipeline gives the same result however it is run: with indexes or without, here or in a worker."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudlet.docdb.base import Row
from cloudlet.docdb.body import encode_value
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.memory import MemoryStore
from cloudlet.docdb.pipeline.execute import make_aggregation, run_here, run_through
from cloudlet.docdb.pipeline.expressions import OPERATORS, compile_expression, variables_at
from cloudlet.docdb.pipeline.parse import STAGES, parse_pipeline
from cloudlet.docdb.pipeline.reader import RowsReader
from cloudlet.docdb.service import DocumentService, IndexField
from cloudlet.docdb.sqlite import SqliteStore
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.values import MISSING, Document, date_from_ms, identical, prepare
from cloudlet.docdb.workers import WorkerPool
from cloudlet.model.access import Access
from cloudlet.model.errors import PlatformError
from tests.property.docdb_strategies import documents, few_scalars, few_values, indexable_filters

ADMIN = Access("e", admin=True)
NOW_MS = 1_800_000_000_000

paths = st.sampled_from(["$a", "$b", "$c", "$a.b", "$b.a", "$nope", "$_id"])
expressions: st.SearchStrategy[Any] = st.recursive(
    st.one_of(paths, few_scalars.map(lambda value: {"$literal": value}), st.just("$$ROOT.a")),
    lambda inner: st.one_of(
        st.builds(
            lambda name, a, b: {name: [a, b]},
            st.sampled_from(["$eq", "$lt", "$cmp", "$ifNull"]),
            inner,
            inner,
        ),
        st.builds(lambda a, b, c: {"$cond": [a, b, c]}, inner, inner, inner),
        st.builds(lambda a: {"$type": a}, inner),
        st.builds(lambda a: {"$sum": a}, inner),
        st.builds(lambda a, b: {"x": a, "y": [b]}, inner, inner),
        st.builds(
            lambda a: {"$map": {"input": {"$cond": [{"$isArray": [a]}, a, []]}, "in": "$$this"}}, inner
        ),
        st.builds(lambda a, b: {"$let": {"vars": {"v": a}, "in": {"$eq": ["$$v", b]}}}, inner, inner),
    ),
    max_leaves=4,
)
accumulators = st.builds(
    lambda name, value: {name: value},
    st.sampled_from(["$sum", "$avg", "$min", "$max", "$push", "$addToSet", "$first", "$last"]),
    expressions,
)
matches = st.one_of(
    indexable_filters.map(lambda spec: {"$match": spec}),
    st.builds(
        lambda path, value: {"$match": {"$expr": {"$eq": [path, {"$literal": value}]}}}, paths, few_values
    ),
    st.builds(
        lambda path, value: {"$match": {"$expr": {"$eq": [path, value]}}},
        paths,
        st.sampled_from([1, 2.0, "x", None, True]),
    ),
    st.builds(lambda spec, value: {"$match": {**spec, "$expr": value}}, indexable_filters, expressions),
)
sorts = st.sampled_from(
    [{"$sort": {"a": 1, "_id": 1}}, {"$sort": {"b": -1, "_id": -1}}, {"$sort": {"_id": -1}}]
)
stages: st.SearchStrategy[Any] = st.one_of(
    matches,
    sorts,
    st.integers(1, 5).map(lambda count: {"$limit": count}),
    st.integers(0, 3).map(lambda count: {"$skip": count}),
    st.builds(lambda value: {"$addFields": {"d": value}}, expressions),
    st.builds(lambda value: {"$project": {"a": 1, "b": value}}, expressions),
    st.sampled_from([{"$project": {"a.b": 0}}, {"$unset": "b"}, {"$count": "n"}, {"$sortByCount": "$a"}]),
    st.sampled_from(["$a", "$b", "$c"]).map(lambda path: {"$unwind": path}),
    st.builds(lambda id, value: {"$group": {"_id": id, "r": value}}, expressions, accumulators),
    st.sampled_from(
        [
            {"$lookup": {"from": "o", "localField": "a", "foreignField": "b", "as": "j"}},
            {"$lookup": {"from": "o", "localField": "b", "foreignField": "a.b", "as": "j"}},
            {
                "$lookup": {
                    "from": "o",
                    "let": {"v": "$a"},
                    "pipeline": [{"$match": {"$expr": {"$eq": ["$b", "$$v"]}}}],
                    "as": "j",
                }
            },
            {"$unionWith": {"coll": "o", "pipeline": [{"$match": {"a": {"$gt": 0}}}]}},
            {"$facet": {"n": [{"$count": "n"}], "f": [{"$limit": 2}]}},
        ]
    ),
)
pipelines = st.builds(
    lambda first, rest: [*first, *rest], st.lists(matches, max_size=2), st.lists(stages, max_size=4)
)


def numbered(found: list[dict[str, Any]]) -> list[Document]:
    return [{"_id": at, **document} for at, document in enumerate(found)]


def rows(found: list[Document]) -> list[Row]:
    return [Row(at, bytes([at]), 1, 1, document) for at, document in enumerate(found)]


def reader(main: list[Document], others: list[Document]) -> RowsReader:
    return RowsReader({"c": rows(main), "o": rows(others)})


@given(st.lists(documents, max_size=8), st.lists(documents, max_size=5), pipelines)
@settings(max_examples=150, deadline=None)
def test_pushing_down_changes_nothing(main: Any, others: Any, pipeline: Any) -> None:
    """The head that is read first, and the fields that are left out, against stage after stage."""
    main, others = numbered(main), numbered(others)
    prepared = prepare(pipeline, NOW_MS)
    work = make_aggregation("c", prepared, NOW_MS)
    pushed = outcome(lambda: run_here(work, _OnlyFields(main, others), DocdbLimits()))
    plain = outcome(lambda: _stage_by_stage(prepared, main, others))
    if isinstance(plain, str):
        # Stage after stage meets documents that a limit or a filter keeps from the pipeline as a whole.
        return
    assert identical(pushed, plain), (pushed, plain)


class _OnlyFields(RowsReader):
    """Gives no more than the fields that were asked for."""

    def __init__(self, main: list[Document], others: list[Document]) -> None:
        super().__init__({"c": rows(main), "o": rows(others)})

    def find(self, sought: Any) -> Any:
        for document in super().find(sought):
            if sought.fields is None:
                yield document
            else:
                yield {name: value for name, value in document.items() if name in sought.fields}


def _stage_by_stage(stages: list[Any], main: list[Document], others: list[Document]) -> list[Document]:
    found = main
    for stage in stages:
        # Each stage by itself, with a first stage in front of it that cannot be pushed down.
        work = make_aggregation("c", [{"$match": {"$expr": True}}, stage], NOW_MS)
        found = run_through(work, work.pipeline, reader(found, others), DocdbLimits())
    return found


def outcome(work: Any) -> Any:
    try:
        return work()
    except PlatformError as exc:
        return f"{type(exc).__name__}: {exc.message}"


@given(st.lists(stages, max_size=4))
@settings(max_examples=60, deadline=None)
def test_the_needed_fields_are_never_more_than_a_guess_upwards(pipeline: Any) -> None:
    found = parse_pipeline(prepare(pipeline, NOW_MS))
    assert found.fields is None or all("." not in name and "$" not in name for name in found.fields)


NAMES = (
    *("input", "in", "cond", "as", "if", "then", "else", "vars"),
    *("date", "format", "timezone", "unit", "amount", "startDate", "endDate", "regex"),
    *("options", "chars", "find", "replacement", "sortBy", "n", "to", "onError"),
    *("onNull", "branches", "default", "inputs", "year", "month", "day", "field"),
    *("value", "dateString", "binSize", "iso8601", "initialValue", "case", "limit", "k"),
    *("v", "a"),
)
"""What operands that are objects call their parts."""
operands: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        paths, few_scalars, st.sampled_from(["$$ROOT", "$$NOW", "$$v", "%Y", "day", "UTC", -1, 1e300, [], {}])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.builds(lambda name, value: {name: value}, st.sampled_from(sorted(OPERATORS)), inner),
        st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=8,
)


@given(st.sampled_from(sorted(OPERATORS)), operands, documents)
@settings(max_examples=300, deadline=None)
def test_bad_operands_are_refused_with_an_error_of_ours(name: str, operand: Any, document: Any) -> None:
    before = deepcopy(document)
    with contextlib.suppress(PlatformError):
        found = compile_expression({name: operand})(document, variables_at(date_from_ms(NOW_MS)))
        if found is not MISSING:
            encode_value(found)
    assert identical(document, before)


@given(st.sampled_from(sorted(STAGES)), operands, st.lists(documents, max_size=3))
@settings(max_examples=200, deadline=None)
def test_bad_stages_are_refused_with_an_error_of_ours(name: str, operand: Any, found: Any) -> None:
    main = numbered(found)
    before = deepcopy(main)
    with contextlib.suppress(PlatformError):
        work = make_aggregation("c", prepare([{name: operand}], NOW_MS), NOW_MS)
        for document in run_through(work, work.pipeline, reader(main, []), DocdbLimits()):
            encode_value(document)
    assert identical(main, before)


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[list[DocumentService]]:
    """Memory, SQLite with everything inline, SQLite with everything in a worker."""
    here, away = DocdbLimits(examined_inline_max=100_000), DocdbLimits(examined_inline_max=1, workers_max=1)
    pool = WorkerPool(away)
    made = [
        (Stores(lambda _name: MemoryStore(here)), here),
        (Stores(lambda name: SqliteStore(tmp_path / f"{name}-here.db", here)), here),
        (Stores(lambda name: SqliteStore(tmp_path / f"{name}-away.db", away, pool), pool), away),
    ]
    yield [DocumentService(stores, limits=limits) for stores, limits in made]
    for stores, _ in made:
        await stores.close()


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(3))
async def test_every_way_gives_the_same(services: list[DocumentService], seed: int) -> None:
    """Stores with and without indexes, in this process and in a worker."""
    chance = random.Random(seed)
    main = numbered([_document(chance) for _ in range(60)])
    others = numbered([_document(chance) for _ in range(25)])
    for at, service in enumerate(services):
        for name, content in (("c", main), ("o", others)):
            await service.create_collection("e", name)
            if at:
                await service.create_index(
                    "e", name, "ab", [IndexField("a"), IndexField("_id", descending=True)]
                )
                await service.create_index("e", name, "by_b", [IndexField("b")])
            await service.insert(ADMIN, name, content)
    different = 0
    for _ in range(30):
        pipeline = _pipeline(chance)
        results = [await _result(service, pipeline) for service in services]
        for other in results[1:]:
            assert identical(results[0], other), pipeline
        different += bool(results[0])
    assert different > 10


def _document(chance: random.Random) -> dict[str, Any]:
    values = [None, True, 0, 1, 2, 2.0, 1.5, "a", "b", [1, 2], [], {"b": 1}, [{"b": 1}, {"b": "a"}]]
    return {name: chance.choice(values) for name in ("a", "b", "c") if chance.random() < 0.8}


def _pipeline(chance: random.Random) -> list[dict[str, Any]]:
    first: list[dict[str, Any]] = [
        {"$match": {"a": chance.choice([1, 2, "a", None, {"$gt": 0}, {"$in": [1, "a"]}])}},
        {"$match": {"b": {"$gte": 1}, "a": {"$lt": 3}}},
        {"$match": {"$expr": {"$eq": ["$a", chance.choice([1, "a", None])]}}},
        {"$sort": {"a": 1, "b": -1, "_id": 1}},
    ]
    then: list[dict[str, Any]] = [
        {"$group": {"_id": "$a", "n": {"$sum": 1}, "all": {"$push": "$_id"}, "m": {"$max": "$b"}}},
        {"$group": {"_id": None, "s": {"$sum": "$b"}, "a": {"$avg": "$a"}}},
        {"$project": {"_id": 0, "x": {"$cond": ["$a", "$b", "none"]}, "c": 1}},
        {"$unwind": "$c"},
        {"$lookup": {"from": "o", "localField": "a", "foreignField": "b", "as": "j"}},
        {
            "$lookup": {
                "from": "o",
                "let": {"v": "$a"},
                "pipeline": [{"$match": {"$expr": {"$eq": ["$a", "$$v"]}}}, {"$project": {"b": 1}}],
                "as": "j",
            }
        },
        {"$sortByCount": "$b"},
        {"$count": "n"},
        {"$limit": 7},
        {"$skip": 3},
        {"$facet": {"a": [{"$count": "n"}], "b": [{"$sort": {"_id": -1}}, {"$limit": 2}]}},
    ]
    order: list[dict[str, Any]] = [{"$sort": {"_id": 1}}]
    # An index may bring what is joined in another order.
    same_order = {"$set": {"j": {"$sortArray": {"input": "$j", "sortBy": {"_id": 1}}}}}
    rest: list[dict[str, Any]] = []
    for stage in chance.sample(then, chance.randint(0, 3)):
        rest += [stage, same_order] if "$lookup" in stage else [stage]
    return [*chance.sample(first, chance.randint(0, 2)), *order, *rest]


async def _result(service: DocumentService, pipeline: list[dict[str, Any]]) -> Any:
    try:
        return await service.aggregate(ADMIN, "c", pipeline)
    except PlatformError as exc:
        return [type(exc).__name__, exc.message]
