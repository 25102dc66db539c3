"""The page about compatibility names every operator of the code's tables and no other; its counts hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sized
from pathlib import Path

import pytest

from cloudlet.docdb import update_arrays
from cloudlet.docdb.filter.operators import COMPANIONS, FIELD_OPERATORS
from cloudlet.docdb.filter.parse import TOP_OPERATORS
from cloudlet.docdb.pipeline.accumulators import ACCUMULATORS
from cloudlet.docdb.pipeline.expressions import OPERATORS as EXPRESSIONS
from cloudlet.docdb.pipeline.parse import STAGES
from cloudlet.docdb.pipeline.writing import WRITES
from cloudlet.docdb.update_operators import OPERATORS as UPDATES
from tests.unit.docdb import (
    test_filter_cases,
    test_projection,
    test_sort,
    test_update,
    test_update_arrays,
    test_update_fields,
)
from tests.unit.docdb.pipeline.cases import arithmetic, joins, logic, stages, texts, times

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "compatibility.md"

FROZEN = {
    "filters": 3244,
    "updates": 436,
    "projections": 73,
    "orders": 35,
    "stages": 234,
    "accumulators": 37,
    "expressions": 615,
}
"""Cases of the operators' tables. A number here may only rise: write the new one here and on the page."""

CODE: dict[str, set[str]] = {
    "Filters": {*FIELD_OPERATORS, *COMPANIONS, *TOP_OPERATORS},
    "Updates": {*UPDATES, "$rename", *update_arrays._CLAUSES},
    "Stages": {*STAGES, *WRITES},
    "Accumulators": set(ACCUMULATORS),
    "Expressions": set(EXPRESSIONS),
}


def sections() -> dict[str, str]:
    """The page's text by heading."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table(text: str) -> list[list[str]]:
    """Cells of the rows of all tables in a text, without their headings."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [
        row for at, row in enumerate(cells) if not is_rule(row) and not is_rule((cells[at + 1 :] or [[]])[0])
    ]


def is_rule(row: list[str]) -> bool:
    """The line of dashes below a heading."""
    return bool(row) and all(set(cell) == {"-"} for cell in row)


def names(texts: Iterable[str]) -> list[str]:
    """The operators that are named, in order."""
    return re.findall(r"`(\$[a-zA-Z0-9]+)`", " ".join(texts))


def tables() -> dict[str, list[Sized]]:
    """The tables of cases. That all of them pass is shown by the tests they belong to."""
    pipelines = [cases for name, cases in stages.TABLES.items() if name != "accumulators"]
    return {
        "filters": [found.cases for found in test_filter_cases.TABLES],
        "updates": [
            *test_update_fields.TABLES.values(),
            *test_update_arrays.TABLES.values(),
            test_update_arrays.FILTERED,
            test_update_arrays.POSITIONAL,
            test_update.REFUSED,
            test_update.REPLACEMENTS,
            test_update.UPSERTS,
        ],
        "projections": [
            test_projection.INCLUDED,
            test_projection.EXCLUDED,
            test_projection.SLICED,
            test_projection.ELEMENTS,
            test_projection.POSITIONS,
        ],
        "orders": [test_sort.CASES],
        "stages": [*pipelines, *(cases for found in joins.TABLES.values() for cases in found.values())],
        "accumulators": [stages.TABLES["accumulators"]],
        "expressions": [
            cases for module in (arithmetic, logic, texts, times) for cases in module.TABLES.values()
        ],
    }


@pytest.mark.parametrize("section", CODE)
def test_every_operator_is_described_once_and_no_other(section: str) -> None:
    described = names(row[0] for row in table(sections()[section]))
    assert sorted(described) == sorted(CODE[section])


def test_what_is_not_there_is_not_there() -> None:
    rows = table(sections()["Not there"])
    assert {row[0].capitalize() for row in rows} <= CODE.keys()
    found = [(row[0], name) for row in rows for name in names(row[1:2]) if name in CODE[row[0].capitalize()]]
    assert found == []


def test_what_is_named_instead_is_there() -> None:
    known = set().union(*CODE.values())
    instead = names(row[2] for row in table(sections()["Not there"]))
    assert {name for name in instead if name not in known} <= {"$setWindowFields"}


def test_the_counts_on_the_page_are_the_frozen_ones() -> None:
    assert {row[0]: int(row[1]) for row in table(sections()["Cases"])} == FROZEN


def test_no_case_was_lost() -> None:
    found = {name: sum(map(len, cases)) for name, cases in tables().items()}
    assert found.keys() == FROZEN.keys()
    assert {name: count for name, count in found.items() if count < FROZEN[name]} == {}
