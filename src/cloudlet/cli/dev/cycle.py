"""Deploys what is saved, again and again."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

from cloudlet.functions.project import Project, read_project
from cloudlet.functions.wire import Aborted, DeployEvent, FunctionDone, Notice
from cloudlet.model.errors import FunctionLoadFailed, InvalidProject, PlatformError, error_class

from ..client import AdminClient
from ..deploy import Wishes, done_text, mark, send
from ..exit_codes import ExitCode
from ..session import CommandFailed
from .screen import Teller
from .watch import Fingerprint, Scan, Settling, Watched, fingerprints, saved_at

LOOK_S = 0.15
"""How often files are looked at. A change is deployed at the second look that finds it."""
LOG_S = 0.3
"""How long a line takes from a function to the screen, mostly."""
RETRY_S = 1.0
RETRY_S_MAX = 30.0
"""After the platform could not do its part; twice as long after each time."""
SCAN_SHARE_MAX = 0.1
"""Of our time, for looking: a large project is looked at less often."""


class Cycle:
    """Runs on a thread of its own until `stop` is set; `failure` is set when the first deploy was not
    possible at all."""

    def __init__(
        self,
        client: AdminClient,
        project: Project,
        env: str,
        data: Path,
        screen: Teller,
        stop: threading.Event,
    ) -> None:
        self._stop = stop
        self.folders: dict[str, str] = {}
        """Folder of each function, as a person would write it."""
        self.failure: PlatformError | CommandFailed | None = None
        self._client = client
        self._project = project
        self._env = env
        self._data = data
        self._screen = screen
        self._watched = Watched.of(project, data)
        self._tried: dict[str, Fingerprint] = {}
        self._told: set[str] = set()
        self._retry_at = 0.0
        self._retries = 0
        self._note_folders()

    def run(self) -> None:
        scan = self._watched.scan()
        settling = Settling(scan)
        try:
            self._report_broken()
            self._deploy(fingerprints(self._project, scan), first=True)
        except (PlatformError, CommandFailed) as exc:
            self.failure = exc
            return
        self._screen.say("watching", f"watching {self._project.root} for changes; stop with Ctrl-C")
        pause_s = LOOK_S
        while not self._stop.wait(pause_s):
            began = time.monotonic()
            scan = self._watched.scan()
            pause_s = max(LOOK_S, (time.monotonic() - began) / SCAN_SHARE_MAX)
            if settling.settled(scan):
                self._read_again()
                # Folders may have come; what is in them is new anyway.
                scan = self._watched.scan()
            elif not self._retry_at or time.monotonic() < self._retry_at:
                continue
            if not self._stop.is_set():
                self._try(scan)

    def _try(self, scan: Scan) -> None:
        """Deploy what changed; what could not be done for no fault of the project is tried again later."""
        self._retry_at = 0.0
        try:
            self._deploy(fingerprints(self._project, scan))
        except (PlatformError, CommandFailed, OSError) as exc:
            if not self._stop.is_set():
                self._error(str(exc))
            self._retry_later()
        if not self._retry_at:
            self._retries = 0

    def _retry_later(self) -> None:
        self._retry_at = time.monotonic() + min(RETRY_S * 2.0 ** min(self._retries, 10), RETRY_S_MAX)
        self._retries += 1

    def _read_again(self) -> None:
        """The project as it is now; one that cannot be read leaves everything as it was."""
        former = {function.name for function in self._project.functions}
        try:
            project = read_project(self._project.root, os.environ)
        except InvalidProject as exc:
            self._error(exc.message)
            return
        self._project = project
        self._watched = Watched.of(project, self._data)
        self._note_folders()
        self._report_broken()
        there = {each.name for each in project.functions} | {each.name for each in project.broken}
        for name in sorted(former - there):
            self._tried.pop(name, None)
            self._screen.say(
                "function_gone",
                f"{name} is gone from the project and goes on serving until 'cloudlet fn delete {name}'",
                function=name,
            )

    def _note_folders(self) -> None:
        here = Path.cwd()
        for function in self._project.functions:
            folder = function.directory
            self.folders[function.name] = str(
                folder.relative_to(here) if folder.is_relative_to(here) else folder
            )

    def _report_broken(self) -> None:
        """Each problem once, until it is another one."""
        now = {f"{mark(False)} {each.name}: {each.error.message}" for each in self._project.broken}
        for text in sorted(now - self._told):
            self._screen.say("function_broken", text)
        notes = {f"{click.style('note', fg='yellow')}  {text}" for text in self._project.warnings}
        for text in sorted(notes - self._told):
            self._screen.say("note", text)
        self._told = now | notes

    def _deploy(self, prints: dict[str, Fingerprint], *, first: bool = False) -> None:
        """Deploy the functions that are not what they were when they were last deployed."""
        names = [name for name, found in prints.items() if self._tried.get(name) != found]
        if not names:
            return
        functions = [function for function in self._project.functions if function.name in names]
        save = _Save(prints, first)
        for event in send(self._client, self._project, functions, Wishes(self._env)):
            if isinstance(event, FunctionDone):
                if event.code and error_class(event.code).retriable:
                    self._retry_later()
                else:
                    self._tried[event.function] = prints[event.function]
                if event.code == FunctionLoadFailed.code:
                    # The verdict is best read below the error, which comes through the log.
                    self._stop.wait(LOG_S)
            if isinstance(event, Aborted):
                raise CommandFailed(event.message, ExitCode.FAILED, event.code)
            if text := save.text(event):
                self._screen.say("deploy", text, **_fields(event))

    def _error(self, text: str) -> None:
        self._screen.say("error", f"{mark(False)} {text}")


@dataclass(frozen=True, slots=True)
class _Save:
    """Words for the events of one deploy."""

    prints: dict[str, Fingerprint]
    first: bool

    def text(self, event: DeployEvent) -> str:
        match event:
            case Notice():
                who = f"{event.function}: " if event.function else ""
                return f"{click.style('note', fg='yellow')}  {who}{event.text}"
            case FunctionDone(status="deployed"):
                return f"{done_text(event)}{self._since_save(event.function)}"
            case FunctionDone(status="unchanged"):
                return "" if not self.first else done_text(event)
            case FunctionDone(code=FunctionLoadFailed.code):
                # Its stack is in the log, which is on the screen.
                return done_text(msgspec.structs.replace(event, log=""))
            case FunctionDone():
                return done_text(event)
        return ""

    def _since_save(self, name: str) -> str:
        age = time.time() - saved_at(self.prints, [name])
        return "" if self.first or not 0 <= age < 60 else f", live {age:.1f} s after the save"


def _fields(event: DeployEvent) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(event)
    return {("kind" if name == "event" else name): value for name, value in fields.items()}
