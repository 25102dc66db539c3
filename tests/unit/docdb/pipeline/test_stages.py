"""Stages, case by case."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from cloudlet.docdb.limits import DocdbLimits, Overrun
from cloudlet.docdb.pipeline import memory
from cloudlet.docdb.pipeline.accumulators import ACCUMULATORS
from cloudlet.docdb.pipeline.granularity import GRANULARITIES
from cloudlet.docdb.pipeline.parse import STAGES, parse_pipeline
from cloudlet.docdb.values import identical
from cloudlet.model.errors import InvalidFilter, InvalidSort, QueryTooCostly, ResultTooLarge
from tests.unit.docdb.pipeline.cases import joins, stages
from tests.unit.docdb.pipeline.cases.kit import Refused
from tests.unit.docdb.pipeline.running import run

CASES = [
    pytest.param(pipeline, documents, expected, id=f"{table}: {str(pipeline)[:60]}")
    for table, cases in stages.TABLES.items()
    for pipeline, documents, expected in cases
]
JOINS = [
    pytest.param(collection, pipeline, expected, id=f"{table}: {str(pipeline)[:60]}")
    for collection, tables in joins.TABLES.items()
    for table, cases in tables.items()
    for pipeline, expected in cases
]


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize(("pipeline", "documents", "expected"), CASES)
def test_stage(pipeline: Any, documents: list[dict[str, Any]], expected: Any, bounded: bool) -> None:
    before = deepcopy(documents)
    if isinstance(expected, Refused):
        with pytest.raises((InvalidFilter, InvalidSort)) as refusal:
            run(pipeline, documents, bounded=bounded)
        assert expected.text in refusal.value.message
        return
    found = run(pipeline, documents, bounded=bounded)
    assert identical(found, expected), found
    assert identical(documents, before)


@pytest.mark.parametrize(("collection", "pipeline", "expected"), JOINS)
def test_join(collection: str, pipeline: Any, expected: Any) -> None:
    others = deepcopy(joins.COLLECTIONS)
    if isinstance(expected, Refused):
        with pytest.raises(InvalidFilter) as refusal:
            run(pipeline, others[collection], others=others)
        assert expected.text in refusal.value.message
        return
    assert identical(run(pipeline, others[collection], others=others), expected)
    assert identical(others, joins.COLLECTIONS)


def test_tables_are_large_enough() -> None:
    for table, cases in stages.TABLES.items():
        assert len(cases) >= 12, table
    for tables in joins.TABLES.values():
        for table, joined in tables.items():
            assert len(joined) >= 12, table


def test_every_stage_and_accumulator_is_in_a_table() -> None:
    cases = repr([stages.TABLES, joins.TABLES])
    elsewhere = {"$indexStats", "$bottom"}
    assert {name for name in (*STAGES, *ACCUMULATORS) if f"'{name}'" not in cases} <= elsewhere


def test_bottom_is_the_other_end_of_top() -> None:
    spec = {"output": "$n", "sortBy": {"n": 1}}
    found = run([{"$group": {"_id": None, "t": {"$top": spec}, "b": {"$bottom": spec}}}], stages.NUMBERS)
    assert found == [{"_id": None, "t": 0, "b": 4}]


def test_a_sample_is_a_part_in_any_order() -> None:
    found = run([{"$sample": {"size": 20}}], [{"_id": i} for i in range(200)])
    assert len({item["_id"] for item in found}) == 20
    assert found != sorted(found, key=lambda item: int(item["_id"]))


@pytest.mark.parametrize("name", sorted(GRANULARITIES))
def test_preferred_numbers_lie_around_every_number(name: str) -> None:
    series = GRANULARITIES[name]
    for number in (0.003, 0.7, 1, 1.01, 3, 9.99, 10, 64, 99_999, 2**40):
        assert series.down(number) < number < series.up(number)
        assert series.down(series.up(number)) <= number
    assert series.up(0) == series.down(0) == 0


# Limits.


@pytest.mark.parametrize(
    "stage",
    [
        {"$sort": {"n": -1}},
        {"$group": {"_id": "$_id"}},
        {"$group": {"_id": None, "all": {"$push": "$$ROOT"}}},
        {"$group": {"_id": None, "all": {"$addToSet": "$t"}}},
        {"$facet": {"a": []}},
        {"$bucketAuto": {"groupBy": "$n", "buckets": 2}},
        {"$sample": {"size": 5_000}},
        {"$lookup": {"from": "c", "localField": "n", "foreignField": "n", "as": "j"}},
    ],
    ids=lambda stage: f"{next(iter(stage))}",
)
def test_a_stage_that_holds_too_much_is_named(stage: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "HELD_BYTES_MAX", 100_000)
    documents = [{"_id": i, "n": i, "t": f"{i}" * 50} for i in range(2_000)]
    pipeline = [{"$match": {"$expr": True}}, stage]
    name = next(iter(stage)).replace("$", r"\$")
    with pytest.raises(QueryTooCostly, match=rf"Exceeded memory limit for {name}: .*code 292"):
        run(pipeline, documents)


def test_a_lookup_that_explodes_is_stopped() -> None:
    stage = {"$lookup": {"from": "c", "localField": "k", "foreignField": "k", "as": "j"}}
    documents = [{"_id": i, "k": 1, "t": "x" * 1_000} for i in range(200)]
    limits = DocdbLimits(document_bytes_max=100_000)
    with pytest.raises(QueryTooCostly, match=r"matching pipeline's \$lookup stage exceeds 100000 bytes"):
        run([stage, {"$count": "c"}], documents, limits)
    with pytest.raises(QueryTooCostly, match="exceeds 100000 bytes"):
        run([{"$lookup": {"from": "c", "pipeline": [], "as": "j"}}], documents, limits)


def test_a_large_result_is_refused() -> None:
    limits = DocdbLimits(result_bytes_max=10_000)
    with pytest.raises(ResultTooLarge, match=r"use \$limit or \$project"):
        run([], [{"_id": i, "t": "x" * 500} for i in range(100)], limits)


@pytest.mark.parametrize(
    "pipeline",
    [
        [{"$unwind": "$l"}, {"$unwind": "$m"}, {"$count": "c"}],
        [{"$project": {"r": {"$size": {"$map": {"input": {"$range": [0, 90_000]}, "in": 1}}}}}],
        [{"$lookup": {"from": "c", "pipeline": [], "as": "j"}}, {"$unwind": "$j"}, {"$count": "c"}],
        [
            {
                "$graphLookup": {
                    "from": "c",
                    "startWith": 1,
                    "connectFromField": "x",
                    "connectToField": "k",
                    "as": "g",
                }
            }
        ],
    ],
    ids=["unwind", "range", "lookup", "graph"],
)
def test_many_steps_are_not_taken_inside_the_server(pipeline: Any) -> None:
    many = [{"_id": i, "k": 1, "l": list(range(100)), "m": list(range(100))} for i in range(20)]
    limits = DocdbLimits(examined_inline_max=15)
    with pytest.raises(Overrun):
        run(pipeline, many, limits, bounded=True)
    assert len(run(pipeline, many[:2], limits, bounded=False)) >= 1


# What the store is asked for.


def head(*pipeline: dict[str, Any]) -> Any:
    return parse_pipeline(list(pipeline))


def test_first_stages_become_one_read() -> None:
    found = head(
        {"$match": {"a": 1}},
        {"$match": {"b": {"$gt": 2}}},
        {"$sort": {"c": -1}},
        {"$skip": 5},
        {"$limit": 10},
        {"$skip": 2},
        {"$project": {"a": 1}},
    )
    sought = found.head.sought("c", {}, None)
    assert sought.conditions == ({"a": 1}, {"b": {"$gt": 2}})
    assert [(item.path, item.descending) for item in sought.sort] == [("c", True)]
    assert (sought.skip, sought.limit) == (7, 8)
    assert [stage.name for stage in found.rest] == ["$project"]


def test_what_only_the_pipeline_can_decide_stays() -> None:
    found = head({"$match": {"a": 1, "$expr": {"$gt": ["$b", "$c"]}}}, {"$sort": {"c": 1}}, {"$limit": 1})
    sought = found.head.sought("c", {}, None)
    assert (sought.conditions, sought.sort, sought.limit) == (({"a": 1},), (), None)
    assert [stage.name for stage in found.rest] == ["$match", "$sort", "$limit"]


def test_equalities_in_expressions_are_looked_up() -> None:
    found = head(
        {"$match": {"$expr": {"$and": [{"$eq": ["$a.b", 5]}, {"$eq": ["x", "$c"]}, {"$lt": ["$d", 1]}]}}}
    )
    assert found.head.sought("c", {}, None).conditions == ({"a.b": {"$eq": 5}}, {"c": {"$eq": "x"}})


@pytest.mark.parametrize(
    ("pipeline", "fields"),
    [
        ([{"$group": {"_id": "$a.b", "s": {"$sum": "$c"}}}], {"a", "c"}),
        ([{"$match": {"d": 1, "$or": [{"e.x": 2}]}}, {"$group": {"_id": "$a"}}], {"a", "d", "e"}),
        ([{"$set": {"x": "$b"}}, {"$project": {"x": 1, "_id": 0}}], {"b", "x"}),
        ([{"$project": {"a": 1}}], {"a", "_id"}),
        ([{"$unwind": "$l"}, {"$sortByCount": "$l.k"}], {"l"}),
        ([{"$count": "n"}], set()),
        ([{"$sort": {"s.t": 1}}, {"$count": "n"}], {"s"}),
        (
            [
                {"$lookup": {"from": "x", "localField": "k.l", "foreignField": "f", "as": "j"}},
                {"$count": "n"},
            ],
            {"k"},
        ),
        ([{"$group": {"_id": "$$ROOT"}}], None),
        ([{"$match": {"$jsonSchema": {"required": ["q"]}}}, {"$count": "n"}], None),
        ([{"$project": {"a": 0}}], None),
        ([{"$facet": {"a": []}}], None),
        ([{"$match": {"a": 1}}], None),
        ([{"$redact": "$$KEEP"}, {"$count": "n"}], None),
    ],
)
def test_the_fields_that_are_needed_are_known(pipeline: Any, fields: set[str] | None) -> None:
    assert parse_pipeline(pipeline).fields == fields


def test_costly_patterns_anywhere_make_a_pipeline_costly() -> None:
    pattern = {"$match": {"t": {"$regex": "^(a+)+$"}}}
    assert head(pattern).costly
    assert head({"$lookup": {"from": "x", "pipeline": [pattern], "as": "j"}}).costly
    assert head({"$facet": {"a": [pattern]}}).costly
    assert not head({"$match": {"t": {"$regex": "^a"}}}).costly


def test_the_collections_that_are_read_are_known() -> None:
    inner = {"$lookup": {"from": "y", "pipeline": [{"$unionWith": "z"}], "as": "j"}}
    graph = {"from": "g", "startWith": 1, "connectFromField": "a", "connectToField": "b", "as": "h"}
    assert head({"$facet": {"a": [inner]}}, {"$graphLookup": graph}).foreign == {"y", "z", "g"}
