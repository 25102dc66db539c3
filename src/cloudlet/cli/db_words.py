"""What the commands of ``cloudlet db`` share: names, JSON that is given, sizes and progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from cloudlet.model.errors import InvalidParameter, error_class
from cloudlet.model.ids import check_collection_name

from .client import JsonObject, environment_path
from .exit_codes import ExitCode
from .names import completed_collections
from .session import CommandFailed

collection_argument: Callable[..., Any] = click.argument("collection", shell_complete=completed_collections)


def collection_path(environment: str, collection: str, *parts: str) -> str:
    """Path of a collection, or of something in it. Raise InvalidName."""
    return environment_path(environment, "collections", check_collection_name(collection), *parts)


def json_given(given: str, name: str) -> Any:
    """JSON from the command line: itself, ``@file`` or ``-``. Raise InvalidParameter or CommandFailed."""
    text = text_given(given)
    try:
        return json.loads(text)
    except ValueError as exc:
        raise InvalidParameter(
            f"{name} is not valid JSON ({exc}): write it in single quotes, or @FILE"
        ) from exc


def text_given(given: str) -> str:
    """Text from the command line: itself, ``@file`` or ``-``. Raise CommandFailed."""
    if given == "-":
        return sys.stdin.read()
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise CommandFailed(f"cannot read {given[1:]}: {exc}", ExitCode.NOT_FOUND, "not_found") from exc


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def passphrase_given(file: str | None, ask: bool, *, twice: bool = False) -> str | None:
    """The passphrase from a file (``-``: standard input) or from a prompt, never from the command line."""
    if file is not None and ask:
        raise click.UsageError("give --passphrase-file or --ask-passphrase, not both")
    if ask:
        if not sys.stdin.isatty():
            raise click.UsageError("there is no terminal to ask on: use --passphrase-file")
        return str(click.prompt("Passphrase", hide_input=True, err=True, confirmation_prompt=twice))
    if file is None:
        return None
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise CommandFailed(f"cannot read {file}: {exc}", ExitCode.NOT_FOUND, "not_found") from exc
    return text.removesuffix("\n").removesuffix("\r")


class Progress:
    """One line on a terminal that is written over; nothing elsewhere. Results are not its affair."""

    def __init__(self, silent: bool) -> None:
        self._on = not silent and sys.stderr.isatty()
        self._width = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.say("")

    def say(self, text: str) -> None:
        """Show this in place of what was shown."""
        if self._on:
            click.echo(f"\r{text:<{self._width}}\r{text}", err=True, nl=False)
            self._width = len(text)


def outcome(lines: Iterator[JsonObject], progress: Progress, text: Callable[[JsonObject], str]) -> JsonObject:
    """Follow something long to its end; what came of it. Raise the error that ended it."""
    for line in lines:
        kind = line.pop("event", "")
        if kind == "progress":
            progress.say(text(line))
        elif kind == "error":
            raise error_class(str(line.get("code", "")))(str(line.get("message", "")))
        elif kind == "done":
            return line
    raise CommandFailed(
        "cloudlet stopped before it was done: start it again and repeat the command",
        ExitCode.UNAVAILABLE,
        "unavailable",
    )
