"""What rule expressions are when everything is known: the same for documents, files and functions."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cloudlet.rules.ast import ABSENT, Broken, Instant
from cloudlet.rules.fold import Scope, fold, holds, truthy
from cloudlet.rules.parse import Language, parse

LANGUAGE = Language(frozenset({"auth", "resource", "request", "now"}), lambda _pattern, _options: None)


class PlainSemantics:
    """Values of JSON."""

    def equal(self, a: Any, b: Any) -> bool:
        return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)

    def order(self, a: Any, b: Any) -> int | None:
        if isinstance(a, str) != isinstance(b, str):
            return None
        return int(a > b) - int(a < b)

    def finds(self, pattern: str, options: str, subject: str) -> bool:
        return re.search(pattern, subject, re.IGNORECASE if "i" in options else 0) is not None


SCOPE = Scope(
    PlainSemantics(),
    {
        "auth": {"openid": "ann", "uid": "u1"},
        "resource": {"openid": "ann", "path": "public/Cat.png", "tags": ["a", "b"], "none": None},
        "request": {"data": {"n": 3}},
        "now": Instant(1_000),
    },
    {"database.r.u1": {"level": 3, "list": ["ann"], "map": {"ann": 1}}}.get,
)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("auth != null", True),
        ("auth.openid == resource.openid", True),
        ("/^PUBLIC\\//i.test(resource.path) == true", True),
        ("/^PUBLIC\\//.test(resource.path) == false", True),
        ("/a/.test(resource.tags)", False),
        ("request.data.n >= 3 && request.data.n < 4", True),
        ("request.data.n > '2'", False),
        ("request.data.n == '3'", False),
        ("true == 1", False),
        ("'b' in resource.tags && !('c' in resource.tags)", True),
        ("resource.tags[1] == 'b'", True),
        ("resource.tags == ['a', 'b']", True),
        ("get('database.r.' + auth.uid).level == 3", True),
        ("auth.openid in get(`database.r.${auth.uid}`).list", True),
        ("auth.openid in get(`database.r.${auth.uid}`).map", True),
        ("get('database.r.x') == null", True),
        ("request.data.other == undefined && request.data.other == null", True),
        ("resource.none == null && resource.none == undefined", True),
        ("auth.loginType != 'ANONYMOUS'", True),
        ("!(auth.loginType in ['ANONYMOUS'])", True),
        ("now + 5 == 1005 && 'a' + 1 == 'a1' && `${1.0}` == '1'", True),
        ("auth && auth.openid", True),
        ("!auth.loginType", True),
    ],
)
def test_values(source: str, expected: bool) -> None:
    assert holds(parse(source, LANGUAGE), SCOPE) is expected


@pytest.mark.parametrize(
    "source",
    [
        "auth.loginType == request.data.owner",  # Both undefined: nobody would be everybody.
        "resource.none.x == null",
        "get('database.r.x').level != 3",
        "'a' in resource.path",
        "`${resource.tags}` == 'a'",
        "resource[resource.tags] == 1",
        "1 in request.data.other",
        "get(3) == null",
        "(auth == null) < 3 + resource.none",
    ],
)
def test_what_has_no_value_neither_holds_nor_fails(source: str) -> None:
    assert isinstance(fold(parse(source, LANGUAGE), SCOPE), Broken)
    assert not holds(parse(source, LANGUAGE), SCOPE)
    assert not holds(parse(f"!({source})", LANGUAGE), SCOPE)
    assert not holds(parse(f"({source}) == false", LANGUAGE), SCOPE)
    # The other side may still decide, whatever the order.
    assert holds(parse(f"({source}) || auth != null", LANGUAGE), SCOPE)
    assert holds(parse(f"auth != null || ({source})", LANGUAGE), SCOPE)
    assert holds(parse(f"!(({source}) && auth == null)", LANGUAGE), SCOPE)


def test_a_caller_who_is_not_signed_in() -> None:
    scope = Scope(PlainSemantics(), {"auth": None, "resource": {}, "request": {}, "now": Instant(0)})
    assert holds(parse("auth == null", LANGUAGE), scope)
    for source in ("auth.openid == null", "auth.openid != 'x'", "auth.openid == resource.openid"):
        assert not holds(parse(source, LANGUAGE), scope)


def test_truth_is_that_of_javascript() -> None:
    falsy: list[Any] = [None, ABSENT, False, 0, 0.0, float("nan"), ""]
    assert not any(truthy(value) for value in falsy)
    others: list[Any] = [True, 1, -1.5, "0", [], {}]
    assert all(truthy(value) for value in others)
