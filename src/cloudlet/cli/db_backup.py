"""``cloudlet db backup``, ``backups``, ``restore`` and ``rehearse``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import click

from cloudlet.model.errors import InvalidParameter
from cloudlet.model.ids import check_collection_name, check_environment_name

from .client import JsonObject, environment_path
from .db_words import Progress, outcome, passphrase_given, size
from .fn_logs import since_time
from .names import env_option
from .session import Session, command_options, confirm, table


def passphrase_options(function: Callable[..., None]) -> Callable[..., None]:
    """Ways to give a passphrase that no other process can see."""
    for option in (
        click.option("--ask-passphrase", is_flag=True, help="Ask for the passphrase."),
        click.option(
            "--passphrase-file", metavar="FILE", help="File with the passphrase or key; - is standard input."
        ),
    ):
        function = option(function)
    return function


@click.command()
@passphrase_options
@env_option
@command_options
def backup(session: Session, passphrase_file: str | None, ask_passphrase: bool, env: str) -> None:
    """Back up all documents of an environment as they are at one moment; writes go on meanwhile.

    Encrypted if a passphrase is given, or CLOUDLET_BACKUP_KEY_FILE is set. Schedules are settings, too.

    \b
    Examples:
      cloudlet db backup
      cloudlet db backup --env shop --passphrase-file key.txt
    """
    body = _body(passphrase=passphrase_given(passphrase_file, ask_passphrase, twice=True))
    answer = _long(session, environment_path(env, "backups"), body)
    session.show(answer, lambda: _made_text(answer))


@click.command()
@env_option
@command_options
def backups(session: Session, env: str) -> None:
    """List backups and the moments that can be restored.

    \b
    Example:
      cloudlet db backups --env shop
    """
    answer = session.client().get(environment_path(env, "backups"))
    session.show(answer, lambda: _list_text(answer))


@click.command()
@click.argument("names", nargs=-1, metavar="[OLD=NEW]…")
@click.option("--backup", "backup_id", help="This backup, without the changes after it.")
@click.option(
    "--at", help="This moment: 2026-11-20T16:00 (local, unless it names a zone), or 15m ago as 15m."
)
@click.option("--all", "everything", is_flag=True, help="All collections, under their own names.")
@click.option("--into", help="Restore into another environment.")
@click.option("--replace", is_flag=True, help="Replace collections that exist; a backup is made first.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@passphrase_options
@env_option
@command_options
def restore(
    session: Session,
    names: tuple[str, ...],
    backup_id: str | None,
    at: str | None,
    everything: bool,
    into: str | None,
    replace: bool,
    yes: bool,
    passphrase_file: str | None,
    ask_passphrase: bool,
    env: str,
) -> None:
    """Restore collections under new names, or a whole environment into an empty one.

    Without --backup and --at: the newest state there is. Collections that exist are not touched.

    \b
    Examples:
      cloudlet db restore orders=orders_old
      cloudlet db restore orders=orders_before --at 2026-11-20T16:00
      cloudlet db restore --all --into shop-copy
      cloudlet db restore orders=orders --replace --at 15m
    """
    if bool(names) == everything:
        raise click.UsageError("name collections as OLD=NEW, or restore --all of them")
    if backup_id is not None and at is not None:
        raise click.UsageError("give --backup or --at, not both")
    if into is not None:
        check_environment_name(into)
    collections = _names(names)
    secret = passphrase_given(passphrase_file, ask_passphrase)
    if replace:
        what = ", ".join(collections.values()) or "all collections"
        confirm(f"Replace {what} of {into or env}? A backup of it is made first.", yes)
    body = _body(
        passphrase=secret,
        backup=backup_id,
        at=None if at is None else _moment(at),
        collections=collections,
        into=into,
        replace=replace,
    )
    answer = _long(session, environment_path(env, "backups", "restore"), body)
    session.show(answer, lambda: _restored_text(answer, "restored"))


@click.command()
@click.option("--backup", "backup_id", help="This backup.  [default: the newest]")
@passphrase_options
@env_option
@command_options
def rehearse(
    session: Session, backup_id: str | None, passphrase_file: str | None, ask_passphrase: bool, env: str
) -> None:
    """Restore a backup to a temporary file and check it: checksums, counts, the changes after it.

    \b
    Example:
      cloudlet db rehearse
    """
    body = _body(passphrase=passphrase_given(passphrase_file, ask_passphrase), backup=backup_id)
    answer = _long(session, environment_path(env, "backups", "rehearse"), body)
    session.show(answer, lambda: _restored_text(answer, "can be restored"))


def _long(session: Session, path: str, body: JsonObject) -> JsonObject:
    with Progress(session.as_json) as progress:
        progress.say("Working")
        return outcome(session.client().lines(path, body), progress, _progress_text)


def _body(**given: Any) -> JsonObject:
    return {name: value for name, value in given.items() if value is not None}


def _names(given: tuple[str, ...]) -> dict[str, str]:
    names: dict[str, str] = {}
    for each in given:
        old, equals, new = each.partition("=")
        if not equals:
            raise click.UsageError(f"write {each}=NEW: under which name {each!r} is to be restored")
        if old in names or new in names.values():
            raise click.UsageError(f"{each}: the name is there twice")
        names[check_collection_name(old)] = check_collection_name(new)
    return names


def _moment(given: str) -> float:
    try:
        return since_time(given, time.time())
    except InvalidParameter as exc:
        raise click.UsageError(
            f"--at {given[:40]!r} is not understood: write 2026-11-20T16:00, or 15m for 15 minutes ago"
        ) from exc


def _progress_text(line: Mapping[str, Any]) -> str:
    if line.get("phase") == "documents":
        return f"{line['collection']}: {line['done']:,} documents"
    return "Opening the backup"


def _made_text(answer: Mapping[str, Any]) -> str:
    documents = sum(answer["collections"].values())
    sealed = ", encrypted" if answer["encrypted"] else ""
    return f"backup {answer['id']}: {documents:,} documents, {size(answer['bytes'])}{sealed}"


def _restored_text(answer: Mapping[str, Any], what: str) -> str:
    lines = [f"{name}: {count:,} documents {what}" for name, count in answer["documents"].items()]
    return "\n".join([*lines, f"from {answer['backup']}, as of {_time(answer['at'])}"])


def _list_text(answer: Mapping[str, Any]) -> str:
    if not answer["backups"]:
        return "No backups yet: make one with 'cloudlet db backup'."
    rows = [
        {
            "id": str(each["id"]),
            "at": _time(each["at"]),
            "size": size(each["bytes"]),
            "documents": f"{sum(each['collections'].values()):,}",
            "sealed": "yes" if each["encrypted"] else "no",
        }
        for each in answer["backups"]
    ]
    columns = {"id": "BACKUP", "at": "MADE", "size": "SIZE", "documents": "DOCUMENTS", "sealed": "ENCRYPTED"}
    spans = [f"{_time(each['from'])} to {_time(each['to'])}" for each in answer["moments"]]
    return "\n".join([table(rows, columns), "", "Moments that can be restored:", *spans])


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="milliseconds")
