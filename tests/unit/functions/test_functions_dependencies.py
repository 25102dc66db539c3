"""What decides about dependencies, without running an installer."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudlet.functions.npm import Npm
from cloudlet.functions.pip import Pip
from cloudlet.functions.process import Command, CommandResult
from cloudlet.functions.toolchain import Toolchain
from cloudlet.model.errors import BuildFailed, InvalidProject
from cloudlet.model.function import Runtime

TOOLS = Toolchain(Path("node"), Path("npm"), Path("python"), {"PATH": "/bin"}, "linux-x", "3.11")


async def never(command: Command) -> CommandResult:
    raise AssertionError(command)


def npm_key(folder: Path, runtime: Runtime = Runtime.NODE24, scripts: bool = False) -> str | None:
    plan = Npm(TOOLS, folder, never).plan(folder, runtime, scripts)
    return plan.key if plan else None


def pip_key(folder: Path, scripts: bool = False) -> str | None:
    plan = Pip(TOOLS, folder, never).plan(folder, Runtime.PYTHON3, scripts)
    return plan.key if plan else None


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("_json", ".json").replace("_txt", ".txt").replace("_", "-")).write_text(text)
    return folder


def test_the_npm_key_depends_on_what_decides_and_on_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, package_json='{"name": "a", "version": "1", "dependencies": {"x": "1"}}', other="1")
    key = npm_key(tmp_path)
    write(tmp_path, package_json='{"name": "b", "scripts": {"t": ""}, "dependencies": {"x": "1"}}', other="2")
    assert npm_key(tmp_path) == key
    different = {key, npm_key(tmp_path, Runtime.NODE20), npm_key(tmp_path, scripts=True)}
    write(tmp_path, package_lock_json="{}")
    different.add(npm_key(tmp_path))
    write(tmp_path, package_json='{"dependencies": {"x": "2"}}')
    different.add(npm_key(tmp_path))
    assert len(different) == 5


@pytest.mark.parametrize("text", ["{}", '{"dependencies": {}}', '{"devDependencies": {"x": "1"}}'])
def test_no_dependencies_no_npm(tmp_path: Path, text: str) -> None:
    assert npm_key(write(tmp_path, package_json=text)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n"a" 1}', "package.json line 2: not valid JSON"),
        ("[]", "must hold a JSON object"),
        ('{"dependencies": ["x"]}', "dependencies must be an object"),
    ],
)
def test_package_json_that_is_not_valid(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidProject, match=message):
        npm_key(write(tmp_path, package_json=text))


@pytest.mark.parametrize(
    "spec", ["file:../shared", "../shared", "/etc", "link:../x", "~/x", "file:lib/../../x"]
)
def test_local_packages_outside_the_folder(tmp_path: Path, spec: str) -> None:
    with pytest.raises(BuildFailed, match="outside the function's folder"):
        npm_key(write(tmp_path, package_json=f'{{"dependencies": {{"x": "{spec}"}}}}'))


def test_local_packages_make_the_whole_folder_count(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    write(tmp_path, package_json='{"dependencies": {"x": "file:./lib"}}')
    (tmp_path / "lib/index.js").write_text("1")
    key = npm_key(tmp_path)
    (tmp_path / "lib/index.js").write_text("2")
    assert npm_key(tmp_path) != key
    with pytest.raises(BuildFailed, match="the function's folder has no gone"):
        npm_key(write(tmp_path, package_json='{"dependencies": {"x": "file:gone"}}'))


def test_the_pip_key_follows_included_files(tmp_path: Path) -> None:
    write(tmp_path, requirements_txt="-r base.txt\nidna\n", base_txt="six\n")
    key = pip_key(tmp_path)
    write(tmp_path, base_txt="six==1.16\n")
    assert pip_key(tmp_path) != key


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "--extra-index-url https://example.org\n"])
def test_no_requirements_no_pip(tmp_path: Path, text: str) -> None:
    assert pip_key(write(tmp_path, requirements_txt=text)) is None


@pytest.mark.parametrize(
    "line",
    [
        "--no-binary :all:",
        "-e .",
        "--editable=lib",
        "./lib",
        "/opt/lib",
        "pkg @ file:///opt/pkg",
        "git+https://example.org/x.git",
        "x @ git+ssh://example.org/x",
        "https://example.org/x-1.0.tar.gz",
        "x @ https://example.org/archive/main",
    ],
)
def test_requirements_that_would_run_code_need_a_word(tmp_path: Path, line: str) -> None:
    write(tmp_path, requirements_txt=f"idna\n{line}  # why not\n")
    with pytest.raises(BuildFailed, match='"scripts": true'):
        pip_key(tmp_path)
    assert pip_key(tmp_path, scripts=True)


@pytest.mark.parametrize(
    "line",
    [
        "idna==3.7",
        "a[b]>=1; python_version > '3'",
        "./x-1.0-py3-none-any.whl",
        "x @ https://e.org/x-1-py3.whl",
    ],
)
def test_requirements_that_only_unpack(tmp_path: Path, line: str) -> None:
    assert pip_key(write(tmp_path, requirements_txt=line))


def test_includes_from_outside_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidProject, match="leads outside"):
        pip_key(write(tmp_path, requirements_txt="-r ../../secret.txt"))
