"""The reference describes what is there: every command, setting and error code, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cloudlet.cli.main import cloudlet
from cloudlet.model import errors
from cloudlet.settings import Settings

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def rows(page: str) -> dict[str, list[str]]:
    """The tables of a page: first cell (without back quotes) → the other cells."""
    found: dict[str, list[str]] = {}
    for line in (REFERENCE / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| `"):
            found[cells[0].strip("`")] = [cell.strip("`") for cell in cells[1:]]
    return found


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Names of all commands that do something, e.g. ``fn list``."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            if not found.hidden:
                yield from commands(found, (*path, name))
    else:
        yield " ".join(path)


def error_classes() -> list[type[errors.PlatformError]]:
    """The classes of the tree; what other modules derive for themselves is theirs."""
    found = [each for each in vars(errors).values() if isinstance(each, type)]
    return [each for each in found if issubclass(each, errors.PlatformError)]


def test_every_command_is_described() -> None:
    text = (REFERENCE / "cli.md").read_text()
    missing = [name for name in commands(cloudlet) if f"cloudlet {name}" not in text]
    assert missing == []


def test_every_setting_is_described_with_its_default() -> None:
    documented = {name: cells[0] for name, cells in rows("settings.md").items() if name.isupper()}
    assert documented == {f"CLOUDLET_{name.upper()}": shown_default(name) for name in Settings.model_fields}


def shown_default(name: str) -> str:
    default = Settings.model_fields[name].get_default(call_default_factory=True)
    if default in (None, ()):
        return "empty"
    if isinstance(default, Path):
        return str(default).replace(str(Path.home()), "~")
    return str(default).lower() if isinstance(default, bool) else str(default) or "empty"


def test_every_error_code_is_described_with_whether_a_retry_can_help() -> None:
    documented = {code: cells[0] for code, cells in rows("errors.md").items()}
    assert documented == {each.code: "yes" if each.retriable else "no" for each in error_classes()}


@pytest.mark.parametrize("each", error_classes(), ids=str)
def test_every_error_is_in_the_tree_on_top_of_its_module(each: type[errors.PlatformError]) -> None:
    assert errors.__doc__ is not None
    assert re.search(rf"\b{each.__name__}\b", errors.__doc__)
