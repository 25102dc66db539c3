"""Every operator against its table; no operator without one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloudlet.docdb.filter import where
from cloudlet.docdb.filter.match import compile_node
from cloudlet.docdb.filter.operators import FIELD_OPERATORS
from cloudlet.docdb.filter.parse import TOP_OPERATORS, parse_filter
from cloudlet.docdb.values import Document, prepare
from tests.unit.docdb.cases import array, comparison, element, evaluation, geo, logical, paths, schema
from tests.unit.docdb.cases.table import Case, Table

MODULES = (comparison, logical, element, array, evaluation, schema, paths, geo)
TABLES: list[Table] = [*(found for module in MODULES for found in module.TABLES), *geo.TOP_TABLES]
CASES_MIN = 12


def answers(case: Case) -> Iterator[tuple[str, bool]]:
    """What each way of asking says; all have to say the same."""
    filter, document = prepare(case.filter, 0), prepare(case.document, 0)
    yield "as a request", where(filter).match(document)
    yield "in a worker", where(filter, subject_max=None).match(document)
    yield "parsed", compile_node(parse_filter(filter))(document)
    if "$near" not in str(filter):  # It may only stand at the top.
        yield "negated", not where({"$nor": [filter]}).match(document)
    yield "with others", where({}, {"$and": [filter, {}]}).match(document)
    yield "beside a field", where({"not_there": None}, filter).match(document)


# One test per table: a case takes some microseconds, a test of its own a thousand times as long.
@pytest.mark.parametrize("found", TABLES, ids=lambda found: found.name)
def test_table(found: Table) -> None:
    wrong: list[tuple[Document, Document, str]] = [
        (case.filter, case.document, f"{way}: {answer}")
        for case in found.cases
        for way, answer in answers(case)
        if answer is not case.matches
    ]
    assert wrong == []


@pytest.mark.parametrize("found", TABLES, ids=lambda found: found.name)
def test_tables_are_large_enough_and_name_their_page(found: Table) -> None:
    assert len(found.cases) >= CASES_MIN
    assert {case.matches for case in found.cases} == {True, False}
    assert found.page.endswith("/")


def test_every_operator_has_a_table() -> None:
    known = set(FIELD_OPERATORS) | set(TOP_OPERATORS)
    assert known - {found.name for found in TABLES} == set()
