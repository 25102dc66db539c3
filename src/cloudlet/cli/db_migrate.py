"""``cloudlet db migrate``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from .client import environment_path
from .db_words import Progress, outcome, text_given
from .names import env_option
from .session import Session, command_options


@click.command()
@click.option(
    "--to", metavar="URL|@FILE|-", help="A postgresql:// address; a file keeps its password secret."
)
@click.option("--back", is_flag=True, help="Back to SQLite.")
@click.option("--abandon", is_flag=True, help="Remove what a move that was broken off has left.")
@env_option
@command_options
def migrate(session: Session, to: str | None, back: bool, abandon: bool, env: str) -> None:
    """Move the documents of an environment to another engine while they are used.

    Writes wait for a moment at the switch. Whatever happens before leaves everything as it was; the same
    command goes on after a failure.

    \b
    Examples:
      cloudlet db migrate --to postgresql://cloudlet@db.example/cloudlet
      cloudlet db migrate --to @address.txt --env shop
      cloudlet db migrate --back
    """
    if sum((to is not None, back, abandon)) != 1:
        raise click.UsageError("give one of --to URL, --back and --abandon")
    path = environment_path(env, "migration")
    if abandon:
        answer = session.client().delete(path)
        session.show(answer, lambda: f"the unfinished move of {answer['environment']} is removed")
        return
    target = "sqlite" if to is None else text_given(to).strip()
    if to is not None and not target.startswith(("postgresql://", "postgres://")):
        raise click.UsageError("--to takes an address that begins with postgresql://")
    with Progress(session.as_json) as progress:
        answer = outcome(session.client().lines(path, {"to": target}), progress, _progress_text)
    session.show(answer, lambda: _text(answer))


def _progress_text(line: Mapping[str, Any]) -> str:
    where = f" {line['collection']}" if line.get("collection") else ""
    total = f" of {line['total']:,}" if line.get("total") else ""
    return f"{line['phase']}{where}: {line['done']:,}{total}"


def _text(answer: Mapping[str, Any]) -> str:
    documents = sum(answer["documents"].values())
    return (
        f"{answer['environment']} is on {answer['engine']} now: {documents:,} documents, "
        f"{answer['replayed']:,} changes followed, writes waited {answer['pause_s'] * 1000:.0f} ms"
    )
