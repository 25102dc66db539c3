"""Which automatic indexes are made and removed: the decision alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudlet.docdb.base import CollectionInfo, CreateIndex, DropIndex, Preset
from cloudlet.docdb.catalog import key_part, new_index, owner_index
from cloudlet.docdb.filter import where
from cloudlet.docdb.indexes.automatic import SHAPES_MAX, AutomaticPolicy, CollectionUse, decide
from cloudlet.docdb.indexes.shapes import Shape, automatic_index, index_parts, shape_of
from cloudlet.docdb.planner import IndexInfo
from cloudlet.docdb.sort import parse_sort

POLICY = AutomaticPolicy()
DAY_MS = 24 * 3_600_000
EMPTY = CollectionInfo(1, "dishes", Preset.PRIVATE, (owner_index(1),))


def shape(filter: dict[str, Any], order: Any = None) -> Shape | None:
    return shape_of(where(filter).node, parse_sort(order))


def use_of(*queries: tuple[dict[str, Any], Any, int, int, int]) -> CollectionUse:
    """Filter, order, how often, documents looked at and returned each time."""
    use = CollectionUse()
    for filter, order, times, examined, returned in queries:
        found = shape(filter, order)
        assert found is not None
        for _ in range(times):
            use.note(found, examined, returned, 0, POLICY.window_ms)
    return use


def index(name: str, *paths: str, **options: Any) -> IndexInfo:
    parts = tuple(key_part(path.lstrip("-"), path.startswith("-")) for path in paths)
    return new_index(CreateIndex("dishes", name, parts, **options), 7)


def having(*indexes: IndexInfo) -> CollectionInfo:
    return replace(EMPTY, indexes=(*EMPTY.indexes, *indexes))


def decided(info: CollectionInfo, use: CollectionUse, now_ms: int = 1) -> Any:
    return decide(info, use, POLICY, now_ms, 40)


@pytest.mark.parametrize(
    ("filter", "order", "fields"),
    [
        ({"a": 1}, None, ["a"]),
        ({"b": 1, "a": 2}, None, ["a", "b"]),
        ({"a": {"$in": [1, 2]}, "n": {"$gt": 5, "$lt": 9}}, None, ["a", "n"]),
        ({"a": 1, "n": {"$gt": 5}}, {"at": -1}, ["a", "-at", "n"]),
        ({"a": 1}, {"a": 1, "at": -1, "b": 1}, ["a", "-at", "b"]),
        ({"n": {"$gt": 5}, "m": {"$lt": 3}}, None, ["m"]),
        ({}, {"at": -1}, ["-at"]),
        ({"address.city": "x"}, None, ["address.city"]),
        ({"a": 1, "$or": [{"b": 1}, {"c": 1}], "d": {"$ne": 1}, "e": {"$regex": "x"}}, None, ["a"]),
        ({"a": None}, None, ["a"]),
        ({f"f{at}": 1 for at in range(9)}, None, ["f0", "f1", "f2", "f3"]),
    ],
)
def test_the_index_that_serves_a_shape(filter: dict[str, Any], order: Any, fields: list[str]) -> None:
    found = shape(filter, order)
    assert found is not None
    assert [("-" if part.descending else "") + part.path for part in index_parts(found)] == fields


@pytest.mark.parametrize(
    "filter", [{}, {"_id": 5, "a": 1}, {"a": {"$ne": 1}}, {"a": [1]}, {"a": {"b": 1}}, {"list.0": 1}]
)
def test_queries_that_no_index_of_ours_could_help(filter: dict[str, Any]) -> None:
    assert shape(filter) is None


def test_values_do_not_make_a_shape() -> None:
    assert shape({"a": 1, "n": {"$gt": 3}}) == shape({"n": {"$lte": "x"}, "a": {"$in": ["z", None]}})


def test_an_index_is_made_for_what_was_dear_often_enough() -> None:
    assert decided(EMPTY, use_of(({"a": 1}, None, 9, 5_000, 1))) is None
    change = decided(EMPTY, use_of(({"a": 1}, None, 10, 5_000, 1)))
    assert change == CreateIndex("dishes", "auto_a", (key_part("a"),), automatic=True)


def test_what_returns_much_of_what_it_looks_at_is_left_alone() -> None:
    assert decided(EMPTY, use_of(({"a": 1}, None, 50, 5_000, 51))) is None
    assert decided(EMPTY, use_of(({"a": 1}, None, 50, 5_000, 50))) is not None
    assert decided(EMPTY, use_of(({"a": 1}, None, 50, 999, 0))) is None


def test_the_dearest_comes_first_and_old_counts_do_not_add_up() -> None:
    use = use_of(({"a": 1}, None, 20, 2_000, 0), ({"b": 1}, None, 10, 9_000, 0))
    assert decided(EMPTY, use).name == "auto_b"
    assert decided(EMPTY, use, POLICY.window_ms + 1) is None
    found = shape({"a": 1})
    assert found is not None
    use.note(found, 2_000, 0, POLICY.window_ms + 5, POLICY.window_ms)
    assert use.costs[found].hits == 1


def test_what_an_index_does_already_is_not_done_twice() -> None:
    use = use_of(({"a": 1}, None, 20, 2_000, 0))
    assert decided(having(index("mine", "a", "z")), use) is None
    assert decided(having(index("mine", "z", "a")), use) is not None
    assert decided(having(index("mine", "a", sparse=True)), use) is not None
    assert decided(having(index("mine", "a", partial={"z": 1})), use) is not None
    use.refused.add((key_part("a"),))
    assert decided(EMPTY, use) is None


def test_there_are_at_most_eight_and_never_more_than_a_collection_may_have() -> None:
    use = use_of(({"a": 1}, None, 20, 2_000, 0))
    eight = [index(f"auto_{at}", f"f{at}", automatic=True) for at in range(8)]
    assert decided(having(*eight[:7]), use) is not None
    assert decided(having(*eight), use) is None
    assert decide(having(*eight[:7]), use, POLICY, 1, 8) is None


def test_an_idle_index_goes_after_fourteen_days_and_a_declared_one_never() -> None:
    info = having(index("auto_a", "a", automatic=True), index("b", "b"))
    use = CollectionUse()
    assert decided(info, use, 5) is None
    assert decided(info, use, 14 * DAY_MS) is None
    assert decided(info, use, 14 * DAY_MS + 6) == DropIndex("dishes", "auto_a")
    use.used_ms["auto_a"] = 14 * DAY_MS
    assert decided(info, use, 14 * DAY_MS + 6) is None


def test_a_withdrawn_index_goes_at_once() -> None:
    info = having(replace(index("auto_a", "a", automatic=True), ready=False))
    assert decided(info, CollectionUse()) == DropIndex("dishes", "auto_a")


def test_shapes_are_counted_within_a_limit_and_the_cheapest_goes() -> None:
    use = use_of(*(({f"f{at}": 1}, None, 1, 1_000 + at, 0) for at in range(SHAPES_MAX + 10)))
    assert len(use.costs) == SHAPES_MAX
    kept = {found.equal[0] for found in use.costs}
    assert kept == {f"f{at}" for at in range(10, SHAPES_MAX + 10)}


def test_the_name_of_an_automatic_index_tells_its_fields_within_the_limit() -> None:
    change = automatic_index("c", tuple(key_part("x" * 60 + str(at)) for at in range(3)))
    assert len(change.name) <= 128
    assert automatic_index("c", (key_part("a.b"), key_part("at", True))).name == "auto_a.b_-at"
