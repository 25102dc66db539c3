"""Updates happen wholly or not at all, and never touch the document they were given."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudlet.docdb.filter import where
from cloudlet.docdb.filter.position import matched_index
from cloudlet.docdb.update import parse_update
from cloudlet.docdb.update_upsert import upsert_document
from cloudlet.docdb.values import Document, identical
from cloudlet.model.errors import InvalidUpdate
from tests.property import naive_updates
from tests.property.docdb_strategies import PATHS, documents, few_scalars, few_values, updates

NOW = datetime(2026, 11, 20, tzinfo=UTC)


PLACES = ("a", "b", "a.b", "a.c", "a.0", "a.2", "a.1.b", "b.0", "b.0.1", "c.a.b", "c.a.c", "c")
plain_updates: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from(PLACES),
    st.one_of(
        st.builds(lambda value: ("$set", value), few_values),
        st.just(("$unset", "")),
        st.builds(lambda value: ("$inc", value), st.sampled_from([1, -2, 0.5, 2**62, "no", None, True])),
        st.builds(lambda values: ("$push", {"$each": values}), st.lists(few_values, max_size=2)),
    ),
    min_size=1,
    max_size=4,
).map(lambda parts: _by_operator(parts))
"""Updates with the operators that the naive reference knows; many are refused."""


def _by_operator(parts: dict[str, tuple[str, Any]]) -> dict[str, Any]:
    update: dict[str, Any] = {}
    for path, (name, operand) in parts.items():
        update.setdefault(name, {})[path] = operand
    return update


def _sorted(document: Document) -> Document:
    return dict(sorted(document.items()))


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
    # New fields are appended in the order of their names, so only together they are in order.
    assert (together is None) == (alone is None)
    if together is not None and alone is not None:
        assert identical(_sorted(together), _sorted(alone))


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
        assert exc.number == 54, exc.message
        return
    assert wanted.match(document)


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), max_size=5), st.integers(0, 3))
def test_the_position_is_that_of_the_first_matching_element(items: list[int], wanted: int) -> None:
    condition = where({"a": wanted})
    document = {"a": items}
    index = matched_index(condition.node, document, ("a",))
    assert index == (items.index(wanted) if wanted in items else None)


@settings(deadline=None, max_examples=300)
@given(documents, plain_updates)
def test_updates_do_what_the_naive_way_does(document: Document, update: dict[str, Any]) -> None:
    try:
        expected = naive_updates.updated(document, update)
    except naive_updates.NotPossible:
        expected = None
    try:
        found = parse_update(update).apply(document, NOW, nowhere)
    except InvalidUpdate:
        found = None
    assert identical(found, expected), (found, expected)


@settings(deadline=None)
@given(documents, updates)
def test_the_same_object_comes_back_exactly_if_nothing_changed(
    document: Document, update: dict[str, Any]
) -> None:
    try:
        after = parse_update(update).apply(document, NOW, nowhere)
    except InvalidUpdate:
        return
    assert (after is document) == identical(after, document)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(PATHS), few_scalars, max_size=3),
    st.dictionaries(st.sampled_from(["x", "y.z", "w"]), few_values, min_size=1, max_size=2),
)
def test_an_upsert_that_leaves_the_filters_fields_alone_matches_the_filter(
    condition: dict[str, Any], fields: dict[str, Any]
) -> None:
    wanted = where(condition)
    try:
        base = upsert_document(wanted.node)
    except InvalidUpdate as exc:
        assert exc.number == 54
        return
    after = parse_update({"$set": fields}).apply(base, NOW, nowhere, inserting=True)
    assert wanted.match(after)


@settings(deadline=None)
@given(
    st.lists(st.fixed_dictionaries({"k": st.integers(0, 3)}), max_size=5),
    st.integers(0, 3),
    st.sampled_from(["a.$[x].k", "a.$[x]", "a.$[].k"]),
)
def test_dynamic_paths_do_what_their_expanded_paths_do(
    items: list[dict[str, int]], wanted: int, path: str
) -> None:
    document = {"a": items}
    filters = None if path.startswith("a.$[].") else [{"x.k": wanted}]
    found = parse_update({"$set": {path: 9}}, filters).apply(document, NOW, nowhere)
    meant = [at for at, item in enumerate(items) if filters is None or item["k"] == wanted]
    step = path.split(".")[1]
    expanded = {path.replace(step, str(at)): 9 for at in meant}
    assert identical(found, parse_update({"$set": expanded}).apply(document, NOW, nowhere))
