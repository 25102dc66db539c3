"""The reference page and the commands say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cloudlet.cli.exit_codes import MEANING
from cloudlet.cli.main import COMMANDS, cloudlet

PAGE = (Path(__file__).resolve().parents[3] / "docs/reference/cli.md").read_text("utf-8")
SHARED = {"--data", "--json", "--help"}


def commands(group: click.Group, prefix: str = "cloudlet") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


ALL = dict(commands(cloudlet))


def section(title: str) -> str:
    """Text below the heading that starts with `title`."""
    match = re.search(
        rf"^## {re.escape(title)}( [A-Z ]+)?$\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    assert match, f"docs/reference/cli.md has no section {title!r}"
    return match[2]


def options(command: click.Command) -> set[str]:
    given = [each for each in command.params if isinstance(each, click.Option)]
    found = {name for each in given for name in (*each.opts, *each.secondary_opts)}
    return {name for name in found if name.startswith("--")}


@pytest.mark.parametrize("name", ALL)
def test_every_command_and_option_is_described(name: str) -> None:
    text = section(name)
    missing = {option for option in options(ALL[name]) - SHARED if f"`{option}`" not in text}
    assert missing == set()


@pytest.mark.parametrize("name", ALL)
def test_every_option_that_is_described_exists(name: str) -> None:
    described = set(re.findall(r"`(--[a-z-]+)`", section(name)))
    assert described <= options(ALL[name]) | SHARED


def test_every_section_is_a_command() -> None:
    titles = re.findall(r"^## (cloudlet [a-z ]+?)(?: [A-Z ]+)?$", PAGE, re.MULTILINE)
    assert sorted(titles) == sorted(ALL)


@pytest.mark.parametrize("name", ALL)
def test_every_command_takes_data_and_json_and_has_an_example(name: str) -> None:
    command = ALL[name]
    assert {"--data", "--json"} <= options(command)
    assert re.search(r"Examples?:", command.help or "")
    assert all(each.help for each in command.params if isinstance(each, click.Option))


def test_exit_codes() -> None:
    rows = {int(code): text for code, text in re.findall(r"^\| (\d+) \| (.+) \|$", PAGE, re.MULTILINE)}
    assert rows == {int(code): text for code, text in MEANING.items()}


def test_the_list_of_commands_has_their_own_words() -> None:
    for name, (_, _, text) in COMMANDS.items():
        command = cloudlet.get_command(click.Context(cloudlet), name)
        assert command is not None
        assert (command.help or "").startswith(" ".join(text.rstrip(".").split()[:4]))
