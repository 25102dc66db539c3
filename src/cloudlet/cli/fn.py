"""``cloudlet fn``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from cloudlet.functions.failures import split_failure
from cloudlet.model.errors import FunctionError, InvalidParameter
from cloudlet.model.ids import DEFAULT_ENVIRONMENT

from .client import CALL_TIMEOUT_S, environment_path, function_path
from .exit_codes import ExitCode
from .session import CommandFailed, Session, ago, command_options, confirm, table, to_json
from .status import instances

FOLLOW_S = 1.0
"""How often new log lines are asked for."""

env_option: Callable[..., Any] = click.option(
    "--env", default=DEFAULT_ENVIRONMENT, show_default=True, help="Environment or alias."
)


@click.group()
def fn() -> None:
    """See and call functions, read their logs.

    \b
    Examples:
      cloudlet fn list
      cloudlet fn invoke login -d '{"a": 1}' --openid user-a
      cloudlet fn logs login --follow
    """


@fn.command("list")
@env_option
@command_options
def list_functions(session: Session, env: str) -> None:
    """List functions with the version that is served.

    \b
    Example:
      cloudlet fn list --env shop
    """
    answer = session.client().get(environment_path(env, "functions"))
    session.show(answer, lambda: _list_text(answer["functions"]))


@fn.command()
@click.argument("name")
@env_option
@command_options
def detail(session: Session, name: str, env: str) -> None:
    """Show settings, versions and running instances of the function NAME.

    \b
    Example:
      cloudlet fn detail login
    """
    answer = session.client().get(function_path(env, name))
    session.show(answer, lambda: _detail_text(answer))


@fn.command()
@click.argument("name")
@click.option(
    "-d", "--data-json", "data_json", default="{}", metavar="JSON|@FILE|-", help="The event.  [default: {}]"
)
@click.option("--openid", default="", help="Call as this user; without it as the platform itself.")
@env_option
@command_options
def invoke(session: Session, name: str, data_json: str, openid: str, env: str) -> None:
    """Call the function NAME and print its result.

    \b
    Examples:
      cloudlet fn invoke login
      cloudlet fn invoke order -d '{"action": "list"}' --openid user-a
      cloudlet fn invoke order -d @event.json
      echo '{}' | cloudlet fn invoke order -d -
    """
    body = {"event": _event(data_json), **({"openid": openid} if openid else {})}
    try:
        answer = session.client().post(f"{function_path(env, name)}/invoke", body, CALL_TIMEOUT_S)
    except FunctionError as exc:
        raise type(exc)("\n".join(filter(None, split_failure(exc)))) from exc
    session.show(answer, lambda: to_json(answer["result"]))


@fn.command()
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 10000), default=100, show_default=True, help="Newest lines.")
@click.option("--request-id", help="Lines of one call only.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines until Ctrl-C.")
@env_option
@command_options
def logs(session: Session, name: str, limit: int, request_id: str | None, follow: bool, env: str) -> None:
    """Print what the function NAME logged, oldest first. With --json one object a line.

    \b
    Examples:
      cloudlet fn logs login --limit 20
      cloudlet fn logs login --follow
    """
    client = session.client()
    query: dict[str, object] = {"limit": limit, "request_id": request_id}
    last: list[Mapping[str, Any]] = []
    while True:
        records = client.get(f"{function_path(env, name)}/logs", query)["records"]
        for record in _new_records(records, last):
            click.echo(json.dumps(record, ensure_ascii=False) if session.as_json else _log_line(record))
        if not follow:
            return
        last = records or last
        if last:
            query["since"] = last[-1]["t"]
        time.sleep(FOLLOW_S)


@fn.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@env_option
@command_options
def delete(session: Session, name: str, yes: bool, env: str) -> None:
    """Delete the function NAME with all its versions.

    \b
    Example:
      cloudlet fn delete login --yes
    """
    confirm(f"Delete function {name} of environment {env} with all its versions?", yes)
    answer = session.client().delete(function_path(env, name))
    session.show(answer, lambda: f"function {name} deleted ({len(answer['deleted'])} versions)")


def _event(given: str) -> object:
    """The event: JSON, ``@file`` or ``-`` for standard input. Raise InvalidParameter or CommandFailed."""
    text = given
    if given == "-":
        text = sys.stdin.read()
    elif given.startswith("@"):
        try:
            text = Path(given[1:]).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise CommandFailed(f"cannot read {given[1:]}: {exc}", ExitCode.NOT_FOUND, "not_found") from exc
    try:
        return json.loads(text)
    except ValueError as exc:
        raise InvalidParameter(
            f"the event is not valid JSON ({exc}): write -d '{{\"a\": 1}}', -d @event.json or -d -"
        ) from exc


def _new_records(records: list[Mapping[str, Any]], last: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What was not printed before: ``since`` includes its own instant."""
    return [record for record in records if record not in last]


def _log_line(record: Mapping[str, Any]) -> str:
    at = datetime.fromtimestamp(float(record["t"])).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    level = str(record["level"])
    colour = {"error": "red", "warn": "yellow"}.get(level)
    request = str(record["request_id"] or "-")[:8]
    return f"{at} {request:<8} {click.style(f'{level:<5}', fg=colour)} {record['text']}"


def _list_text(functions: list[Mapping[str, Any]]) -> str:
    if not functions:
        return "No functions yet: deploy a project with 'cloudlet deploy PATH'."
    now = time.time()
    rows = [
        {
            "name": str(item["name"]),
            "runtime": str(item["runtime"]),
            "version": f"{item['number']} ({str(item['version'])[:8]})",
            "limits": f"{item['timeout_s']:g} s, {item['memory_mb']} MB",
            "instances": str(item["instances"]),
            "updated": ago(float(item["updated_at"]), now),
        }
        for item in functions
    ]
    columns = {"name": "FUNCTION", "runtime": "RUNTIME", "version": "VERSION", "limits": "LIMITS"}
    return table(rows, {**columns, "instances": "INSTANCES", "updated": "UPDATED"})


def _detail_text(answer: Mapping[str, Any]) -> str:
    scale = answer["scale"]
    now = time.time()
    versions = [
        {
            "mark": "→" if item["current"] else "",
            "number": str(item["number"]),
            "digest": str(item["digest"]),
            "created": ago(float(item["created_at"]), now),
        }
        for item in answer["versions"]
    ]
    lines = [
        f"Function      {answer['name']}",
        f"URL           {answer['url']}",
        f"Runtime       {answer['runtime']}, handler {answer['handler']}",
        f"Limits        {answer['timeout_s']:g} s, {answer['memory_mb']} MB",
        f"Concurrency   {answer['concurrency']} at once in an instance",
        f"Scale         {scale['instances_min']} to {scale['instances_max']} instances, "
        f"idle ones kept {scale['keep_alive_s']:g} s",
        f"Variables     {', '.join(answer['environment_variables']) or 'none'}",
        "",
        table(versions, {"mark": " ", "number": "VERSION", "digest": "DIGEST", "created": "CREATED"}),
        "",
        instances(answer["running"]),
    ]
    return "\n".join(lines)
