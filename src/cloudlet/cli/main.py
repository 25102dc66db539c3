"""``cloudlet``: finds the command, runs it, turns every error into one line and an exit code."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from cloudlet import __version__

# Loaded when used: a command costs only what it needs, and help costs nothing.
COMMANDS = {
    "dev": ("cloudlet.cli.dev.command", "dev", "Run a project while you write it."),
    "up": ("cloudlet.cli.up", "up", "Run cloudlet until it is stopped."),
    "deploy": ("cloudlet.cli.deploy", "deploy", "Deploy the functions of a project."),
    "fn": ("cloudlet.cli.fn", "fn", "See and call functions, read their logs."),
    "db": ("cloudlet.cli.db", "db", "Manage documents: collections, indexes, import, export, backup."),
    "env": ("cloudlet.cli.env", "env", "Manage environments."),
    "token": ("cloudlet.cli.token", "token", "Get an access token of a user."),
    "status": ("cloudlet.cli.status", "status", "Show where cloudlet listens and what runs."),
    "metrics": ("cloudlet.cli.metrics", "metrics", "Print the metrics of all processes."),
    "doctor": ("cloudlet.cli.doctor", "doctor", "Look for what is wrong with this machine."),
    "completion": (
        "cloudlet.cli.completion",
        "completion",
        "Print a script that lets a shell complete words.",
    ),
}


class LazyGroup(click.Group):
    """Commands by name, imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.{name} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="cloudlet")
def cloudlet() -> None:
    """The open, self-hosted cloud for mini programs.

    \b
    Examples:
      cloudlet dev examples/order-food
      cloudlet up
      cloudlet deploy examples/order-food --create-collections
      cloudlet fn invoke login -d '{"a": 1}' --openid user-a

    Every command takes --data DIR (or CLOUDLET_DATA) and --json.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(words))


def run(words: list[str]) -> int:
    """Run the command line `words`; return the exit code. Errors are one line on standard error."""
    from cloudlet.model.errors import PlatformError

    from .exit_codes import ExitCode, exit_code_of
    from .session import CommandFailed

    as_json = "--json" in words
    try:
        result = cloudlet.main(words, prog_name="cloudlet", standalone_mode=False)
        return result if isinstance(result, int) else ExitCode.OK
    except PlatformError as exc:
        return _fail(exc.message, exit_code_of(exc), as_json, exc.code)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", ExitCode.INTERRUPTED, as_json, "interrupted")
    except click.exceptions.NoArgsIsHelpError as exc:
        # A group without its command: the help is the answer, not an error with help in it.
        click.echo(exc.format_message(), err=True)
        return ExitCode.USAGE
    except click.UsageError as exc:
        path = exc.ctx.command_path if exc.ctx else "cloudlet"
        hint = f"see '{path} --help'"
        return _fail(f"{exc.format_message().rstrip('.')}: {hint}", ExitCode.USAGE, as_json, "usage")
    except CommandFailed as exc:
        return _fail(exc.format_message(), exc.status, as_json, exc.code)
    except click.ClickException as exc:
        return _fail(exc.format_message(), ExitCode.FAILED, as_json, "failed")
    except BrokenPipeError:
        # The reader has seen enough (``| head``); nothing more can be written.
        sys.stderr.close()
        return ExitCode.OK


def _fail(message: str, exit_code: int, as_json: bool, code: str) -> int:
    if as_json:
        click.echo(json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False), err=True)
    else:
        from .session import printable

        first, _, rest = printable(message).partition("\n")
        click.echo(f"{click.style('Error', fg='red')}: {first}", err=True)
        if rest:
            click.echo(rest, err=True)
    return int(exit_code)


if __name__ == "__main__":
    main()
