"""The admin interface route by route, over real records and documents; node, control, deploys are twins."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.routing import Route

from cloudlet.api import routes
from cloudlet.api.app import admin_app
from cloudlet.api.errors import status_of
from cloudlet.api.ports import AdminServices
from cloudlet.functions.uploads import Upload
from cloudlet.functions.versions import Rollback
from cloudlet.functions.wire import DeployEvent, DeployRequest, Done, Started
from cloudlet.model import errors as e
from cloudlet.model.access import Access
from cloudlet.model.function import FunctionConfig, Runtime, Version, VersionKey
from cloudlet.model.sandbox import InstanceState, InstanceStatus, NodeReport, Rung, StartTiming
from cloudlet.node.logs import LogQuery
from cloudlet.node.wire import LogRecord
from tests.unit.dialects.rig import NOW, Reply, Rig, call, started

pytestmark = pytest.mark.anyio


@dataclass
class Platform:
    """Node, control and deploys in one twin: remembers what it was told."""

    node_away: bool = False
    published: list[int] = field(default_factory=list)
    log_queries: list[LogQuery] = field(default_factory=list)
    deploys: list[DeployRequest] = field(default_factory=list)
    deploys_closed: int = 0
    uploaded: list[bytes] = field(default_factory=list)
    deleted: list[tuple[str, str]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    rollbacks: list[tuple[str, str, int | None]] = field(default_factory=list)
    lines: list[LogRecord] = field(default_factory=lambda: [LogRecord(NOW, "i1", "info", "hello", "r1")])

    async def report(self) -> NodeReport:
        if self.node_away:
            raise e.NodeUnavailable
        instance = InstanceStatus(
            "i1",
            VersionKey("default", "hello", "a" * 16),
            InstanceState.READY,
            "/run/i1.sock",
            Rung.PROCESS,
            pid=42,
            started_at=NOW,
            timing=StartTiming(1.5, 2.5, True),
        )
        return NodeReport("n1", (instance,), {Runtime.NODE24: 1}, Rung.PROCESS)

    async def logs(self, query: LogQuery) -> list[LogRecord]:
        self.log_queries.append(query)
        return self.lines[-query.limit :]

    async def publish(self, sequence: int) -> None:
        self.published.append(sequence)

    async def deploy(self, request: DeployRequest) -> AsyncIterator[DeployEvent]:
        self.deploys.append(request)
        if request.env == "nobody":
            raise e.EnvironmentNotFound("environment 'nobody' does not exist")
        try:
            yield Started("default", ("hello",))
            yield Done("default", 1, 0, 0, 0.1)
        finally:
            self.deploys_closed += 1

    async def delete(self, environment: str, function: str) -> list[str]:
        self.deleted.append((environment, function))
        return ["a" * 16]

    async def rollback(self, environment: str, function: str, number: int | None = None) -> Rollback:
        self.rollbacks.append((environment, function, number))
        if number == 404:
            raise e.VersionNotFound
        former, now = (
            Version(environment, function, digit * 16, int(digit), FunctionConfig(), "/code", NOW)
            for digit in ("2", "1")
        )
        return Rollback(former, now)

    async def receive(self, chunks: AsyncIterable[bytes]) -> Upload:
        self.uploaded.append(b"".join([chunk async for chunk in chunks]))
        return Upload("f" * 24, len(self.uploaded[-1]))

    async def drop(self, environment: str) -> None:
        self.dropped.append(environment)


@dataclass
class Admin:
    rig: Rig
    platform: Platform
    app: Any

    async def __call__(self, method: str, target: str, body: Any = b"") -> Reply:
        return await call(self.app, method, target, body)


@asynccontextmanager
async def admin() -> AsyncIterator[Admin]:
    async with started() as rig:
        platform = Platform()
        services = AdminServices(
            records=rig.records,
            auth=rig.auth,
            documents=rig.documents,
            invoker=rig.invoker,
            node=platform,
            publisher=platform,
            deploys=platform,
            uploads=platform,
            drop_documents=platform.drop,
            service_url=lambda: "http://127.0.0.1:8787",
        )
        yield Admin(rig, platform, admin_app(services))


async def test_environments_are_made_listed_aliased_and_deleted() -> None:
    async with admin() as ask:
        made = await ask("POST", "/environments", {"name": "shop"})
        assert made.status == 201 and made.json == {"name": "shop", "created_at": NOW, "aliases": []}
        aliased = await ask("PUT", "/environments/shop/aliases/prod-8gx")
        assert aliased.json["aliases"] == ["prod-8gx"]
        listed = (await ask("GET", "/environments")).json["environments"]
        assert [found["name"] for found in listed] == ["default", "shop"]
        assert (await ask("DELETE", "/environments/prod-8gx")).json == {"deleted": "shop"}
        assert ask.platform.dropped == ["shop"]
        assert (
            ask.platform.published == sorted(set(ask.platform.published)) and len(ask.platform.published) == 3
        )
        assert (await ask("DELETE", "/environments/shop")).status == 404
        assert (await ask("DELETE", "/environments/default")).status == 409


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "default"}, 409, "already_exists"),
        ({"name": "../x"}, 400, "invalid_name"),
        ({"name": 7}, 400, "invalid_parameter"),
        ({}, 400, "invalid_parameter"),
        ({"name": "a", "more": 1}, 400, "invalid_parameter"),
        (b"{", 400, "malformed_body"),
        (b'{"name":"' + b"x" * (17 * 1024 * 1024) + b'"}', 413, "body_too_large"),
    ],
)
async def test_bad_requests_say_what_is_wrong(body: Any, status: int, code: str) -> None:
    async with admin() as ask:
        reply = await ask("POST", "/environments", body)
        assert (reply.status, reply.json["code"]) == (status, code)
        assert reply.json["message"] and reply.json["requestId"]
        assert ask.platform.published == []


async def test_credentials_are_what_a_server_side_sdk_needs() -> None:
    async with admin() as ask:
        first = (await ask("GET", "/environments/default/credentials")).json
        assert set(first) == {"envId", "secretId", "secretKey", "serviceUrl"}
        assert first["serviceUrl"] == "http://127.0.0.1:8787/admin" and first["envId"] == "default"
        assert (await ask("GET", "/environments/default/credentials")).json == first
        assert (await ask("GET", "/environments/nobody/credentials")).status == 404


async def test_a_token_is_a_session_of_the_openid() -> None:
    async with admin() as ask:
        token = (await ask("POST", "/environments/default/tokens", {"openid": "oA", "appid": "wx1"})).json
        who = ask.rig.auth.verify(token["access_token"]).identity
        assert (who.openid, who.appid, who.environment) == ("oA", "wx1", "default")
        assert token["token_type"] == "Bearer" and token["openid"] == "oA" and token["sub"] == who.uid
        assert token["expires_in"] == 900 and token["refresh_token"] and token["env"] == "default"
        digits = await ask("POST", "/environments/default/tokens", {"openid": "10001"})
        assert digits.status == 400 and "into a number" in digits.json["message"]


async def test_functions_are_listed_with_what_runs() -> None:
    async with admin() as ask:
        await ask.rig.deployed("hello")
        await ask.rig.deployed("other")
        listed = (await ask("GET", "/environments/default/functions")).json["functions"]
        assert [(found["name"], found["instances"]) for found in listed] == [("hello", 1), ("other", 0)]
        assert listed[0]["runtime"] == "node24" and listed[0]["unpatched"] is False
        assert listed[0]["version"] == "a" * 16
        detail = (await ask("GET", "/environments/default/functions/hello")).json
        assert detail["url"] == "http://127.0.0.1:8787/v1/functions/hello"
        assert detail["running"][0]["pid"] == 42 and detail["running"][0]["timing"]["pooled"]
        first = {"digest": "a" * 16, "number": 1, "created_at": NOW, "current": True, "runtime": "node24"}
        assert detail["versions"] == [first]
        assert (await ask("GET", "/environments/default/functions/hello/versions")).json == {
            "versions": [first]
        }
        assert detail["scale"]["instances_max"] == 1000
        assert (await ask("GET", "/environments/default/functions/nobody")).status == 404
        ask.platform.node_away = True
        listed = (await ask("GET", "/environments/default/functions")).json["functions"]
        assert [found["instances"] for found in listed] == [0, 0]


async def test_deleting_a_function_is_the_deployers_work() -> None:
    async with admin() as ask:
        await ask.rig.records.set_environment_alias("prod", "default")
        reply = await ask("DELETE", "/environments/prod/functions/hello")
        assert reply.json == {"deleted": ["a" * 16]}
        assert ask.platform.deleted == [("default", "hello")]


async def test_a_rollback_is_the_deployers_work() -> None:
    async with admin() as ask:
        path = "/environments/default/functions/hello/rollback"
        answer = (await ask("POST", path, {})).json
        assert [(answer[key]["number"], answer[key]["current"]) for key in ("former", "now")] == [
            (2, False),
            (1, True),
        ]
        assert (await ask("POST", path, {"to": 404})).status == 404
        assert ask.platform.rollbacks == [("default", "hello", None), ("default", "hello", 404)]
        for body in ({"to": "1"}, {"from": 1}, b"{"):
            assert (await ask("POST", path, body)).status == 400, body


async def test_invoking_with_and_without_a_user() -> None:
    async with admin() as ask:
        await ask.rig.deployed("hello")
        ask.rig.invoker.answer = b'{"n":1}'
        path = "/environments/default/functions/hello/invoke"
        reply = await ask("POST", path, {"event": {"a": [1, "二"]}, "openid": "oA"})
        first = ask.rig.invoker.calls[0]
        assert reply.json["result"] == {"n": 1} and reply.json["request_id"] == first.request_id
        assert reply.json["timing"] == {"queue": 0.5}
        assert json.loads(first.body) == {"a": [1, "二"]} and first.identity.openid == "oA"
        assert not first.identity.admin and first.identity.uid
        ask.rig.invoker.answer = b""
        assert (await ask("POST", path)).json["result"] is None
        assert ask.rig.invoker.calls[1].identity.openid == "" and ask.rig.invoker.calls[1].body == b"{}"
        ask.rig.invoker.fail(e.FunctionFailed("boom"))
        failed = await ask("POST", path, {})
        assert failed.status == 422 and failed.json["code"] == "function_failed"
        assert (await ask("POST", "/environments/default/functions/nobody/invoke", {})).status == 404
        assert (await ask("POST", path, {"openid": "123"})).status == 400
        ask.rig.invoker.answer = RuntimeError("secret")
        broken = await ask("POST", path, {})
        assert broken.status == 500 and "secret" not in broken.body.decode()


async def test_logs_are_asked_of_the_node() -> None:
    async with admin() as ask:
        path = "/environments/default/functions/hello/logs"
        reply = await ask("GET", f"{path}?limit=5&request_id=r1&since=1700000000.5")
        assert reply.json["records"] == [
            {"t": NOW, "instance": "i1", "request_id": "r1", "level": "info", "text": "hello"}
        ]
        assert ask.platform.log_queries == [LogQuery("default", "hello", "r1", 1700000000.5, 5)]
        for query in ("limit=0", "limit=abc", "limit=99999999", "since=nan", "since=-1"):
            assert (await ask("GET", f"{path}?{query}")).status == 400, query


async def test_logs_by_level_and_text() -> None:
    async with admin() as ask:
        ask.platform.lines = [
            LogRecord(NOW + n, "i1", level, f"Line {n} of {level}", "r1")
            for n, level in enumerate(("debug", "info", "warn", "error", "info"))
        ]

        async def texts(query: str) -> list[str]:
            reply = await ask("GET", f"/environments/default/functions/hello/logs?{query}")
            return [record["text"].removeprefix("Line ") for record in reply.json["records"]]

        assert await texts("level=warn") == ["2 of warn", "3 of error"]
        assert await texts("text=OF%20INFO") == ["1 of info", "4 of info"]
        assert await texts("text=of%20info&limit=1") == ["4 of info"]
        assert await texts("level=debug&limit=2") == ["3 of error", "4 of info"]
        # What is filtered here is looked for among all that the node gives at once.
        assert [query.limit for query in ask.platform.log_queries] == [10_000, 10_000, 10_000, 2]
        for query in ("level=loud", f"text={'x' * 1001}"):
            assert (await ask("GET", f"/environments/default/functions/hello/logs?{query}")).status == 400


async def test_a_deploy_is_an_upload_and_a_stream_of_lines() -> None:
    async with admin() as ask:
        upload = await ask("PUT", "/uploads", b"a tar" * 1000)
        assert upload.status == 201 and upload.json == {"upload": "f" * 24, "bytes": 5000}
        function = {"name": "hello", "upload": "f" * 24, "config": {}}
        stream = await _lines(ask, {"functions": [function]})
        assert [line["event"] for line in stream] == ["started", "done"]
        assert ask.platform.deploys[0].functions[0].name == "hello" and ask.platform.deploys_closed == 1
        refused = await ask("POST", "/deploy", {"functions": [function], "env": "nobody"})
        assert refused.status == 404 and refused.json["code"] == "environment_not_found"
        assert (await ask("POST", "/deploy", {"functions": []})).status == 400


async def test_collections_are_made_shown_changed_and_dropped() -> None:
    async with admin() as ask:
        path = "/environments/default/collections"
        made = await ask("POST", path, {"name": "orders", "preset": "READONLY"})
        assert made.status == 201 and made.json == {"name": "orders", "preset": "READONLY"}
        assert (await ask("POST", path, {"name": "a"})).json["preset"] == "PRIVATE"
        assert (await ask("POST", path, {"name": "a"})).status == 409
        assert (await ask("POST", path, {"name": "b", "preset": "MINE"})).status == 400
        changed = await ask("PUT", f"{path}/orders/preset", {"preset": "ADMINONLY"})
        assert changed.json == {"name": "orders", "preset": "ADMINONLY"}
        assert [c["name"] for c in (await ask("GET", path)).json["collections"]] == ["a", "orders"]
        assert (await ask("DELETE", f"{path}/a")).json == {"deleted": "a"}
        assert (await ask("DELETE", f"{path}/a")).status == 404


async def test_documents_are_shown_as_extended_json() -> None:
    async with admin() as ask:
        await ask("POST", "/environments/default/collections", {"name": "orders"})
        access = Access("default", admin=True)
        await ask.rig.documents.insert(access, "orders", [{"_id": f"o{n}", "n": n} for n in range(5)])
        path = "/environments/default/collections/orders/documents"
        reply = await ask("GET", f'{path}?filter={{"n":{{"$gte":2}}}}&limit=2&skip=1')
        assert reply.json["documents"] == [{"_id": "o3", "n": 3}, {"_id": "o4", "n": 4}]
        assert (await ask("GET", f"{path}?filter=[]")).json["code"] == "invalid_filter"
        assert (await ask("GET", "/environments/default/collections/none/documents")).status == 404


async def test_the_status_answers_while_the_node_does_not() -> None:
    async with admin() as ask:
        await ask.rig.deployed("hello")
        status = (await ask("GET", "/status")).json
        assert status["node"] == "n1" and status["rung"] == "process" and status["pools"] == {"node24": 1}
        assert status["environments"] == status["functions"] == len(status["running"]) == 1
        assert status["url"] == "http://127.0.0.1:8787" and status["version"]
        ask.platform.node_away = True
        status = (await ask("GET", "/status")).json
        assert status["node"] is None and status["rung"] is None and status["running"] == []


async def test_what_the_router_itself_says_is_json_too() -> None:
    async with admin() as ask:
        missing, wrong = await ask("GET", "/nothing"), await ask("POST", "/status")
        assert (missing.status, missing.json["code"]) == (404, "not_found")
        assert (wrong.status, wrong.json["code"]) == (405, "invalid_request")


async def test_the_table_in_the_text_is_the_table_in_the_code() -> None:
    text = re.sub(r"\s+\?\w+=.*", "", routes.__doc__ or "")
    written = set(re.findall(r"^    (GET|POST|PUT|DELETE) +(/\S+)", text, re.MULTILINE))
    assert written == {(method, path) for method, path, _ in routes.TABLE}
    async with admin() as ask:
        served = {route.path for route in ask.app.routes if isinstance(route, Route)}
        assert served == {path for _, path, _ in routes.TABLE}


def test_statuses_follow_the_tree_of_errors() -> None:
    assert [
        status_of(kind()) for kind in (e.InvalidFilter, e.CollectionNotFound, e.PortTaken, e.BuildFailed)
    ] == [
        400,
        404,
        409,
        422,
    ]
    assert [status_of(kind()) for kind in (e.EdgeUnavailable, e.OutcomeUnknown, e.QueryTooCostly)] == [
        503,
        500,
        429,
    ]


async def _lines(ask: Admin, body: Any) -> list[Any]:
    sent: list[Any] = []
    raw = json.dumps(body).encode()
    delivered = False

    async def receive() -> Any:
        nonlocal delivered
        if delivered:
            # The client stays: the server's wait for its leaving never ends by itself.
            await _forever()
        delivered = True
        return {"type": "http.request", "body": raw, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"spec_version": "2.3"},
        "method": "POST",
        "path": "/deploy",
        "raw_path": b"/deploy",
        "query_string": b"",
        "headers": [],
    }
    await ask.app(scope, receive, send)
    assert sent[0]["status"] == 200
    return [json.loads(message["body"]) for message in sent[1:] if message["body"]]


async def _forever() -> None:
    await asyncio.Event().wait()
