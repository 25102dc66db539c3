"""``cloudlet fn versions`` and ``cloudlet fn rollback``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from cloudlet.functions.failures import split_failure
from cloudlet.model.errors import FunctionError

from .client import ROLLBACK_TIMEOUT_S, function_path
from .names import env_option, function_argument
from .session import Session, ago, command_options, table


@click.command()
@function_argument
@env_option
@command_options
def versions(session: Session, name: str, env: str) -> None:
    """List the versions of the function NAME, the newest first; an arrow marks the one that is served.

    \b
    Example:
      cloudlet fn versions login
    """
    answer = session.client().get(f"{function_path(env, name)}/versions")
    session.show(answer, lambda: version_rows(answer["versions"], time.time()))


@click.command()
@function_argument
@click.option("--to", type=click.IntRange(1), help="Number of a version.  [default: the one before]")
@env_option
@command_options
def rollback(session: Session, name: str, to: int | None, env: str) -> None:
    """Serve an earlier version of the function NAME again, after an instance of it has started.

    Calls that run are finished by the version that has them, and none is lost.

    \b
    Examples:
      cloudlet fn rollback login
      cloudlet fn rollback login --to 3
    """
    body = {} if to is None else {"to": to}
    try:
        answer = session.client().post(f"{function_path(env, name)}/rollback", body, ROLLBACK_TIMEOUT_S)
    except FunctionError as exc:
        raise type(exc)("\n".join(filter(None, split_failure(exc)))) from exc
    session.show(answer, lambda: _moved(name, answer["former"], answer["now"]))


def version_rows(found: list[Mapping[str, Any]], now: float) -> str:
    """A table of versions."""
    rows = [
        {
            "mark": "→" if item["current"] else "",
            "number": str(item["number"]),
            "digest": str(item["digest"]),
            "runtime": str(item["runtime"]),
            "created": ago(float(item["created_at"]), now),
        }
        for item in found
    ]
    columns = {"mark": " ", "number": "VERSION", "digest": "DIGEST", "runtime": "RUNTIME"}
    return table(rows, {**columns, "created": "CREATED"})


def _moved(name: str, former: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    shown = f"version {now['number']} ({str(now['digest'])[:8]})"
    if former["digest"] == now["digest"]:
        return f"{name} serves {shown} already"
    return f"{name} serves {shown} again, not version {former['number']}"
