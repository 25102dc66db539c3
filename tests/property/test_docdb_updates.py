"""Updates happen wholly or not at all, and never touch the document they were given."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudlet.docdb.filter import where
from cloudlet.docdb.filter.position import matched_index
from cloudlet.docdb.update import parse_update, upsert_document
from cloudlet.docdb.values import Document, identical
from cloudlet.model.errors import InvalidUpdate
from tests.property.docdb_strategies import PATHS, documents, few_scalars, updates

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def nowhere(_path: tuple[str, ...]) -> None:
    return None


@settings(deadline=None)
@given(documents, updates)
def test_the_old_document_is_never_touched(document: Document, update: dict[str, Any]) -> None:
    before = {"_id": 1, **document}
    kept = deepcopy(before)
    try:
        after = parse_update(update).apply(before, NOW, nowhere)
    except InvalidUpdate:
        after = before
    assert identical(before, kept)
    assert after["_id"] == 1


@settings(deadline=None)
@given(documents, updates)
def test_operators_on_different_fields_work_alone_as_together(
    document: Document, update: dict[str, Any]
) -> None:
    parts = [{name: {path: operand}} for name, fields in update.items() for path, operand in fields.items()]
    if len({next(iter(next(iter(part.values())))).split(".")[0] for part in parts}) < len(parts):
        return
    try:
        together = parse_update(update).apply(document, NOW, nowhere)
    except InvalidUpdate:
        together = None
    alone: Document | None = document
    for part in parts:
        try:
            alone = None if alone is None else parse_update(part).apply(alone, NOW, nowhere)
        except InvalidUpdate:
            alone = None
    assert identical(together, alone)


@settings(deadline=None)
@given(documents, updates)
def test_setting_is_idempotent(document: Document, update: dict[str, Any]) -> None:
    sets = {
        name: fields
        for name, fields in update.items()
        if name in ("$set", "$unset", "$min", "$max", "$addToSet")
    }
    if not sets:
        return
    try:
        parsed = parse_update(sets)
        once = parsed.apply(document, NOW, nowhere)
        twice = parsed.apply(once, NOW, nowhere)
    except InvalidUpdate:
        return
    assert identical(once, twice)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(PATHS), few_scalars, max_size=4))
def test_an_upserted_document_matches_the_equalities_it_came_from(condition: dict[str, Any]) -> None:
    wanted = where(condition)
    try:
        document = upsert_document(wanted.node)
    except InvalidUpdate as exc:
        assert "conflict" in exc.message or "Cannot create" in exc.message
        return
    assert wanted.match(document)


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), max_size=5), st.integers(0, 3))
def test_the_position_is_that_of_the_first_matching_element(items: list[int], wanted: int) -> None:
    condition = where({"a": wanted})
    document = {"a": items}
    index = matched_index(condition.node, document, ("a",))
    assert index == (items.index(wanted) if wanted in items else None)
