"""``cloudlet doctor`` beside an installation that does not run, one that runs, and one that was killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudlet.settings import Paths
from tests.acceptance.installation import REPOSITORY, Installation, cloudlet
from tests.integration.up_support import WAIT_S_MAX, answering, command, write_project

PAGE = REPOSITORY / "docs" / "howto" / "doctor.md"


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    running = Installation(tmp_path / "data")
    try:
        yield running
    finally:
        running.stop()


def doctor(data: Path, *options: str, exit_code: int = 0) -> dict[str, Any]:
    """The findings by their check, and what was ``fixed``."""
    done = command(data, "doctor", "--json", *options)
    assert done.returncode == exit_code, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert answer["problems"] == sum(each["level"] == "problem" for each in answer["findings"])
    assert (answer["problems"] > 0) == (exit_code == 1)
    found = {each["check"]: each for each in answer["findings"]}
    assert len(found) == len(answer["findings"])
    assert all(each["fix"] for each in found.values() if each["level"] != "ok")
    return found | {"fixed": answer["fixed"]}


def documented() -> set[str]:
    rows = re.findall(r"^\| ((?:`[a-z0-9-]+`(?:, )?)+) \|", PAGE.read_text(), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row)}


def test_before_the_first_start_it_changes_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    found = doctor(data)
    assert not data.exists() and not Paths(data).run.exists()
    assert "will be made" in found["data"]["text"]
    assert "0 functions" in found["edge-configuration"]["text"]
    assert found["edge-program"]["level"] == found["node24"]["level"] == "ok"
    text = command(data, "doctor").stdout
    assert "✓ edge-program" in text and text.splitlines()[-1].startswith("0 problems, ")


def test_a_running_installation_is_looked_at_and_left_alone(
    installation: Installation, tmp_path: Path
) -> None:
    installation.start()
    installation.deploy(write_project(tmp_path / "project", {"hello": answering(1), "other": answering(2)}))
    found = doctor(installation.data)
    assert set(found) - {"fixed"} == documented()
    assert f"process {installation.pid}" in found["data"]["text"]
    assert "7 sockets" in found["sockets"]["text"]
    assert installation.url.rpartition(":")[2] in found["port"]["text"]
    assert "2 functions" in found["edge-configuration"]["text"]
    assert doctor(installation.data, "--fix")["fixed"] == []
    assert installation.invoke("hello", {}) == 1


def test_what_a_killed_run_left_is_told_and_removed(installation: Installation) -> None:
    installation.start()
    installation.kill()
    paths = Paths(installation.data)
    paths.control_db.chmod(0o644)
    found = doctor(installation.data, exit_code=1)
    assert found["run-directory"]["level"] == "warning" and found["run-directory"]["fixable"]
    assert found["secrets"]["level"] == "problem" and found["secrets"]["fixable"]
    assert "sockets" not in found
    found = doctor(installation.data, "--fix")
    assert sorted(found["fixed"]) == ["run-directory", "secrets"]
    assert not paths.run.exists()
    assert paths.control_db.stat().st_mode & 0o777 == 0o600
    installation.start()


def test_a_process_that_hangs_is_a_problem(installation: Installation) -> None:
    installation.start()
    os.kill(installation.pid, signal.SIGSTOP)
    try:
        found = doctor(installation.data, exit_code=1)
    finally:
        os.kill(installation.pid, signal.SIGCONT)
    assert found["sockets"]["level"] == "problem"
    assert "node.sock" in found["sockets"]["text"] and "api.sock" not in found["sockets"]["text"]


def test_a_port_that_somebody_else_has_is_a_problem(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [cloudlet(), "doctor", "--json", "--data", tmp_path / "data"],
            env={**os.environ, "CLOUDLET_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=WAIT_S_MAX,
            check=False,
        )
    assert done.returncode == 1, done.stderr
    (problem,) = (each for each in json.loads(done.stdout)["findings"] if each["level"] == "problem")
    assert problem["check"] == "port" and f"127.0.0.1:{port}" in problem["text"]
