"""``cloudlet db index``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from .client import LONG_TIMEOUT_S
from .db_words import collection_argument, collection_path, json_given
from .names import env_option
from .session import Session, command_options, confirm, table

DIRECTIONS = ("1", "-1", "2d", "2dsphere")


@click.group()
def index() -> None:
    """Manage the indexes of a collection.

    \b
    Examples:
      cloudlet db index list orders
      cloudlet db index create orders state at:-1
    """


@index.command("list")
@collection_argument
@env_option
@command_options
def list_indexes(session: Session, collection: str, env: str) -> None:
    """List the indexes of COLLECTION.

    \b
    Example:
      cloudlet db index list orders
    """
    answer = session.client().get(collection_path(env, collection, "indexes"))
    session.show(answer, lambda: _text(answer["indexes"]))


@index.command()
@collection_argument
@click.argument("fields", nargs=-1, required=True, metavar="FIELD[:DIRECTION]…")
@click.option("--name", default="", help="Default: made from the fields.")
@click.option("--unique", is_flag=True, help="No two documents with the same values.")
@click.option("--sparse", is_flag=True, help="Only documents that have one of the fields.")
@click.option("--partial", default=None, metavar="JSON|@FILE", help="Only documents that match this query.")
@click.option(
    "--expire-after", type=click.IntRange(0), help="Remove documents so many seconds after the date."
)
@env_option
@command_options
def create(
    session: Session,
    collection: str,
    fields: tuple[str, ...],
    name: str,
    unique: bool,
    sparse: bool,
    partial: str | None,
    expire_after: int | None,
    env: str,
) -> None:
    """Make an index of COLLECTION on FIELDs; writes go on meanwhile. DIRECTION: 1, -1, 2d or 2dsphere.

    \b
    Examples:
      cloudlet db index create orders state at:-1
      cloudlet db index create users email --unique --sparse
      cloudlet db index create sessions seen --expire-after 86400
    """
    body: dict[str, Any] = {
        "fields": [_field(each) for each in fields],
        "name": name,
        "unique": unique,
        "sparse": sparse,
    }
    if partial is not None:
        body["partial"] = json_given(partial, "--partial")
    if expire_after is not None:
        body["expire_after_s"] = expire_after
    answer = session.client(LONG_TIMEOUT_S).post(
        collection_path(env, collection, "indexes"), body, LONG_TIMEOUT_S
    )
    session.show(answer, lambda: f"index {answer['name']} of {collection} created")


@index.command()
@collection_argument
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@env_option
@command_options
def drop(session: Session, collection: str, name: str, yes: bool, env: str) -> None:
    """Remove the index NAME of COLLECTION.

    \b
    Example:
      cloudlet db index drop orders state_1_at_-1 --yes
    """
    confirm(f"Remove the index {name} of {collection}?", yes)
    answer = session.client().delete(collection_path(env, collection, "indexes", name))
    session.show(answer, lambda: f"index {answer['dropped']} of {collection} removed")


def _field(given: str) -> dict[str, str]:
    path, colon, direction = given.rpartition(":")
    if not colon:
        return {"path": given}
    if direction not in DIRECTIONS:
        raise click.UsageError(f"the direction of {path!r} must be one of {', '.join(DIRECTIONS)}")
    return {"path": path, "direction": direction}


def _text(found: list[Mapping[str, Any]]) -> str:
    rows = [
        {
            "name": str(each["name"]),
            "fields": ", ".join(f"{field['path']}:{field['direction']}" for field in each["fields"]),
            "kind": ", ".join(_kinds(each)) or "-",
        }
        for each in found
    ]
    return table(rows, {"name": "INDEX", "fields": "FIELDS", "kind": "OPTIONS"})


def _kinds(index: Mapping[str, Any]) -> list[str]:
    kinds = [name for name in ("unique", "sparse", "automatic") if index[name]]
    if index["partial"] is not None:
        kinds.append("partial")
    if index["expire_after_s"] is not None:
        kinds.append(f"expires after {index['expire_after_s']} s")
    return kinds if index["ready"] else [*kinds, "being made"]
