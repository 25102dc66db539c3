"""``cloudlet deploy``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .exit_codes import ExitCode
from .session import CommandFailed, Session, command_options, to_json

if TYPE_CHECKING:
    from cloudlet.functions.project import FunctionSource, Project
    from cloudlet.functions.wire import DeployEvent, FunctionDone, FunctionUpload

    from .client import AdminClient

LOG_LINES_MAX = 40
"""Lines of a build log that are printed; ``--json`` has all that were kept."""
IN_MEMORY_BYTES_MAX = 8 * 1024 * 1024

_STEPS = {
    "unpacking": "unpacking",
    "installing": "installing dependencies",
    "checking": "start check",
    "publishing": "publishing",
}


@click.command()
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--env", help="Environment or alias.  [default: the project's own, else the only one]")
@click.option("--only", multiple=True, metavar="FUNCTION", help="Deploy only this function; may be repeated.")
@click.option("--create-collections", is_flag=True, help="Create collections that the code uses.")
@command_options
def deploy(
    session: Session, path: Path, env: str | None, only: tuple[str, ...], create_collections: bool
) -> None:
    """Deploy the functions of the project at PATH, as it is.

    A WeChat project (project.config.json), an Alipay project (mini.project.json), a CloudBase project
    (cloudbaserc.json) or a folder with functions. Calls move to a new version after an instance of it
    has started; a function that cannot be built leaves the others and its former version alone.

    \b
    Examples:
      cloudlet deploy .
      cloudlet deploy examples/order-food --create-collections
      cloudlet deploy . --env shop --only login --only order
    """
    from cloudlet.functions.project import read_project

    project = read_project(path, os.environ)
    report = _Report(session)
    for warning in project.warnings:
        report.notice(warning)
    functions = _chosen(project, only)
    for broken in project.broken:
        if not only or broken.name in only:
            report.broken(broken.name, broken.error.code, broken.error.message)
    if functions:
        _send(session.client(), project, functions, env or "", create_collections, report)
    report.end()


def _send(
    client: AdminClient,
    project: Project,
    functions: list[FunctionSource],
    env: str,
    create_collections: bool,
    report: _Report,
) -> None:
    from cloudlet.functions.wire import DeployRequest, decode_event, encode_request

    # Asked first, so that nothing is packed for a server that is not there.
    client.get("/status")
    request = DeployRequest(
        functions=tuple(_upload(client, function) for function in functions),
        env=env,
        project_env=project.environment,
        environment_ids=project.names.environment_ids,
        collections=project.names.collections,
        create_collections=create_collections,
    )
    for line in client.deploy(encode_request(request)):
        report.event(decode_event(line))
    report.check_complete()


def _upload(client: AdminClient, function: FunctionSource) -> FunctionUpload:
    from cloudlet.functions.archive import pack
    from cloudlet.functions.wire import FunctionUpload

    settings = function.settings
    with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES_MAX) as file:
        pack(function.directory, file, ignore=settings.ignore, dependencies=not settings.install)
        size = file.tell()
        file.seek(0)
        upload = client.upload(file, size)
    return FunctionUpload(
        name=function.name,
        upload=upload,
        config=settings.config,
        install=settings.install,
        scripts=settings.scripts,
        triggers=settings.triggers,
        permissions=settings.permissions,
        notes=settings.notes,
    )


def _chosen(project: Project, only: tuple[str, ...]) -> list[FunctionSource]:
    known = {function.name: function for function in project.functions}
    broken = {function.name for function in project.broken}
    for name in only:
        if name not in known and name not in broken:
            names = ", ".join(sorted({*known, *broken})[:20])
            raise CommandFailed(
                f"the project has no function {name!r}; it has: {names}",
                ExitCode.NOT_FOUND,
                "function_not_found",
            )
    return [function for function in project.functions if not only or function.name in only]


class _Report:
    """Tells a person what happens while it happens, or a program all of it at the end."""

    def __init__(self, session: Session) -> None:
        self._json = session.as_json
        self._notices: list[str] = []
        self._functions: list[dict[str, Any]] = []
        self._env = ""
        self._seconds = 0.0
        self._complete = False

    def notice(self, text: str, function: str = "") -> None:
        shown = f"{function}: {text}" if function else text
        self._notices.append(shown)
        self._say(f"{click.style('note', fg='yellow')}  {shown}")

    def broken(self, name: str, code: str, message: str) -> None:
        """A function that was not even sent."""
        entry = {
            "function": name,
            "status": "failed",
            "seconds": 0.0,
            "code": code,
            "message": message,
            "log": "",
        }
        self._functions.append(entry)
        self._say(f"{_mark(False)} {name}: {message}")

    def event(self, event: DeployEvent) -> None:
        from cloudlet.functions import wire

        match event:
            case wire.Notice():
                self.notice(event.text, event.function)
            case wire.Started():
                self._env = event.env
                self._say(f"Deploying {len(event.functions)} functions to {event.env}")
            case wire.Progress():
                self._say(click.style(f"  {event.function}: {_STEPS[event.step]}", dim=True))
            case wire.FunctionDone():
                self._done(event)
            case wire.Aborted():
                raise CommandFailed(event.message, ExitCode.FAILED, event.code)
            case wire.Done():
                self._complete = True
                self._seconds = event.seconds

    def check_complete(self) -> None:
        """Raise when the server stopped before the end of the deploy."""
        if not self._complete:
            raise CommandFailed(
                "cloudlet stopped during the deploy: start it again and repeat the deploy",
                ExitCode.UNAVAILABLE,
                "unavailable",
            )

    def end(self) -> None:
        """Summary; exit code 1 when a function failed."""
        count = {
            status: sum(entry["status"] == status for entry in self._functions)
            for status in ("deployed", "unchanged", "failed")
        }
        if self._json:
            summary: Mapping[str, object] = {
                "env": self._env,
                "functions": self._functions,
                "notices": self._notices,
                **count,
                "seconds": round(self._seconds, 3),
            }
            click.echo(to_json(summary))
        else:
            parts = [f"{number} {status}" for status, number in count.items() if number]
            click.echo(f"{', '.join(parts)} in {self._seconds:.1f} s")
        if count["failed"]:
            raise click.exceptions.Exit(ExitCode.FAILED)

    def _done(self, event: FunctionDone) -> None:
        import msgspec

        entry = msgspec.to_builtins(event)
        del entry["event"]
        self._functions.append(entry)
        if event.status == "failed":
            self._say(f"{_mark(False)} {event.function}: {event.message}")
            self._say(_log_tail(event.log))
            kept = (
                f"version {event.serving[:8]} goes on serving" if event.serving else "it was never deployed"
            )
            self._say(f"  {kept}")
            return
        text = "unchanged" if event.status == "unchanged" else f"version {event.number} ({event.digest[:8]})"
        self._say(f"{_mark(True)} {event.function}: {text}, {event.seconds:.1f} s")

    def _say(self, text: str) -> None:
        if text and not self._json:
            click.echo(text)


def _mark(good: bool) -> str:
    return click.style("✓", fg="green") if good else click.style("✗", fg="red")


def _log_tail(log: str) -> str:
    lines = log.splitlines()
    cut = ["…"] if len(lines) > LOG_LINES_MAX else []
    return "\n".join(f"  | {line}" for line in (*cut, *lines[-LOG_LINES_MAX:]))
