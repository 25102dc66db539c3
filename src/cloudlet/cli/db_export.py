"""``cloudlet db export``."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import click

from .db_words import Progress, collection_argument, collection_path, json_given, size
from .exit_codes import ExitCode
from .names import env_option
from .session import CommandFailed, Session, command_options


@click.command()
@collection_argument
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File; default: print.")
@click.option(
    "--format", "format_", type=click.Choice(["json", "csv"]), help="Default: by the output's name."
)
@click.option("--filter", "filter_", default=None, metavar="JSON|@FILE", help="Only what matches this query.")
@click.option("--fields", default="", help="Only these fields, separated by commas; dots lead inside.")
@click.option("--relaxed", is_flag=True, help="Easier to read, but types of numbers are lost.")
@click.option("--force", is_flag=True, help="Replace the output file.")
@env_option
@command_options
def export(
    session: Session,
    collection: str,
    output: Path | None,
    format_: str | None,
    filter_: str | None,
    fields: str,
    relaxed: bool,
    force: bool,
    env: str,
) -> None:
    """Export COLLECTION as it is at one moment, in order of insertion: JSON Lines or CSV.

    An output whose name ends in .gz is compressed. The file is complete or not there.

    \b
    Examples:
      cloudlet db export orders -o orders.jsonl.gz
      cloudlet db export orders -o open.csv --filter '{"state": "open"}' --fields _id,no,user.name
    """
    name = "" if output is None else output.name.lower()
    query = {
        "format": format_ or ("csv" if name.removesuffix(".gz").endswith(".csv") else "json"),
        "filter": "{}"
        if filter_ is None
        else json.dumps(json_given(filter_, "--filter"), ensure_ascii=False),
        "fields": fields,
        "relaxed": "true" if relaxed else "false",
        "gzip": "true" if name.endswith(".gz") else "false",
    }
    path = collection_path(env, collection, "export")
    if output is None:
        if session.as_json:
            raise click.UsageError("--json tells about a file: add --output FILE")
        session.client().download(path, query, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
        return
    if output.exists() and not force:
        raise CommandFailed(f"{output} exists: add --force to replace it", ExitCode.REFUSED, "already_exists")
    received = _received(session, path, query, output)
    answer = {"collection": collection, "file": str(output), "bytes": received}
    session.show(answer, lambda: f"{collection} exported to {output} ({size(received)})")


def _received(session: Session, path: str, query: dict[str, str], output: Path) -> int:
    part = output.with_name(f".{output.name}.part")
    done = 0
    try:
        with Progress(session.as_json) as progress, part.open("wb") as file:

            def write(piece: bytes) -> None:
                nonlocal done
                file.write(piece)
                done += len(piece)
                progress.say(f"Exporting: {size(done)}")

            session.client().download(path, query, write)
        if query["gzip"] == "true":
            _check_gzip(part)
        part.replace(output)
    except OSError as exc:
        raise CommandFailed(f"cannot write {output}: {exc}", ExitCode.FAILED, "failed") from exc
    finally:
        part.unlink(missing_ok=True)
    return done


def _check_gzip(part: Path) -> None:
    with gzip.open(part, "rb") as file:
        while file.read(1024 * 1024):
            pass
