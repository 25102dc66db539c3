"""``cloudlet fn``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cloudlet.functions.failures import split_failure
from cloudlet.model.errors import FunctionError, InvalidParameter

from .client import CALL_TIMEOUT_S, environment_path, function_path
from .exit_codes import ExitCode
from .fn_logs import logs
from .fn_versions import rollback, version_rows, versions
from .names import env_option, function_argument
from .session import CommandFailed, Session, ago, command_options, confirm, table, to_json
from .status import instances


@click.group()
def fn() -> None:
    """See and call functions, read their logs.

    \b
    Examples:
      cloudlet fn list
      cloudlet fn invoke login -d '{"a": 1}' --openid user-a
      cloudlet fn logs login --follow
      cloudlet fn rollback login
    """


for _command in (logs, versions, rollback):
    fn.add_command(_command)


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
@function_argument
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
@function_argument
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
@function_argument
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


def _list_text(functions: list[Mapping[str, Any]]) -> str:
    if not functions:
        return "No functions yet: deploy a project with 'cloudlet deploy PATH'."
    now = time.time()
    rows = [
        {
            "name": str(item["name"]),
            "runtime": _runtime(item),
            "version": f"{item['number']} ({str(item['version'])[:8]})",
            "limits": f"{item['timeout_s']:g} s, {item['memory_mb']} MB",
            "instances": str(item["instances"]),
            "updated": ago(float(item["updated_at"]), now),
        }
        for item in functions
    ]
    columns = {"name": "FUNCTION", "runtime": "RUNTIME", "version": "VERSION", "limits": "LIMITS"}
    return table(rows, {**columns, "instances": "INSTANCES", "updated": "UPDATED"})


def _runtime(function: Mapping[str, Any]) -> str:
    return f"{function['runtime']} (unpatched)" if function["unpatched"] else str(function["runtime"])


def _detail_text(answer: Mapping[str, Any]) -> str:
    scale = answer["scale"]
    now = time.time()
    lines = [
        f"Function      {answer['name']}",
        f"URL           {answer['url']}",
        f"Runtime       {_runtime(answer)}, handler {answer['handler']}",
        f"Limits        {answer['timeout_s']:g} s, {answer['memory_mb']} MB",
        f"Concurrency   {answer['concurrency']} at once in an instance",
        f"Scale         {scale['instances_min']} to {scale['instances_max']} instances, "
        f"idle ones kept {scale['keep_alive_s']:g} s",
        f"Variables     {', '.join(answer['environment_variables']) or 'none'}",
        "",
        version_rows(answer["versions"], now),
        "",
        instances(answer["running"]),
    ]
    return "\n".join(lines)
