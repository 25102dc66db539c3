"""Queries are found by what they ask to be equal: too many perhaps, never too few, and few of many."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from cloudlet.docdb.filter import where
from cloudlet.docdb.limits import WatchLimits
from cloudlet.docdb.watch.terms import TermIndex, terms_of
from cloudlet.model.errors import LimitExceeded
from tests.property import docdb_strategies as docs

LIMITS = WatchLimits(paths_max=3, unindexed_max=2)


@given(docs.indexable_filters, docs.documents)
@settings(deadline=None, max_examples=300)
def test_what_matches_is_found(filter: dict[str, Any], document: dict[str, Any]) -> None:
    condition = where(filter)
    index = TermIndex[str](WatchLimits())
    index.add("query", condition.node)
    if condition.match(document):
        assert list(index.concerned(document, None)) == list(index.concerned(None, document)) == ["query"]


@pytest.mark.parametrize(
    ("filter", "paths"),
    [
        ({"a": 1}, ["a"]),
        ({"a.b": "x", "$and": [{"c": True}]}, ["a.b", "c"]),
        ({"a": {"$in": [1, "x"]}}, ["a"]),
        ({"a": None}, []),
        ({"a": [1]}, []),
        ({"a": {"b": 1}}, []),
        ({"a": {"$in": [1, None]}}, []),
        ({"a": {"$in": list(range(17))}}, []),
        ({"a": {"$gt": 1}}, []),
        ({"$or": [{"a": 1}, {"b": 1}]}, []),
        ({"a": {"$not": {"$eq": 1}}}, []),
        ({"$nor": [{"a": 1}]}, []),
    ],
)
def test_terms_are_equalities_with_scalars_that_must_hold(filter: dict[str, Any], paths: list[str]) -> None:
    assert [term.path.text for term in terms_of(where(filter).node)] == paths


def test_a_change_only_concerns_queries_of_its_values() -> None:
    index = TermIndex[int](WatchLimits())
    for number in range(1000):
        index.add(number, where({"_openid": f"u{number}", "done": False}).node)
    assert list(index.concerned({"_openid": "u7", "done": False}, {"_openid": "u8", "done": False})) == [7, 8]
    assert list(index.concerned({"done": False}, None)) == []
    # Elements of arrays, numbers of another type, and states that are equal, count once.
    index.add(-1, where({"tags": 2}).node)
    assert list(index.concerned({"tags": [1, 2.0]}, {"tags": 2})) == [-1]


def test_the_most_telling_term_is_taken() -> None:
    index = TermIndex[str](WatchLimits())
    term = index.add("q", where({"done": True, "room": "r", "_id": 1}).node)
    assert term is not None and term.path.text == "_id"
    term = index.add("r", where({"n": 1, "room": "r"}).node)
    assert term is not None and term.path.text == "room"
    term = index.add("s", where({"room": "r", "user": "u"}).node)
    assert term is not None and term.path.text == "user"


def test_removed_queries_leave_nothing_and_paths_and_unindexed_are_limited() -> None:
    index = TermIndex[str](LIMITS)
    entered = {name: index.add(name, where({name: "x"}).node) for name in "abcde"}
    assert [name for name, term in entered.items() if term is None] == ["d", "e"]
    with pytest.raises(LimitExceeded, match="_openid"):
        index.add("f", where({"f": 1}).node)
    assert list(index.concerned({"a": "x"}, None)) == ["a", "d", "e"]
    for name, term in entered.items():
        index.remove(name, term)
    assert index.empty
