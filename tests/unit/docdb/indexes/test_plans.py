"""Remembered plans are those that the planner makes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from cloudlet.docdb.base import CreateIndex
from cloudlet.docdb.catalog import key_part, new_index, owner_index
from cloudlet.docdb.filter import where
from cloudlet.docdb.indexes import plans as module
from cloudlet.docdb.indexes.plans import Plans
from cloudlet.docdb.planner import IndexInfo, Plan, Ranges, plan
from cloudlet.docdb.sort import parse_sort
from cloudlet.docdb.values import ObjectId

NEWEST = {"at": -1}
DATE = datetime(2026, 1, 2, tzinfo=UTC)


def index(number: int, *paths: str, **options: Any) -> IndexInfo:
    parts = tuple(key_part(path.lstrip("-"), path.startswith("-")) for path in paths)
    return replace(new_index(CreateIndex("notes", f"i{number}", parts, **options), number), ready=True)


INDEXES = (owner_index(1), index(2, "_openid", "-at"))


def probe(_source: Ranges, most: int) -> int:
    return most


def asked(
    plans: Plans, filter: Any, sort: Any, indexes: tuple[IndexInfo, ...], limit: int | None = 20
) -> Plan:
    return plans.plan(1, where(filter).node, parse_sort(sort), indexes, limit, probe)


def planned(filter: Any, sort: Any, indexes: tuple[IndexInfo, ...], limit: int | None = 20) -> Plan:
    return plan(where(filter).node, parse_sort(sort), indexes, limit, probe, unions=True)


@pytest.mark.parametrize("sort", [None, NEWEST, {"at": 1}, {"_id": 1}, {"other": 1}])
@pytest.mark.parametrize(
    "indexes",
    [
        INDEXES,
        (owner_index(1), index(2, "_openid", "at")),
        (index(2, "-_openid", "at"),),
        (index(2, "_openid", "at", unique=True),),
        (index(2, "_openid", "at", sparse=True),),
        (replace(INDEXES[1], multikey=True),),
        (replace(INDEXES[1], lossy=True),),
        (replace(INDEXES[1], ready=False),),
        (),
    ],
)
@pytest.mark.parametrize(
    "filters",
    [
        [{"_openid": "ann"}, {"_openid": "ben"}, {"_openid": ""}, {"_openid": "a\0b"}],
        [{"_openid": "ann"}, {"_openid": "x" * 200}, {"_openid": "ben"}],
        [{"_openid": 1}, {"_openid": 2**62}, {"_openid": True}, {"_openid": 1.5}, {"_openid": None}],
        [{"_openid": DATE}, {"_openid": ObjectId(bytes(12))}, {"_openid": ["ann"]}, {"_openid": {"a": 1}}],
        [{"_openid": "ann", "at": 1}, {"at": 2, "_openid": "ben"}, {"_openid": "ben", "at": 3}],
        [{"_openid": "ann", "other": 1}, {"_openid": "ben", "other": 2}],
        [{"_openid": {"$gte": "ann"}}, {"_openid": {"$eq": "ben"}}, {"_openid": {"$eq": "ann"}}],
        [{}, {"_id": "x"}, {"_id": "y"}, {"$or": [{"_openid": "ann"}]}],
    ],
)
def test_every_plan_is_the_planners(filters: list[Any], indexes: tuple[IndexInfo, ...], sort: Any) -> None:
    plans = Plans()
    for filter in [*filters, *filters]:
        assert asked(plans, filter, sort, indexes) == planned(filter, sort, indexes)
        assert asked(plans, filter, sort, indexes, None) == planned(filter, sort, indexes, None)


def test_a_plan_is_remembered_until_the_indexes_change(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def counted(*args: Any, **options: Any) -> Plan:
        calls.append(args)
        return plan(*args, **options)

    monkeypatch.setattr(module, "plan", counted)
    plans = Plans()
    for owner in ("ann", "ben", "cid"):
        asked(plans, {"_openid": owner}, NEWEST, INDEXES)
    assert len(calls) == 1
    changed = (INDEXES[0], replace(INDEXES[1], multikey=True))
    assert asked(plans, {"_openid": "ann"}, NEWEST, changed) == planned({"_openid": "ann"}, NEWEST, changed)
    assert len(calls) == 2


def test_a_partial_index_is_chosen_anew_each_time() -> None:
    indexes = (index(2, "kind", "at", partial={"kind": "a"}),)
    plans = Plans()
    for kind in ("a", "b", "a"):
        assert asked(plans, {"kind": kind}, {"at": 1}, indexes) == planned({"kind": kind}, {"at": 1}, indexes)


def test_no_more_plans_are_kept_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLANS_MAX", 2)
    plans = Plans()
    for number in range(5):
        plans.plan(number, where({"_openid": "ann"}).node, parse_sort(NEWEST), INDEXES, 20, probe)
    assert len(plans._known) <= 2
