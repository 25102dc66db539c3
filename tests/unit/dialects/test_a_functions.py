from __future__ import annotations

import json
from typing import Any

import pytest

from cloudlet.dialects.errors import failure_text
from cloudlet.model import errors as e
from cloudlet.model.invocation import EVENT_BYTES_MAX
from tests.unit.dialects.rig import started

pytestmark = pytest.mark.anyio


def _body(**parameters: Any) -> dict[str, Any]:
    return {"action": "functions.invokeFunction", "function_name": "hello", **parameters}


async def test_the_result_is_json_text() -> None:
    async with started() as rig:
        rig.invoker.answer = '{"名":[1,null]}'.encode()
        answer = await rig.from_inside(_body(request_data='{"a":1}'))
        assert answer == {
            "requestId": rig.invoker.calls[0].request_id,
            "data": {"response_data": '{"名":[1,null]}'},
        }
        assert rig.invoker.calls[0].body == b'{"a":1}'
        assert rig.invoker.calls[0].function == "hello"


@pytest.mark.parametrize("parameters", [{}, {"request_data": ""}, {"request_data": None}])
async def test_no_data_is_an_empty_event(parameters: dict[str, Any]) -> None:
    async with started() as rig:
        await rig.from_inside(_body(**parameters))
        assert rig.invoker.calls[0].body == b""


@pytest.mark.parametrize("name", ["..", "__proto__", "a" * 61, "", "a/b", "a b", "1a"])
async def test_names_no_function_can_have_do_not_exist(name: str) -> None:
    async with started() as rig:
        answer = await rig.from_inside(_body(function_name=name))
        assert answer["code"] == "FUNCTION_NOT_FOUND" and rig.invoker.calls == []


async def test_only_the_latest_version_can_be_asked_for() -> None:
    async with started() as rig:
        assert "data" in await rig.from_inside(_body(qualifier="$LATEST"))
        assert (await rig.from_inside(_body(qualifier="7")))["code"] == "FUNCTION_NOT_FOUND"


async def test_an_event_over_six_megabytes_is_refused() -> None:
    async with started() as rig:
        answer = await rig.from_inside(_body(request_data=json.dumps("x" * EVENT_BYTES_MAX)))
        assert answer["code"] == "INVALID_PARAM" and rig.invoker.calls == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (e.FunctionNotFound("function 'x' does not exist"), "FUNCTION_NOT_FOUND"),
        (
            e.FunctionFailed('{"errorCode":1,"errorMessage":"boom","stackTrace":""}'),
            "FUNCTIONS_EXECUTE_FAIL",
        ),
        (e.FunctionExited(), "FUNCTIONS_EXECUTE_FAIL"),
        (e.FunctionLoadFailed(), "FUNCTIONS_EXECUTE_FAIL"),
        (e.FunctionTimeout("Invoking task timed out after 3 seconds"), "FUNCTIONS_TIME_LIMIT_EXCEEDED"),
        (e.ResultTooLarge(), "FUNCTIONS_RESULT_TOO_LARGE"),
        (e.ConcurrencyExceeded(), "EXCEED_CONCURRENT_REQUEST_LIMIT"),
        (e.DepthExceeded(), "FUNCTIONS_EXECUTE_FAIL"),
        (e.Unavailable(), "SYS_ERR"),
        (e.OutcomeUnknown(), "SYS_ERR"),
    ],
)
async def test_what_went_wrong_is_told_in_the_dialect(error: e.PlatformError, code: str) -> None:
    async with started() as rig:
        rig.invoker.fail(error)
        answer = await rig.from_inside(_body())
        message = failure_text(error.message) if code == "FUNCTIONS_EXECUTE_FAIL" else error.message
        assert (answer["code"], answer["message"]) == (code, message)
