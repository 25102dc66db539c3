"""The parts of ``cloudlet dev`` that decide: what was saved, which lines are new, what is shown."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import click
import pytest

from cloudlet.cli.dev import cycle
from cloudlet.cli.dev.cycle import Cycle
from cloudlet.cli.dev.lan import qr_code
from cloudlet.cli.dev.show import Places, Show, Shown, cold_start
from cloudlet.cli.dev.tail import READ_BYTES_MAX, FileTail, FunctionLine, FunctionTails
from cloudlet.cli.dev.watch import Settling, Watched, fingerprints, saved_at
from cloudlet.cli.session import Session
from cloudlet.functions.project import Project, read_project
from cloudlet.model.errors import EnvironmentNotFound, NodeUnavailable
from cloudlet.model.function import Version
from cloudlet.node.logs import RotatingFile
from tests.unit.cli.cli_rig import Cli, platform

pytestmark = pytest.mark.anyio

# What was saved


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "project.config.json").write_text('{"cloudfunctionRoot": "cloud"}')
    for name in ("login", "order"):
        (tmp_path / "cloud" / name).mkdir(parents=True)
        (tmp_path / "cloud" / name / "index.js").write_text("1")
    return read_project(tmp_path, {})


def names(watched: Watched) -> set[str]:
    return {str(path.relative_to(watched.root)) for path in watched.scan()}


def test_only_what_a_deploy_reads_is_looked_at(project: Project) -> None:
    root = project.root
    for path in ("pages/a.js", "cloud/login/node_modules/x/index.js", "cloud/login/.index.js.swp", ".env"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("1")
    (root / "cloud/data").mkdir()
    (root / "cloud/data/control.db").write_text("1")
    watched = Watched.of(project, root / "cloud/data")
    expected = {"project.config.json", ".env", "cloud/login/index.js", "cloud/order/index.js"}
    assert names(watched) == expected
    (root / "cloud/login/lib").mkdir()
    (root / "cloud/login/lib/a.js").write_text("1")
    (root / "cloud/order/index.js").unlink()
    assert names(watched) == (expected | {"cloud/login/lib/a.js"}) - {"cloud/order/index.js"}


def test_a_broken_function_is_looked_at_too(project: Project) -> None:
    (project.root / "cloud/order/config.json").write_text("{")
    again = read_project(project.root, {})
    assert [each.name for each in again.broken] == ["order"]
    assert "cloud/order/config.json" in names(Watched.of(again))


def test_a_change_counts_when_it_is_still_and_once() -> None:
    one, two, three = ({Path("a"): (n, 1, 1)} for n in range(3))
    settling = Settling(one)
    looks = [one, two, three, three, three, one, one]
    assert [settling.settled(look) for look in looks] == [False, False, False, True, False, False, True]


def test_what_was_taken_back_before_it_was_still_is_no_change() -> None:
    one, two = ({Path("a"): (n, 1, 1)} for n in range(2))
    settling = Settling(one)
    assert [settling.settled(look) for look in (two, one, one)] == [False, False, False]


def test_a_function_is_what_its_files_and_its_settings_are(project: Project) -> None:
    watched = Watched.of(project)
    before = fingerprints(project, watched.scan())
    assert before == fingerprints(project, watched.scan())
    path = project.root / "cloud/login/index.js"
    os.utime(path, ns=(5_000_000_000, 5_000_000_000))
    after = fingerprints(project, watched.scan())
    assert {name for name in before if before[name] != after[name]} == {"login"}
    assert saved_at(after, ["login"]) == 5.0
    (project.root / "cloud/order/config.json").write_text('{"timeout": 9}')
    again = fingerprints(read_project(project.root, {}), watched.scan())
    assert {name for name in after if after[name] != again[name]} == {"order"}


# What is deployed


class Stage:
    """A cycle over a running admin interface, and what it said."""

    def __init__(self, cli: Cli, project: Project) -> None:
        self.said: list[dict[str, Any]] = []
        self.stop = threading.Event()
        client = Session(cli.data, as_json=True).client()
        self.cycle = Cycle(client, project, "", cli.data, self, self.stop)

    def say(self, event: str, text: str, **fields: object) -> None:
        self.said.append({"event": event, "text": text, **fields})

    async def until(self, **fields: object) -> dict[str, Any]:
        """The first thing said with these fields, waited for."""
        with anyio.fail_after(30):
            while True:
                for said in list(self.said):
                    if all(said.get(name) == value for name, value in fields.items()):
                        return said
                await anyio.sleep(0.005)


@asynccontextmanager
async def cycling(cli: Cli, project: Project) -> AsyncIterator[Stage]:
    stage = Stage(cli, project)
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, stage.cycle.run)
        try:
            yield stage
        finally:
            stage.stop.set()


async def test_what_the_platform_could_not_do_is_tried_again(
    tmp_path: Path, project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycle, "RETRY_S", 0.001)
    monkeypatch.setattr(cycle, "LOOK_S", 0.005)
    async with platform(tmp_path, capsys) as cli:
        prepare, failures = cli.twins.prepare, [NodeUnavailable(), NodeUnavailable()]

        async def fails_first(version: Version) -> None:
            if version.function == "order" and failures:
                raise failures.pop()
            await prepare(version)

        monkeypatch.setattr(cli.twins, "prepare", fails_first)
        async with cycling(cli, project) as stage:
            assert (await stage.until(function="order", status="failed"))["code"] == "node_unavailable"
            await stage.until(function="order", status="deployed")
    done = [(each["function"], each["status"]) for each in stage.said if each.get("kind") == "function"]
    assert sorted(done) == [
        ("login", "deployed"),
        ("order", "deployed"),
        ("order", "failed"),
        ("order", "failed"),
    ]


async def test_a_fault_of_the_project_is_not_tried_again_until_it_is_saved(
    tmp_path: Path, project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycle, "RETRY_S", 0.001)
    monkeypatch.setattr(cycle, "LOOK_S", 0.005)
    async with platform(tmp_path, capsys) as cli:
        cli.twins.broken.add("order")
        async with cycling(cli, project) as stage:
            await stage.until(event="watching")
            (project.root / "cloud/login/index.js").write_text("22")
            await stage.until(function="login", number=2)
            cli.twins.broken.clear()
            (project.root / "cloud/order/index.js").write_text("22")
            await stage.until(function="order", status="deployed")
    assert [each["status"] for each in stage.said if each.get("function") == "order"] == [
        "failed",
        "deployed",
    ]


async def test_an_environment_that_is_none_ends_it(
    tmp_path: Path, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    async with platform(tmp_path, capsys) as cli:
        client = Session(cli.data, as_json=True).client()
        screen = Stage(cli, project)
        found = Cycle(client, project, "nowhere", cli.data, screen, screen.stop)
        await anyio.to_thread.run_sync(found.run)
        assert isinstance(found.failure, EnvironmentNotFound)


# Which lines are new


def test_lines_that_are_appended_come_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"before\n")
    new, old = FileTail(path, from_start=False), FileTail(path, from_start=True)
    assert (new.lines(), old.lines()) == ([], [b"before"])
    with path.open("ab") as file:
        file.write(b"one\ntw")
        file.flush()
        assert (new.lines(), old.lines()) == ([b"one"], [b"one"])
        file.write(b"o\n\n")
    assert (new.lines(), new.lines()) == ([b"two"], [])


def test_no_line_is_lost_when_the_file_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    file = RotatingFile(path, bytes_max=100)
    tail = FileTail(path, from_start=True)
    assert tail.lines() == []
    found, written = [], [b"line %03d" % n for n in range(40)]
    for n, line in enumerate(written):
        file.append(line + b"\n")
        if n % 7 == 0:
            found += tail.lines()
    file.close()
    for _ in range(3):
        found += tail.lines()
    assert path.with_name("a.log.1").exists()
    assert found == written


def test_a_file_that_was_emptied_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"a long line\n")
    tail = FileTail(path, from_start=False)
    path.write_bytes(b"new\n")
    assert tail.lines() == [b"new"]


def test_one_look_reads_a_bounded_amount(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"x" * 1023 + b"\n" + (b"y" * 1023 + b"\n") * (READ_BYTES_MAX // 1024))
    tail = FileTail(path, from_start=True)
    assert len(tail.lines()) == READ_BYTES_MAX // 1024
    assert len(tail.lines()) == 1


def test_functions_that_begin_to_log_are_found(tmp_path: Path) -> None:
    (tmp_path / "default").mkdir()
    (tmp_path / "_platform").mkdir()
    (tmp_path / "default/old.jsonl").write_bytes(b"history\n")
    (tmp_path / "_platform/api.jsonl").write_bytes(b"not a function\n")
    tails = FunctionTails(tmp_path)
    (tmp_path / "default/new.jsonl").write_bytes(b"first\n")
    assert tails.lines() == [FunctionLine("default", "new", b"first")]


# What is shown


def shown(found: Shown | None) -> str:
    assert found is not None
    return click.unstyle(found.text)


@pytest.fixture
def show() -> Show:
    return Show(Places("/data/code", {"order": "cloud/order"}))


def line(text: str, level: str = "info", **fields: Any) -> dict[str, Any]:
    return {"t": 1.0, "instance": "i1", "level": level, "text": text, "request_id": "r1"} | fields


def call(status: int, **fields: Any) -> dict[str, Any]:
    path = f"/v1/functions/{fields.get('function', 'order')}"
    known = {"event": "edge_call", "t": "1.5", "method": "POST", "path": path, "ms": 12, "request_id": "r1"}
    return known | {"status": status, "details": "via_upstream", "flags": "-", "timing": None} | fields


def test_a_line_has_its_function_and_the_projects_own_paths(show: Show) -> None:
    text = shown(show.function_line("order", line("at /data/code/default/order/0123456789abcdef/index.js:1")))
    assert text.endswith("   order at cloud/order/index.js:1")


def test_a_tenants_text_does_not_steer_the_terminal(show: Show) -> None:
    found = show.function_line("order", line("\x1b[2Jgone\rX"))
    assert found is not None
    assert found.text.endswith("order\x1b[0m �[2Jgone�X")


def test_what_was_printed_at_load_is_not_shown_again_by_the_node(show: Show) -> None:
    for text in ("SyntaxError: x", "    at y"):
        assert show.function_line("order", line(text, "error", request_id=""))
    assert show.function_line("order", line("SyntaxError: x\n    at y", "error", request_id="")) is None
    assert show.function_line("order", line("SyntaxError: x\n    at y", "error", instance="i2"))


def test_a_failed_call_says_what_the_client_saw(show: Show) -> None:
    for text in ("TypeError: boom", "    at main"):
        show.function_line("order", line(text, "error"))
    found = show.platform_event(call(400, openid="alice"))
    text = shown(found)
    assert "✗ order 400 in 12 ms for alice (request r1)" in text
    assert "the client saw FUNCTIONS_EXECUTE_FAIL: TypeError: boom" in text
    assert found is not None and found.event["client_saw"] == "FUNCTIONS_EXECUTE_FAIL"


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (call(504), "the client saw FUNCTIONS_TIME_LIMIT_EXCEEDED"),
        (call(401, details="jwt_authn_access_denied{Jwt_is_expired}"), "ACCESS_TOKEN_EXPIRED"),
        (call(401, details="jwt_authn_access_denied{Jwt_is_missing}"), "UNAUTHENTICATED"),
        (call(503, details="upstream_reset", flags="UF,URX"), "SYS_ERR: the service is restarting"),
        (call(418, details="teapot"), "the client saw status 418: teapot"),
        (call(0, details="downstream_remote_disconnect"), "no answer in 12 ms"),
        (call(404, path="/\x1b[2J/etc"), "✗ POST '/\\x1b[2J/etc' 404"),
    ],
)
def test_what_the_edge_answers_by_itself(show: Show, event: dict[str, Any], expected: str) -> None:
    assert expected in shown(show.platform_event(event))


def test_nothing_is_claimed_that_is_not_known(show: Show) -> None:
    """The function logged nothing: the answer may be of any kind."""
    found = show.platform_event(call(400))
    assert found is not None and "client_saw" not in found.event
    handled = show.function_line("order", line("logged by the function itself", "error", request_id="r2"))
    assert handled is not None
    assert "client" not in shown(show.platform_event(call(200, request_id="r2")))


def test_a_result_that_is_too_large_has_its_own_code(show: Show) -> None:
    reply = {"code": "FUNCTIONS_RESULT_TOO_LARGE", "message": "function result is 9 bytes", "requestId": "r1"}
    show.function_line("order", line(json.dumps(reply), "error"))
    assert "FUNCTIONS_RESULT_TOO_LARGE: function result is 9 bytes" in shown(show.platform_event(call(400)))


def test_a_cold_start_is_explained() -> None:
    timing = {"queue": 0.5, "schedule": 1.25, "sandbox": 0.0, "load": 12.0, "handler": 3.0}
    parts = "queue 0.5 + schedule 1.2 + cell 0 (one was waiting) + load 12.0"
    assert cold_start(timing) == f"cold start 14 ms = {parts}, then handler 3.0 ms"
    assert "cell 40.0" in cold_start({**timing, "sandbox": 40.0})
    # The first call of an instance that was started before it came.
    assert cold_start({"load": 12.0, "handler": 3.0}) == ""


def test_the_receipt_is_read_from_the_answers_header(show: Show) -> None:
    header = "queue;dur=1.000, schedule;dur=0.100, sandbox;dur=20.5, load;dur=8, handler;dur=2"
    assert "cold start 30 ms" in shown(show.platform_event(call(200, timing=header)))


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            {"event": "call", "function": "f", "ms": 2.0, "error": "", "nested": True, "openid": "alice"},
            "✓ f ok in 2 ms, called by a function for alice",
        ),
        (
            {"event": "call", "function": "f", "ms": 2.0, "error": "function_timeout", "nested": False},
            "the caller saw FUNCTIONS_TIME_LIMIT_EXCEEDED",
        ),
        (
            {"event": "collection_created", "collection": "dishes", "preset": "PRIVATE"},
            "collection dishes created, preset PRIVATE",
        ),
        ({"event": "list_empty", "collection": "dishes", "why": "nobody"}, "empty list from dishes: nobody"),
        ({"event": "x_failed", "level": "error", "process": "api", "message": "m"}, "✗ api: x_failed m"),
    ],
)
def test_events_of_the_platform(show: Show, event: dict[str, Any], expected: str) -> None:
    assert expected in shown(show.platform_event({"timestamp": "2026-11-20T10:00:00Z", **event}))


def test_other_events_are_not_for_developers(show: Show) -> None:
    assert show.platform_event({"event": "instance_ready", "level": "info"}) is None


def test_the_qr_code_is_lines_of_blocks() -> None:
    lines = qr_code("http://192.0.2.7:8787").splitlines()
    assert len({len(line) for line in lines}) == 1
    assert set("".join(lines)) <= set("█▀▄ ")
