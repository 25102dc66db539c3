"""``cloudlet db import`` and ``cloudlet db imports``."""

from __future__ import annotations

import gzip
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import click

from .client import AdminClient, environment_path
from .db_words import Progress, collection_argument, collection_path, size
from .exit_codes import ExitCode
from .names import env_option
from .session import CommandFailed, Session, ago, command_options, printable, table

POLL_S = 0.3
PIECE_BYTES = 256 * 1024
PROBLEMS_SHOWN = 10


@click.command("import")
@collection_argument
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--format", "format_", type=click.Choice(["json", "csv"]), help="Default: by the file's name.")
@click.option(
    "--mode",
    type=click.Choice(["insert", "upsert"]),
    default="insert",
    show_default=True,
    help="insert: a document whose _id exists is a failure; upsert: it is replaced.",
)
@click.option("--stop-on-error", is_flag=True, help="Stop at the first line that fails.")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@env_option
@command_options
def import_(
    session: Session,
    collection: str,
    file: Path,
    format_: str | None,
    mode: str,
    stop_on_error: bool,
    detach: bool,
    env: str,
) -> None:
    """Import FILE into COLLECTION: JSON Lines (one object a line) or CSV with a header; .gz is unpacked.

    The import belongs to cloudlet: it goes on when this command ends, and after a restart. A line that fails
    leaves the others alone; the exit code is 1 if there was one.

    \b
    Examples:
      cloudlet db import orders orders.jsonl
      cloudlet db import users users.csv --mode upsert
      gunzip -c dump.json.gz | cloudlet db import orders - --format json
    """
    query = {
        "collection": collection,
        "format": format_ or _format(file),
        "mode": mode,
        "stop_on_error": "true" if stop_on_error else "false",
    }
    client = session.client()
    client.get(collection_path(env, collection, "indexes"))  # Before a large file is sent for nothing.
    with Progress(session.as_json) as progress, _opened(file) as source:
        job = client.send(environment_path(env, "imports"), query, _pieces(source, file, progress))
        if not detach:
            job = _followed(client, env, job, progress)
    session.show(job, lambda: _job_text(job))
    if job["state"] == "failed" or job["failed"]:
        raise click.exceptions.Exit(ExitCode.FAILED)


@click.command()
@click.argument("job", required=False)
@click.option("--cancel", is_flag=True, help="End JOB after the batch it is writing.")
@click.option("--resume", is_flag=True, help="Let JOB go on where it failed or was cancelled.")
@click.option("--wait", is_flag=True, help="Wait for the end of JOB.")
@env_option
@command_options
def imports(session: Session, job: str | None, cancel: bool, resume: bool, wait: bool, env: str) -> None:
    """List imports, or show, cancel or resume the import JOB.

    \b
    Examples:
      cloudlet db imports
      cloudlet db imports 3f0c… --wait
      cloudlet db imports 3f0c… --resume
    """
    if job is None and (cancel or resume or wait):
        raise click.UsageError("name the JOB: see 'cloudlet db imports'")
    if cancel and (resume or wait):
        raise click.UsageError("--cancel goes with neither --resume nor --wait")
    client = session.client()
    if job is None:
        answer = client.get(environment_path(env, "imports"))
        session.show(answer, lambda: _list_text(answer["imports"]))
        return
    path = environment_path(env, "imports", job)
    if cancel:
        found = client.delete(path)
    else:
        found = client.post(f"{path}/resume", {}) if resume else client.get(path)
    if wait:
        with Progress(session.as_json) as progress:
            found = _followed(client, env, found, progress)
    session.show(found, lambda: _job_text(found))


def _format(file: Path) -> str:
    """By the name, without ``.gz``. Raise UsageError."""
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() != ".gz"]
    last = suffixes[-1] if suffixes else ""
    if last == ".csv":
        return "csv"
    if last in (".json", ".jsonl", ".ndjson"):
        return "json"
    raise click.UsageError(f"the name {file} does not say what is in it: add --format json or --format csv")


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        raw = file.open("rb")
    except OSError as exc:
        raise CommandFailed(f"cannot read {file}: {exc.strerror}", ExitCode.NOT_FOUND, "not_found") from exc
    with raw:
        if file.suffix.lower() != ".gz":
            yield raw
            return
        with gzip.GzipFile(fileobj=raw) as unpacked:
            yield cast("IO[bytes]", unpacked)


def _pieces(source: IO[bytes], file: Path, progress: Progress) -> Iterator[bytes]:
    sent = 0
    try:
        while piece := source.read(PIECE_BYTES):
            yield piece
            sent += len(piece)
            progress.say(f"Sending {file}: {size(sent)}")
    except (EOFError, gzip.BadGzipFile) as exc:
        raise CommandFailed(f"{file} is damaged: {exc}", ExitCode.REFUSED, "malformed_body") from exc


def _followed(client: AdminClient, env: str, job: dict[str, Any], progress: Progress) -> dict[str, Any]:
    path = environment_path(env, "imports", str(job["id"]))
    try:
        while job["state"] in ("queued", "running"):
            share = 100 * job["offset"] / max(1, job["bytes"])
            done = job["inserted"] + job["replaced"] + job["unchanged"]
            progress.say(f"Importing: {share:.0f} %, {done:,} documents, {job['failed']:,} failed")
            time.sleep(POLL_S)
            job = client.get(path)
    except KeyboardInterrupt:
        progress.say("")
        click.echo(f"The import goes on: see 'cloudlet db imports {job['id']} --env {env}'", err=True)
        raise
    return job


def _job_text(job: Mapping[str, Any]) -> str:
    counts = [f"{job['inserted']:,} inserted"]
    counts += [f"{job[name]:,} {name}" for name in ("replaced", "unchanged", "failed") if job[name]]
    text = [f"import {job['id']}: {job['state']}, {', '.join(counts)}"]
    if job["message"]:
        text.append(f"  {printable(job['message'])}")
    shown = job["problems"][:PROBLEMS_SHOWN]
    text += [f"  line {each['line']}: {printable(each['message'])}" for each in shown]
    if job["failed"] > len(shown):
        text.append(f"  … and {job['failed'] - len(shown):,} more: --json shows the first 100")
    if job["resumable"]:
        text.append(f"  go on with 'cloudlet db imports {job['id']} --resume'")
    return "\n".join(text)


def _list_text(found: list[Mapping[str, Any]]) -> str:
    if not found:
        return "No imports: start one with 'cloudlet db import COLLECTION FILE'."
    now = time.time()
    rows = [
        {
            "id": str(each["id"]),
            "collection": str(each["collection"]),
            "state": str(each["state"]),
            "done": f"{each['inserted'] + each['replaced'] + each['unchanged']:,}",
            "failed": f"{each['failed']:,}",
            "begun": ago(each["created_ms"] / 1000, now),
        }
        for each in found
    ]
    columns = {"id": "IMPORT", "collection": "COLLECTION", "state": "STATE", "done": "DOCUMENTS"}
    return table(rows, {**columns, "failed": "FAILED", "begun": "BEGUN"})
