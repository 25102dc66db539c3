"""Where everything that ``cloudlet dev`` has to say comes together: two threads print whole lines."""

from __future__ import annotations

import json
import threading
from typing import Protocol

import click

from .show import Shown


class Teller(Protocol):
    """Takes what ``cloudlet dev`` has to say."""

    def say(self, event: str, text: str, **fields: object) -> None: ...


class Screen:
    """Text for people, or one JSON object a line."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self._lock = threading.Lock()

    def say(self, event: str, text: str, **fields: object) -> None:
        """Something that ``cloudlet dev`` itself says."""
        said = fields or {"text": click.unstyle(text)}
        self.show(Shown(text, {"event": event, **said}))

    def show(self, shown: Shown) -> None:
        line = json.dumps(dict(shown.event), ensure_ascii=False) if self._json else shown.text
        with self._lock:
            click.echo(line)
