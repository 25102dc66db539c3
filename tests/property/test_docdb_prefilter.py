"""What SQLite throws away when it scans never matches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from cloudlet.docdb.body import decode_body, encode_body
from cloudlet.docdb.filter import where
from cloudlet.docdb.sqlite_file import open_writer
from cloudlet.docdb.sqlite_prefilter import prefilter
from cloudlet.docdb.values import Document
from cloudlet.model.errors import InvalidFilter
from tests.property.test_docdb_planner import SCALARS, Fuzz

ODD = [
    "\0a",
    "é\U0001f600",
    'quo"te\\',
    "\x7f\t",
    0.1 + 0.2,
    1e-300,
    123456789.123456789,
    -7,
    2**53 - 1,
    1e14 + 0.1,
    False,
    "true",
    "1",
]
NAMES = ["a", "b", "名", "a b", "x-y", "0"]


class Odd(Fuzz):
    """Stranger names and values than indexes need."""

    def document(self) -> Document:
        def value(depth: int) -> Any:
            roll = self.random.random()
            if depth and roll < 0.15:
                return [value(depth - 1) for _ in range(self.random.randint(0, 2))]
            if depth and roll < 0.4:
                names = [*NAMES, "$x"] if self.random.random() < 0.3 else NAMES
                return {
                    name: value(depth - 1) for name in self.random.sample(names, self.random.randint(0, 2))
                }
            return self.random.choice(SCALARS + ODD)

        return {name: value(3) for name in self.random.sample(NAMES, 3)}

    def equality(self, stored: list[Document]) -> dict[str, Any]:
        """A path, and most often what some document has there."""
        value: Any = self.random.choice(stored)
        names = []
        while isinstance(value, dict) and value:
            name = self.random.choice(list(value))
            if name.startswith("$"):
                break
            names.append(name)
            value = value[name]
            if self.random.random() < 0.3:
                break
        if isinstance(value, list) and value and self.random.random() < 0.7:
            value = self.random.choice(value)
        if self.random.random() < 0.3:
            value = self.random.choice(SCALARS + ODD)
        path = ".".join(names) or "a"
        return {path: {"$in": [value, self.random.choice(SCALARS)]} if self.random.random() < 0.3 else value}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[apsw.Connection]:
    made = open_writer(tmp_path / "e.db")
    made.execute("CREATE TABLE c_1 (did INTEGER PRIMARY KEY, body BLOB NOT NULL)")
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(6))
def test_nothing_that_matches_is_thrown_away(connection: apsw.Connection, seed: int) -> None:
    fuzz = Odd(seed)
    told = thrown = 0
    for _ in range(8):
        connection.execute("DELETE FROM c_1")
        stored = [fuzz.document() for _ in range(40)]
        texts = [encode_body(document, 10**6) for document in stored]
        connection.executemany("INSERT INTO c_1 VALUES (?, jsonb(?))", enumerate(texts))
        for _ in range(60):
            query = fuzz.equality(stored)
            if fuzz.random.random() < 0.3:
                query = {"$and": [query, fuzz.equality(stored)]}
            with contextlib.suppress(InvalidFilter):
                wanted = where(query)
                condition = prefilter(wanted.node)
                if condition is None:
                    continue
                told += 1
                text, values = condition
                kept = {did for (did,) in connection.execute(f"SELECT did FROM c_1 WHERE {text}", values)}
                matches = {did for did, text in enumerate(texts) if wanted.match(decode_body(text))}
                assert matches <= kept, query
                thrown += len(stored) - len(kept)
    assert told > 200
    assert thrown > 20 * told


@pytest.mark.parametrize(
    "query",
    [
        {"a": None},
        {"a": {"$gt": 1}},
        {"a": {"$ne": 1}},
        {"$or": [{"a": 1}, {"b": 1}]},
        {"a": [1]},
        {"a": {"b": 1}},
        {"a": float("nan")},
        {"a": 2**60},
        {"a": "\0"},
        {'a"b': 1},
        {"a\\b": 1},
        {"a": {"$in": [1, None]}},
        {"a": {"$in": ["x"] * 40}},
    ],
)
def test_what_is_not_told_to_sqlite(query: Document) -> None:
    assert prefilter(where(query).node) is None


def test_values_and_names_are_bound() -> None:
    condition = prefilter(where({"a'; DROP": "x'; --"}).node)
    assert condition is not None
    assert "DROP" not in condition[0]
    assert "--" not in condition[0]
