"""``cloudlet env``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from cloudlet.model.ids import DEFAULT_ENVIRONMENT, check_environment_name

from .client import environment_path
from .session import Session, ago, command_options, confirm, table


@click.group()
def env() -> None:
    """Manage environments: tenants with their own functions, documents, files and users.

    \b
    Examples:
      cloudlet env create shop
      cloudlet env alias prod-1a2b3c shop
      cloudlet env credentials shop --json
    """


@env.command("list")
@command_options
def list_environments(session: Session) -> None:
    """List environments with their aliases.

    \b
    Example:
      cloudlet env list
    """
    answer = session.client().get("/environments")
    session.show(answer, lambda: _text(answer["environments"]))


@env.command()
@click.argument("name")
@command_options
def create(session: Session, name: str) -> None:
    """Create the environment NAME: letters, digits and '-', at most 63.

    \b
    Example:
      cloudlet env create shop
    """
    answer = session.client().post("/environments", {"name": name})
    session.show(answer, lambda: f"environment {answer['name']} created")


@env.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@command_options
def delete(session: Session, name: str, yes: bool) -> None:
    """Delete the environment NAME with its functions, documents, users and credentials.

    \b
    Example:
      cloudlet env delete shop --yes
    """
    confirm(f"Delete environment {name} with everything in it?", yes)
    answer = session.client().delete(environment_path(name))
    session.show(answer, lambda: f"environment {answer['deleted']} deleted")


@env.command()
@click.argument("alias")
@click.argument("name")
@command_options
def alias(session: Session, alias: str, name: str) -> None:
    """Let ALIAS mean the environment NAME: for ids that a project has in its code.

    \b
    Example:
      cloudlet env alias prod-1a2b3c shop
    """
    answer = session.client().put(environment_path(name, "aliases", check_environment_name(alias)))
    session.show(answer, lambda: f"{alias} now means {answer['name']}")


@env.command()
@click.argument("name", default=DEFAULT_ENVIRONMENT)
@command_options
def credentials(session: Session, name: str) -> None:
    """Show the key pair of the environment NAME, for a server-side SDK outside cloudlet.

    \b
    Example:
      cloudlet env credentials shop --json
    """
    answer = session.client().get(environment_path(name, "credentials"))
    session.show(answer, lambda: "\n".join(f"{key:<11} {value}" for key, value in answer.items()))


def _text(environments: list[Mapping[str, Any]]) -> str:
    now = time.time()
    rows = [
        {
            "name": str(item["name"]),
            "aliases": ", ".join(item["aliases"]) or "-",
            "created": ago(float(item["created_at"]), now),
        }
        for item in environments
    ]
    return table(rows, {"name": "ENVIRONMENT", "aliases": "ALIASES", "created": "CREATED"})
