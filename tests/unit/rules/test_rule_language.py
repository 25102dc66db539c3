"""Reading rule expressions: what is understood, and what refusals say."""

from __future__ import annotations

import pytest

from cloudlet.model.errors import InvalidFilter
from cloudlet.rules.ast import Get, walk
from cloudlet.rules.lexer import RuleSyntax
from cloudlet.rules.parse import EXPRESSION_LENGTH_MAX, Language, parse


def check_pattern(pattern: str, _options: str) -> None:
    if pattern == "(a+)+":
        raise InvalidFilter("too slow")


LANGUAGE = Language(frozenset({"auth", "doc", "request", "now"}), check_pattern)


@pytest.mark.parametrize(
    "source",
    [
        "true",
        "auth != null && doc._openid == auth.openid",
        "!(doc.kind in ['a', \"b\", 3, -1.5e2, true, null, undefined])",
        "auth.openid in get(`database.room.${doc.roomId}`).members",
        "get('database.roles.' + auth.uid).level >= 3",
        "get('database.roles.' + get('database.user.' + auth.uid)['role-id']).level > 1",
        "/^[a-z]+\\/x$/i.test(doc.name) == true",
        "doc.list[0].name == 'x' || doc['odd name'] == `plain`",
        "now < doc.expires + 1000",
        "auth.openid in [doc.seller, doc.buyer]",
        "  ( ( true ) )\n",
    ],
)
def test_documented_forms_are_read(source: str) -> None:
    parse(source, LANGUAGE)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "the expression is empty"),
        ("doc.a === 1", "character 7: write == instead of ==="),
        ("doc.a !== 1", "character 7: write != instead of !=="),
        ("doc.a = 1", "character 7: write == instead of ="),
        ("true & false", "character 6: write && instead of &"),
        ("true and false", "character 6: write && instead of and"),
        ("not true", "character 1: write ! instead of not"),
        ("doc.a == \u2018x\u2019", "character 10: write ' instead of"),
        ("doc.a == 'x", "character 10: the text that begins here is not closed; write ' at its end"),
        ("get(`database.x.${doc.a`).b", "character 24: the template that begins here is not closed"),
        ("data.a == 1", "character 1: data is not a variable; there are auth, doc, now, request"),
        ("doc.list.includes(1)", "character 1: there are no methods; write x in list"),
        ("doc.list.size()", "character 1: only get('database.collection.id')"),
        ("doc.a - 1 > 0", "character 7: there is no subtraction"),
        ("doc.a ==", "character 9: the expression ends where a value was expected"),
        ("(true", "character 6: the expression ends where ) was expected"),
        ("true true", "character 6: an operator such as && or == was expected, not true"),
        ("doc.", "character 5: the expression ends where a field name after the dot was expected"),
        ("/a/ == doc.a", "character 1: a regular expression is used as /pattern/.test(text)"),
        ("/a/g.test(doc.a)", "character 1: options of a regular expression are letters of imsu"),
        ("/(a+)+/.test(doc.a)", "character 1: too slow"),
        ("doc.a == 0x10", "character 10: numbers are written in decimal digits"),
        ("doc.a ? 1 : 2", "character 7: '?' means nothing here"),
        ("doc.a == '\\ud800'", "character 11: \\u needs 4 hexadecimal digits of a character"),
    ],
)
def test_refusals_name_the_place_and_what_to_write(source: str, message: str) -> None:
    with pytest.raises(RuleSyntax) as caught:
        parse(source, LANGUAGE)
    assert caught.value.message.startswith(message)


def test_limits_of_an_expression() -> None:
    fits = "true" + " " * (EXPRESSION_LENGTH_MAX - 4)
    parse(fits, LANGUAGE)
    with pytest.raises(RuleSyntax, match="may have 1024 characters, not 1025"):
        parse(fits + " ", LANGUAGE)
    for bomb in ("(" * 500 + "true" + ")" * 500, "!" * 900 + "true", "[" * 900, "`${" * 341):
        with pytest.raises(RuleSyntax):
            parse(bomb, LANGUAGE)


def test_limits_of_get() -> None:
    get = "get('database.a.b').x"
    parse(" && ".join([get] * 3), LANGUAGE)
    with pytest.raises(RuleSyntax, match=r"character 76: an expression may call get\(\) 3 times"):
        parse(" && ".join([get] * 4), LANGUAGE)
    parse(f"get('database.a.' + {get}).y", LANGUAGE)
    with pytest.raises(RuleSyntax, match=r"get\(\) may be nested 2 deep"):
        parse(f"get('database.a.' + get('database.a.' + {get}).y).z", LANGUAGE)
    with pytest.raises(RuleSyntax, match="get is not a variable"):
        parse(get, Language(frozenset({"auth"}), check_pattern, gets=False))


def test_positions_are_those_of_the_source() -> None:
    source = "true && get(`database.a.${doc.b}`).c == 1"
    found = next(item for item in walk(parse(source, LANGUAGE)) if isinstance(item, Get))
    assert found.span.of(source) == "get(`database.a.${doc.b}`)"
