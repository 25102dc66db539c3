from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cloudlet.dialects.errors import (
    edge_replies,
    error_body,
    failure_text,
    function_reply,
    oauth_error,
    wire_of,
)
from cloudlet.gateway.envoy.replies import TIMEOUT_TEXT, LocalReply
from cloudlet.model import errors as e


def _classes(root: type[e.PlatformError]) -> Iterator[type[e.PlatformError]]:
    """Of the one tree; what a package derives for itself is told like the class it comes from."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == e.__name__:
            yield from _classes(child)


@pytest.mark.parametrize("kind", list(_classes(e.PlatformError)))
def test_every_error_has_a_code_a_status_and_words(kind: type[e.PlatformError]) -> None:
    wire = wire_of(kind())
    assert wire.code.isupper() and 400 <= wire.status < 600
    body = json.loads(error_body(kind(), "r1", "database"))
    assert body["requestId"] == "r1" and body["code"] and body["message"]
    status, text = oauth_error(kind())
    assert status >= 400 and set(json.loads(text)) == {"error", "error_code", "error_description"}


def test_a_denial_has_the_code_of_its_service() -> None:
    codes = {
        service: json.loads(error_body(e.PermissionDenied(), "r", service))["code"]
        for service in ("database", "storage", "functions", "")
    }
    assert codes == {
        "database": "DATABASE_PERMISSION_DENIED",
        "storage": "STORAGE_EXCEED_AUTHORITY",
        "functions": "FUNCTIONS_REQUEST_FAIL",
        "": "PERMISSION_DENIED",
    }


def test_the_text_of_a_missing_collection_is_complete_and_not_doubled() -> None:
    for message in ("orders", "database collection not exists: Db or Table not exist: orders"):
        text = json.loads(error_body(e.CollectionNotFound(message), "r", "database"))["message"]
        assert text == "database collection not exists: Db or Table not exist: orders"


def _first(path: str, status: int, flags: str = "", details: str = "") -> LocalReply:
    return next(
        row
        for row in edge_replies()
        if path.startswith(row.path_prefix)
        and row.status in (0, status)
        and (not row.flags or flags in row.flags)
        and row.details in details
    )


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 429, 431, 502, 503, 504])
@pytest.mark.parametrize(
    ("path", "ok"), [("/admin", True), ("/web", True), ("/v1/functions/a", False), ("/x", False)]
)
def test_what_the_edge_says_is_in_the_dialect_of_the_path(path: str, ok: bool, status: int) -> None:
    row = _first(path, status)
    assert row.code and row.message
    assert row.http_status == 200 if ok else row.http_status >= 400


def test_the_edges_words_for_functions() -> None:
    timeout = _first("/v1/functions/a", 504)
    assert (timeout.http_status, timeout.code, timeout.message) == (
        504,
        "FUNCTIONS_TIME_LIMIT_EXCEEDED",
        TIMEOUT_TEXT,
    )
    for path in ("/v1/functions/a", "/admin"):
        assert "nothing was started" in _first(path, 503, "UF").message
        assert "nothing was started" in _first(path, 503, "OM").message
        assert "nothing was started" not in _first(path, 503, "UC").message
        assert "nothing was started" not in _first(path, 503, "LR").message
    assert (
        _first("/v1/functions/a", 401, "", "jwt_authn_access_denied{Jwt_is_expired}").code
        == "ACCESS_TOKEN_EXPIRED"
    )
    assert _first("/v1/functions/a", 403, "", "rbac_access_denied_matched_policy[bans]").http_status == 401


def test_a_process_that_ended_is_told_the_same_by_the_edge_and_by_the_activator() -> None:
    status, body = function_reply(e.FunctionExited(), "r")
    said = json.loads(body)
    assert (status, said["code"]) == (400, "FUNCTIONS_EXECUTE_FAIL")
    for row in (_first("/v1/functions/a", 503, "UC"), _first("/v1/functions/a", 502)):
        assert (row.http_status, row.code, row.message) == (status, said["code"], said["message"])


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (e.ConcurrencyExceeded(), 429, "EXCEED_CONCURRENT_REQUEST_LIMIT"),
        (e.Unavailable(), 503, "SYS_ERR"),
        (e.FunctionTimeout("Invoking task timed out after 3 seconds"), 504, "FUNCTIONS_TIME_LIMIT_EXCEEDED"),
        (e.ResultTooLarge(), 400, "FUNCTIONS_RESULT_TOO_LARGE"),
        (e.Internal(), 500, "SYS_ERR"),
    ],
)
def test_what_the_activator_says_by_itself(error: e.PlatformError, status: int, code: str) -> None:
    got, body = function_reply(error, "r-1")
    said = {"code": code, "message": error.message, "requestId": "r-1"}
    assert (got, json.loads(body)) == (status, said)


@pytest.mark.parametrize(
    "kind",
    [e.FunctionFailed, e.FunctionExited, e.FunctionOutOfMemory, e.FunctionLoadFailed, e.DepthExceeded],
)
def test_a_failed_execution_is_described_in_json_once(kind: type[e.PlatformError]) -> None:
    told = '{"errorCode":1,"errorMessage":"no","stackTrace":"at a"}'
    assert failure_text(told) == told
    for message, expected in (("SyntaxError", "SyntaxError"), ("{broken", "{broken"), (told, "no")):
        status, body = function_reply(kind(message), "r")
        said = json.loads(body)
        assert (status, said["code"]) == (400, "FUNCTIONS_EXECUTE_FAIL")
        assert json.loads(said["message"])["errorMessage"] == expected


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (e.StoreUnavailable("the disk is full"), "the disk is full; nothing was changed, try again"),
        (e.Unavailable("it restarts; nothing was started"), "it restarts; nothing was started"),
        (e.OutcomeUnknown("the disk failed"), "the disk failed; it may or may not have happened, read first"),
        (e.OutcomeUnknown(), e.OutcomeUnknown().message),
    ],
)
def test_a_message_says_whether_the_call_may_be_repeated(error: e.PlatformError, words: str) -> None:
    assert json.loads(error_body(error, "r"))["message"] == words
