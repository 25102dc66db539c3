"""A consistent copy of an environment as a document file of the other engine, checked against its source."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import apsw

from cloudlet.docdb import sqlite_file
from cloudlet.docdb.base import CollectionInfo, id_key
from cloudlet.docdb.body import decode_body
from cloudlet.docdb.catalog import options_text, parts_text
from cloudlet.docdb.newfile import new_file
from cloudlet.docdb.postgres.address import Address
from cloudlet.docdb.postgres.catalog import Catalog, read_catalog
from cloudlet.docdb.postgres.faults import ENGINE_ERRORS, translated
from cloudlet.docdb.postgres.paging import pages
from cloudlet.docdb.postgres.pool import connect
from cloudlet.docdb.postgres.sql import Names, names, statement
from cloudlet.model.errors import Internal, ShuttingDown

CHECKED_TOGETHER: Final = 10_000
"""Documents of one checksum."""
_PRAGMAS: Final = ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF")
"""The file is not there until it is whole and synced, so nothing has to survive before."""


def back_up(address: Address, environment: str, target: Path, stop: threading.Event) -> int:
    """Write everything of one snapshot to the new file ``target``; returns the last ``seq`` in it.

    Blocks; ``stop`` ends it early. Raises AlreadyExists, StoreUnavailable, ShuttingDown when stopped, and
    Internal if the checksums of both sides differ.
    """
    with new_file(target) as part, asyncio.Runner() as runner:
        connection = runner.run(connect(address))
        try:
            copy = sqlite_file.open_writer(part)
            with closing(copy), sqlite_file.engine_errors():
                for pragma in _PRAGMAS:
                    copy.execute(pragma).fetchall()
                seq = _Copying(runner, connection, names(environment), copy, stop).run()
        except ENGINE_ERRORS as exc:
            raise translated(exc) from exc
        finally:
            connection.terminate()
    return seq


def checksum(connection: apsw.Connection, number: int, after: int, last: int) -> tuple[int, int]:
    """Number and checksum of the documents of a file in a range of numbers, as PostgreSQL computes them."""
    count = total = 0
    text = f"SELECT id_key, rev, json(body) FROM c_{number:d} WHERE did > ? AND did <= ?"  # noqa: S608
    for key, rev, body in connection.execute(text, (after, last)):
        digest = hashlib.md5(f"{key.hex()}:{rev}:{body}".encode(), usedforsecurity=False).hexdigest()
        total += int(digest[:15], 16)
        count += 1
    return count, total


class _Copying:
    """One copy from one snapshot."""

    def __init__(
        self,
        runner: asyncio.Runner,
        connection: Any,
        at: Names,
        copy: apsw.Connection,
        stop: threading.Event,
    ) -> None:
        self._runner = runner
        self._connection = connection
        self._at = at
        self._copy = copy
        self._stop = stop

    def run(self) -> int:
        """Copy catalog, documents, entries and change log."""
        catalog = self._runner.run(self._begin())
        with self._copy:
            self._write_catalog(catalog)
        for info in catalog.collections.values():
            with self._copy:
                self._write_collection(info)
            self._check(info)
        return self._write_changes()

    async def _begin(self) -> Catalog:
        await self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return await read_catalog(self._connection, self._at)

    def _pages(self, text: str) -> Iterator[Any]:
        for page in pages(self._runner, self._connection, text):
            if self._stop.is_set():
                raise ShuttingDown("the copy was stopped")
            yield page

    def _write_catalog(self, catalog: Catalog) -> None:
        execute = self._copy.execute
        for info in catalog.collections.values():
            row = (info.number, info.name, info.preset.value, info.rule)
            execute("INSERT INTO coll (n, name, preset, rule) VALUES (?, ?, ?, ?)", row)
            execute(sqlite_file.statement("create_collection_table", info.number))
            for index in info.indexes:
                if not index.ready:
                    continue
                flags = (index.unique, index.multikey, index.lossy)
                execute(
                    "INSERT INTO idx (n, coll, name, parts, options, uniq, multikey, lossy, ready) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)",
                    (
                        index.number,
                        info.number,
                        index.name,
                        parts_text(index.parts),
                        options_text(index),
                        *flags,
                    ),
                )
                table = "create_unique_table" if index.unique else "create_index_table"
                execute(sqlite_file.statement(table, x=index.number))

    def _write_collection(self, info: CollectionInfo) -> None:
        text = f"INSERT INTO c_{info.number:d} (did, id_key, rev, body) VALUES (?, ?, ?, jsonb(?))"  # noqa: S608
        for page in self._pages(statement("all_documents", self._at, info.number)):
            self._copy.executemany(text, map(tuple, page))
        for index in info.indexes:
            if index.ready:
                text = f"INSERT INTO x_{index.number:d} (k, did) VALUES (?, ?)"  # noqa: S608
                for page in self._pages(statement("all_entries", self._at, x=index.number)):
                    self._copy.executemany(text, map(tuple, page))

    def _write_changes(self) -> int:
        columns = "seq, coll, op, id, before, after, at"
        text = f"INSERT INTO chg ({columns}) VALUES (?, ?, ?, ?, jsonb(?), jsonb(?), ?)"  # noqa: S608
        last = 0
        with self._copy:
            for page in self._pages(statement("all_changes", self._at)):
                for seq, collection, op, before, after, at_ms in page:
                    key = id_key(decode_body(after or before)["_id"])
                    self._copy.execute(text, (seq, collection, op, key, before, after, at_ms))
                    last = seq
        return last

    def _check(self, info: CollectionInfo) -> None:
        """Compare what was written with what the snapshot says, range by range."""
        text = statement("checksum", self._at, info.number)
        after = 0
        while True:
            last = self._range_end(info, after)
            ours = checksum(self._copy, info.number, after, last)
            theirs = self._runner.run(self._connection.fetchrow(text, after, last))
            if ours != (theirs[0], int(theirs[1])):
                raise Internal(f"the copy of {info.name} differs from its source between {after} and {last}")
            if ours[0] < CHECKED_TOGETHER:
                return
            after = last

    def _range_end(self, info: CollectionInfo, after: int) -> int:
        text = f"SELECT did FROM c_{info.number:d} WHERE did > ? ORDER BY did LIMIT 1 OFFSET ?"  # noqa: S608
        found = self._copy.execute(text, (after, CHECKED_TOGETHER - 1)).get
        return 2**62 if found is None else int(found)
