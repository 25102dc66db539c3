"""Whatever index is chosen, the candidates hold everything that matches."""

from __future__ import annotations

import contextlib
from collections import Counter
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudlet.docdb.base import CollectionInfo, Preset, id_key
from cloudlet.docdb.bytekeys import index_entries
from cloudlet.docdb.catalog import key_part, owner_index
from cloudlet.docdb.filter import where
from cloudlet.docdb.planner import Ids, IndexInfo, Ranges, Scan, plan
from cloudlet.docdb.sort import parse_sort, sort_documents
from cloudlet.docdb.values import Document
from cloudlet.model.errors import InvalidFilter
from tests.property.docdb_strategies import documents, filters, indexable_filters, sorts

LONG = "x" * 200
INDEXES = {
    "a": (("a", False),),
    "a down": (("a", True),),
    "b, a down": (("b", False), ("a", True)),
    "a.b": (("a.b", False),),
    "a.b, c": (("a.b", False), ("c", False)),
    "owner": (("_openid", False), ("_id", False)),
}


def make_index(number: int, name: str, unique: bool, stored: list[Document]) -> IndexInfo:
    """An index with the flags that these documents would have given it."""
    parts = tuple(key_part(path, down) for path, down in INDEXES[name])
    made = [index_entries(document, parts, unique) for document in stored]
    multikey, lossy = any(entry.multikey for entry in made), any(entry.lossy for entry in made)
    return IndexInfo(number, name, parts, unique, multikey, lossy)


def candidates(source: Ids | Ranges | Scan, stored: list[Document]) -> list[Document]:
    """The documents a plan leads to, in its order, each once."""
    if isinstance(source, Scan):
        return stored
    by_id = {id_key(document["_id"]): document for document in stored}
    if isinstance(source, Ids):
        return [by_id[key] for key in source.keys if key in by_id]
    index = source.index
    entries = sorted(
        (key, did)
        for did, document in enumerate(stored)
        for key in index_entries(document, index.parts, index.unique).keys
    )
    order = [did for low, high in source.ranges for key, did in entries if low <= key < high]
    for (_, high), (low, _) in pairwise(source.ranges):
        assert high < low
    return [stored[did] for did in dict.fromkeys(reversed(order) if source.reverse else order)]


def check(stored: list[Document], indexes: list[IndexInfo], condition: dict[str, Any], order: Any) -> str:
    """Compare a plan's answer with that of looking at everything; returns what kind of plan it was."""
    wanted, sort = where(condition), parse_sort(order)
    chosen = plan(wanted.node, sort, indexes)
    found = [document for document in candidates(chosen.source, stored) if wanted.match(document)]
    matches = [document["_id"] for document in stored if wanted.match(document)]
    assert sorted(document["_id"] for document in found) == matches
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
    stored: list[Document], condition: dict[str, Any], order: Any, names: set[str], unique: bool
) -> None:
    stored = [{"_id": number, **document} for number, document in enumerate(stored)]
    check(
        stored,
        [make_index(at, name, unique, stored) for at, name in enumerate(sorted(names), 1)],
        condition,
        order,
    )


SCALARS = [None, True, 0, 1, 2, 3, 4, 1.5, 2**53, 2**53 + 1, "a", "ab", "b", LONG, LONG + "y"]


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

    def filter(self, indexes: list[IndexInfo], depth: int = 1) -> dict[str, Any]:
        roll = self.random.random()
        if depth and roll < 0.3:
            name = self.random.choice(["$and", "$or"])
            return {name: [self.filter(indexes, depth - 1) for _ in range(self.random.randint(1, 3))]}
        paths = self.random.sample(["a", "b", "a.b", "c", "a.0"], self.random.randint(1, 2))
        if self.random.random() < 0.4:
            paths = [self.random.choice(indexes).parts[0].path]
        return {path: self.condition() for path in paths}

    def order(self, indexes: list[IndexInfo]) -> Any:
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


@pytest.mark.parametrize("seed", range(8))
def test_fuzzed_plans_agree_with_scans(seed: int) -> None:
    fuzz = Fuzz(seed)
    kinds: Counter[str] = Counter()
    for _ in range(20):
        stored = fuzz.documents()
        names = fuzz.random.sample(sorted(INDEXES), fuzz.random.randint(1, 2))
        unique = fuzz.random.random() < 0.3
        indexes = [make_index(at, name, unique, stored) for at, name in enumerate(names, 1)]
        for _ in range(40):
            condition = fuzz.filter(indexes)
            with contextlib.suppress(InvalidFilter):
                kinds[check(stored, indexes, condition, fuzz.order(indexes))] += 1
    assert kinds["Ranges"] > 60
    assert kinds["Ranges in order"] > 20


def test_the_collection_record_carries_the_owner_index() -> None:
    info = CollectionInfo(1, "dishes", Preset.PRIVATE, (owner_index(2),))
    chosen = plan(where({"_openid": "u1"}, {"price": {"$gt": 1}}).node, parse_sort({"_id": -1}), info.indexes)
    assert isinstance(chosen.source, Ranges)
    assert chosen.ordered
    assert chosen.source.reverse
