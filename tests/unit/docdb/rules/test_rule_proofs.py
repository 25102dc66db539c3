"""Which queries prove which rules. Where the vendors document an example, the answer is theirs
(docs.cloudbase.net, "Security Rules"; developers.weixin.qq.com, the database's security rules).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloudlet.docdb.filter.parse import parse_filter
from cloudlet.docdb.rules.compile import Operation, compile_rule
from cloudlet.docdb.rules.goals import goal_of
from cloudlet.docdb.rules.judge import Judge, proven
from cloudlet.docdb.rules.prove import STEPS_MAX, Proof, pinned_id, pinned_values
from cloudlet.docdb.rules.reduce import Request
from cloudlet.docdb.values import Decimal128, Document, Regex, date_from_ms
from tests.unit.docdb.conftest import ManualClock

NOW_MS = int(ManualClock().seconds * 1000)
ANN = {"openid": "ann", "uid": "u1", "loginType": "WECHAT_OPEN"}
ROOMS: dict[str, Document | None] = {
    "database.room.r1": {"_id": "r1", "members": ["ann", "ben"], "owner": "ann", "min": 5},
    "database.room.r2": {"_id": "r2", "members": ["ben"]},
    "database.room.none": None,
}
DEEP: dict[str, Any] = {"$and": [{"$or": [{"a": n}, {"b": n}]} for n in range(60)]}


async def nothing(_collection: str, _id: str) -> Document | None:
    raise AssertionError("everything is read")


def accepts(rule: str, query: Document, auth: dict[str, Any] | None = ANN) -> bool:
    clause = compile_rule(json.dumps({"read": rule})).clauses[Operation.READ]
    asked = goal_of(parse_filter(query))
    goal = Judge("things", nothing, dict(ROOMS)).goal(clause, Request(auth, NOW_MS), asked)
    return proven(asked, goal)


ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    # What the vendors' pages show.
    ("doc.age > 10", {"age": {"$gt": 15}}),
    ("auth.openid == doc._openid", {"_openid": "ann"}),
    ("doc._openid == auth.openid", {"_id": "x", "_openid": "ann"}),
    ("doc.published == true || doc.author == auth.openid", {"published": True}),
    ("doc.published == true || doc.author == auth.openid", {"author": "ann"}),
    ("doc.userId == auth.openid || doc.userId == auth.uid", {"userId": "u1", "x": 1}),
    ("auth.openid in doc.editors", {"editors": "ann"}),
    ("auth.openid in get(`database.room.${doc.roomId}`).members", {"roomId": "r1"}),
    ("get('database.room.' + doc.roomId).owner == auth.openid", {"roomId": {"$in": ["r1"]}}),
    ("doc.status in ['a', 'b']", {"status": {"$in": ["b"]}}),
    ("!(doc.status in ['deleted', 'hidden'])", {"status": {"$nin": ["hidden", "deleted", "x"]}}),
    ("doc.status != 'deleted'", {"status": {"$ne": "deleted"}}),
    ("auth.loginType != 'ANONYMOUS'", {}),
    ("auth != null", {}),
    ("true", {"a": 1}),
    ("now > doc.expires", {"expires": {"$lt": NOW_MS}}),
    ("now > doc.expires", {"expires": {"$lt": date_from_ms(NOW_MS - 1)}}),
    # Comparisons.
    ("doc.age > 10", {"age": 11}),
    ("doc.age > 10", {"age": {"$gt": 10}}),
    ("doc.age >= 10", {"age": {"$gt": 10}}),
    ("doc.age >= 10", {"age": 10.0}),
    ("doc.age < 10", {"age": {"$lte": 9}}),
    ("10 > doc.age", {"age": {"$lt": 5}}),
    ("doc.age == 1", {"age": Decimal128("1.0")}),
    ("doc.age > 10 && doc.age < 20", {"age": {"$gt": 12, "$lt": 20}}),
    ("doc.age > 10", {"$and": [{"x": 1}, {"age": {"$gte": 11}}]}),
    ("doc.age > 10", {"$or": [{"age": 11}, {"age": {"$gt": 20}}]}),
    ("doc.age > 10 || doc.vip == true", {"$or": [{"age": 11}, {"vip": True}]}),
    ("doc.age == 1 || doc.age == 2", {"age": {"$in": [1, 2]}}),
    ("doc.age == 1 && doc.x == 2 || doc.age == 3", {"age": {"$in": [1, 3]}, "x": 2}),
    ("doc.a.b == 1", {"a.b": 1}),
    ("doc.a.b == 1", {"a": {"b": 1, "c": 2}}),
    ("doc.list[0] == 1", {"list.0": 1}),
    ("doc.items.owner == auth.openid", {"items": {"$elemMatch": {"owner": "ann", "n": 1}}}),
    ("doc.tags == 'x'", {"tags": {"$all": ["x", "y"]}}),
    ("doc.roles[auth.openid] == 'admin'", {"roles.ann": "admin"}),
    ("doc.a == null", {"a": None}),
    ("doc.a == undefined", {"a": {"$in": [None]}}),
    ("doc.a == undefined", {"a": {"$exists": False}}),
    ("doc.a != null", {"a": {"$ne": None}}),
    ("doc.name != 'abc'", {"name": {"$not": Regex("^a")}}),
    ("!(doc.a > 10)", {"a": {"$not": {"$gt": 5}}}),
    ("!doc.deleted", {"deleted": False}),
    ("doc.public", {"public": True}),
    ("doc._id != 'config'", {"_id": "a"}),
    ("!(doc._id in ['config'])", {"_id": {"$in": ["a", "b"]}}),
    ("doc.a == doc.b", {"a": 1, "b": 1.0}),
    ("auth.openid in [doc.seller, doc.buyer]", {"buyer": "ann"}),
    ("/^a/.test(doc.name)", {"name": "abc"}),
    ("/^a/.test(doc.name)", {"name": Regex("^a")}),
    ("doc.age > get('database.room.r1').min", {"age": 6}),
    ("auth == null || doc.a == 1", {"a": 1}),
    ("doc.a == 1", {"$and": [{"a": 1}, {"a": 2}]}),
    ("doc.c == 1", {**DEEP, "c": 1}),
]

REFUSED: list[tuple[str, dict[str, Any]]] = [
    # What the vendors' pages show.
    ("doc.age > 10", {"age": {"$gt": 8}}),
    ("doc.age > 10", {}),
    ("doc._openid == auth.openid", {"_id": "x"}),
    ("doc._openid == auth.openid", {"_openid": "ben"}),
    ("auth.openid in get(`database.room.${doc.roomId}`).members", {}),
    ("auth.openid in get(`database.room.${doc.roomId}`).members", {"roomId": "r2"}),
    ("auth.openid in get(`database.room.${doc.roomId}`).members", {"roomId": {"$in": ["r1", "r2"]}}),
    ("auth.openid in get(`database.room.${doc.roomId}`).members", {"roomId": {"$gt": "r1"}}),
    ("auth.openid in get(`database.room.${doc.roomId}`).members", {"roomId": "none"}),
    ("doc.status in ['a', 'b']", {"status": {"$in": ["a", "c"]}}),
    ("doc.status in ['a', 'b']", {"status": {"$ne": "c"}}),
    ("false", {"a": 1}),
    # Arrays: a query for one value also finds arrays with other values.
    ("doc.status != 'deleted'", {"status": "ok"}),
    ("!(doc.status in ['deleted'])", {"status": {"$in": ["ok"]}}),
    ("!(doc.age > 10)", {"age": 5}),
    ("doc.a != null", {"a": 5}),
    ("doc.a != null", {"a": {"$exists": True}}),
    # Types do not mix.
    ("doc.age > 10", {"age": "11"}),
    ("doc.age > 10", {"age": {"$gt": "11"}}),
    ("doc.flag == true", {"flag": 1}),
    ("doc.age > 10", {"age": float("nan")}),
    ("doc.age > 10", {"age": {"$in": [11, None]}}),
    ("doc.age > 10", {"age": {"$gte": 10}}),
    ("doc.age > 10", {"age": {"$lt": 20}}),
    ("doc.age > 10", {"$or": [{"age": 11}, {"vip": True}]}),
    ("doc.age > 10", {"$nor": [{"age": 11}]}),
    ("doc.age > 10 && doc.vip == true", {"age": 11}),
    ("doc.a.b == 1", {"a.c": 1}),
    ("doc.a == 1", {"a.b": 1}),
    ("doc.items.owner == auth.openid", {"items": {"$elemMatch": {"n": 1}}}),
    ("!doc.deleted", {"deleted": {"$ne": True}}),
    ("!doc.deleted", {"deleted": "no"}),
    ("doc.public", {"public": 1}),
    ("doc.a == doc.b", {"a": 1}),
    ("doc.a != doc.b", {"a": 1, "b": 2}),
    ("/^a/.test(doc.name)", {"name": "ba"}),
    ("/^a/.test(doc.name)", {"name": Regex("a")}),
    ("/^a/.test(doc.name)", {"name": "a" * 5_000}),
    ("doc.owner == auth.nothing", {"owner": None}),
    ("doc.owner == get('database.room.r2').owner", {"owner": None}),
    ("doc.owner != auth.nothing", {"owner": {"$ne": None}}),
    ("request.data.x == doc.x", {"x": None}),
    ("doc == null", {}),
    ("doc.a + 1 == 2", {"a": 1}),
    ("doc[doc.a] == 1", {"a": "b", "b": 1}),
    ("doc.roles['a.b'] == 1", {"roles.a.b": 1}),
    ("doc.c == 1", DEEP),
    ("doc.a.b == undefined", {"a.b": {"$exists": False}}),
    ("doc.name != '" + "a" * 40 + "!'", {"name": {"$not": Regex("^(a+)+$")}}),
]


@pytest.mark.parametrize(("rule", "query"), ACCEPTED)
def test_proved(rule: str, query: Document) -> None:
    assert accepts(rule, query)


@pytest.mark.parametrize(("rule", "query"), REFUSED)
def test_not_proved(rule: str, query: Document) -> None:
    assert not accepts(rule, query)


def test_callers_without_the_id_that_a_rule_needs() -> None:
    rule = "doc._openid == auth.openid"
    for query in ({"_openid": None}, {"_openid": "ann"}, {"_openid": ""}, {"_openid": {"$exists": False}}):
        assert not accepts(rule, query, auth=None)
        assert not accepts(rule, query, auth={"uid": "u1"})


def test_what_get_may_use() -> None:
    query = {"a": 1, "$and": [{"b.c": {"$in": ["x"]}}, {"d": {"$gt": 1}}], "e": True, "f": {"$in": [1, 2]}}
    assert pinned_values(goal_of(parse_filter(query))) == {("a",): 1, ("b", "c"): "x"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"_id": "x"}, ("x",)),
        ({"_id": {"$eq": 7}}, (7,)),
        ({"_id": {"$in": ["x"]}}, ("x",)),
        ({"_id": "x", "a": 1}, None),
        ({"_id": {"$in": ["x", "y"]}}, None),
        ({"_id": {"$ne": "x"}}, None),
        ({"$or": [{"_id": "x"}]}, None),
        ({"_id": Regex("x")}, None),
        ({"_id": None}, None),
        ({}, None),
    ],
)
def test_queries_of_a_single_id(query: Document, expected: tuple[Any] | None) -> None:
    assert pinned_id(goal_of(parse_filter(query))) == expected


def test_a_proof_has_a_limit_of_steps() -> None:
    wide = {"$or": [{"a": number, "b": {"$gt": number}} for number in range(600)]}
    rule = " || ".join(f"doc.b == -{number}" for number in range(1, 60))
    clause = compile_rule(json.dumps({"read": rule})).clauses[Operation.READ]
    asked = goal_of(parse_filter({"$and": [wide, DEEP]}))
    goal = Judge("things", nothing).goal(clause, Request(ANN, NOW_MS), asked)
    proof = Proof(asked)
    assert not proof.of(goal)
    assert proof.steps <= STEPS_MAX + 1
