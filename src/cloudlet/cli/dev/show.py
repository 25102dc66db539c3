"""From what the platform logs to what a developer reads. Pure: events in, lines out.

Events come from three places: lines of functions (``node/wire.LogRecord``), calls as the edge and api tell
them (``gateway/envoy/access_log.py``, ``serve/dev.py``), and what else api and control log.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict, deque
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from cloudlet.dialects.errors import edge_replies, wire_of
from cloudlet.functions.failures import split_failure
from cloudlet.gateway.envoy.access_log import EVENT as EDGE_CALL
from cloudlet.model.errors import FunctionFailed, FunctionTimeout, InvalidName, error_class
from cloudlet.model.ids import check_function_name
from cloudlet.serve.dev import CALL, COLLECTION_CREATED, LIST_EMPTY

from ..deploy import mark

ERRORS_KEPT = 500
ERROR_CHARS_MAX = 64 * 1024
LINES_KEPT = 64
LINE_CHARS_KEPT = 200
INDENT = " " * 15
_FUNCTIONS = "/v1/functions/"
_COLOURS = ("cyan", "magenta", "blue", "green", "bright_cyan", "bright_magenta")
_LEVELS = {"error": "red", "warn": "yellow", "debug": "bright_black"}
_STAGES = (("queue", "queue"), ("schedule", "schedule"), ("sandbox", "cell"), ("load", "load"))
_TIMING = re.compile(r"([A-Za-z_-]+);(?:[^,]*;)?dur=([0-9.]+)")

Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Shown:
    """One thing to show: for people, and for programs."""

    text: str
    event: Event


@dataclass(frozen=True, slots=True)
class Places:
    """Where code was written, instead of where a version of it is kept."""

    code: str
    """Folder with the code of all versions."""
    functions: MutableMapping[str, str]
    """Folder in the project, by function."""

    def own(self, text: str) -> str:
        """`text` with the paths of the project."""
        kept = re.compile(rf"{re.escape(self.code)}/[^/\s]+/([^/\s]+)/[0-9a-f]{{16}}(?=/)")
        return kept.sub(lambda match: self.functions.get(match[1], match[0]), text)


class Show:
    """Turns events into lines, and remembers which calls failed with what."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._errors: OrderedDict[str, str] = OrderedDict()
        self._printed: OrderedDict[str, deque[str]] = OrderedDict()

    def function_line(self, function: str, record: Event) -> Shown | None:
        """A line that a function printed; None for what was shown before. `record`: t, instance, level, text,
        request_id."""
        text, level = str(record["text"]), str(record["level"])
        request_id = str(record.get("request_id", ""))
        if level == "error" and request_id:
            self._remember(request_id, text)
        if self._repeats(str(record["instance"]), text):
            return None
        first, *rest = self._places.own(text.rstrip()).split("\n")
        head = f"{_clock(float(record['t']))}   {_name(function)} {_coloured(first, level)}"
        lines = [head, *(f"{INDENT}{_coloured(line, level)}" for line in rest)]
        return Shown("\n".join(lines), {**record, "event": "log", "function": function})

    def _remember(self, request_id: str, text: str) -> None:
        """An error is logged line by line, and may be the last of several."""
        known = self._errors.setdefault(request_id, "")
        self._errors[request_id] = f"{known}\n{text}"[-ERROR_CHARS_MAX:].lstrip("\n")
        if len(self._errors) > ERRORS_KEPT:
            self._errors.popitem(last=False)

    def _repeats(self, instance: str, text: str) -> bool:
        """Whether the node repeats as one record what a function that could not be loaded had printed."""
        printed = self._printed.setdefault(instance, deque(maxlen=LINES_KEPT))
        lines = [line[:LINE_CHARS_KEPT] for line in text.splitlines() if line.strip()]
        repeated = len(lines) > 1 and list(printed)[-len(lines) :] == lines
        printed.extend(lines)
        if len(self._printed) > ERRORS_KEPT:
            self._printed.popitem(last=False)
        return repeated

    def platform_event(self, event: Event) -> Shown | None:
        """An event of the edge, api, control or the node; None when it is nothing for a developer."""
        kind = event.get("event")
        if kind == EDGE_CALL:
            return self._edge_call(event)
        if kind == CALL:
            return _inner_call(event)
        if kind == COLLECTION_CREATED:
            text = (
                f"collection {event['collection']} created, preset {event['preset']}: users read and write "
                "what they own, functions everything"
            )
            return Shown(_notice(text, event), event)
        if kind == LIST_EMPTY:
            return Shown(_notice(f"empty list from {event['collection']}: {event['why']}", event), event)
        if event.get("level") in {"error", "critical"}:
            who = event.get("process", "cloudlet")
            what = event.get("message") or event.get("error") or ""
            return Shown(f"{mark(False)} {who}: {kind} {what}".rstrip(), event)
        return None

    def _edge_call(self, event: Event) -> Shown:
        status, path = int(event.get("status") or 0), str(event.get("path") or "")
        function = path.removeprefix(_FUNCTIONS) if path.startswith(_FUNCTIONS) else ""
        seen = self._seen_by_client(event, status, function)
        timing = {name: float(ms) for name, ms in _TIMING.findall(str(event.get("timing") or ""))}
        # A call that never reached a function still has a path, which is the caller's text.
        what = _name(function) if _is_name(function) else f"{event.get('method')} {path[:80]!r}"
        good = 0 < status < 400
        head = (
            f"{_time(event)} {mark(good)} {what} {status or 'no answer'} in {_ms(event)}"
            f"{_user(event)}{_request(event, good)}"
        )
        lines = [head]
        if seen:
            lines.append(f"{INDENT}the client saw {seen[0]}: {seen[1]}")
        if receipt := cold_start(timing):
            lines.append(click.style(INDENT + receipt, dim=True))
        shown = {**event, "client_saw": seen[0]} if seen else event
        return Shown("\n".join(lines), shown)

    def _seen_by_client(self, event: Event, status: int, function: str) -> tuple[str, str] | None:
        """Code and message of a failed call, as far as they are known for certain here."""
        if 0 < status < 400:
            return None
        logged = self._errors.pop(str(event.get("request_id") or ""), None)
        if function and status == 504:
            return wire_of(FunctionTimeout()).code, "it ran longer than the function's timeout"
        if function and status == 400 and logged is not None:
            return _failure_reply(logged)
        details = str(event.get("details") or "")
        return None if details in {"", "via_upstream"} else _edge_reply(event, status, details)


