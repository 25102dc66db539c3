"""What people and scripts see of the command line: output, exit codes, one-line errors."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from cloudlet.cli.exit_codes import ExitCode, exit_code_of
from cloudlet.cli.main import run
from cloudlet.cli.session import ago, printable, table
from cloudlet.model import errors
from cloudlet.node.wire import LogRecord
from cloudlet.settings import Paths
from tests.unit.cli.cli_rig import Cli, platform, run_directory

pytestmark = pytest.mark.anyio


def project(folder: Path, functions: Mapping[str, str]) -> str:
    (folder / "project").mkdir()
    (folder / "project/project.config.json").write_text('{"cloudfunctionRoot": "cloudfunctions/"}')
    for name, code in functions.items():
        (folder / "project/cloudfunctions" / name).mkdir(parents=True)
        (folder / "project/cloudfunctions" / name / "index.js").write_text(code)
    return str(folder / "project")


async def test_deploy_tells_what_happens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with platform(tmp_path, capsys) as cli:
        path = project(tmp_path, {"login": "db.collection('users')", "order": "2"})
        code, out, _ = await cli("deploy", path, "--create-collections")
        assert code == 0
        assert "Deploying 2 functions to default" in out
        assert "note  collections created: users" in out
        assert "✓ login: version 1 (" in out
        assert out.splitlines()[-1].startswith("2 deployed in ")
        code, out, _ = await cli("deploy", path, "--only", "order")
        assert (code, "✓ order: unchanged" in out, "login" in out) == (0, True, False)
        assert "\x1b" not in out


async def test_deploy_json_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with platform(tmp_path, capsys) as cli:
        cli.twins.broken.add("bad")
        path = project(tmp_path, {"bad": "1", "good": "db.collection('users')"})
        (tmp_path / "project/cloudfunctions/good/config.json").write_text('{"timeout": 7}')
        summary = await cli.json("deploy", path, code=1)
        assert (summary["env"], summary["deployed"], summary["failed"]) == ("default", 1, 1)
        found = {entry["function"]: entry for entry in summary["functions"]}
        assert found["bad"]["code"] == "function_load_failed"
        assert "at index.js:1" in found["bad"]["log"]
        assert found["good"]["number"] == 1
        assert "--create-collections" in summary["notices"][0]
        detail = await cli.json("fn", "detail", "good")
        assert (detail["timeout_s"], detail["version"]) == (7, found["good"]["digest"])


async def test_deploy_reports_a_failure_with_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with platform(tmp_path, capsys) as cli:
        path = project(tmp_path, {"f": "1", "g": "1"})
        await cli("deploy", path)
        (tmp_path / "project/cloudfunctions/f/index.js").write_text("2")
        (tmp_path / "project/cloudfunctions/g/config.json").write_text('{"timeout": "abc"}')
        cli.twins.broken.add("f")
        code, out, _ = await cli("deploy", path)
        assert code == ExitCode.FAILED
        assert "✗ f: the function cannot be loaded: Error: Cannot find module 'x'" in out
        assert "  |     at index.js:1" in out
        assert "goes on serving" in out
        assert "✗ g: cloudfunctions/g/config.json: timeout must be a number, not 'abc'" in out
        assert out.splitlines()[-1].startswith("2 failed in")


async def test_deploy_of_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with platform(tmp_path, capsys) as cli:
        path = project(tmp_path, {"f": "1"})
        code, _, err = await cli("deploy", path, "--only", "nope")
        assert (code, err) == (ExitCode.NOT_FOUND, "Error: the project has no function 'nope'; it has: f\n")
        code, _, err = await cli("deploy", path, "--env", "nope")
        assert code == ExitCode.NOT_FOUND
        assert "cloudlet env create nope" in err
        (tmp_path / "empty").mkdir()
        code, _, err = await cli("deploy", str(tmp_path / "empty"))
        assert code == ExitCode.REFUSED
        assert "no functions found" in err


async def test_invoke(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with platform(tmp_path, capsys) as cli:
        await cli("deploy", project(tmp_path, {"f": "1"}))
        code, out, _ = await cli("fn", "invoke", "f", "-d", '{"a": [1]}', "--openid", "user-a")
        assert (code, json.loads(out)) == (0, {"ok": True})
        assert json.loads(cli.twins.calls[-1].body) == {"a": [1]}
        assert (cli.twins.calls[-1].identity.openid, cli.twins.calls[-1].identity.admin) == ("user-a", False)
        (tmp_path / "event.json").write_text('"text"')
        answer = await cli.json("fn", "invoke", "f", "-d", f"@{tmp_path / 'event.json'}")
        assert answer["result"] == {"ok": True}
        assert cli.twins.calls[-1].identity.admin
        monkeypatch.setattr(sys, "stdin", io.StringIO("7"))
        await cli("fn", "invoke", "f", "-d", "-")
        assert [call.body for call in cli.twins.calls[1:]] == [b'"text"', b"7"]


async def test_invoke_shows_the_functions_own_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with platform(tmp_path, capsys) as cli:
        await cli("deploy", project(tmp_path, {"f": "1"}))
        text = json.dumps({"errorCode": 1, "errorMessage": "boom", "stackTrace": "Error: boom\n    at main"})
        cli.twins.answer = errors.FunctionFailed(text)
        code, out, err = await cli("fn", "invoke", "f")
        assert (code, out, err) == (ExitCode.FAILED, "", "Error: boom\nError: boom\n    at main\n")
        code, _, err = await cli("fn", "invoke", "f", "--json")
        assert json.loads(err)["error"]["code"] == "function_failed"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("fn", "invoke", "f", "-d", "{x"), 5, "the event is not valid JSON"),
        (("fn", "invoke", "f", "-d", "@/nope/event.json"), 4, "cannot read /nope/event.json"),
        (("fn", "invoke", "nope"), 4, "function 'nope' does not exist"),
        (("fn", "detail", "../x"), 5, "function name '../x' is not allowed"),
        (("fn", "list", "--env", "a/b"), 5, "environment name 'a/b' is not allowed"),
        (("env", "credentials", ".."), 5, "environment name '..' is not allowed"),
        (("fn", "delete", "f"), 2, "add --yes"),
        (("fn", "list", "--env", "nope"), 4, "environment 'nope' does not exist"),
        (("env", "create", "no good"), 5, "is not allowed"),
        (("env", "create", "default"), 5, "default"),
        (("env", "delete", "default", "--yes"), 5, "cannot be deleted"),
        (("env", "alias", "default", "default"), 5, "default"),
        (("token", "--openid", "12345"), 5, "digits only"),
        (("token",), 2, "Missing option '--openid'"),
        (("fn", "logs", "f", "--limit", "x"), 2, "'x' is not a valid integer"),
        (("fn", "logs", "nope"), 4, "function 'nope' does not exist and has no log"),
        (("nope",), 2, "No such command 'nope'"),
    ],
)
async def test_errors_are_one_line_with_an_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, message: str
) -> None:
    async with platform(tmp_path, capsys) as cli:
        ended, out, err = await cli(*words)
        assert (ended, out) == (code, "")
        assert message in err
        assert err.startswith("Error: ")
        assert err.count("\n") == 1
        ended, out, err = await cli(*words, "--json")
        assert (ended, out) == (code, "")
        assert message in json.loads(err)["error"]["message"]


@pytest.mark.parametrize("words", [(), ("fn",), ("env",)])
def test_a_group_without_its_command_shows_its_help(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert run([*words]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("Usage: cloudlet") and "Error" not in err


async def test_environments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with platform(tmp_path, capsys) as cli:
        assert (await cli("env", "create", "shop"))[1] == "environment shop created\n"
        assert (await cli("env", "alias", "prod-1a2b3c", "shop"))[1] == "prod-1a2b3c now means shop\n"
        found = {item["name"]: item["aliases"] for item in (await cli.json("env", "list"))["environments"]}
        assert found == {"default": [], "shop": ["prod-1a2b3c"]}
        assert "prod-1a2b3c" in (await cli("env", "list"))[1]
        credentials = await cli.json("env", "credentials", "prod-1a2b3c")
        assert list(credentials) == ["envId", "secretId", "secretKey", "serviceUrl"]
        assert credentials["envId"] == "shop"
        assert credentials["secretKey"] in (await cli("env", "credentials", "shop"))[1]
        assert (await cli("env", "delete", "shop", "--yes"))[1] == "environment shop deleted\n"


async def test_functions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with platform(tmp_path, capsys) as cli:
        assert "cloudlet deploy PATH" in (await cli("fn", "list"))[1]
        await cli("deploy", project(tmp_path, {"f": "1"}))
        assert [item["name"] for item in (await cli.json("fn", "list"))["functions"]] == ["f"]
        assert (await cli("fn", "list"))[1].splitlines()[1].startswith("f         node24   1 (")
        assert "handler index.main" in (await cli("fn", "detail", "f"))[1]
        assert (await cli("fn", "delete", "f", "--yes"))[1] == "function f deleted (1 versions)\n"
        assert (await cli.json("fn", "list"))["functions"] == []


async def test_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with platform(tmp_path, capsys) as cli:
        cli.twins.lines = [
            LogRecord(1_700_000_000.5, "i1", "info", "hello", "0123456789ab"),
            LogRecord(1_700_000_001.5, "i1", "error", "Error: 出错\n  at x", ""),
        ]
        _, out, _ = await cli("fn", "logs", "f")
        assert "01234567 info  hello" in out.splitlines()[0]
        assert "-        error Error: 出错" in out.splitlines()[1]
        _, out, _ = await cli("fn", "logs", "f", "--limit", "1", "--json")
        assert json.loads(out)["text"] == "Error: 出错\n  at x"


async def test_token_and_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with platform(tmp_path, capsys) as cli:
        answer = await cli.json("token", "--openid", "user-a")
        assert answer["access_token"].count(".") == 2
        assert answer["openid"] == "user-a"
        assert (await cli("token", "--openid", "user-a"))[1].count(".") == 2
        assert (await cli.json("status"))["url"] == "http://127.0.0.1:8787"
        out = (await cli("status"))[1]
        assert "no isolation" in out
        assert "No instance is running" in out


@pytest.mark.parametrize(
    "words",
    [("status",), ("fn", "list"), ("env", "list"), ("token", "--openid", "a"), ("fn", "invoke", "f")],
)
def test_not_running(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert run([*words, "--data", str(tmp_path)]) == ExitCode.NOT_RUNNING
    expected = (
        f"Error: cloudlet is not running for {tmp_path}: start it with 'cloudlet up --data {tmp_path}'\n"
    )
    assert capsys.readouterr().err == expected


def test_the_data_directory_may_come_from_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDLET_DATA", str(tmp_path))
    assert run(["status"]) == ExitCode.NOT_RUNNING
    assert str(tmp_path) in capsys.readouterr().err
    monkeypatch.setenv("CLOUDLET_PORT", "eighty")
    assert run(["status"]) == ExitCode.USAGE
    assert "settings are not valid: port" in capsys.readouterr().err


async def test_a_server_that_goes_away_in_the_middle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(tmp_path / "data", capsys)

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    paths = Paths(cli.data)
    with run_directory(paths):
        async with await asyncio.start_unix_server(hang_up, str(paths.admin_socket)):
            code, _, err = await cli("status")
    assert code == ExitCode.FAILED
    assert "did not answer" in err


def test_help_is_fast_because_it_imports_little() -> None:
    code = (
        "import sys; from cloudlet.cli.main import run; run(['--help']);"
        "heavy = {'pydantic', 'aiohttp', 'uvicorn', 'msgspec', 'cryptography', 'starlette', 'apsw', 'grpc'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_error_of_the_platform_has_an_exit_code() -> None:
    assert exit_code_of(errors.FunctionNotFound()) is ExitCode.NOT_FOUND
    assert exit_code_of(errors.BuildFailed()) is ExitCode.FAILED
    assert exit_code_of(errors.PortTaken()) is ExitCode.REFUSED
    assert exit_code_of(errors.RateLimited()) is ExitCode.REFUSED
    assert exit_code_of(errors.NodeUnavailable()) is ExitCode.UNAVAILABLE
    assert exit_code_of(errors.Internal()) is ExitCode.FAILED


def test_tables_align_wide_characters() -> None:
    rows = [{"a": "名字", "b": "x"}, {"a": "abc", "b": "y"}]
    assert table(rows, {"a": "A", "b": "B"}).splitlines() == ["A     B", "名字  x", "abc   y"]


def test_control_characters_of_a_function_do_not_reach_the_terminal() -> None:
    assert printable("plain\ttext\nnext") == "plain\ttext\nnext"
    assert printable("a\x1b]0;title\x07b\x1b[2Jc\rd\x9b") == "a\\x1b]0;title\\x07b\\x1b[2Jc\\rd\\x9b"
    assert printable("\x1b[31mred") == "\x1b[31mred\x1b[0m"


def test_times_for_people() -> None:
    assert [ago(0, now) for now in (-1, 5, 61, 7200, 200000)] == [
        "0 s ago",
        "5 s ago",
        "1 min ago",
        "2 h ago",
        "2 d ago",
    ]
