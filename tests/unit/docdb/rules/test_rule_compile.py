"""Rules of collections as JSON: what is accepted, and what refusals say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cloudlet.docdb.limits import PATTERN_SUBJECT_MAX
from cloudlet.docdb.rules.compile import (
    FIELD_DEPTH_MAX,
    FIELDS_MAX,
    RULE_LENGTH_MAX,
    Operation,
    compile_rule,
)
from cloudlet.docdb.rules.judge import ASSIGNMENTS_MAX, DOCUMENTS_MAX
from cloudlet.docdb.rules.prove import STEPS_MAX
from cloudlet.model.errors import InvalidParameter
from cloudlet.rules.lexer import TEMPLATES_MAX
from cloudlet.rules.parse import DEPTH_MAX, EXPRESSION_LENGTH_MAX, GET_NESTING_MAX, GETS_MAX


def keys(rule: dict[str, Any]) -> list[str]:
    clauses = compile_rule(json.dumps(rule)).clauses
    return [f"{clauses[operation].key}:{clauses[operation].source}" for operation in Operation]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, ["read:false", "write:false", "write:false", "write:false"]),
        ({"read": True}, ["read:true", "write:false", "write:false", "write:false"]),
        ({"write": True}, ["read:false", "write:true", "write:true", "write:true"]),
        (
            {"read": "auth != null", "write": "1 == 1", "create": False, "delete": "2 == 2"},
            ["read:auth != null", "create:false", "write:1 == 1", "delete:2 == 2"],
        ),
    ],
)
def test_create_update_and_delete_fall_back_to_write(rule: dict[str, Any], expected: list[str]) -> None:
    assert keys(rule) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the rule is not JSON: "),
        ("[" * 50_000, "the rule is not JSON: "),
        ('{"read": true, "read": false}', "the rule is not JSON: the key 'read' is there twice"),
        ('{"read": "doc.a == \'\\ud800\'"}', "the rule is not JSON: "),
        ("true", 'a rule must be an object such as {"read": true, "write": false}'),
        ('{"reads": true}', "a rule has the keys read, create, update, delete, write, fields, not 'reads'"),
        ('{"read": 1}', "rule read: write true, false or an expression as text"),
        ('{"write": "doc.a = 1"}', "rule write: character 7: write == instead of ="),
        ('{"read": "auth.openId == 1"}', "rule read: character 1: write auth.openid instead of auth.openId"),
        (
            '{"read": "auth.login_type == 1"}',
            "rule read: character 1: write auth.loginType instead of auth.login_type",
        ),
        ('{"read": "request.time > 1"}', "rule read: character 1: request has one field; write request.data"),
        ('{"read": "now.ms > 1"}', "rule read: character 1: now is a number of milliseconds"),
        ('{"read": "/(a+)+b/.test(doc.a)"}', "rule read: character 1: this regular expression could take"),
        ('{"read": "/(a/.test(doc.a)"}', "rule read: character 1: the regular expression"),
        ('{"fields": []}', "fields must be an object"),
        ('{"fields": {"a": true}}', 'fields.a must be an object such as {"read": false}'),
        ('{"fields": {"a": {"create": true}}}', "fields.a has the keys read, write, not 'create'"),
        ('{"fields": {"_id": {"read": false}}}', "fields._id: the field cannot be restricted"),
        ('{"fields": {"_openid": {"read": false}}}', "fields._openid: the field cannot be restricted"),
        ('{"fields": {"a.0": {"read": false}}}', "fields.a.0: name a field, not an element or operator"),
        ('{"fields": {"a..b": {"read": false}}}', "the path 'a..b' has an empty field name"),
        ('{"fields": {"a": {"read": "doc.x"}}, "read": "doc."}', "rule read: character 5: "),
        (
            '{"fields": {"a": {"read": "get(`database.r.${doc.a}`).x"}}}',
            "rule fields.a.read: get() cannot depend on doc in a rule of a field",
        ),
    ],
)
def test_refusals_name_the_key_and_what_to_write(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        compile_rule(text)
    assert caught.value.message.startswith(message)


def test_limits_of_a_rule() -> None:
    with pytest.raises(InvalidParameter, match=f"a rule may have {RULE_LENGTH_MAX} characters"):
        compile_rule(" " * RULE_LENGTH_MAX + "{}")
    fields = {f"f{number}": {"read": False} for number in range(FIELDS_MAX)}
    compile_rule(json.dumps({"fields": fields}))
    with pytest.raises(InvalidParameter, match=f"a rule may restrict {FIELDS_MAX} fields"):
        compile_rule(json.dumps({"fields": {**fields, "one": {}}}))


def test_the_reference_tells_the_limits_and_its_rule_is_one() -> None:
    text = (Path(__file__).parents[4] / "docs/reference/rules.md").read_text()
    limits = text[text.index("## Limits") :].replace(",", "")
    rows = dict(re.findall(r"^\| ([\w`].+?) \| (.+?) \|$", limits, re.MULTILINE))
    assert [re.findall(r"\d+", cell) for cell in rows.values()] == [
        [str(limit) for limit in limits]
        for limits in (
            [EXPRESSION_LENGTH_MAX],
            [GETS_MAX, GET_NESTING_MAX],
            [DOCUMENTS_MAX],
            [ASSIGNMENTS_MAX],
            [FIELDS_MAX, FIELD_DEPTH_MAX],
            [RULE_LENGTH_MAX],
            [DEPTH_MAX, TEMPLATES_MAX],
            [PATTERN_SUBJECT_MAX],
        )
    ]
    assert f"{STEPS_MAX:,} steps" in text
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    compile_rule(example)


def test_a_rule_is_compiled_once() -> None:
    text = '{"read": "doc.a == 1"}'
    assert compile_rule(text) is compile_rule(text)
