"""The prover is sound: what it accepts never finds a document that violates the rule.

Rules, queries and documents use few fields and few values, so that proofs succeed and documents are found.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from cloudlet.docdb.filter import where
from cloudlet.docdb.filter.parse import parse_filter
from cloudlet.docdb.rules.compile import Clause, Operation, compile_rule
from cloudlet.docdb.rules.goals import goal_of, matcher, opposite
from cloudlet.docdb.rules.judge import Judge, proven
from cloudlet.docdb.rules.reduce import SEMANTICS, Request
from cloudlet.docdb.values import Decimal128, Document, Value, date_from_ms, prepare
from cloudlet.model.errors import InvalidParameter
from cloudlet.rules.fold import Scope, holds
from tests.property.docdb_strategies import filters

NOW_MS = 1_800_000_000_000
AUTH = {"openid": "a", "uid": "ab", "loginType": "CUSTOM"}
STORED: dict[str, Document | None] = {
    "database.r.a": {"_id": "a", "list": ["a", 1, None], "n": 1, "o": {"a": 2, "b": None}},
    "database.r.1": {"_id": "1", "list": ["b"], "n": 2},
}

# Rules.

fields = st.sampled_from(["doc.a", "doc.a", "doc.a", "doc.b", "doc.a.b", "doc.a[0]", "doc._id"])
constants = st.sampled_from(["0", "1", "2", "'a'", "'b'", "true", "null"])
rare = st.sampled_from(
    [
        *("now", "auth.openid", "auth.nothing", "request.data.a", "request.data.x", "[1, 'a']", "[]", "1.5"),
        *("get('database.r.a').n", "get('database.r.a').list", "get('database.r.none').n", "''", "undefined"),
        *("get(`database.r.${doc.a}`).n", "get('database.r.' + doc.b).list", "get('database.r.a').o"),
    ]
)
operands = st.one_of(fields, constants, constants, rare)
operators = st.sampled_from(["==", "==", "!=", ">", ">=", "<", "<="])
comparisons = st.one_of(
    st.builds("{} {} {}".format, fields, operators, constants),
    st.builds("{} {} {}".format, operands, operators, operands),
    st.builds("{} in [{}, {}]".format, fields, constants, constants),
    st.builds("{} in {}".format, operands, st.one_of(fields, rare)),
    st.builds("{} in [{}, {}]".format, operands, fields, operands),
    st.builds("/{}/.test({})".format, st.sampled_from(["^a", "b", "^x+$"]), operands),
    fields,
    st.sampled_from(["true", "auth", "auth != null", "auth.nothing == 1"]),
)
connectives = st.sampled_from(["({}) && ({})", "({}) || ({})", "!({})", "({}) == false", "({}) || !({})"])
expressions = st.one_of(
    comparisons,
    st.builds(lambda form, one, other: form.format(one, other), connectives, comparisons, comparisons),
    st.builds(
        lambda form, inner, one, other, third: form.format(inner.format(one, other), third),
        *(connectives, connectives, comparisons, comparisons, comparisons),
    ),
)

# Queries.

paths = st.sampled_from(["a", "a", "a", "b", "a.b", "a.0", "_id"])
scalars = st.sampled_from([0, 1, 2, "a", "b", True, None])
odd = st.sampled_from(
    [1.0, Decimal128("1"), 1.5, float("nan"), "", date_from_ms(NOW_MS), NOW_MS + 1, [1], {"b": 1}]
)
values = st.one_of(scalars, scalars, scalars, odd)
conditions: st.SearchStrategy[Any] = st.one_of(
    values,
    st.builds(lambda op, value: {op: value}, st.sampled_from(["$eq", "$gt", "$gte", "$lt", "$lte"]), values),
    st.builds(lambda value: {"$ne": value}, values),
    st.builds(
        lambda op, many: {op: many}, st.sampled_from(["$in", "$nin", "$all"]), st.lists(values, max_size=3)
    ),
    st.builds(lambda op, many: {"$not": {op: many}}, st.sampled_from(["$eq", "$gt", "$lte"]), values),
    st.builds(lambda value, ne: {"$gte": value, "$ne": ne}, scalars, scalars),
    st.builds(lambda value: {"$elemMatch": {"b": value}}, values),
    st.builds(lambda value: {"$elemMatch": {"$gt": value}}, scalars),
    st.builds(lambda flag: {"$exists": flag}, st.booleans()),
)
simple = st.dictionaries(paths, conditions, min_size=1, max_size=2)
queries: st.SearchStrategy[Document] = st.one_of(
    simple,
    st.builds(
        lambda name, parts, more: {name: parts, **more},
        st.sampled_from(["$and", "$or", "$or", "$nor"]),
        st.lists(simple, min_size=1, max_size=3),
        st.one_of(st.just({}), simple),
    ),
)

# Rules and queries about the same things: the rule's conditions are near those of the query.

_TWINS = {"$eq": "==", "$ne": "!=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
comparing = st.sampled_from(["$eq", "$eq", *_TWINS])
atoms = st.tuples(st.sampled_from(["a", "a", "a.b", "_id"]), comparing, scalars)


def _near(atom: tuple[str, str, Value], op: str, shift: int) -> str:
    """A condition of a rule that is or resembles the one of a query."""
    path, own, value = atom
    if shift and value is True:
        value = 1
    elif shift and type(value) is int:
        value += shift
    return f"doc.{path} {_TWINS[op if shift else own]} {json.dumps(value)}"


@st.composite
def twins(draw: st.DrawFn) -> tuple[str, Document]:
    """A rule and a query."""
    chosen = draw(st.lists(atoms, min_size=1, max_size=3))
    shifts = st.sampled_from([0, 0, 1, -1])
    parts = [f"({_near(atom, draw(comparing), draw(shifts))})" for atom in chosen]
    parts = [f"!{part}" if draw(st.integers(0, 7)) == 0 else part for part in parts]
    conditions_ = [{path: {op: value}} for path, op, value in chosen]
    rule = draw(st.sampled_from([" && ", " || ", " || "])).join(parts)
    return rule, {draw(st.sampled_from(["$and", "$and", "$or"])): conditions_}


# Documents.


def looks_alike(seed: int, used: list[Value]) -> list[Document]:
    """Documents made of the values that a query and a rule are about, in arrays and objects of all kinds."""
    pick = random.Random(seed)

    def value() -> Value:
        return pick.choice(used)

    def anything() -> Value:
        forms: list[Value] = [value(), value(), [value()], [value(), value()], {"b": value()}, []]
        forms += [[{"b": value()}, {"b": value()}], {"b": [value(), value()]}, [[value()], value()]]
        forms += [[{"b": [value()]}, {"c": 1}, value()], {"0": value(), "b": {"b": value()}}]
        return pick.choice(forms)

    ids = [item for item in used if item is not None]
    return [
        {"_id": pick.choice(ids), **{name: anything() for name in "ab" if pick.random() < 0.8}}
        for _ in range(100)
    ]


elements = st.one_of(
    scalars, odd, st.builds(lambda value: {"b": value}, values), st.lists(scalars, max_size=2)
)
stored: st.SearchStrategy[Value] = st.one_of(
    scalars, odd, st.lists(elements, max_size=3), st.builds(lambda value: {"b": value, "0": 1}, elements)
)
documents = st.builds(
    lambda id_, rest: {"_id": id_, **rest},
    st.sampled_from(["a", "b", 0, 1, 2, True]),
    st.fixed_dictionaries({}, optional={"a": stored, "b": stored}),
)


def clause_of(expression: str) -> Clause:
    return compile_rule(json.dumps({"read": expression})).clauses[Operation.READ]


async def _never(_collection: str, _id: str) -> Document | None:
    raise AssertionError("everything is known")


class _Stored(dict[str, Document | None]):
    """The documents of ``get()``, none at other paths."""

    def __contains__(self, _path: object) -> bool:
        return True

    def __missing__(self, _path: str) -> None:
        return None


def judge() -> Judge:
    return Judge("things", _never, _Stored(STORED))


@settings(max_examples=600, deadline=None)
@given(
    st.one_of(twins(), st.tuples(expressions, queries)),
    st.lists(documents, max_size=4),
    scalars,
    st.integers(0, 2**32),
)
def test_an_accepted_query_finds_no_document_that_violates_the_rule(
    pair: tuple[str, Document], found: list[Document], written: Value, seed: int
) -> None:
    expression, query = pair
    assume(expression.count("get(") <= 3)
    clause, request = clause_of(expression), Request(AUTH, NOW_MS, {"a": written})
    decider, prepared = judge(), prepare(query, NOW_MS)
    asked = goal_of(parse_filter(prepared))
    if not proven(asked, decider.goal(clause, request, asked)):
        return
    event("accepted")
    match = where(prepared, subject_max=None).match
    numbers = [int(text) for text in re.findall(r"-?[0-9]", f"{expression} {query}")]
    used = [*numbers, *(number + 1 for number in numbers), "a", "b", True, False, None, written]
    for document in [*found, *looks_alike(seed, used)]:
        if match(document):
            event("accepted and found")
            assert decider.holds(clause, request, document), (expression, query, document)


@settings(max_examples=200, deadline=None)
@given(expressions, st.lists(documents, min_size=1, max_size=6))
def test_a_rule_and_its_negation_never_both_hold(expression: str, found: list[Document]) -> None:
    rule = clause_of(expression) if expression.count("get(") <= 3 else clause_of("true")
    assume(not rule.get_paths)
    negation, request = clause_of(f"!({rule.source})"), Request(AUTH, NOW_MS, {"a": 1})
    decider, other = judge(), judge()
    for document in found:
        both = decider.holds(rule, request, document) and other.holds(negation, request, document)
        assert not both, (rule.source, document)


plain = st.sampled_from([0, 1, 2, 3, "a", "b", True, False, 1.0])


@settings(max_examples=200, deadline=None)
@given(twins(), plain, st.one_of(plain, st.builds(lambda value: {"b": value}, plain)))
def test_without_arrays_a_rule_means_what_the_language_says(
    pair: tuple[str, Document], id_: Value, value: Value
) -> None:
    """Judging a document by conditions is the same as computing the expression with the document put in."""
    assume("null" not in pair[0])
    rule, document = clause_of(pair[0]), {"_id": id_, "a": value}
    expected = holds(rule.expr, Scope(SEMANTICS, {"doc": document}))
    assert judge().holds(rule, Request(AUTH, NOW_MS), document) is expected


@settings(max_examples=200, deadline=None)
@given(st.one_of(queries, filters), documents)
def test_a_filter_as_a_goal_is_the_filter(query: Document, document: Document) -> None:
    node = parse_filter(prepare(query, NOW_MS))
    plain = where(prepare(query, NOW_MS)).match(document)
    assert matcher(goal_of(node))(document) is plain
    assert matcher(opposite(goal_of(node)))(document) is not plain
    assert matcher(goal_of(node, positive=False))(document) is not plain


@settings(max_examples=200, deadline=None)
@given(simple)
def test_a_query_proves_all_its_own_conditions(query: Document) -> None:
    goal = goal_of(parse_filter(prepare(query, NOW_MS)))
    tighter = goal_of(parse_filter(prepare({"$and": [{"c": 7}, query]}, NOW_MS)))
    assert proven(tighter, goal)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("doc.auth'\"`${}[]()!&|=<>+-/.,\\ 01ab"), max_size=40))
def test_any_text_is_read_or_refused_with_a_reason(text: str) -> None:
    try:
        clause_of(text)
    except InvalidParameter as error:
        assert error.message.startswith("rule read: ")


any_json: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.text(max_size=5), st.integers()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["read", "write", "fields", "a"]), inner, max_size=3),
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(any_json)
def test_any_json_is_a_rule_or_refused(value: Any) -> None:
    try:
        compile_rule(json.dumps(value))
    except InvalidParameter as error:
        assert error.message
