"""The database through the vendors' own SDKs: every command they have, and the same answers through each.

What is asked stands in ``projects/battery.js``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.integration.platform import Platform

pytestmark = [
    pytest.mark.xdist_group("sdks"),
    pytest.mark.parametrize("function", ["wx26", "wx4", "node318"]),
]

FILTERS = {
    "value": "b",
    "nothing": "ef",
    "object": "b",
    "nested": "a",
    "path": "a",
    "eq": "b",
    "neq": "acdef",
    "gt": "bc",
    "gte": "bc",
    "lt": "a",
    "lte": "ab",
    "in": "adef",
    "nin": "bc",
    "chain": "b",
    "or": "ac",
    "not": "adef",
    "nor": "cdef",
    "and": "ab",
    "either": "af",
    "neither": "f",
    "exists": "c",
    "absent": "f",
    "mod": "ac",
    "all": "a",
    "size": "be",
    "element": "d",
    "array": "b",
    "index": "d",
    "through": "cd",
    "expr": "cf",
    "schema": "f",
    "pattern": "ef",
    "lines": "e",
    "case": "f",
    "date": "a",
    "later": "b",
    "wrong": "",
    "soon": "ab",
}
UPDATES: dict[str, Any] = {
    "merge": {"o": {"p": 1, "q": 3, "r": {"s": 4}}},
    "set": {"o": {"z": 1}},
    "path": {"o": {"p": 1, "q": 9, "new": {"deep": 1}}},
    "remove": {"s": None, "o": {"q": 2}},
    "inc": {"n": 7, "o": {"p": 1, "q": 1}},
    "mul": {"n": 15},
    "min": {"n": 2},
    "max": {"n": 9},
    "bit": {"n": 4},
    "rename": {"s": None, "t": "x"},
    "push": {"list": [1, 2, 3, 4, 5]},
    "place": {"list": [1, 9, 0, 2, 3]},
    "top": {"list": [7, 3, 2]},
    "pop": {"list": [1, 2]},
    "shift": {"list": [2, 3]},
    "unshift": {"list": [0, 1, 2, 3]},
    "pull": {"list": [1]},
    "pullAll": {"list": [2]},
    "addToSet": {},
    "addEach": {"list": [1, 2, 3, 4]},
    "pullObjects": {"objects": [{"k": 2, "v": 2}]},
    "index": {"objects": [{"k": 1, "v": 1}, {"k": 2, "v": 7}]},
    "every": {"objects": [{"k": 1, "v": 2}, {"k": 2, "v": 3}]},
    "date": {"at": "1970-01-01T00:00:00.005Z"},
    "type": {"n": [1, {"a": None}]},
    "position": [{"k": 1, "v": 1}, {"k": 2, "v": "here"}],
    "offset": 60_000,
    "near": True,
}
PIPELINES: dict[str, Any] = {
    "group": [
        {"_id": "x", "total": 6, "mean": 3, "ids": ["a", "c"]},
        {"_id": "y", "total": 5, "mean": 5, "ids": ["b"]},
    ],
    "lookup": [{"_id": "a", "have": [3, 9]}, {"_id": "b", "have": [1]}, {"_id": "c", "have": [3, 9]}],
    "joined": [
        {"_id": "a", "stock": [{"have": 3}, {"have": 9}]},
        {"_id": "b", "stock": []},
        {"_id": "c", "stock": [{"have": 9}]},
    ],
    "unwind": [
        {"_id": "a", "at": 0, "tags": "p"},
        {"_id": "a", "at": 1, "tags": "q"},
        {"_id": "b", "at": 0, "tags": "q"},
        {"_id": "c", "at": None},
    ],
    "bucket": [{"_id": 0, "count": 1}, {"_id": 4, "count": 2}],
    "count": [{"total": 2}],
    "sortByCount": [{"_id": "x", "count": 2}, {"_id": "y", "count": 1}],
    "replaceRoot": [{"only": 4}],
    "expressions": [
        {
            "day": "1970-01-02 08",
            "big": "no",
            "text": "X-x",
            "tags": "pq",
            "has": True,
            "many": 2,
            "kept": ["q"],
        }
    ],
    "addFields": [{"_id": "b", "double": 10, "none": "nothing"}],
    "sample": 2,
}
PLACES = {
    "same": ["point", "line", "polygon", "points", "lines", "polygons"],
    "near": "bac",
    "far": "c",
    "within": "ab",
    "circle": "ab",
    "intersects": "ab",
    "nearest": [{"_id": "b", "far": 1113}],
}
ERRORS = {
    "duplicate": "E11000 duplicate key error",
    "collection": "database collection not exists: Db or Table not exist",
    "again": "exists already",
    "arithmetic": "Cannot apply $inc to a value of non-numeric type",
    "operator": "unknown operator: $foo",
    "pattern": "the regular expression '(' is not understood",
    "near": "unable to find index for $geoNear query",
    "stage": "a group specification must include an _id",
    "expression": "$divide only supports numeric types, not int and string",
}


def asked(platform: Platform, function: str, battery: str) -> Mapping[str, Any]:
    """What the battery finds through the SDK of a function, in a collection of its own."""
    event = {"step": "battery", "battery": battery, "collection": f"{battery}_of_{function}"}
    answer = platform.call(function, event)
    assert answer.status == 200, answer.body
    found: Mapping[str, Any] = answer.body
    return found


def test_every_filter_command(platform: Platform, function: str) -> None:
    assert asked(platform, function, "filters") == FILTERS


def test_order_pages_projections_and_counts(platform: Platform, function: str) -> None:
    assert asked(platform, function, "reads") == {
        "page": [{"n": 15}, {"n": 17}, {"n": 19}],
        "cut": [{"_id": "1", "n": 1, "list": [{"k": 2}]}],
        "first": [{"_id": "1", "list": [{"k": 2}]}],
        "total": 12,
        "all": 25,
        "rows": 20,
    }


def test_every_update_command(platform: Platform, function: str) -> None:
    assert asked(platform, function, "updates") == UPDATES


def test_pipelines(platform: Platform, function: str) -> None:
    assert asked(platform, function, "pipelines") == PIPELINES


def test_places(platform: Platform, function: str) -> None:
    """The index is the operator's, as upstream."""
    collection = f"places_of_{function}"
    platform.installation.command("db", "create", collection)
    platform.installation.command("db", "index", "create", collection, "place:2dsphere")
    assert asked(platform, function, "places") == PLACES


def test_errors_have_the_code_and_words_that_programs_compare(platform: Platform, function: str) -> None:
    found = dict(asked(platform, function, "errors"))
    missing, quiet, unchanged = (found.pop(name) for name in ("missing", "quiet", "unchanged"))
    document = {"_id": "a", "n": "x"}
    if function == "node318":
        assert (missing["answer"]["data"], quiet, unchanged) == ([], {"answer": []}, {"answer": [document]})
        usual: str | int = "DATABASE_REQUEST_FAILED"
        others: dict[str, str | int] = {"collection": "DATABASE_COLLECTION_NOT_EXIST"}
    else:
        assert missing["message"] == "document.get:fail document with _id nobody does not exist"
        assert (quiet, unchanged) == ({"answer": None}, {"answer": document})
        usual, others = -502001, {"collection": -502005}
        if function == "wx4":
            # That SDK tells no number of errors outside documents.
            others |= {"again": -1, "stage": -1, "expression": -1}
    assert {name: told["code"] for name, told in found.items()} == dict.fromkeys(ERRORS, usual) | others
    assert {
        name: told["message"] for name, told in found.items() if ERRORS[name] not in told["message"]
    } == {}
