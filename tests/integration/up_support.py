"""Words for tests about whole installations: commands with their exit codes, projects written on the spot."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.acceptance.installation import REPOSITORY, cloudlet

WAIT_S_MAX = 60.0
"""Bound of every wait for something that takes a moment: a machine that runs other tests is slow."""
POLL_S = 0.02
_PR_CAPBSET_DROP = 24
_OVERRIDES = (1, 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
_libc = ctypes.CDLL(None)


def until(condition: Callable[[], Any], what: str) -> Any:
    """Ask until the answer is true, and return it. Fail after WAIT_S_MAX."""
    deadline = time.monotonic() + WAIT_S_MAX
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {WAIT_S_MAX:.0f} s until {what}"
        time.sleep(POLL_S)
    return answer


def command(data: Path, *arguments: str, powerless: bool = False) -> subprocess.CompletedProcess[str]:
    """Run ``cloudlet ARGUMENTS`` for the data directory. A `powerless` one is bound by permissions also when
    these tests run as root."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDLET_")}
    return subprocess.run(
        [cloudlet(), *arguments],
        cwd=REPOSITORY,
        env=kept | {"CLOUDLET_DATA": str(data)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_S_MAX,
        check=False,
        preexec_fn=_drop_power if powerless else None,
    )


def _drop_power() -> None:
    """Root obeys permissions, too, without these (in the child, before it becomes the command)."""
    if os.getuid() == 0:
        for capability in _OVERRIDES:
            _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def one_line(done: subprocess.CompletedProcess[str], exit_code: int, *words: str) -> str:
    """The command failed with this code and exactly one line of error, in which these words are. Lines of the
    platform's log, which are JSON objects, do not count."""
    assert done.returncode == exit_code, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("Error: ")
    assert all(word in lines[0] for word in words), lines[0]
    return lines[0]


def write_project(
    root: Path, functions: Mapping[str, str], files: Mapping[str, Mapping[str, str]] | None = None
) -> Path:
    """A WeChat project with these functions in JavaScript; `files` adds more files to some of them."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "project.config.json").write_text(json.dumps({"cloudfunctionRoot": "cloudfunctions/"}))
    for name, source in functions.items():
        directory = root / "cloudfunctions" / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "index.js").write_text(source)
        for file, text in (files or {}).get(name, {}).items():
            (directory / file).write_text(text)
    (root / "cloudfunctions").mkdir(exist_ok=True)
    return root


def answering(value: object, *, at_load: str = "") -> str:
    """A function that answers `value`; `at_load` runs when it is loaded."""
    return f"{at_load}\nexports.main = async () => ({json.dumps(value)})\n"
