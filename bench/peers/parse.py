"""Parse Server on PostgreSQL, with the notes of bench-documents in it."""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.harness import notes
from bench.harness.errors import BenchmarkFailed
from bench.harness.postgres import Postgres
from bench.harness.servers import free_port, server
from bench.peers import HERE, install_parse_server

DATABASE = "parse"
_COLUMNS = "title, tags, place, text, count"
_COPY = f"""
INSERT INTO "Note" ("objectId", "createdAt", "updatedAt", owner, "at", price, {_COLUMNS})
SELECT 'n' || lpad(n::text, 7, '0'), "createdAt", "updatedAt",
       'o' || lpad((n % {notes.OWNERS})::text, 2, '0'), "at" + n * interval '{notes.STEP_MS} ms', n * 0.5,
       {_COLUMNS}
FROM "Note" CROSS JOIN generate_series(1, {notes.NOTES - 1}) AS n WHERE "objectId" = '{notes.note_id(0)}'
"""


@dataclass(frozen=True, slots=True)
class ParseServer:
    url: str
    key: str
    """Its master key, made for this run."""
    pid: int


@contextmanager
def parse_server(database: Postgres, work: Path) -> Iterator[ParseServer]:
    """Run it until the block ends, the notes loaded and indexed as ours are."""
    installed = install_parse_server()
    database.execute("postgres", f'CREATE DATABASE "{DATABASE}"')
    folder, port, key = work / "parse-server", free_port(), secrets.token_hex(16)
    folder.mkdir()
    environment = {
        **installed.environment,
        "PORT": str(port),
        "PARSE_KEY": key,
        "PGHOST": str(database.server.directory),
        "PGDATABASE": DATABASE,
    }
    command = [str(installed.node), str(HERE / "parse-server" / "server.cjs")]
    with server("parse-server", command, folder, port, environment) as pid:
        running = ParseServer(f"http://127.0.0.1:{port}", key, pid)
        _post(running, "Note", {"objectId": notes.note_id(0), **notes.parse_note(0)})
        _post(running, "Fresh", notes.parse_note(0))
        indexes = [f'CREATE INDEX ON "{name}" (owner, "at" DESC)' for name in ("Note", "Fresh")]
        database.execute(DATABASE, _COPY, *indexes, "VACUUM ANALYZE")
        yield running


def _post(to: ParseServer, name: str, document: Mapping[str, object]) -> None:
    connection = http.client.HTTPConnection(to.url.removeprefix("http://"), timeout=30)
    headers = {
        "X-Parse-Application-Id": "bench",
        "X-Parse-Master-Key": to.key,
        "content-type": "application/json",
    }
    try:
        connection.request("POST", f"/parse/classes/{name}", json.dumps(document), headers)
        answer = connection.getresponse()
        said = answer.read()
    finally:
        connection.close()
    if answer.status != 201:
        raise BenchmarkFailed(f"parse-server answered {answer.status}: {said[:300]!r}")
