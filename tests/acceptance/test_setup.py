"""``scripts/setup.sh`` on machines that lack something: it says what, and what to type."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = ["bash", "cksum", "dirname", "env", "flock", "grep", "head", "mkdir", "rm", "sh", "touch"]

# A Python that is new enough and cannot make virtual environments, as Debian ships it.
BARE_PYTHON = """#!/bin/sh
case "$*" in *ensurepip*) exit 1 ;; *version_info\\[:2*) echo 3.11 ;; -V) echo Python 3.11.99 ;; esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A checkout in ``repo`` and a directory ``bin`` that is the whole PATH; both may be added to."""
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        if found := shutil.which(tool):
            (tmp_path / "bin" / tool).symlink_to(found)
    (tmp_path / "repo" / "scripts").mkdir(parents=True)
    shutil.copy(REPOSITORY / "scripts" / "setup.sh", tmp_path / "repo" / "scripts")
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path / "repo")
    return tmp_path


def command(machine: Path, name: str, text: str) -> None:
    path = machine / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def run(machine: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [machine / "bin" / "bash", "scripts/setup.sh", *arguments],
        cwd=machine / "repo",
        env={"PATH": str(machine / "bin"), "HOME": str(machine)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_names_the_apt_command_when_it_may_not_install(machine: Path) -> None:
    command(machine, "python3.11", BARE_PYTHON)
    command(machine, "id", "#!/bin/sh\necho 1000\n")
    command(machine, "sudo", "#!/bin/sh\nexit 1\n")
    command(machine, "apt-get", "#!/bin/sh\nexit 1\n")
    done = run(machine)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "set-up: missing python3.11-venv; run: sudo apt-get install -y python3.11-venv"
    ]
    assert not (machine / "repo" / ".venv").exists()


def test_installs_python_as_root_and_goes_on(machine: Path) -> None:
    command(machine, "id", "#!/bin/sh\necho 0\n")
    log, real = machine / "apt.log", sys.executable
    command(machine, "apt-get", f'#!/bin/sh\necho "$*" >>{log}\ntouch {machine}/bin/installed\n')
    # The Python of this machine appears once apt has run, but cannot make .venv: that is where the test ends.
    command(
        machine,
        "python3",
        f'#!/bin/sh\n[ -e {machine}/bin/installed ] && [ "$2" != venv ] && exec {real} "$@"\nexit 1\n',
    )
    done = run(machine)
    assert log.read_text().splitlines() == [
        "update -q",
        "install -q -y --no-install-recommends python3 python3-venv",
    ]
    assert "Installing python3 python3-venv with apt" in done.stdout
    assert done.stderr.endswith(
        "could not make " + os.path.realpath(machine / "repo") + "/.venv (see above)\n"
    )


def test_says_what_is_needed_where_there_is_no_apt(machine: Path) -> None:
    done = run(machine)
    assert done.returncode == 1
    assert done.stderr.startswith("set-up: Python 3.11 or newer with its venv module is needed")


def test_refuses_an_unknown_level(machine: Path) -> None:
    done = run(machine, "everything")
    assert done.returncode == 1
    assert "use nothing or 'dev'" in done.stderr
