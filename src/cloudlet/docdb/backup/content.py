"""What a document file holds, counted and summed: the same for a copy as for what it was copied from."""

from __future__ import annotations

import hashlib

import apsw

from cloudlet.docdb import sqlite_file
from cloudlet.docdb.backup.manifest import Content
from cloudlet.docdb.base import CollectionInfo
from cloudlet.model.errors import StoreUnavailable


def contents(connection: apsw.Connection) -> dict[str, Content]:
    """Every collection of a document file, by name. Blocks. Raises StoreUnavailable."""
    with sqlite_file.engine_errors():
        catalog = sqlite_file.load_catalog(connection)
        return {name: _content(connection, info) for name, info in catalog.items()}


def check_file(connection: apsw.Connection) -> None:
    """Raises StoreUnavailable if the file is damaged. Blocks."""
    with sqlite_file.engine_errors():
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(10)")]
    if found != ["ok"]:
        raise StoreUnavailable(f"the copy is damaged: {'; '.join(found)[:300]}")


def _content(connection: apsw.Connection, info: CollectionInfo) -> Content:
    digest = hashlib.sha256()
    count = 0
    # The number comes from the file's own catalog.
    text = f"SELECT id_key, rev, json(body) FROM c_{info.number:d} ORDER BY did"  # noqa: S608
    for key, rev, body in connection.execute(text):
        digest.update(b"%d %d %d " % (len(key), rev, len(body)))
        digest.update(key)
        digest.update(body.encode())
        count += 1
    names = tuple(index.name for index in info.indexes if index.ready)
    return Content(count, digest.hexdigest(), names)