def cold_start(timing: Mapping[str, float]) -> str:
    """The receipt of a cold start: where its time went. Empty for a call that waited for no start."""
    if "sandbox" not in timing:
        return ""
    parts = [f"{shown} {timing[name]:.1f}" for name, shown in _STAGES if name in timing]
    if not timing["sandbox"]:
        parts = [part.replace("cell 0.0", "cell 0 (one was waiting)") for part in parts]
    total = sum(timing.get(name, 0.0) for name, _ in _STAGES)
    handler = f", then handler {timing['handler']:.1f} ms" if "handler" in timing else ""
    return f"cold start {total:.0f} ms = {' + '.join(parts)}{handler}"


def _edge_reply(event: Event, status: int, details: str) -> tuple[str, str]:
    """What the edge answers by itself (``dialects/errors.py`` has the table)."""
    path, flags = str(event.get("path") or ""), str(event.get("flags") or "").split(",")
    for reply in edge_replies():
        fits = reply.http_status == status and reply.details in details
        if fits and path.startswith(reply.path_prefix) and (not reply.flags or {*reply.flags} & {*flags}):
            return reply.code, reply.message
    return f"status {status}", details


def _failure_reply(logged: str) -> tuple[str, str]:
    """What the shim answers when it logs this (``runtime/contract.md`` 3 and 6)."""
    try:
        reply = json.loads(logged)
    except ValueError:
        reply = None
    if isinstance(reply, dict) and {"code", "message", "requestId"} <= reply.keys():
        return str(reply["code"]), _first(str(reply["message"]))
    return wire_of(FunctionFailed()).code, split_failure(FunctionFailed(logged))[0]


def _first(text: str) -> str:
    """The message, which may be the JSON text of an error."""
    return split_failure(FunctionFailed(text))[0]


def _inner_call(event: Event) -> Shown:
    """A call that did not come through the edge: of another function, or of ``cloudlet fn invoke``."""
    error = str(event.get("error") or "")
    how = "called by a function" if event.get("nested") else "called by an SDK or the command line"
    timing = event.get("timing") or {}
    head = (
        f"{_time(event)} {mark(not error)} {_name(str(event['function']))} {error or 'ok'} in {_ms(event)}, "
        f"{how}{_user(event)}{_request(event, not error)}"
    )
    lines = [head]
    if error:
        lines.append(f"{INDENT}the caller saw {wire_of(error_class(error)()).code}")
    if receipt := cold_start(timing):
        lines.append(click.style(INDENT + receipt, dim=True))
    return Shown("\n".join(lines), event)


def _notice(text: str, event: Event) -> str:
    return f"{_time(event)} {click.style('note', fg='yellow')}  {text}"


def _name(function: str) -> str:
    return click.style(function, fg=_COLOURS[sum(function.encode()) % len(_COLOURS)])


def _coloured(text: str, level: str) -> str:
    # Control characters of a tenant's text must not steer the terminal.
    clean = "".join(char if char.isprintable() or char == "\t" else "�" for char in text)
    return click.style(clean, fg=_LEVELS[level]) if level in _LEVELS else clean


def _user(event: Event) -> str:
    openid = str(event.get("openid") or "")
    return f" for {openid}" if openid else ""


def _request(event: Event, good: bool) -> str:
    return "" if good else f" (request {str(event.get('request_id') or '-')[:36]})"


def _is_name(function: str) -> bool:
    try:
        check_function_name(function)
    except InvalidName:
        return False
    return True


def _ms(event: Event) -> str:
    return f"{float(event.get('ms') or 0):.0f} ms"


def _time(event: Event) -> str:
    if "t" in event:
        return _clock(float(event["t"]) + float(event.get("ms") or 0) / 1000)
    try:
        return _clock(datetime.fromisoformat(str(event["timestamp"])).timestamp())
    except (KeyError, ValueError):
        return " " * 12


def _clock(t: float) -> str:
    return click.style(datetime.fromtimestamp(t).astimezone().strftime("%H:%M:%S.%f")[:-3], dim=True)
