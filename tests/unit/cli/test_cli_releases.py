"""Versions, rollbacks, dry runs, logs and completion, as people and scripts see them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cloudlet.cli.completion import completion_script
from cloudlet.cli.exit_codes import ExitCode
from cloudlet.cli.fn_logs import OVERLAP_S, Follower, since_time
from cloudlet.model.errors import InvalidParameter
from cloudlet.node.wire import LogRecord
from tests.unit.cli.cli_rig import Cli, platform

pytestmark = pytest.mark.anyio


async def versions(cli: Cli, folder: Path, *texts: str) -> str:
    """Deploy these texts as versions of ``f``; return the project."""
    function = folder / "project/functions/f"
    function.mkdir(parents=True, exist_ok=True)
    for text in texts:
        (function / "index.js").write_text(text)
        assert (await cli("deploy", str(folder / "project")))[0] == 0
    return str(folder / "project")


async def test_versions_and_rollback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with platform(tmp_path, capsys) as cli:
        await versions(cli, tmp_path, "1", "2", "3")
        table = (await cli("fn", "versions", "f"))[1].splitlines()
        assert [line.split()[0] for line in table] == ["VERSION", "→", "2", "1"]
        assert (await cli("fn", "rollback", "f"))[1].endswith(") again, not version 3\n")
        answer = await cli.json("fn", "rollback", "f", "--to", "1")
        assert (answer["former"]["number"], answer["now"]["number"]) == (2, 1)
        assert "f serves version 1 (" in (await cli("fn", "rollback", "f", "--to", "1"))[1]
        found = (await cli.json("fn", "versions", "f"))["versions"]
        assert [each["number"] for each in found if each["current"]] == [1]


async def test_a_rollback_that_fails_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with platform(tmp_path, capsys) as cli:
        await versions(cli, tmp_path, "1", "2")
        cli.twins.broken.add("f")
        code, out, err = await cli("fn", "rollback", "f")
        assert (code, out) == (ExitCode.FAILED, "")
        assert err.startswith("Error: the function cannot be loaded: Error: Cannot find module 'x'\n")
        code, _, err = await cli("fn", "rollback", "f", "--to", "0")
        assert code == ExitCode.USAGE
        assert [each["number"] for each in (await cli.json("fn", "versions", "f"))["versions"]] == [2, 1]


async def test_a_dry_run_for_people_and_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with platform(tmp_path, capsys) as cli:
        path = await versions(cli, tmp_path, "1")
        (tmp_path / "project/functions/f/index.js").write_text("2")
        (tmp_path / "project/functions/g").mkdir()
        (tmp_path / "project/functions/g/index.js").write_text("db.collection('users')")
        sequence = cli.records.sequence()
        code, out, _ = await cli("deploy", path, "--dry-run")
        assert code == 0
        assert "+ f: would replace version 1\n    ~ index.js\n" in out
        assert "+ g: would be created" in out
        assert "collections that do not exist: users" in out
        assert out.splitlines()[-1].startswith("2 would deploy in ")
        assert out.splitlines()[-1].endswith("; nothing was changed")
        summary = await cli.json("deploy", path, "--dry-run", "--only", "f")
        assert (summary["would_deploy"], summary["functions"][0]["action"]) == (1, "update")
        assert "deployed" not in summary
        assert cli.records.sequence() == sequence


async def test_logs_by_level_and_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with platform(tmp_path, capsys) as cli:
        cli.twins.lines = [
            LogRecord(1_700_000_000.0 + n, "i1", level, f"Line {n}")
            for n, level in enumerate(("info", "error", "warn"))
        ]
        assert "Line 0" not in (await cli("fn", "logs", "f", "--level", "warn"))[1]
        assert (await cli("fn", "logs", "f", "--grep", "LINE 2"))[1].count("\n") == 1


def test_times_that_logs_may_be_asked_from() -> None:
    assert [since_time(text, 100_000.0) for text in ("90s", "15m", "2h", "1d", "9d")] == [
        99_910.0,
        99_100.0,
        92_800.0,
        13_600.0,
        0.0,
    ]
    assert since_time("2026-11-20T16:00+00:00", 0) == 1_795_190_400.0
    for text in ("soon", "5", "5w", "m", "99999999999d", "2026-13-01"):
        with pytest.raises(InvalidParameter):
            since_time(text, 0)


def record(t: float, text: str = "same") -> dict[str, Any]:
    return {"t": t, "text": text}


class GrowingLog:
    """A log, and what the server answers about it."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def since(self, t: float) -> list[dict[str, Any]]:
        return [each for each in self.records if each["t"] > t]


def test_following_gives_every_record_once_also_equal_ones_and_late_ones() -> None:
    log = GrowingLog()
    log.records = [record(10.0), record(10.0)]
    follower = Follower(list(log.records))
    followed = []
    batches = [
        [record(10.0)],
        [],
        [record(10.5), record(10.5)],
        # The clock was set back a little.
        [record(10.5 - OVERLAP_S / 2)],
        [record(30.0)],
        [record(30.0), record(31.0, "last")],
    ]
    for batch in batches:
        log.records += batch
        followed += follower.new(log.since(follower.since(9.0)), 9.0)
    assert followed == [each for batch in batches for each in batch]


def test_what_was_before_the_first_record_is_never_shown() -> None:
    follower = Follower([record(10.0)])
    assert follower.since(10.0) == 10.0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str], shell: str) -> None:
    async with platform(tmp_path, capsys) as cli:
        code, out, _ = await cli("completion", shell)
        assert (code, out) == (0, completion_script(shell) + "\n")
        assert "_CLOUDLET_COMPLETE" in out
        assert json.loads((await cli("completion", shell, "--json"))[1])["shell"] == shell
        if program := shutil.which(shell):
            done = subprocess.run(  # noqa: ASYNC221 - a syntax check, at once
                [program, "-n"], input=out, capture_output=True, text=True, check=False
            )
            assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("cloudlet dep", ["deploy"]),
        ("cloudlet fn ro", ["rollback"]),
        ("cloudlet deploy --dr", ["--dry-run"]),
        ("cloudlet fn versions ", ["first", "second"]),
        ("cloudlet fn logs fi", ["first"]),
        ("cloudlet fn list --env de", ["default"]),
    ],
)
async def test_words_are_completed(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    expected: list[str],
) -> None:
    async with platform(tmp_path, capsys) as cli:
        for name in ("first", "second"):
            (tmp_path / "project" / name).mkdir(parents=True)
            (tmp_path / "project" / name / "index.js").write_text("1")
        await cli("deploy", str(tmp_path / "project"))
        for name, value in (
            ("_CLOUDLET_COMPLETE", "bash_complete"),
            ("COMP_WORDS", words),
            ("COMP_CWORD", str(len(words.split(" ")) - 1)),
            ("CLOUDLET_DATA", str(cli.data)),
        ):
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        found = await _completed(capsys)
        monkeypatch.delenv("_CLOUDLET_COMPLETE")
        assert found == expected


async def _completed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    import anyio.to_thread

    from cloudlet.cli.main import cloudlet

    def ask() -> None:
        with pytest.raises(SystemExit):
            cloudlet.main([], prog_name="cloudlet", standalone_mode=False)

    await anyio.to_thread.run_sync(ask)
    return [line.split(",", 1)[1] for line in capsys.readouterr().out.splitlines()]
