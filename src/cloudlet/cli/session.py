"""What every command shares: the data directory, the form of the output, the way to the server."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .exit_codes import ExitCode

_CONTROL = re.compile(r"\x1b\[[0-9;]*m|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Every control character but tab and line feed; a colour as a whole."""

if TYPE_CHECKING:
    from cloudlet.settings import Settings

    from .client import AdminClient


class CommandFailed(click.ClickException):
    """A command that ends with one line and its own exit code."""

    def __init__(self, message: str, exit_code: ExitCode, code: str) -> None:
        super().__init__(message)
        self.status = exit_code
        self.code = code


@dataclass(frozen=True, slots=True)
class Session:
    """One run of one command."""

    data: Path | None
    """As given; None: what the settings say."""
    as_json: bool

    def settings(self, **given: object) -> Settings:
        """Settings with what the command line gave. Raise CommandFailed for values that are not valid."""
        from pydantic import ValidationError

        from cloudlet.settings import Settings

        values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if self.data is not None:
            values["data"] = self.data.expanduser().absolute()
        try:
            # Fields that are not given are read from the process environment by the class itself.
            return Settings(**values)
        except ValidationError as exc:
            problems = "; ".join(
                f"{'_'.join(map(str, error['loc']))}: {error['msg']}"
                for error in exc.errors(include_url=False)
            )
            raise CommandFailed(
                f"settings are not valid: {problems} (options, or CLOUDLET_… variables)",
                ExitCode.USAGE,
                "usage",
            ) from exc

    def client(self, timeout_s: float | None = None) -> AdminClient:
        """The way to the running installation; `timeout_s` bounds the wait for what is read."""
        from cloudlet.settings import Paths

        from .client import TIMEOUT_S, AdminClient

        data = self.settings().data.expanduser()
        start = f"cloudlet up --data {data}" if self.data else "cloudlet up"
        hint = f"cloudlet is not running for {data}: start it with '{start}'"
        return AdminClient(Paths(data).admin_socket, hint, timeout_s or TIMEOUT_S)

    def show(self, value: object, text: Callable[[], str]) -> None:
        """Print `value` as JSON when asked for, else the text."""
        click.echo(to_json(value) if self.as_json else text())


def to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def command_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--data`` and ``--json``; it receives them as a Session."""

    @click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="CLOUDLET_DATA",
        show_envvar=True,
        help="Data directory of the installation.  [default: ~/.cloudlet]",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
    @functools.wraps(function)
    def wrapped(data: Path | None, as_json: bool, *args: Any, **kwargs: Any) -> None:
        function(Session(data, as_json), *args, **kwargs)

    return wrapped


def table(rows: Sequence[Mapping[str, str]], columns: Mapping[str, str]) -> str:
    """Aligned columns: `columns` maps keys of the rows to headings."""
    widths = {
        key: max([_width(heading), *(_width(row[key]) for row in rows)]) for key, heading in columns.items()
    }
    lines = [columns, *rows]
    return "\n".join(
        "  ".join(line[key] + " " * (widths[key] - _width(line[key])) for key in columns).rstrip()
        for line in lines
    )


def confirm(question: str, yes: bool) -> None:
    """Ask on a terminal; without one ``--yes`` is needed. Raise Abort or UsageError."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("add --yes: there is no terminal to ask on")
    click.confirm(question, abort=True, err=True)


def isolation(rung: str | None) -> str:
    """How instances are isolated, for people."""
    if rung == "process":
        return "process: no isolation, run only code you trust"
    return rung or "unknown: the node does not answer"


def printable(text: str) -> str:
    """Text that a function or an installer wrote, for a terminal: colours stay, other control characters are
    shown instead of obeyed (they could rewrite what stands above, or the title of the window)."""
    shown = _CONTROL.sub(lambda found: found[0] if found[0].endswith("m") else repr(found[0])[1:-1], text)
    return f"{shown}\x1b[0m" if "\x1b" in shown else shown


def ago(then: float, now: float) -> str:
    """A time for people: ``3 min ago``."""
    seconds = max(0.0, now - then)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds)} s ago"


def _width(text: str) -> int:
    """Columns on a terminal: East Asian characters take two."""
    import unicodedata

    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
