"""The activator against real sockets: what callers and instances may expect of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from cloudlet.gateway.invoker import HttpInvoker
from cloudlet.model.errors import (
    BodyTooLarge,
    DepthExceeded,
    FunctionExited,
    FunctionFailed,
    FunctionLoadFailed,
    FunctionNotFound,
    FunctionOutOfMemory,
    InvalidName,
    OutcomeUnknown,
    Unavailable,
)
from cloudlet.model.function import ScaleRule
from cloudlet.model.identity import Identity
from cloudlet.model.invocation import EVENT_BYTES_MAX, Invocation
from cloudlet.model.sandbox import EndReason
from cloudlet.scheduler.records import SchedulerOptions
from tests.contract.activator_support import LIMIT_S, System, running_system, with_config

pytestmark = pytest.mark.anyio


async def until(system: System, *, waiting: int, running: int) -> None:
    """Let the loop turn until so many calls wait and run."""
    async with asyncio.timeout(LIMIT_S):
        while (system.waiting(), system.running()) != (waiting, running):  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.001)


async def test_a_cold_call_explains_itself() -> None:
    async with running_system() as system:
        status, headers, body = await system.post({"name": "one"})
        assert (status, json.loads(body)) == (200, {"name": "one"})
        stages = [part.strip().split(";")[0] for part in headers["server-timing"].split(",")]
        assert stages == ["queue", "schedule", "sandbox", "load", "handler"]
        assert "sandbox;dur=3.000" in headers["server-timing"]
        _, headers, _ = await system.post({"name": "two"})
        assert "sandbox" not in headers["server-timing"]
        assert system.registry.get_sample_value("cloudlet_activator_cold_calls_total") == 1.0
        assert system.registry.get_sample_value("cloudlet_activator_calls_total", {"outcome": "ok"}) == 2.0


async def test_five_calls_over_three_instances() -> None:
    version = with_config(scale=ScaleRule(instances_max=3))
    async with running_system((version,)) as system, asyncio.timeout(LIMIT_S):
        calls = [
            asyncio.create_task(system.post({"do": "wait", "name": f"call {number}"})) for number in range(5)
        ]
        first = {await system.node.began.get() for _ in range(3)}
        await until(system, waiting=2, running=3)
        assert len(system.node.instances) == 3
        assert system.node.began.empty()
        for name in first:
            system.node.go[name].set()
        second = {await system.node.began.get() for _ in range(2)}
        for name in second:
            system.node.go[name].set()
        assert [status for status, _, _ in await asyncio.gather(*calls)] == [200] * 5
        served = [name for one in system.node.instances.values() for name in one.served]
        assert sorted(served) == [f"call {number}" for number in range(5)]
        assert all(one.overlaps == 0 for one in system.node.instances.values())
        assert len(system.node.instances) == 3


async def test_an_instance_gets_the_headers_of_the_contract() -> None:
    async with running_system() as system:
        await system.post(
            {},
            headers={
                "x-cloudlet-openid": "o-1",
                "x-cloudlet-timeout-ms": "1",
                "x-cloudlet-bound": "early",
                "x-envoy-attempt-count": "1",
            },
        )
        (request,) = system.node.requests
        headers = request.headers
        assert headers["x-cloudlet-bound"] == "late"
        assert headers["x-cloudlet-openid"] == "o-1"
        assert headers["x-cloudlet-env"] == "default"
        assert headers["x-cloudlet-function"] == "hello"
        assert headers["x-cloudlet-version"] == "v1"
        assert headers["x-request-id"] == "r-1"
        assert 4000 < int(headers["x-cloudlet-timeout-ms"]) <= 5000
        assert int(headers["x-cloudlet-queued-us"]) > 0
        assert not any(name.lower().startswith("x-envoy") for name in headers)
        assert request.method == "POST"
        assert request.path == "/v1/functions/hello"


async def test_two_identities_stay_two_so_that_the_instance_can_refuse_them() -> None:
    async with running_system() as system:
        headers = [("x-cloudlet-env", "default"), ("x-cloudlet-uid", "a"), ("x-cloudlet-uid", "b")]
        async with system.client.post("http://activator/v1/functions/hello", headers=headers):
            pass
        assert system.node.requests[0].headers.getall("x-cloudlet-uid") == ["a", "b"]


async def test_a_refused_call_runs_once_later() -> None:
    async with running_system() as system:
        system.node.refuse = 3
        status, _, _ = await system.post({"name": "patient"})
        assert status == 200
        assert [request.headers["x-request-id"] for request in system.node.requests] == ["r-1"]


async def test_an_instance_that_cannot_be_reached_is_replaced() -> None:
    async with running_system() as system:
        await system.post({})
        (instance,) = system.node.instances.values()
        await instance.runner.cleanup()  # the socket is dead, and nobody has told control
        Path(instance.status.socket_path).unlink(missing_ok=True)
        status, _, _ = await system.post({"name": "again"})
        assert status == 200
        assert len(system.node.requests) == 2


@pytest.mark.parametrize(
    ("reason", "status", "code", "message"),
    [
        (EndReason.EXITED, 400, "function_exited", FunctionExited().message),
        (
            EndReason.OUT_OF_MEMORY,
            400,
            "function_out_of_memory",
            FunctionOutOfMemory().message,
        ),
        (EndReason.TIMEOUT, 504, "function_timeout", "Invoking task timed out after 5 seconds"),
    ],
)
async def test_a_call_whose_instance_dies_is_told_so_and_never_repeated(
    reason: EndReason, status: int, code: str, message: str
) -> None:
    async with running_system() as system:
        got, headers, body = await system.post({"do": "die", "reason": reason.value})
        assert (got, headers["x-cloudlet-error"]) == (status, code)
        told = json.loads(body)["message"]
        assert (json.loads(told)["errorMessage"] if told.startswith("{") else told) == message
        assert len(system.node.requests) == 1
        assert (await system.post({}))[0] == 200


async def test_the_functions_own_failure_passes_unchanged_and_keeps_the_instance() -> None:
    async with running_system() as system:
        status, headers, body = await system.post({"do": "fail"})
        assert (status, headers["x-cloudlet-error"]) == (400, "function_failed")
        assert json.loads(body)["message"] == '{"errorMessage":"no"}'
        await system.post({})
        assert len(system.node.instances) == 1


async def test_an_instance_that_says_it_exits_gets_no_other_call() -> None:
    async with running_system() as system:
        await system.post({"do": "exit", "name": "last"})
        await system.post({"name": "next"})
        assert system.node.requests[0].headers["x-request-id"] == "r-1"
        served = [one.served for one in system.node.instances.values()]
        assert ["last", "next"] not in served


async def test_what_runs_past_its_time_is_answered_in_the_dialects_words() -> None:
    async with running_system((with_config(timeout_s=0.1),)) as system:
        status, headers, body = await system.post({"do": "wait", "name": "endless"})
        assert (status, headers["x-cloudlet-error"]) == (504, "function_timeout")
        assert json.loads(body) == {
            "code": "FUNCTIONS_TIME_LIMIT_EXCEEDED",
            "message": "Invoking task timed out after 0.1 seconds",
            "requestId": "r-1",
        }


async def test_code_that_does_not_load_answers_with_its_stack() -> None:
    async with running_system() as system:
        system.node.load_error = '{"errorCode":1,"errorMessage":"boom","stackTrace":"at x"}'
        status, headers, body = await system.post({})
        assert (status, headers["x-cloudlet-error"]) == (400, "function_load_failed")
        reply = json.loads(body)
        assert (reply["code"], reply["message"]) == ("FUNCTIONS_EXECUTE_FAIL", system.node.load_error)


@pytest.mark.parametrize(
    ("function", "headers", "status", "code"),
    [
        ("nobody", {}, 404, "FUNCTION_NOT_FOUND"),
        ("hello", {"x-cloudlet-env": "elsewhere"}, 404, "INVALIID_ENV"),
        ("hello", {"x-cloudlet-depth": "9"}, 400, "FUNCTIONS_EXECUTE_FAIL"),
        ("hello", {"x-cloudlet-depth": "deep"}, 400, "INVALID_PARAM"),
    ],
)
async def test_calls_that_lead_nowhere(
    function: str, headers: dict[str, str], status: int, code: str
) -> None:
    async with running_system() as system:
        got, answered, body = await system.post({}, function=function, headers=headers)
        assert (got, json.loads(body)["code"]) == (status, code)
        assert answered["x-request-id"] == json.loads(body)["requestId"] == "r-1"
        assert system.node.instances == {}


async def test_too_large_events_are_refused_declared_or_not() -> None:
    async with running_system() as system:
        status, _, body = await system.post(b"x" * (EVENT_BYTES_MAX + 1))
        assert (status, json.loads(body)["code"]) == (413, "INVALID_PARAM")

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(7):
                yield b"x" * 1024 * 1024

        url = "http://activator/v1/functions/hello"
        async with system.client.post(url, data=chunks(), headers={"x-cloudlet-env": "default"}) as response:
            assert response.status == 413
        largest = {"name": "x" * (EVENT_BYTES_MAX - len('{"name": ""}'))}
        assert len(json.dumps(largest)) == EVENT_BYTES_MAX
        status, _, body = await system.post(largest)
        assert (status, json.loads(body)) == (200, largest)


async def test_a_caller_that_leaves_the_line_frees_its_place() -> None:
    version = with_config(scale=ScaleRule(instances_max=1))
    async with running_system((version,)) as system, asyncio.timeout(LIMIT_S):
        running = asyncio.create_task(system.post({"do": "wait", "name": "long"}))
        await system.node.began.get()
        leaving = asyncio.create_task(system.post({"name": "impatient"}))
        await until(system, waiting=1, running=1)
        leaving.cancel()
        await until(system, waiting=0, running=1)
        system.node.go["long"].set()
        assert (await running)[0] == 200
        assert len(system.node.requests) == 1


async def test_an_instance_whose_caller_left_is_busy_until_it_answers() -> None:
    version = with_config(scale=ScaleRule(instances_max=1))
    async with running_system((version,)) as system, asyncio.timeout(LIMIT_S):
        leaving = asyncio.create_task(system.post({"do": "wait", "name": "abandoned"}))
        await system.node.began.get()
        leaving.cancel()
        after = asyncio.create_task(system.post({"name": "after"}))
        await until(system, waiting=1, running=1)
        system.node.go["abandoned"].set()
        assert (await after)[0] == 200
        (instance,) = system.node.instances.values()
        assert instance.served == ["abandoned", "after"]
        assert instance.overlaps == 0


async def test_a_stream_arrives_while_it_is_made() -> None:
    async with running_system() as system, asyncio.timeout(LIMIT_S):
        url, headers = "http://activator/v1/functions/hello", {"x-cloudlet-env": "default"}
        body = json.dumps({"do": "stream", "name": "s"}).encode()
        async with system.client.post(url, data=body, headers=headers) as response:
            assert await response.content.readline() == b"first\n"
            system.node.go["s"].set()
            assert await response.content.read() == b"second\n"
        await until(system, waiting=0, running=0)


async def test_a_full_function_answers_at_once() -> None:
    options = SchedulerOptions(concurrent_executions_max=1)
    async with running_system(options=options) as system, asyncio.timeout(LIMIT_S):
        running = asyncio.create_task(system.post({"do": "wait", "name": "only"}))
        await system.node.began.get()
        status, headers, body = await system.post({})
        assert (status, json.loads(body)["code"]) == (429, "EXCEED_CONCURRENT_REQUEST_LIMIT")
        assert headers["x-cloudlet-error"] == "concurrency_exceeded"
        system.node.go["only"].set()
        assert (await running)[0] == 200


async def test_a_call_with_the_edges_short_clock_is_answered_before_it_runs_out() -> None:
    version = with_config(timeout_s=0.2, scale=ScaleRule(instances_max=1))
    async with running_system((version,)) as system, asyncio.timeout(LIMIT_S):
        await system.post({})
        (instance,) = system.node.instances.values()
        system.node.refuse = 1_000_000
        status, _, body = await system.post({}, headers={"x-envoy-attempt-count": "2"})
        assert (status, json.loads(body)["code"]) == (429, "EXCEED_CONCURRENT_REQUEST_LIMIT")
        assert instance.served == [""]


CALLER = Identity("default", uid="u-1", openid="o-1", appid="wx-1", login_type="WECHAT")


def invocation(event: object = None, **changes: object) -> Invocation:
    settings: dict[str, object] = {
        "identity": CALLER,
        "function": "hello",
        "body": json.dumps(event or {}).encode(),
        "request_id": "r-2",
        "source": "wx_client,scf",
        "depth": 1,
    }
    return Invocation(**(settings | changes))  # type: ignore[arg-type]


async def test_the_platform_calls_with_the_callers_identity() -> None:
    async with running_system() as system, HttpInvoker(system.path) as invoker:
        result = await invoker.invoke(invocation({"name": "nested"}))
        assert json.loads(result.body) == {"name": "nested"}
        assert result.request_id == "r-2"
        assert result.timing["handler"] == 1.5
        assert set(result.timing) == {"queue", "schedule", "sandbox", "load", "handler"}
        headers = system.node.requests[0].headers
        assert headers["x-cloudlet-openid"] == "o-1"
        assert headers["x-cloudlet-uid"] == "u-1"
        assert headers["x-cloudlet-appid"] == "wx-1"
        assert headers["x-cloudlet-login-type"] == "WECHAT"
        assert headers["x-cloudlet-source"] == "wx_client,scf"
        assert headers["x-cloudlet-depth"] == "1"
        assert "x-cloudlet-unionid" not in headers


async def test_the_platform_gets_errors_back_as_they_were_raised() -> None:
    async with running_system() as system, HttpInvoker(system.path) as invoker:
        with pytest.raises(FunctionFailed, match="errorMessage"):
            await invoker.invoke(invocation({"do": "fail"}))
        with pytest.raises(FunctionExited, match="ended before it answered"):
            await invoker.invoke(invocation({"do": "die"}))
        with pytest.raises(FunctionNotFound, match="nobody"):
            await invoker.invoke(invocation(function="nobody"))
        with pytest.raises(InvalidName):
            await invoker.invoke(invocation(function="../admin"))
        with pytest.raises(DepthExceeded):
            await invoker.invoke(invocation(depth=9))
        with pytest.raises(BodyTooLarge):
            await invoker.invoke(invocation(body=b"x" * (EVENT_BYTES_MAX + 1)))


async def test_the_platform_learns_why_code_does_not_load() -> None:
    async with running_system() as system, HttpInvoker(system.path) as invoker:
        system.node.load_error = "SyntaxError: no"
        with pytest.raises(FunctionLoadFailed, match="SyntaxError: no"):
            await invoker.invoke(invocation())


async def test_an_activator_that_is_not_there_started_nothing(tmp_path: Path) -> None:
    async with HttpInvoker(tmp_path / "none.sock") as invoker:
        with pytest.raises(Unavailable):
            await invoker.invoke(invocation())


async def test_an_activator_that_goes_away_leaves_the_outcome_unknown(tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_unix_server(hang_up, tmp_path / "a.sock")
    async with server, HttpInvoker(tmp_path / "a.sock") as invoker:
        with pytest.raises(OutcomeUnknown):
            await invoker.invoke(invocation())


async def test_connections_to_ended_instances_are_closed() -> None:
    async with running_system() as system:
        await system.post({})
        (instance_id,) = system.node.instances
        await system.node.end(instance_id, EndReason.EXITED)
        status, _, _ = await system.post({})
        assert status == 200
        assert isinstance(system.client, aiohttp.ClientSession)
