"""``cloudlet deploy``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .exit_codes import ExitCode
from .session import CommandFailed, Session, command_options, printable, to_json

if TYPE_CHECKING:
    from cloudlet.functions.project import FunctionSource, Project
    from cloudlet.functions.wire import DeployEvent, FunctionDone, FunctionPlanned, FunctionUpload

    from .client import AdminClient

LOG_LINES_MAX = 40
"""Lines of a build log that are printed; ``--json`` has all that were kept."""
IN_MEMORY_BYTES_MAX = 8 * 1024 * 1024

_PLANNED_STATUS = {
    "create": "would_deploy",
    "update": "would_deploy",
    "reuse": "would_deploy",
    "unchanged": "unchanged",
    "failed": "failed",
}
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
@click.option("--dry-run", is_flag=True, help="Tell what would change, and change nothing.")
@command_options
def deploy(
    session: Session,
    path: Path,
    env: str | None,
    only: tuple[str, ...],
    create_collections: bool,
    dry_run: bool,
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
      cloudlet deploy . --dry-run
    """
    from cloudlet.functions.project import read_project

    project = read_project(path, os.environ)
    report = Report(session)
    for warning in project.warnings:
        report.notice(warning)
    functions = _chosen(project, only)
    for broken in project.broken:
        if not only or broken.name in only:
            report.broken(broken.name, broken.error.code, broken.error.message)
    if functions:
        client = session.client()
        # Asked first, so that nothing is packed for a server that is not there.
        client.get("/status")
        wishes = Wishes(env or "", create_collections, project.names.collections, dry_run)
        for event in send(client, project, functions, wishes):
            report.event(event)
        report.check_complete()
    report.end(dry_run)


@dataclass(frozen=True, slots=True)
class Wishes:
    """How to deploy."""

    env: str = ""
    create_collections: bool = False
    collections: tuple[str, ...] = ()
    """Those that the code uses; they are created, or named in a notice."""
    dry_run: bool = False


def send(
    client: AdminClient, project: Project, functions: Sequence[FunctionSource], wishes: Wishes
) -> Iterator[DeployEvent]:
    """Upload `functions` of `project` and deploy them; what happens is yielded while it happens."""
    from cloudlet.functions.wire import DeployRequest, decode_event, encode_request

    request = DeployRequest(
        functions=tuple(_upload(client, function) for function in functions),
        env=wishes.env,
        project_env=project.environment,
        environment_ids=project.names.environment_ids,
        collections=wishes.collections,
        create_collections=wishes.create_collections,
        database=dict(project.database),
        dry_run=wishes.dry_run,
    )
    for line in client.deploy(encode_request(request)):
        yield decode_event(line)


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


class Report:
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
        self._say(f"{mark(False)} {name}: {message}")

    def event(self, event: DeployEvent) -> None:
        """Raise CommandFailed when the deploy as a whole failed."""
        from cloudlet.functions import wire

        match event:
            case wire.Notice():
                self.notice(event.text, event.function)
            case wire.Started():
                self._env = event.env
                count = len(event.functions)
                self._say(f"Deploying {count} function{'s' * (count != 1)} to {event.env}")
            case wire.Progress():
                self._say(click.style(f"  {event.function}: {_STEPS[event.step]}", dim=True))
            case wire.FunctionDone():
                self._add(event, event.status)
                self._say(done_text(event))
            case wire.FunctionPlanned():
                self._add(event, _PLANNED_STATUS[event.action])
                self._say(planned_text(event))
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

    def end(self, dry_run: bool = False) -> None:
        """Summary; exit code 1 when a function failed, or would fail."""
        statuses = ("would_deploy" if dry_run else "deployed", "unchanged", "failed")
        count = {status: sum(entry["status"] == status for entry in self._functions) for status in statuses}
        if self._json:
            summary = {
                "env": self._env,
                "functions": self._functions,
                "notices": self._notices,
                **count,
                "seconds": round(self._seconds, 3),
            }
            click.echo(to_json(summary))
        else:
            parts = [f"{number} {status.replace('_', ' ')}" for status, number in count.items() if number]
            nothing = "; nothing was changed" if dry_run else ""
            click.echo(f"{', '.join(parts)} in {self._seconds:.1f} s{nothing}")
        if count["failed"]:
            raise click.exceptions.Exit(ExitCode.FAILED)

    def _add(self, event: FunctionDone | FunctionPlanned, status: str) -> None:
        import msgspec

        entry = msgspec.to_builtins(event)
        del entry["event"]
        self._functions.append({**entry, "status": status})

    def _say(self, text: str) -> None:
        if text and not self._json:
            click.echo(text)


def done_text(event: FunctionDone) -> str:
    """How the deploy of one function ended, for people."""
    name = event.function
    if event.status == "failed":
        kept = f"version {event.serving[:8]} goes on serving" if event.serving else "it was never deployed"
        return "\n".join(
            filter(None, [f"{mark(False)} {name}: {event.message}", _log_tail(event.log), f"  {kept}"])
        )
    text = "unchanged" if event.status == "unchanged" else f"version {event.number} ({event.digest[:8]})"
    return f"{mark(True)} {name}: {text}, {event.seconds:.1f} s"


def planned_text(event: FunctionPlanned) -> str:
    """What a deploy would do with one function, for people."""
    what = {
        "create": "would be created",
        "update": f"would replace version {event.serving}",
        "reuse": f"version {event.number} would be served again",
        "unchanged": f"unchanged, version {event.number}",
        "failed": event.message,
    }[event.action]
    sign = {"unchanged": " ", "failed": mark(False)}.get(event.action, click.style("+", fg="green"))
    return "\n".join([f"{sign} {event.function}: {what}", *(f"    {change}" for change in event.changes)])


def mark(good: bool) -> str:
    return click.style("✓", fg="green") if good else click.style("✗", fg="red")


def _log_tail(log: str) -> str:
    lines = printable(log).splitlines()
    cut = ["…"] if len(lines) > LOG_LINES_MAX else []
    return "\n".join(f"  | {line}" for line in (*cut, *lines[-LOG_LINES_MAX:]))
