"""What a function may do and what its caller reads, through the real edge with real runtimes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.platform import Platform, running

PROJECT = Path(__file__).parent / "projects" / "behaviour"

# One installation serves all of them, so all run in one worker.
pytestmark = pytest.mark.xdist_group("behaviour")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("behaviour"), PROJECT) as platform:
        yield platform


def test_event_identity_and_context_reach_the_function(platform: Platform) -> None:
    answer = platform.call("echo", {"a": 1})
    assert answer.status == 200
    assert answer.body["event"] == {"a": 1, "userInfo": {"appId": "", "openId": "user-a"}}
    assert answer.body["openid"] == answer.body["context"]["environment"] == "user-a"
    assert answer.body["source"] == "wx_client"
    assert answer.body["context"]["request_id"] == answer.request_id
    assert answer.body["context"]["function_name"] == "echo"
    assert answer.body["context"]["namespace"] == "default"
    assert answer.body["context"]["time_limit_in_ms"] == 3000
    assert {"edge", "handler"} <= answer.stages.keys()


def test_two_users_are_never_mixed_up(platform: Platform) -> None:
    for round_ in range(20):
        for openid in ("user-a", "user-b"):
            assert platform.call("echo", {"round": round_}, openid).body["openid"] == openid


def test_python_functions_know_the_same(platform: Platform) -> None:
    answer = platform.call("pyecho", {"n": [1, 2]}, "user-b")
    assert answer.status == 200
    assert answer.body["openid"] == "user-b"
    assert answer.body["event"]["n"] == [1, 2]
    assert answer.body["request_id"] == answer.request_id


@pytest.mark.parametrize("function", ["spin", "pyspin"])
@pytest.mark.parametrize("how", ["at once", "await", "polite"])
def test_what_never_ends_is_answered_at_the_timeout(platform: Platform, function: str, how: str) -> None:
    answer = platform.call(function, {"how": how})
    assert answer.body["code"] == "FUNCTIONS_TIME_LIMIT_EXCEEDED"
    assert answer.body["message"] == "Invoking task timed out after 1 seconds"
    assert answer.body["requestId"] == answer.request_id
    assert answer.status == 504


def test_a_function_that_timed_out_serves_the_next_call(platform: Platform) -> None:
    platform.call("spin", {"how": "at once"})
    assert platform.call("spin", {"how": "not"}).status == 200


@pytest.mark.parametrize(
    ("way", "text"),
    [
        ("throw", "thrown on purpose"),
        ("reject", "rejected on purpose"),
        ("string", "just a string"),
        ("unhandled", "nobody listens"),
        ("exit", "exited with code 3"),
        ("circular", "circular"),
        ("bigint", "BigInt"),
    ],
)
def test_a_failure_is_told_with_its_stack(platform: Platform, way: str, text: str) -> None:
    answer = platform.call("misbehave", {"way": way})
    assert answer.status == 400
    assert answer.body["code"] == "FUNCTIONS_EXECUTE_FAIL"
    told = json.loads(answer.body["message"])
    assert text in told["errorMessage"]
    assert told["errorCode"] == 1
    assert "stackTrace" in told
    assert platform.call("misbehave", {"way": "ok"}).body == "ok"


def test_results_have_a_limit(platform: Platform) -> None:
    answer = platform.call("misbehave", {"way": "big"})
    assert answer.status == 400
    assert answer.body["code"] == "FUNCTIONS_RESULT_TOO_LARGE"
    assert "1048576" in answer.body["message"]


def test_undefined_is_null_and_a_result_with_a_code_is_a_result(platform: Platform) -> None:
    assert platform.call("misbehave", {"way": "undefined"}).body is None
    forged = platform.call("misbehave", {"way": "forge"})
    assert forged.status == 200
    assert forged.body["code"] == "NOT_AN_ERROR"


def test_callback_functions(platform: Platform) -> None:
    assert platform.call("callback", {"a": 1, "b": 2}).body == {"sum": 3}
    failed = platform.call("callback", {"fail": True})
    assert "callback failed" in json.loads(failed.body["message"])["errorMessage"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"not json", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400),
        (b'"' + b"x" * (7 * 1024 * 1024) + b'"', 413),
    ],
    ids=["cut", "words", "bytes", "deep array", "deep object", "huge"],
)
def test_bodies_that_are_no_event(platform: Platform, body: bytes, status: int) -> None:
    answer = platform.player().send("echo", body)
    assert answer.status == status
    assert answer.body["code"] in {"INVALID_PARAM", "FUNCTIONS_EXECUTE_FAIL"}
    assert answer.body["requestId"]
    assert platform.call("echo", {}).status == 200


def test_an_empty_body_is_an_empty_event_and_the_last_of_equal_keys_wins(platform: Platform) -> None:
    assert platform.player().send("echo", b"").body["event"]["userInfo"]["openId"] == "user-a"
    assert platform.player().send("echo", b'{"a":1,"a":2}').body["event"]["a"] == 2


def test_large_events_up_to_the_limit_arrive(platform: Platform) -> None:
    # Over 1 MB in and out is refused by the result limit, so the function returns only a part of it.
    answer = platform.call("callback", {"a": "x" * (5 * 1024 * 1024), "b": "", "fail": True})
    assert "callback failed" in answer.body["message"]


def test_logs_by_request_id(platform: Platform) -> None:
    answer = platform.call("echo", {})
    lines = platform.installation.command("fn", "logs", "echo", "--request-id", answer.request_id, "--json")
    records = [json.loads(line) for line in lines.splitlines()]
    assert [record["request_id"] for record in records] == [answer.request_id]
    assert "echo called" in records[0]["text"]


def test_many_calls_make_the_function_early_bound_and_nothing_changes(platform: Platform) -> None:
    answers = [platform.call("echo", {"i": i}) for i in range(300)]
    assert [answer.body["event"]["i"] for answer in answers] == list(range(300))
    assert {answer.status for answer in answers} == {200}
