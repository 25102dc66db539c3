"""Whatever index is chosen, the candidates hold everything that matches."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudlet.docdb.base import CollectionInfo, CreateIndex, Preset, id_key
from cloudlet.docdb.catalog import flagged, key_part, new_index, owner_index
from cloudlet.docdb.filter import where
from cloudlet.docdb.filter.parse import parse_filter
from cloudlet.docdb.geo.rings import Rings
from cloudlet.docdb.indexes.entries import entries_of
from cloudlet.docdb.indexes.partial import implies, partial_filter
from cloudlet.docdb.numeric import Decimal128
from cloudlet.docdb.planner import Ids, IndexInfo, Probe, Ranges, Scan, Source, Union, plan
from cloudlet.docdb.sort import parse_sort, sort_documents
from cloudlet.docdb.values import Document
from cloudlet.model.errors import InvalidDocument, InvalidFilter
from tests.property.docdb_strategies import documents, filters, indexable_filters, sorts

LONG = "x" * 200


@dataclass(frozen=True)
class Kind:
    """An index to try."""

    fields: tuple[tuple[str, bool], ...]
    sparse: bool = False
    partial: Document | None = None


INDEXES = {
    "a": Kind((("a", False),)),
    "a down": Kind((("a", True),)),
    "b, a down": Kind((("b", False), ("a", True))),
    "b down, a": Kind((("b", True), ("a", False))),
    "a.b": Kind((("a.b", False),)),
    "a.b, c": Kind((("a.b", False), ("c", False))),
    "a.b, a.c": Kind((("a.b", False), ("a.c", True))),
    "owner": Kind((("_openid", False), ("_id", False))),
    "a sparse": Kind((("a", False),), sparse=True),
    "b, c sparse": Kind((("b", False), ("c", True)), sparse=True),
    "c where a > 1": Kind((("c", False),), partial={"a": {"$gt": 1}}),
    "a where c": Kind((("a", True), ("b", False)), partial={"c": {"$exists": True}}),
    "b where a in": Kind((("b", False),), partial={"a": {"$in": [1, 2, "a"]}}),
    "c where or": Kind((("c", False),), partial={"$or": [{"b": 1}, {"a": {"$gte": 2, "$lt": 4}}]}),
}


def make_index(number: int, name: str, unique: bool) -> IndexInfo:
    """An index that has met no document."""
    kind = INDEXES[name]
    parts = tuple(key_part(path, down) for path, down in kind.fields)
    return new_index(CreateIndex("c", name, parts, unique, kind.sparse, kind.partial), number)


class Stored:
    """Documents and their entries in some indexes; what an index refuses is not stored."""

    def __init__(self, offered: Sequence[Document], indexes: Sequence[IndexInfo]) -> None:
        self.documents: list[Document] = []
        self.indexes = list(indexes)
        self.entries: dict[int, list[tuple[bytes, int]]] = {index.number: [] for index in indexes}
        self.entries[0] = []
        for document in offered:
            try:
                made = [entries_of(document, index) for index in indexes]
            except InvalidDocument:
                continue
            did = len(self.documents)
            self.documents.append(document)
            self.entries[0].append((id_key(document["_id"]), did))
            for at, (index, entries) in enumerate(zip(indexes, made, strict=True)):
                self.entries[index.number] += [(key, did) for key in entries.keys]
                self.indexes[at] = flagged(self.indexes[at], entries)
        for keys in self.entries.values():
            keys.sort()

    def dids(self, source: Source) -> list[int]:
        """What a source leads to, in its order, with repetitions."""
        if isinstance(source, Scan):
            return list(range(len(self.documents)))
        if isinstance(source, Union):
            return [did for part in source.sources for did in self.dids(part)]
        if isinstance(source, Ids):
            by_id = dict(self.entries[0])
            return [by_id[key] for key in source.keys if key in by_id]
        assert not isinstance(source, Rings), "places have a test of their own"
        for (_, high), (low, _) in pairwise(source.ranges):
            assert high < low
        entries = self.entries[source.index.number]
        found = [did for low, high in source.ranges for key, did in entries if low <= key < high]
        return found[::-1] if source.reverse else found

    def probe(self, source: Ranges, most: int) -> int:
        """How many entries there are."""
        return min(most, len(self.dids(source)))


def check(stored: Stored, condition: dict[str, Any], order: Any, limit: int | None, probed: bool) -> str:
    """Compare a plan's answer with that of looking at everything; returns what kind of plan it was."""
    wanted, sort = where(condition), parse_sort(order)
    probe: Probe | None = stored.probe if probed else None
    chosen = plan(wanted.node, sort, stored.indexes, limit, probe, unions=True)
    led = stored.dids(chosen.source)
    found = [stored.documents[did] for did in dict.fromkeys(led) if wanted.match(stored.documents[did])]
    matches = [document["_id"] for document in stored.documents if wanted.match(document)]
    assert sorted(document["_id"] for document in found) == matches
    if chosen.exact:
        assert len(led) == len(matches)
    if chosen.ordered and sort:
        resorted = list(found)
        sort_documents(resorted, sort, lambda document: document)
        assert [document["_id"] for document in found] == [document["_id"] for document in resorted]
    return type(chosen.source).__name__ + (" in order" if chosen.ordered and sort else "")


