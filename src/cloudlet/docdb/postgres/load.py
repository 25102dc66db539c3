"""Filling an environment from a document file: numbers, revisions, entries and change log as they are there.

A load that was cut off goes on where it was; until it is complete no store opens the environment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

import apsw

from cloudlet.docdb import sqlite_file
from cloudlet.docdb.base import CollectionInfo
from cloudlet.docdb.catalog import options_text, parts_text
from cloudlet.docdb.planner import IndexInfo
from cloudlet.docdb.postgres.address import Address
from cloudlet.docdb.postgres.backup import CHECKED_TOGETHER, checksum
from cloudlet.docdb.postgres.faults import ENGINE_ERRORS, translated
from cloudlet.docdb.postgres.pool import connect
from cloudlet.docdb.postgres.schema import has_schema, make_schema
from cloudlet.docdb.postgres.sql import Names, names, statement
from cloudlet.model.errors import AlreadyExists, Internal

ROWS: Final = 200
"""Documents that are read from the file at once: a few milliseconds on the event loop."""
ENTRIES: Final = 2_000
BYTES: Final = 8 * 1024 * 1024

Loaded: TypeAlias = Callable[[str, int], None]
"""Told the name of a collection and how many of its documents were loaded so far."""


async def load(address: Address, environment: str, source: Path, mark: str, loaded: Loaded) -> int:
    """Bring the file into the database; returns the last ``seq`` in it. ``mark`` names the file.

    Raises AlreadyExists if the environment has documents there already, StoreUnavailable, Internal if the
    checksums of both sides differ.
    """
    connection = await connect(address)
    try:
        with closing(sqlite_file.open_reader(source)) as file, sqlite_file.engine_errors():
            return await _Loading(connection, names(environment), file, loaded).run(mark)
    except ENGINE_ERRORS as exc:
        raise translated(exc) from exc
    finally:
        connection.terminate()


async def erase(address: Address, environment: str, mark: str | None = None) -> None:
    """Remove an environment from the database; with ``mark`` only if it is that copy, half loaded."""
    connection = await connect(address)
    at = names(environment)
    try:
        if mark is not None:
            if not await has_schema(connection, at):
                return
            if await connection.fetchval(statement("loading", at)) != mark:
                return
        await connection.execute(statement("drop_schema", at))
    except ENGINE_ERRORS as exc:
        raise translated(exc) from exc
    finally:
        connection.terminate()


class _Loading:
    """One load over one connection."""

    def __init__(self, connection: Any, at: Names, file: apsw.Connection, loaded: Loaded) -> None:
        self._connection = connection
        self._at = at
        self._file = file
        self._loaded = loaded

    async def run(self, mark: str) -> int:
        """Load, compare, and open the environment."""
        catalog = sqlite_file.load_catalog(self._file)
        await self._begin(catalog.values(), mark)
        for info in catalog.values():
            await self._documents(info)
            for index in info.indexes:
                if index.ready:
                    await self._entries(index)
            await self._check(info)
        await self._changes()
        seq = sqlite_file.last_seq(self._file)
        await self._connection.execute(statement("loaded", self._at))
        return seq

    async def _begin(self, infos: Any, mark: str) -> None:
        """Tables and catalog, all or nothing."""
        execute, at = self._connection.execute, self._at
        await execute(statement("begin", at))
        if await has_schema(self._connection, at):
            found = await self._connection.fetchval(statement("loading", at))
            await execute("ROLLBACK")
            if found != mark:
                raise AlreadyExists(
                    f"the database has a schema {at.schema} already: drop it or use another one"
                )
            return
        await make_schema(self._connection, at, sqlite_file.last_seq(self._file), mark)
        for info in infos:
            row = (info.number, info.name, info.preset.value, info.rule)
            await execute(statement("load_collection", at), *row)
            await execute(statement("create_collection_table", at, info.number))
            for index in info.indexes:
                await self._make_index(info, index)
        for name, table in (("continue_collections", "coll"), ("continue_indexes", "idx")):
            highest = self._file.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).get
            if highest:
                await self._connection.fetchval(statement(name, at), highest)
        await execute("COMMIT")

    async def _make_index(self, info: CollectionInfo, index: IndexInfo) -> None:
        """An index that was being filled is left out: its maker has to ask again."""
        if not index.ready:
            return
        flags = (index.unique, index.multikey, index.lossy)
        row = (index.number, info.number, index.name, parts_text(index.parts), options_text(index), *flags)
        await self._connection.execute(statement("load_index", self._at), *row)
        table = "create_unique_table" if index.unique else "create_index_table"
        await self._connection.execute(statement(table, self._at, x=index.number))

    async def _documents(self, info: CollectionInfo) -> None:
        after = await self._connection.fetchval(statement("last_document", self._at, info.number))
        text = f"SELECT did, id_key, rev, json(body) FROM c_{info.number:d} WHERE did > ? ORDER BY did"  # noqa: S608
        done = int(self._file.execute(f"SELECT count(*) FROM c_{info.number:d} WHERE did <= ?", (after,)).get)  # noqa: S608
        self._loaded(info.name, done)
        for rows in _batches(self._file.execute(text, (after,)), ROWS):
            await self._copy(f"c_{info.number:d}", ("did", "id_key", "rev", "body"), rows)
            done += len(rows)
            self._loaded(info.name, done)

    async def _entries(self, index: IndexInfo) -> None:
        last = await self._connection.fetchrow(statement("last_entry", self._at, x=index.number))
        after = (b"", -1) if last is None else tuple(last)
        text = f"SELECT k, did FROM x_{index.number:d} WHERE (k, did) > (?, ?) ORDER BY k, did"  # noqa: S608
        for rows in _batches(self._file.execute(text, after), ENTRIES):
            await self._copy(f"x_{index.number:d}", ("k", "did"), rows)

    async def _changes(self) -> None:
        after = await self._connection.fetchval(statement("last_change", self._at))
        text = "SELECT seq, coll, op, seq, json(before), json(after), at FROM chg WHERE seq > ? ORDER BY seq"
        columns = ("seq", "coll", "op", "rev", "before", "after", "at")
        for rows in _batches(self._file.execute(text, (after,)), ROWS):
            await self._copy("chg", columns, rows)

    async def _copy(self, table: str, columns: Sequence[str], rows: Sequence[Any]) -> None:
        await self._connection.copy_records_to_table(
            table, schema_name=self._at.schema, columns=columns, records=rows
        )

    async def _check(self, info: CollectionInfo) -> None:
        """Compare both sides range by range."""
        text = statement("checksum", self._at, info.number)
        after = 0
        while True:
            last = self._range_end(info, after)
            ours = await asyncio.to_thread(checksum, self._file, info.number, after, last)
            theirs = await self._connection.fetchrow(text, after, last)
            if ours != (theirs[0], int(theirs[1])):
                raise Internal(f"the copy of {info.name} differs from its source between {after} and {last}")
            if ours[0] < CHECKED_TOGETHER:
                return
            after = last

    def _range_end(self, info: CollectionInfo, after: int) -> int:
        text = f"SELECT did FROM c_{info.number:d} WHERE did > ? ORDER BY did LIMIT 1 OFFSET ?"  # noqa: S608
        found = self._file.execute(text, (after, CHECKED_TOGETHER - 1)).get
        return 2**62 if found is None else int(found)


def _batches(rows: Iterator[Any], count: int) -> Iterator[Sequence[Any]]:
    """Rows in parts of bounded number and size."""
    while batch := list(islice(rows, count)):
        start = size = 0
        for position, row in enumerate(batch):
            size += sum(len(value) for value in row if isinstance(value, str | bytes))
            if size > BYTES:
                yield batch[start : position + 1]
                start, size = position + 1, 0
        if start < len(batch):
            yield batch[start:]
