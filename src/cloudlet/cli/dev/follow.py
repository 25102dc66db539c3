"""Reads the logs of a running installation for the screen."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import msgspec

from cloudlet.model.ids import DEFAULT_ENVIRONMENT
from cloudlet.node.wire import LogRecord
from cloudlet.settings import Paths

from .screen import Screen
from .show import Places, Show
from .tail import FileTail, FunctionTails

PLATFORM = "_platform"
"""Folder of what the platform's own processes print."""

_record = msgspec.json.Decoder(LogRecord)
_event = msgspec.json.Decoder(dict[str, Any])


class Follow:
    """Shows what functions and the platform print from now on. One thread at a time."""

    def __init__(self, paths: Paths, folders: MutableMapping[str, str], screen: Screen) -> None:
        """`folders` of the project by function; it may change."""
        self._functions = FunctionTails(paths.logs)
        self._platform = [
            FileTail(paths.logs / PLATFORM / f"{name}.log", from_start=False)
            for name in ("envoy", "api", "control")
        ]
        self._screen = screen
        self._show = Show(Places(str(paths.code), folders))
        self._waiting: list[dict[str, Any]] = []

    def look(self) -> None:
        """Show what is new. Calls are shown one look later than they are found, so that the lines which
        belong to them come first."""
        events, self._waiting = self._waiting, self._events()
        for _, function, record in sorted(self._records(), key=lambda each: each[0]):
            if shown := self._show.function_line(function, record):
                self._screen.show(shown)
        for event in events:
            self.event(event)

    def event(self, event: dict[str, Any]) -> None:
        """Show one event of the platform, if it is for developers."""
        if shown := self._show.platform_event(event):
            self._screen.show(shown)

    def _records(self) -> list[tuple[float, str, dict[str, Any]]]:
        found = []
        for line in self._functions.lines():
            try:
                record = _record.decode(line.raw)
            except msgspec.DecodeError:
                continue  # a line that was cut when the machine stopped
            default = line.environment == DEFAULT_ENVIRONMENT
            name = line.function if default else f"{line.environment}/{line.function}"
            found.append((record.t, name, msgspec.to_builtins(record)))
        return found

    def _events(self) -> list[dict[str, Any]]:
        found = []
        for tail in self._platform:
            for raw in tail.lines():
                if raw.startswith(b"{"):
                    try:
                        found.append(_event.decode(raw))
                    except msgspec.DecodeError:
                        continue  # something else that begins with a brace
        return found
