"""``cloudlet fn logs``."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from cloudlet.model.errors import InvalidParameter, OutcomeUnknown, Unavailable

from .client import AdminClient, function_path
from .exit_codes import ExitCode
from .names import env_option, function_argument
from .session import CommandFailed, Session, command_options, printable

FOLLOW_S = 0.5
"""How often new lines are asked for."""
OVERLAP_S = 2.0
"""Lines this old are asked for again and again, so that a clock that is set back a little hides none."""
FOLLOW_RECORDS_MAX = 10_000
"""The server gives no more at once."""

Record = Mapping[str, Any]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command()
@function_argument
@click.option("--limit", type=click.IntRange(1, 10000), default=100, show_default=True, help="Newest lines.")
@click.option("--since", help="Lines not older than this: 90s, 15m, 2h, 1d, or a time like 2026-11-20T16:00.")
@click.option(
    "--level", type=click.Choice(["debug", "info", "warn", "error"]), help="Lines of this level and worse."
)
@click.option("--request-id", help="Lines of one call only.")
@click.option("--grep", metavar="TEXT", help="Lines that contain this text, upper or lower case.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines until Ctrl-C.")
@env_option
@command_options
def logs(
    session: Session,
    name: str,
    limit: int,
    since: str | None,
    level: str | None,
    request_id: str | None,
    grep: str | None,
    follow: bool,
    env: str,
) -> None:
    """Print what the function NAME logged, oldest first. With --json one object a line.

    \b
    Examples:
      cloudlet fn logs login --limit 20
      cloudlet fn logs login --since 10m --level error
      cloudlet fn logs login --follow --grep payment
    """
    query: dict[str, object] = {
        "limit": limit,
        "since": since_time(since, time.time()) if since else None,
        "level": level,
        "request_id": request_id,
        "text": grep,
    }
    path = f"{function_path(env, name)}/logs"
    client = session.client()
    records = client.get(path, query)["records"]
    _print(session, records)
    if follow:
        _follow(session, client, path, query, records)


def since_time(text: str, now: float) -> float:
    """Seconds since the Unix epoch for ``15m`` or an ISO time (local unless it names a zone). Raise
    InvalidParameter."""
    if match := re.fullmatch(r"(\d{1,9})([smhd])", text):
        return max(0.0, now - int(match[1]) * _UNITS[match[2]])
    try:
        return max(0.0, datetime.fromisoformat(text).astimezone().timestamp())
    except (ValueError, OverflowError, OSError) as exc:
        raise InvalidParameter(
            f"--since {text[:40]!r} is not understood: write 90s, 15m, 2h, 1d or 2026-11-20T16:00"
        ) from exc


class Follower:
    """Tells which records of overlapping answers are new. The log only grows, so equal records are counted:
    an answer has those known before and then the new ones."""

    def __init__(self, first: Sequence[Record]) -> None:
        self._seen: Counter[str] = Counter(map(_key, first))
        self._latest = max((float(record["t"]) for record in first), default=0.0)

    def since(self, floor: float) -> float:
        """From when on to ask, not before `floor`."""
        return max(floor, self._latest - OVERLAP_S)

    def new(self, records: Sequence[Record], floor: float) -> list[Record]:
        """What was not there before. `records` are all that the server has since ``since(floor)``."""
        answer: Counter[str] = Counter()
        found = []
        for record in records:
            key = _key(record)
            answer[key] += 1
            if answer[key] > self._seen[key]:
                found.append(record)
        # What is no longer asked for need not be remembered.
        self._seen = Counter({key: max(count, self._seen[key]) for key, count in answer.items()})
        self._latest = max([self._latest, *(float(record["t"]) for record in records)])
        return found


def _follow(
    session: Session, client: AdminClient, path: str, query: dict[str, object], first: list[Record]
) -> None:
    """Until Ctrl-C. The server may go away and come back: nothing is printed twice."""
    floor = float(first[0]["t"]) if first else time.time() - OVERLAP_S
    follower = Follower(first)
    silent = False
    while True:
        time.sleep(FOLLOW_S)
        wanted = {**query, "limit": FOLLOW_RECORDS_MAX, "since": repr(follower.since(floor))}
        try:
            records = client.get(path, wanted)["records"]
        except (Unavailable, OutcomeUnknown, CommandFailed) as exc:
            if isinstance(exc, CommandFailed) and exc.status is not ExitCode.NOT_RUNNING:
                raise
            if not silent:
                click.echo("cloudlet does not answer; waiting for it", err=True)
            silent = True
            continue
        silent = False
        new = follower.new(records, floor)
        if len(new) >= FOLLOW_RECORDS_MAX:
            click.echo("lines were skipped: more was printed than can be followed", err=True)
        _print(session, new)


def _print(session: Session, records: list[Record]) -> None:
    for record in records:
        click.echo(json.dumps(record, ensure_ascii=False) if session.as_json else log_line(record))


def log_line(record: Record) -> str:
    """One record for people."""
    at = datetime.fromtimestamp(float(record["t"])).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    level = str(record["level"])
    colour = {"error": "red", "warn": "yellow"}.get(level)
    request = str(record["request_id"] or "-")[:8]
    return f"{at} {request:<8} {click.style(f'{level:<5}', fg=colour)} {printable(str(record['text']))}"


def _key(record: Record) -> str:
    return json.dumps(record, sort_keys=True)
