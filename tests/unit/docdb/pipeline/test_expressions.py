"""Expressions, case by case, and what surrounds them: limits, variables, budget."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from cloudlet.docdb.limits import Overrun
from cloudlet.docdb.pipeline.expressions import (
    OPERATORS,
    Budget,
    compile_expression,
    expression_facts,
    truthy,
    variables_at,
)
from cloudlet.docdb.values import MISSING, Regex, identical
from cloudlet.model.errors import InvalidFilter, QueryTooCostly
from tests.unit.docdb.pipeline.cases import arithmetic, logic, texts, times
from tests.unit.docdb.pipeline.cases.kit import DOC, NOW, Refused

CASES = [
    pytest.param(expression, expected, id=f"{table}: {str(expression)[:60]}")
    for module in (arithmetic, logic, texts, times)
    for table, cases in module.TABLES.items()
    for expression, expected in cases
]


@pytest.mark.parametrize(("expression", "expected"), CASES)
def test_expression(expression: Any, expected: Any) -> None:
    document = deepcopy(DOC)
    if isinstance(expected, Refused):
        with pytest.raises((InvalidFilter, QueryTooCostly)) as refusal:
            compile_expression(expression)(document, variables_at(NOW))
        assert expected.text in refusal.value.message
        return
    found = compile_expression(expression)(document, variables_at(NOW))
    assert identical(found, expected), (found, expected)
    assert document == DOC


def test_every_family_has_many_cases() -> None:
    for module in (arithmetic, logic, texts, times):
        for table, cases in module.TABLES.items():
            assert len(cases) >= 12, table


def test_every_operator_is_in_a_table() -> None:
    cases = repr([module.TABLES for module in (arithmetic, logic, texts, times)])
    elsewhere = {"$rand", "$sampleRate", "$meta", "$const", "$binarySize"}
    alike = {"$asin", "$atanh", "$acosh", "$asinh", "$cosh", "$tanh", "$atan"}
    assert {name for name in OPERATORS if f"'{name}'" not in cases} <= elsewhere | alike


def test_all_operators_of_the_sdks_are_there() -> None:
    # The list of wx-server-sdk's command.aggregate, without accumulators that are stages' own.
    names = """abs add allElementsTrue and anyElementTrue arrayElemAt arrayToObject avg ceil cmp concat
    concatArrays cond convert dateFromParts dateFromString dateToParts dateToString dayOfMonth dayOfWeek
    dayOfYear divide eq exp filter first floor gt gte hour ifNull in indexOfArray indexOfBytes indexOfCP
    isArray isoDayOfWeek isoWeek isoWeekYear last let literal ln log log10 lt lte ltrim map max mergeObjects
    meta min millisecond minute mod month multiply neq not objectToArray or pow range reduce reverseArray
    rtrim second setDifference setEquals setIntersection setIsSubset setUnion size slice split sqrt stdDevPop
    stdDevSamp strcasecmp strLenBytes strLenCP substr substrBytes substrCP subtract sum switch toBool toDate
    toDecimal toDouble toInt toLong toLower toObjectId toString toUpper trim trunc type week year zip"""
    wanted = {"$ne" if name == "neq" else f"${name}" for name in names.split()}
    assert wanted <= set(OPERATORS)


def test_rand_and_sample_rate() -> None:
    found = [compile_expression({"$rand": {}})({}, {}) for _ in range(20)]
    assert all(0 <= item < 1 for item in found)
    assert len(set(found)) > 1
    assert compile_expression({"$sampleRate": 1})({}, {}) is True
    assert compile_expression({"$sampleRate": 0})({}, {}) is False
    with pytest.raises(InvalidFilter, match=r"must be in \[0, 1\]"):
        compile_expression({"$sampleRate": 2})


def test_meta_is_refused_by_name() -> None:
    with pytest.raises(InvalidFilter, match="no text indexes"):
        compile_expression({"$meta": "textScore"})


def test_now_without_a_clock_is_refused() -> None:
    with pytest.raises(InvalidFilter, match=r"\$\$NOW has no value here"):
        compile_expression("$$NOW")({}, {})


@pytest.mark.parametrize(("value", "expected"), [(0, False), (float("nan"), True), ("", True), ([], True)])
def test_truth(value: Any, expected: bool) -> None:
    assert truthy(value) is expected


def test_truth_of_nothing() -> None:
    assert [truthy(item) for item in (None, MISSING, False, 0.0)] == [False] * 4


def test_a_doubling_reduce_ends_with_an_error() -> None:
    bomb = {
        "$reduce": {
            "input": {"$range": [0, 60]},
            "initialValue": [1],
            "in": {"$concatArrays": ["$$value", "$$value"]},
        }
    }
    with pytest.raises(QueryTooCostly, match="too large"):
        compile_expression(bomb)({}, {})


def test_a_budget_ends_long_loops() -> None:
    loop = {"$map": {"input": {"$range": [0, 5_000]}, "in": "$$this"}}
    with pytest.raises(Overrun):
        compile_expression(loop)({}, variables_at(NOW, Budget(1_000)))
    assert len(compile_expression(loop)({}, variables_at(NOW, Budget(10_000)))) == 5_000


def test_too_many_parts_are_refused() -> None:
    with pytest.raises(InvalidFilter, match="more than 10000 parts"):
        compile_expression({"$add": [[1] * 200] * 60})


@pytest.mark.parametrize(
    ("expression", "costly"),
    [
        ({"$regexMatch": {"input": "$s", "regex": "^a"}}, False),
        ({"$regexMatch": {"input": "$s", "regex": "^(a+)+$"}}, True),
        ({"$regexMatch": {"input": "$s", "regex": "$pattern"}}, True),
        ({"$regexFind": {"input": "$s", "regex": Regex("b")}}, False),
        ({"$add": [1, 2]}, False),
    ],
)
def test_patterns_that_can_backtrack_are_known(expression: Any, costly: bool) -> None:
    assert expression_facts(expression).costly is costly


def test_a_pattern_on_a_long_text_is_not_searched_inside_the_server() -> None:
    find = compile_expression({"$regexMatch": {"input": "$s", "regex": "b"}})
    document = {"s": "a" * 10_000}
    with pytest.raises(Overrun):
        find(document, variables_at(NOW, Budget(10**6)))
    assert find(document, {}) is False


def test_what_an_expression_reads_is_known() -> None:
    facts = expression_facts({"$concat": ["$a.b", {"$let": {"vars": {"x": "$c"}, "in": "$$x.d"}}]})
    assert (facts.fields, facts.whole) == ({"a", "c"}, False)
    assert expression_facts("$$ROOT").whole
