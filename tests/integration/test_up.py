"""Starting, stopping and dying: what ``cloudlet up`` and its neighbours do around a data directory."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import apsw
import pytest

from cloudlet.cli.exit_codes import ExitCode
from cloudlet.settings import Paths
from tests.acceptance.installation import Installation, cloudlet, descendants, identity
from tests.acceptance.player import Player
from tests.integration.up_support import answering, command, one_line, until, write_project

pytestmark = pytest.mark.xdist_group("up")

NOBODY = 65534
SLOW = """
exports.main = async () => {
  console.log('begun')
  await new Promise((resolve) => setTimeout(resolve, 1000))
  return { done: true }
}
"""


@contextmanager
def installed(data: Path) -> Iterator[Installation]:
    """A running installation that leaves nothing behind; a test may have ended it already."""
    installation = Installation(data)
    try:
        installation.start()
        yield installation
    finally:
        left = installation.stop()
    assert left == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """For tests that only look, or only add."""
    with installed(tmp_path_factory.mktemp("up") / "data") as installation:
        yield installation


def gone(family: dict[int, tuple[str, str]]) -> bool:
    """Whether none of these processes is there any more."""
    return all(identity(pid) != known for pid, known in family.items())


# Starting


def test_up_says_where_it_listens_and_how_functions_are_isolated(shared: Installation) -> None:
    said = until(
        lambda: re.search(r"cloudlet is ready.*Ctrl-C", shared.log.read_text(), re.DOTALL), "it is ready"
    )[0]
    assert shared.url in said
    assert "process: no isolation, run only code you trust" in said
    assert re.search(r"ready after \d+\.\d s", said)
    assert str(shared.data) in said


def test_status_names_every_process_of_the_platform(shared: Installation) -> None:
    processes = shared.status()["processes"]
    assert {each["name"] for each in processes} == {"node", "api", "control", "envoy"}
    assert all(each["ready"] and each["restarts"] == 0 for each in processes)
    assert processes[0]["pid"] == shared.pid
    below = descendants(shared.pid)
    assert {each["pid"] for each in processes[1:]} <= below.keys()


def test_a_second_up_on_the_same_data_is_refused_and_disturbs_nothing(shared: Installation) -> None:
    done = command(shared.data, "up", "--port", "0")
    one_line(done, ExitCode.REFUSED, f"process {shared.pid}", str(shared.data), "--data")
    said = command(shared.data, "up", "--port", "0", "--json")
    assert json.loads(said.stderr)["error"]["code"] == "data_directory_in_use"
    assert shared.status()["url"] == shared.url


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        one_line(command(tmp_path, "up", "--port", port), ExitCode.REFUSED, port, "--port")
    assert not Paths(tmp_path).run.exists()


def test_data_of_a_newer_cloudlet_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "format").write_text("999\n")
    one_line(command(tmp_path, "up", "--port", "0"), ExitCode.REFUSED, "format 999", "upgrade cloudlet")
    assert (tmp_path / "format").read_text() == "999\n"


def test_records_of_a_newer_cloudlet_are_left_alone(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "control.db"))
    connection.pragma("user_version", 999)
    connection.close()
    one_line(command(tmp_path, "up", "--port", "0"), ExitCode.REFUSED, "schema 999", "upgrade cloudlet")


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = command(tmp_path / "file" / "data", "up", "--port", "0")
    one_line(done, ExitCode.UNAVAILABLE, "cannot write", "--data")
    assert command(tmp_path / "file", "up", "--port", "0").returncode == ExitCode.USAGE


@pytest.mark.parametrize("prepared", [False, True], ids=["new", "used before"])
def test_a_data_directory_of_somebody_else_is_refused(tmp_path: Path, prepared: bool) -> None:
    """Everybody may read it, nobody here may write it."""
    data = tmp_path / "data"
    data.mkdir()
    if prepared:
        with installed(data):
            pass
    everything = (data, *data.rglob("*"))
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
        if os.getuid() == 0:
            os.chown(path, NOBODY, NOBODY)
    try:
        done = command(data, "up", "--port", "0", powerless=True)
    finally:
        for path in everything:
            path.chmod(0o700)
    one_line(done, ExitCode.UNAVAILABLE, "cannot write", "--data")


# Stopping and dying


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_call_in_flight_is_answered_before_the_end(tmp_path: Path, stop: signal.Signals) -> None:
    data = tmp_path / "data"
    installation = Installation(data)
    installation.start()
    family: dict[int, tuple[str, str]] = {}
    try:
        installation.deploy(write_project(tmp_path / "project", {"slow": SLOW}))
        player = Player(installation.url, installation.token("user-a"))
        with player, ThreadPoolExecutor(1) as pool:
            call = pool.submit(player.call, "slow", {})
            log = data / "logs" / "default" / "slow.jsonl"
            until(lambda: log.exists() and "begun" in log.read_text(), "the call runs")
            family = descendants(installation.pid)
            os.kill(installation.pid, stop)
            answer = call.result()
        assert (answer.status, answer.body) == (200, {"done": True})
    finally:
        assert installation.stop() == []
    assert family and gone(family)
    assert not Paths(data).run.exists()


def test_everything_dies_with_a_killed_up_and_the_next_one_serves_the_same(tmp_path: Path) -> None:
    project = write_project(tmp_path / "project", {"keep": answering("kept")})
    with installed(tmp_path / "data") as installation:
        installation.deploy(project)
        installation.invoke("keep", {})
        family = descendants(installation.pid)
        assert len(family) >= 4
        installation.kill()
        until(lambda: gone(family), "all processes have ended")
        installation.start()
        with Player(installation.url, installation.token("user-a")) as player:
            assert player.call("keep", {}).body == "kept"
        assert installation.deploy(project)["unchanged"] == 1


# Environments


def test_environments_come_and_go_and_have_other_names(shared: Installation) -> None:
    assert shared.json("env", "create", "shop")["name"] == "shop"
    one_line(command(shared.data, "env", "create", "shop"), ExitCode.REFUSED, "shop")
    assert shared.json("env", "alias", "prod-1a2b3c", "shop")
    assert shared.json("token", "--openid", "user-a", "--env", "prod-1a2b3c")["env"] == "shop"
    listed = {each["name"]: each for each in shared.json("env", "list")["environments"]}
    assert listed["shop"]["aliases"] == ["prod-1a2b3c"]
    assert shared.json("env", "delete", "shop", "--yes") == {"deleted": "shop"}
    one_line(command(shared.data, "env", "credentials", "shop"), ExitCode.NOT_FOUND, "shop")
    one_line(command(shared.data, "env", "create", "no/such name"), ExitCode.REFUSED, "name")


def test_credentials_are_what_a_server_side_sdk_is_given(shared: Installation) -> None:
    given = shared.json("env", "credentials", "default")
    assert given.keys() == {"envId", "secretId", "secretKey", "serviceUrl"}
    assert (given["envId"], given["serviceUrl"]) == ("default", f"{shared.url}/admin")
    assert given["secretId"] and given["secretKey"]


def test_the_id_of_a_cloud_in_the_code_becomes_another_name_with_a_notice(tmp_path: Path) -> None:
    source = "const cloud = { init: () => {} }\ncloud.init({ env: 'prod-9x8y7z' })\n" + answering(1)
    with installed(tmp_path / "data") as installation:
        summary = installation.deploy(write_project(tmp_path / "project", {"one": source}))
        assert any("prod-9x8y7z" in notice for notice in summary["notices"])
        assert installation.json("token", "--openid", "user-a", "--env", "prod-9x8y7z")["env"] == "default"


# Deploying what cannot be deployed


def test_a_project_without_functions_is_refused(shared: Installation, tmp_path: Path) -> None:
    done = command(shared.data, "deploy", str(write_project(tmp_path / "project", {})))
    one_line(done, ExitCode.REFUSED, "function")


@pytest.mark.parametrize(
    "text",
    ['{"timeout": ', '{"timeout": "soon"}', '{"memorySize": 1}', "[]"],
    ids=["cut", "type", "range", "list"],
)
def test_a_bad_config_is_named_and_the_neighbour_is_deployed(
    shared: Installation, tmp_path: Path, text: str
) -> None:
    project = write_project(
        tmp_path / "project",
        {"badconfig": answering(1), "neighbour": answering(text)},
        {"badconfig": {"config.json": text}},
    )
    done = command(shared.data, "deploy", str(project), "--json")
    assert done.returncode == ExitCode.FAILED
    found = {each["function"]: each for each in json.loads(done.stdout)["functions"]}
    assert (found["badconfig"]["status"], found["badconfig"]["code"]) == ("failed", "invalid_project")
    assert "config.json" in found["badconfig"]["message"]
    assert found["neighbour"]["status"] == "deployed"
    assert shared.invoke("neighbour", {}) == text


def test_a_dependency_that_does_not_exist_fails_alone_with_its_build_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = json.dumps({"dependencies": {"nobody-made-this": "^1.0.0"}})
    project = write_project(
        tmp_path / "project",
        {"broken": answering(1), "good": answering("good")},
        {"broken": {"package.json": manifest}},
    )
    with empty_registry() as url:
        monkeypatch.setenv("npm_config_registry", url)
        monkeypatch.setenv("npm_config_fetch_retries", "0")
        with installed(tmp_path / "data") as installation:
            done = command(installation.data, "deploy", str(project))
            assert done.returncode == ExitCode.FAILED
            assert re.search(r"broken: .*nobody-made-this", done.stdout)
            assert re.search(r"^ *\| .*404", done.stdout, re.MULTILINE), done.stdout
            assert "it was never deployed" in done.stdout
            assert "1 deployed, 1 failed" in done.stdout
            assert installation.invoke("good", {}) == "good"
            one_line(command(installation.data, "fn", "invoke", "broken"), ExitCode.NOT_FOUND, "broken")


# Redeploying


def test_calls_move_only_to_a_version_that_starts(shared: Installation, tmp_path: Path) -> None:
    def write(source: str) -> Path:
        return write_project(tmp_path / "project", {"moving": source})

    shared.deploy(write(answering("one")))
    with Player(shared.url, shared.token("user-a")) as player:
        assert player.call("moving", {}).body == "one"
        bad = write("throw new Error('not today')")
        done = command(shared.data, "deploy", str(bad))
        assert done.returncode == ExitCode.FAILED
        assert "not today" in done.stdout and "index.js:1" in done.stdout
        assert "goes on serving" in done.stdout
        assert player.call("moving", {}).body == "one"
        shared.deploy(write(answering("two")))
        assert player.call("moving", {}).body == "two"


def test_no_call_is_lost_while_versions_change(shared: Installation, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shared.deploy(write_project(project, {"changing": answering(0)}))
    stop = threading.Event()

    def play(player: Player) -> list[tuple[int, object]]:
        seen = []
        while not stop.is_set():
            answer = player.call("changing", {})
            seen.append((answer.status, answer.body))
        return seen

    with Player(shared.url, shared.token("user-a")) as player, ThreadPoolExecutor(4) as pool:
        playing = [pool.submit(play, player) for _ in range(4)]
        try:
            for version in (1, 2, 3):
                shared.deploy(write_project(project, {"changing": answering(version)}))
        finally:
            stop.set()
        for each in playing:
            seen = each.result()
            assert [answer for answer in seen if answer[0] != 200] == []
            versions = [body for _, body in seen]
            assert versions == sorted(versions, key=str)
        assert player.call("changing", {}).body == 3


LOADS_LONG = "const until = Date.now() + 3000; while (Date.now() < until) {}"


@pytest.mark.parametrize("victim", ["command", "api"])
def test_a_deploy_that_is_killed_half_way_leaves_the_old_version(
    shared: Installation, tmp_path: Path, victim: str
) -> None:
    name = f"halfway-{victim}"
    old = write_project(tmp_path / "old", {name: answering("old")})
    new = write_project(tmp_path / "new", {name: answering("new", at_load=LOADS_LONG)})
    shared.deploy(old)
    with _deploying(shared, new) as (pid, ended):
        killed = pid if victim == "command" else process(shared, "api")
        os.kill(killed, signal.SIGKILL)
        code = ended()
    # What the command hears of the end of api depends on how far the answer had come.
    assert code in ({-signal.SIGKILL} if victim == "command" else {ExitCode.FAILED, ExitCode.UNAVAILABLE})
    until(lambda: answers(shared), "the api process is back")
    with Player(shared.url, shared.token("user-a")) as player:
        assert player.call(name, {}).body == "old"
        # It waits for a deploy of the same function that still runs: so this sees the end of it.
        assert shared.deploy(old)["unchanged"] == 1
        shared.deploy(new)
        assert player.call(name, {}).body == "new"


def process(installation: Installation, name: str) -> int:
    """Process id of one of the platform's processes."""
    found = {each["name"]: each["pid"] for each in installation.status()["processes"]}
    return int(found[name])


def answers(installation: Installation) -> bool:
    return command(installation.data, "status").returncode == ExitCode.OK


@contextmanager
def _deploying(installation: Installation, project: Path) -> Iterator[tuple[int, Callable[[], int]]]:
    """A deploy that has reached its start check: its process id, and how to wait for its end."""
    deploy = subprocess.Popen(
        [cloudlet(), "deploy", str(project), "--data", str(installation.data)],
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert deploy.stdout is not None
    with deploy.stdout:
        try:
            seen = []
            for line in deploy.stdout:
                seen.append(line)
                if "start check" in line:
                    break
            else:
                raise AssertionError(f"the deploy ended before its start check: {seen}")
            yield deploy.pid, lambda: deploy.wait(60)
        finally:
            deploy.kill()
            deploy.wait()


@contextmanager
def empty_registry() -> Iterator[str]:
    """A package registry that has nothing."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