@settings(deadline=None)
@given(
    st.lists(documents, min_size=1, max_size=6),
    st.one_of(indexable_filters, filters),
    sorts,
    st.sets(st.sampled_from(sorted(INDEXES)), min_size=1, max_size=3),
    st.booleans(),
)
def test_candidates_hold_every_match_in_the_promised_order(
    offered: list[Document], condition: dict[str, Any], order: Any, names: set[str], unique: bool
) -> None:
    offered = [{"_id": number, **document} for number, document in enumerate(offered)]
    stored = Stored(offered, [make_index(at, name, unique) for at, name in enumerate(sorted(names), 1)])
    check(stored, condition, order, None, unique)


SCALARS = [
    None,
    True,
    0,
    1,
    2,
    3,
    4,
    1.5,
    2**53,
    2**53 + 1,
    "a",
    "ab",
    "b",
    LONG,
    LONG + "y",
    Decimal128("1.5"),
    Decimal128("2.000"),
    Decimal128("1.1"),
    Decimal128("9007199254740992.5"),
    1.1,
    float("nan"),
    Decimal128("NaN"),
    float("inf"),
    -0.0,
]


class Fuzz:
    """Documents and filters in which bounds, arrays and long texts meet often, repeatable by the seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.scalars = SCALARS
        self.objects = 0.15

    def value(self, depth: int, arrays: float) -> Any:
        roll = self.random.random()
        if depth and roll < arrays:
            return [self.value(depth - 1, arrays) for _ in range(self.random.randint(0, 3))]
        if depth and roll < arrays + self.objects:
            return {name: self.value(depth - 1, arrays) for name in self.random.sample("abc", 2)}
        return self.random.choice(self.scalars)

    def documents(self) -> list[Document]:
        """One batch; some without arrays, without objects, or mostly of texts that share a key."""
        arrays = self.random.choice([0.0, 0.0, 0.05, 0.4])
        self.objects = self.random.choice([0.0, 0.15])
        self.scalars = self.random.choice([SCALARS, [0, 1, 2, 3], [LONG, LONG + "y", LONG + "z", 1]])
        return [
            {
                "_id": at,
                **{
                    name: self.value(2, arrays)
                    for name in self.random.sample("abc", self.random.randint(1, 3))
                },
            }
            for at in range(30)
        ]

    def condition(self) -> Any:
        kind = self.random.random()
        if kind < 0.4:
            low, high = self.random.choice(["$gt", "$gte"]), self.random.choice(["$lt", "$lte"])
            return {low: self.random.choice(self.scalars), high: self.random.choice(self.scalars)}
        if kind < 0.55:
            return {self.random.choice(["$gt", "$gte", "$lt", "$lte", "$ne"]): self.value(1, 0.2)}
        if kind < 0.7:
            return {"$in": [self.value(1, 0.2) for _ in range(self.random.randint(1, 3))]}
        return self.value(2, 0.2) if kind < 0.95 else {"$regex": self.random.choice(["^a", "^ab?", "^x"])}

    def filter(self, indexes: Sequence[IndexInfo], depth: int = 1) -> dict[str, Any]:
        roll = self.random.random()
        partial = self.random.choice(indexes).partial
        if depth and partial is not None and roll < 0.7:
            return {"$and": [partial.filter, self.filter(indexes, 0)]}
        if depth and roll < 0.3:
            name = self.random.choice(["$and", "$or"])
            return {name: [self.filter(indexes, depth - 1) for _ in range(self.random.randint(1, 3))]}
        paths = self.random.sample(["a", "b", "a.b", "c", "a.0"], self.random.randint(1, 2))
        if self.random.random() < 0.4:
            paths = [self.random.choice(indexes).parts[0].path]
        return {path: self.condition() for path in paths}

    def order(self, indexes: Sequence[IndexInfo]) -> Any:
        """None, any fields, or what an index offers (perhaps backwards)."""
        roll = self.random.random()
        if roll < 0.3:
            return None
        if roll < 0.5:
            paths = self.random.sample(["a", "b", "a.b", "c", "_id"], self.random.randint(1, 2))
            return {path: self.random.choice([1, -1]) for path in paths}
        parts = self.random.choice(indexes).parts
        turn = self.random.choice([1, -1])
        return {
            part.path: -turn if part.descending else turn
            for part in parts[self.random.randrange(len(parts)) :]
        }


@pytest.mark.parametrize("seed", range(10))
def test_fuzzed_plans_agree_with_scans(seed: int) -> None:
    fuzz = Fuzz(seed)
    kinds: Counter[str] = Counter()
    for _ in range(24):
        names = fuzz.random.sample(sorted(INDEXES), fuzz.random.randint(1, 3))
        unique = fuzz.random.random() < 0.3
        indexes = [make_index(at, name, unique) for at, name in enumerate(names, 1)]
        stored = Stored(fuzz.documents(), indexes)
        for _ in range(40):
            condition, order = fuzz.filter(indexes), fuzz.order(indexes)
            limit, probed = fuzz.random.choice([None, 1, 5]), fuzz.random.random() < 0.5
            with contextlib.suppress(InvalidFilter):
                kinds[check(stored, condition, order, limit, probed)] += 1
    assert kinds["Ranges"] > 60
    assert kinds["Ranges in order"] > 20
    assert kinds["Union"] > 3


@pytest.mark.parametrize("seed", range(6))
def test_a_query_that_implies_a_condition_finds_nothing_else(seed: int) -> None:
    fuzz = Fuzz(seed)
    index = make_index(1, "b, a down", False)
    proved = 0
    for _ in range(60):
        stored = fuzz.documents()
        for _ in range(20):
            query, condition = fuzz.filter([index]), fuzz.filter([index], 0)
            with contextlib.suppress(InvalidFilter):
                if implies(parse_filter(query), parse_filter(condition)):
                    proved += 1
                    wanted, held = where(query), where(condition)
                    assert all(held.match(document) for document in stored if wanted.match(document))
    assert proved > 5


@pytest.mark.parametrize(
    ("query", "condition", "proved"),
    [
        ({"a": 5}, {"a": {"$gt": 3}}, True),
        ({"a": 3}, {"a": {"$gt": 3}}, False),
        ({"a": {"$gt": 3}}, {"a": {"$gte": 3}}, True),
        ({"a": {"$gte": 3}}, {"a": {"$gt": 3}}, False),
        ({"a": {"$gte": 3.5}}, {"a": {"$gt": 3}}, True),
        ({"a": {"$lt": "b"}}, {"a": {"$lte": "b"}}, True),
        ({"a": {"$lt": "c"}}, {"a": {"$lte": "b"}}, False),
        ({"a": {"$lt": 3}}, {"a": {"$lte": "b"}}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": 1.0}, {"a": 1}, True),
        ({"a": {"$in": [1, 2]}}, {"a": {"$in": [1, 2, 3]}}, True),
        ({"a": {"$in": [1, 4]}}, {"a": {"$in": [1, 2, 3]}}, False),
        ({"a": {"$in": []}}, {"a": {"$gt": 0}}, False),
        ({"a": None}, {"a": {"$exists": True}}, False),
        ({"a": {"$gt": 0}}, {"a": {"$exists": True}}, True),
        ({"a": {"$ne": 1}}, {"a": {"$exists": True}}, False),
        ({"$or": [{"a": 5}, {"a": 6, "b": 1}]}, {"a": {"$gte": 5}}, True),
        ({"$or": [{"a": 5}, {"b": 1}]}, {"a": {"$gte": 5}}, False),
        ({"a": 5}, {"$or": [{"a": 5}, {"b": 1}]}, True),
        ({"a": 5, "b": 2}, {"a": {"$gt": 1}, "b": {"$gt": 1}}, True),
        ({"a": 5}, {"a": {"$gt": 1}, "b": {"$gt": 1}}, False),
        ({"b": 5}, {"a": 5}, False),
        ({"a.b": 5}, {"a": {"$exists": True}}, False),
        ({"a": [5]}, {"a": 5}, False),
    ],
)
def test_what_a_query_implies(query: Document, condition: Document, proved: bool) -> None:
    assert implies(parse_filter(query), partial_filter(condition).node) is proved


def test_the_collection_record_carries_the_owner_index() -> None:
    info = CollectionInfo(1, "dishes", Preset.PRIVATE, (owner_index(2),))
    chosen = plan(where({"_openid": "u1"}, {"price": {"$gt": 1}}).node, parse_sort({"_id": -1}), info.indexes)
    assert isinstance(chosen.source, Ranges)
    assert chosen.ordered
    assert chosen.source.reverse
