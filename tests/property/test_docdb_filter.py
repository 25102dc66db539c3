"""The matcher against a slow reference, on filters and documents that nobody thought of."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudlet.docdb.body import decode_value, encode_value
from cloudlet.docdb.filter import where
from cloudlet.docdb.filter.match import compile_node
from cloudlet.docdb.filter.parse import parse_filter
from cloudlet.docdb.filter.shapes import shape_of
from cloudlet.docdb.values import Document, Value
from tests.property.docdb_strategies import PATHS, documents, few_scalars, filters, scalars
from tests.property.filter_reference import matches

_flat = st.dictionaries(
    st.sampled_from(PATHS),
    st.one_of(
        few_scalars,
        st.dictionaries(
            st.sampled_from(["$eq", "$gt", "$gte", "$lt", "$lte"]), few_scalars, min_size=1, max_size=2
        ),
    ),
    min_size=1,
    max_size=3,
)


@settings(deadline=None, max_examples=600)
@given(filters, documents)
def test_the_matcher_agrees_with_the_reference(filter: dict[str, Any], document: Document) -> None:
    assert where(filter).match(document) == matches(filter, document)


@settings(deadline=None, max_examples=400)
@given(_flat, documents)
def test_a_bound_shape_is_what_parsing_would_give(filter: dict[str, Any], document: Document) -> None:
    bound, parsed = where(filter), parse_filter(filter)
    assert bound.match(document) == compile_node(parsed)(document) == matches(filter, document)
    if shape_of(filter) is not None:
        assert repr(where(filter).node) == repr(parsed)


@settings(deadline=None)
@given(st.lists(filters, min_size=1, max_size=3), documents)
def test_conditions_all_have_to_hold(several: list[dict[str, Any]], document: Document) -> None:
    assert where(*several).match(document) == all(matches(filter, document) for filter in several)


@settings(deadline=None)
@given(
    st.one_of(scalars, st.lists(scalars, max_size=2)),
    st.one_of(scalars, st.lists(scalars, max_size=2)),
    st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in"]),
)
def test_comparisons_of_all_types_agree_with_the_reference(value: Value, operand: Value, name: str) -> None:
    if name not in ("$eq", "$in") and "Regex" in type(operand).__name__:
        return
    filter = {"a": {name: [operand] if name == "$in" else operand}}
    assert where(filter).match({"a": value}) == matches(filter, {"a": value})


@settings(deadline=None)
@given(filters, documents)
def test_a_filter_means_the_same_in_a_worker(filter: dict[str, Any], document: Document) -> None:
    sent = decode_value(encode_value(filter))
    assert where(sent, subject_max=None).match(document) == where(filter).match(document)
