"""``cloudlet db``: collections, their sizes and permissions, and how queries are answered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from .client import environment_path
from .db_backup import backup, backups, rehearse, restore
from .db_export import export
from .db_import import import_, imports
from .db_index import index
from .db_migrate import migrate
from .db_words import collection_argument, collection_path, json_given, size
from .names import env_option
from .session import Session, command_options, confirm, table

PRESETS = ("READONLY", "PRIVATE", "ADMINWRITE", "ADMINONLY")
OPERATIONS = ("read", "create", "update", "delete")


@click.group()
def db() -> None:
    """Manage documents: collections, indexes, permissions, import, export, backup.

    \b
    Examples:
      cloudlet db collections
      cloudlet db import orders orders.jsonl
      cloudlet db export orders --format csv --fields _id,no,user.name
      cloudlet db acl orders PRIVATE
      cloudlet db backup
    """


for _command in (import_, imports, export, backup, backups, restore, rehearse, index, migrate):
    db.add_command(_command)


@db.command()
@env_option
@command_options
def collections(session: Session, env: str) -> None:
    """List collections with who may do what.

    \b
    Example:
      cloudlet db collections --env shop
    """
    answer = session.client().get(environment_path(env, "collections"))
    session.show(answer, lambda: _collections_text(answer["collections"]))


@db.command()
@collection_argument
@click.option(
    "--preset", type=click.Choice(PRESETS), default="PRIVATE", show_default=True, help="Who may do what."
)
@env_option
@command_options
def create(session: Session, collection: str, preset: str, env: str) -> None:
    """Make the collection COLLECTION.

    \b
    Example:
      cloudlet db create orders --preset READONLY
    """
    body = {"name": collection, "preset": preset}
    answer = session.client().post(environment_path(env, "collections"), body)
    session.show(answer, lambda: f"collection {answer['name']} created ({answer['preset']})")


@db.command()
@collection_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@env_option
@command_options
def drop(session: Session, collection: str, yes: bool, env: str) -> None:
    """Remove the collection COLLECTION with all its documents.

    \b
    Example:
      cloudlet db drop orders_old --yes
    """
    path = collection_path(env, collection)
    confirm(f"Remove the collection {collection} of {env} with all its documents?", yes)
    answer = session.client().delete(path)
    session.show(answer, lambda: f"collection {answer['deleted']} removed")


@db.command()
@click.argument("collection", required=False)
@env_option
@command_options
def stats(session: Session, collection: str | None, env: str) -> None:
    """Show how many documents and bytes there are, of COLLECTION or of all collections.

    \b
    Examples:
      cloudlet db stats
      cloudlet db stats orders
    """
    client = session.client()
    if collection is None:
        found = client.get(environment_path(env, "collections"))["collections"]
        names = [str(each["name"]) for each in found]
    else:
        names = [collection]
    sizes = [client.get(collection_path(env, name, "stats")) for name in names]
    session.show({"collections": sizes}, lambda: _stats_text(sizes))


@db.command()
@collection_argument
@click.option("--filter", "filter_", default="{}", metavar="JSON|@FILE|-", help="The query.")
@click.option("--sort", default=None, metavar="JSON", help='The order, such as {"at": -1}.')
@click.option("--skip", type=click.IntRange(0), default=0, help="Documents to skip.")
@click.option("--limit", type=click.IntRange(1), default=None, help="Documents wanted at most.")
@click.option("--openid", default=None, help="Ask as this user; without it as the server.")
@env_option
@command_options
def explain(
    session: Session,
    collection: str,
    filter_: str,
    sort: str | None,
    skip: int,
    limit: int | None,
    openid: str | None,
    env: str,
) -> None:
    """Answer a query on COLLECTION and show how: the index, and what was looked at.

    \b
    Examples:
      cloudlet db explain orders --filter '{"state": "open"}' --sort '{"at": -1}' --limit 20
      cloudlet db explain orders --filter @query.json --openid user-a
    """
    body: dict[str, Any] = {"filter": json_given(filter_, "--filter"), "skip": skip}
    if sort is not None:
        body["sort"] = json_given(sort, "--sort")
    if limit is not None:
        body["limit"] = limit
    if openid is not None:
        body["openid"] = openid
    answer = session.client().post(collection_path(env, collection, "explain"), body)
    session.show(answer, lambda: _explained_text(answer))


@db.command()
@collection_argument
@click.argument("permission", required=False, metavar="[PRESET|RULE|@FILE]")
@click.option("--no-rule", is_flag=True, help="Take the rule away: the preset counts again.")
@click.option("--explain", "operation", type=click.Choice(OPERATIONS), help="Say whether this is allowed.")
@click.option("--openid", default="", help="With --explain: the user.")
@click.option("--filter", "filter_", default="{}", metavar="JSON|@FILE", help="With --explain: the query.")
@click.option("--doc", default="{}", metavar="JSON|@FILE", help="With --explain: the document or update.")
@env_option
@command_options
def acl(
    session: Session,
    collection: str,
    permission: str | None,
    no_rule: bool,
    operation: str | None,
    openid: str,
    filter_: str,
    doc: str,
    env: str,
) -> None:
    """Show or set who may do what with COLLECTION: a preset, or a rule as JSON. It holds for the next call.

    READONLY: everybody reads, the creator writes. PRIVATE: only the creator. ADMINWRITE: everybody reads.
    ADMINONLY: only functions and servers.

    \b
    Examples:
      cloudlet db acl orders
      cloudlet db acl orders PRIVATE
      cloudlet db acl orders '{"read": true, "write": "doc._openid == auth.openid"}'
      cloudlet db acl orders @rule.json
      cloudlet db acl orders --explain read --openid user-a --filter '{"state": "open"}'
    """
    if sum((permission is not None, no_rule, operation is not None)) > 1:
        raise click.UsageError("give one of PRESET or RULE, --no-rule and --explain")
    client = session.client()
    if operation is not None:
        asked = {
            "operation": operation,
            "filter": json_given(filter_, "--filter"),
            "data": json_given(doc, "--doc"),
            "openid": openid,
        }
        answer = client.post(collection_path(env, collection, "access"), asked)
        session.show(answer, lambda: "allowed" if answer["allowed"] else f"refused: {answer['why']}")
        return
    if permission is not None and permission.upper() in PRESETS:
        # A rule counts before a preset, so it has to go, and last: nobody may do more in between.
        client.put(collection_path(env, collection, "preset"), {"preset": permission.upper()})
        client.put(collection_path(env, collection, "rule"), {"rule": None})
    elif permission is not None:
        client.put(collection_path(env, collection, "rule"), {"rule": _rule(permission)})
    elif no_rule:
        client.put(collection_path(env, collection, "rule"), {"rule": None})
    found = client.get(environment_path(env, "collections"))["collections"]
    shown = next((each for each in found if each["name"] == collection), None)
    if shown is None:
        # Says that there is none, in the words of every other command.
        client.get(collection_path(env, collection, "stats"))
    session.show(shown, lambda: _acl_text(shown or {}))


def _rule(given: str) -> Any:
    if not given.startswith(("{", "@", "-")):
        raise click.UsageError(
            f"{given[:40]!r} is neither a preset ({', '.join(PRESETS)}) "
            "nor a rule such as '{\"read\": true}'"
        )
    return json_given(given, "RULE")


def _acl_text(collection: Mapping[str, Any]) -> str:
    if "rule" in collection:
        return f"{collection['name']}: rule {json.dumps(collection['rule'], ensure_ascii=False)}"
    return f"{collection['name']}: {collection['preset']}"


def _collections_text(found: list[Mapping[str, Any]]) -> str:
    if not found:
        return "No collections yet: make one with 'cloudlet db create NAME'."
    rows = [
        {"name": str(each["name"]), "who": "rule" if "rule" in each else str(each["preset"])}
        for each in found
    ]
    return table(rows, {"name": "COLLECTION", "who": "PERMISSION"})


def _stats_text(found: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return "No collections yet: make one with 'cloudlet db create NAME'."
    rows = [
        {
            "name": str(each["name"]),
            "documents": f"{each['documents']:,}",
            "size": size(each["bytes"]),
            "indexes": ", ".join(f"{index['name']} ({index['entries']:,})" for index in each["indexes"]),
        }
        for each in found
    ]
    columns = {"name": "COLLECTION", "documents": "DOCUMENTS", "size": "SIZE", "indexes": "INDEXES (ENTRIES)"}
    return table(rows, columns)


def _explained_text(answer: Mapping[str, Any]) -> str:
    lines = [
        f"Index      {answer['index'] or 'none: every document is looked at'}",
        f"Ranges     {answer['ranges']}",
        f"Ordered    {'as it comes' if answer['ordered'] else 'sorted afterwards'}",
        f"Examined   {answer['examined']:,}",
        f"Returned   {answer['returned']:,}",
        f"Time       {answer['ms']:.2f} ms{', in a process of its own' if answer['worker'] else ''}",
    ]
    if answer["index"] is None and answer["examined"] > 100 * max(1, answer["returned"]):
        lines.append("An index would help: cloudlet db index create COLLECTION FIELD …")
    return "\n".join(lines)
