"""Versions while people call: deploys at the same time, rollbacks, dry runs, and following the log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.installation import Installation, cloudlet
from tests.integration.platform import Platform
from tests.integration.up_support import answering, command, one_line, until, write_project

pytestmark = pytest.mark.xdist_group("releases")

CLIENTS = 6
LOGS = "exports.main = async (event) => { console[event.level || 'info'](event.say); return 1 }\n"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    installation = Installation(tmp_path_factory.mktemp("releases"))
    platform = Platform(installation)
    try:
        installation.start()
        platform.player()
        yield platform
    finally:
        platform.close()
        left = installation.stop()
    assert left == []


@contextmanager
def called(platform: Platform, function: str) -> Iterator[Counter[str]]:
    """Clients call `function` all the time; its answers are counted, and every one is a result."""
    counts: Counter[str] = Counter()
    failures: list[object] = []
    stop, lock = threading.Event(), threading.Lock()

    def client() -> None:
        while not stop.is_set():
            answer = platform.call(function, {})
            with lock:
                if answer.status == 200 and isinstance(answer.body, str):
                    counts[answer.body] += 1
                else:
                    failures.append((answer.status, answer.body))

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client) for _ in range(CLIENTS)]
        try:
            yield counts
        finally:
            stop.set()
    for each in clients:
        each.result()
    assert failures == []


def deploy(platform: Platform, root: Path, name: str, *texts: str) -> list[dict[str, Any]]:
    """Deploy these texts as versions of a function, one after the other."""
    return [
        platform.installation.deploy(write_project(root, {name: answering(text)}))["functions"][0]
        for text in texts
    ]


def test_a_rollback_serves_the_version_before_and_loses_no_call(platform: Platform, tmp_path: Path) -> None:
    deploy(platform, tmp_path, "back", "one", "two", "three")
    command_ = platform.installation.json
    with called(platform, "back") as counts:
        until(lambda: counts["three"] > 20, "calls are answered")
        answer = command_("fn", "rollback", "back")
        assert (answer["former"]["number"], answer["now"]["number"]) == (3, 2)
        until(lambda: counts["two"] > 20, "calls have moved")
        assert command_("fn", "rollback", "back", "--to", "3")["now"]["number"] == 3
        before = counts["three"]
        until(lambda: counts["three"] > before + 20, "calls have moved back")
        assert command_("fn", "rollback", "back", "--to", "1")["now"]["number"] == 1
        until(lambda: counts["one"] > 20, "calls have moved to the first")
    assert set(counts) == {"one", "two", "three"}
    assert platform.call("back", {}).body == "one"
    versions = command_("fn", "versions", "back")["versions"]
    assert [(each["number"], each["current"]) for each in versions] == [(3, False), (2, False), (1, True)]


def test_a_rollback_that_is_not_possible_changes_nothing(platform: Platform, tmp_path: Path) -> None:
    deploy(platform, tmp_path, "stuck", "one")
    data = platform.installation.data
    one_line(command(data, "fn", "rollback", "stuck"), 4, "has none before it", "--to")
    one_line(command(data, "fn", "rollback", "stuck", "--to", "7"), 4, "has no version 7; it has: 1")
    one_line(command(data, "fn", "rollback", "nobody"), 4, "'nobody' does not exist")
    assert "serves version 1" in platform.installation.command("fn", "rollback", "stuck", "--to", "1")
    assert platform.call("stuck", {}).body == "one"


def test_two_deploys_at_once_end_with_one_of_them_and_lose_no_call(
    platform: Platform, tmp_path: Path
) -> None:
    deploy(platform, tmp_path / "base", "both", "base")
    projects = [
        write_project(tmp_path / text, {"both": answering(text), f"only-{text}": answering(text)})
        for text in ("left", "right")
    ]
    with called(platform, "both") as counts:
        until(lambda: counts["base"] > 20, "calls are answered")
        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(platform.installation.deploy, projects))
        last = str(platform.call("both", {}).body)
        before = counts[last]
        until(lambda: counts[last] > before + 20, "calls have moved")
    assert all(summary["deployed"] == 2 for summary in done)
    assert last in {"left", "right"}
    for text in ("left", "right"):
        assert platform.call(f"only-{text}", {}).body == text
    numbers = [each["number"] for each in platform.installation.json("fn", "versions", "both")["versions"]]
    assert numbers == [3, 2, 1]


def test_a_dry_run_tells_what_would_change_and_changes_nothing(platform: Platform, tmp_path: Path) -> None:
    installation = platform.installation
    functions = {"same": answering(1), "other": answering(1), "former": answering(1)}
    project = write_project(tmp_path, functions)
    installation.deploy(project)
    write_project(project, {"former": answering(2)})
    installation.deploy(project)
    changed = {"other": answering(2), "former": answering(1), "fresh": "db.collection('dry').get()"}
    write_project(project, changed, {"other": {"config.json": '{"timeout": 9}', "more.js": ""}})
    before = installation.json("fn", "list")["functions"], installation.status()["sequence"]

    done = installation.json("deploy", str(project), "--dry-run", "--create-collections")
    assert (done["would_deploy"], done["unchanged"], done["failed"]) == (3, 1, 0)
    found = {each["function"]: each for each in done["functions"]}
    assert {name: each["action"] for name, each in found.items()} == {
        "same": "unchanged",
        "other": "update",
        "former": "reuse",
        "fresh": "create",
    }
    assert found["other"]["changes"] == ["+ config.json", "+ more.js", "~ index.js", "timeout 3 s → 9 s"]
    assert found["former"]["number"] == 1
    assert done["notices"] == ["collections that would be created: dry"]
    text = installation.command("deploy", str(project), "--dry-run")
    assert "other: would replace version 1\n    + config.json" in text
    assert "nothing was changed" in text.splitlines()[-1]

    after = installation.json("fn", "list")["functions"], installation.status()["sequence"]
    assert [_without_time(each) for each in after[0]] == [_without_time(each) for each in before[0]]
    assert after[1] == before[1]
    (project / "cloudfunctions/same/config.json").write_text('{"timeout": "soon"}')
    assert command(installation.data, "deploy", str(project), "--dry-run").returncode == 1


def test_logs_by_level_text_time_and_call(platform: Platform, tmp_path: Path) -> None:
    installation = platform.installation
    installation.deploy(write_project(tmp_path, {"says": LOGS}))
    for level, text in (("debug", "Step 1"), ("info", "step 2"), ("warn", "STEP 3"), ("error", "other 4")):
        platform.call("says", {"level": level, "say": text})
    until(lambda: _texts(installation, "--grep", "other"), "the lines have arrived")
    assert _texts(installation) == ["Step 1", "step 2", "STEP 3", "other 4"]
    assert _texts(installation, "--level", "warn") == ["STEP 3", "other 4"]
    assert _texts(installation, "--grep", "Step") == ["Step 1", "step 2", "STEP 3"]
    assert _texts(installation, "--grep", "step", "--level", "info", "--limit", "1") == ["STEP 3"]
    assert _texts(installation, "--since", "10m") == ["Step 1", "step 2", "STEP 3", "other 4"]
    assert _texts(installation, "--since", "2999-01-01") == []
    one_line(command(installation.data, "fn", "logs", "says", "--since", "soon"), 5, "'soon'", "15m")


def test_following_goes_on_while_api_is_killed_and_says_nothing_twice(
    platform: Platform, tmp_path: Path
) -> None:
    installation = platform.installation
    installation.deploy(write_project(tmp_path, {"told": LOGS}))
    with _following(installation, "told") as lines:
        for n in range(20):
            platform.call("told", {"say": f"line {n}"})
            if n == 5:
                until(lambda: len(lines) > 2, "the first lines are shown")
                _kill_api(installation)
        until(lambda: "line 19" in lines, "the last line is shown")
    assert lines == [f"line {n}" for n in range(20)]


@contextmanager
def _following(installation: Installation, function: str) -> Iterator[list[str]]:
    """``cloudlet fn logs -f``: the texts it prints."""
    # Tests that run in the background ignore SIGINT, and what they start would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [cloudlet(), "fn", "logs", function, "-f", "--json", "--data", installation.data],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    lines: list[str] = []
    out = process.stdout

    def read() -> None:
        for line in out:
            lines.append(json.loads(line)["text"])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield lines
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        reader.join()
        out.close()


def _kill_api(installation: Installation) -> None:
    def process() -> dict[str, Any]:
        return next(each for each in installation.status()["processes"] if each["name"] == "api")

    before = process()
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: process()["pid"] not in {0, before["pid"]}, "api runs again")


def _texts(installation: Installation, *options: str) -> list[str]:
    lines = installation.command("fn", "logs", "says", "--json", *options).splitlines()
    return [json.loads(line)["text"] for line in lines]


def _without_time(function: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in function.items() if name != "instances"}
