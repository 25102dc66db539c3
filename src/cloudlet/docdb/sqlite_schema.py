"""Changes of the schema of a document file, and the filling of new indexes piece by piece."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import apsw
import structlog

from cloudlet.docdb import sqlite_file
from cloudlet.docdb.base import (
    CollectionInfo,
    CreateCollection,
    CreateIndex,
    DropCollection,
    DropIndex,
    SchemaChange,
    SetPreset,
    SetRule,
    find_collection,
)
from cloudlet.docdb.catalog import (
    new_index,
    options_text,
    owner_index,
    parts_text,
    with_collection,
    with_index,
    without_index,
)
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.planner import IndexInfo
from cloudlet.docdb.sqlite_file import statement
from cloudlet.docdb.sqlite_tables import SqliteTables
from cloudlet.model.errors import InvalidDocument, PlatformError, StoreUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")
BACKFILL_DOCUMENTS: Final = 1_000


@dataclass(slots=True)
class Backfill(Generic[T]):
    """An index that is being filled, a piece per turn so that other writes get theirs.

    ``owner`` is whoever waits for it.
    """

    owner: T
    collection: str
    index: IndexInfo
    after_did: int = 0


class SqliteSchema(Generic[T]):
    """Runs on the writing thread, between the transactions of documents."""

    def __init__(self, tables: SqliteTables, limits: DocdbLimits) -> None:
        self._tables = tables
        self._connection = tables.connection
        self._limits = limits
        self.backfills: deque[Backfill[T]] = deque()

    def drop_unfinished_indexes(self) -> None:
        """An index whose filling was cut off was never answered for; it is removed."""
        with self._connection:
            for info in sqlite_file.load_catalog(self._connection).values():
                for index in info.indexes:
                    if not index.ready:
                        log.warning("unfinished_index_removed", collection=info.name, index=index.name)
                        self._remove_index(index)

    def change(self, change: SchemaChange, owner: T) -> bool:
        """Make a change; False if it is an index, for which ``owner`` has to wait until it is filled."""
        with self._connection:
            self._apply(change)
        self._tables.load()
        if not isinstance(change, CreateIndex):
            return True
        index = self._tables.catalog[change.collection].indexes[-1]
        self.backfills.append(Backfill(owner, change.collection, index))
        return False

    def fill(self) -> T | None:
        """Enter the next documents of the oldest backfill; its owner when it is done.

        What is raised is the owner's affair too: the backfill has been given up then.
        """
        backfill = self.backfills[0]
        mark = self._tables.mark()
        try:
            with self._connection:
                done = self._enter_documents(backfill)
            if not done:
                return None
            self._tables.load()
        except BaseException:
            self._tables.restore(mark)
            self._abandon(backfill)
            raise
        self.backfills.popleft()
        return backfill.owner

    def _apply(self, change: SchemaChange) -> None:
        execute = self._connection.execute
        catalog = self._tables.catalog
        match change:
            case CreateCollection():
                self._create_collection(change)
            case DropCollection(name):
                self._drop_collection(find_collection(catalog, name))
            case SetPreset(name, preset):
                execute(statement("set_preset"), (preset.value, find_collection(catalog, name).number))
            case SetRule(name, rule):
                execute(statement("set_rule"), (rule, find_collection(catalog, name).number))
            case CreateIndex(collection):
                info = find_collection(catalog, collection)
                index = new_index(change, 0, ready=False)
                with_index(info, index, self._limits)
                self._add_index(info.number, index)
            case DropIndex(collection, name):
                self._remove_index(without_index(find_collection(catalog, collection), name)[1])

    def _drop_collection(self, info: CollectionInfo) -> None:
        execute = self._connection.execute
        for index in info.indexes:
            execute(statement("drop_index_table", x=index.number))
        execute(statement("remove_indexes_of"), (info.number,))
        execute(statement("remove_collection"), (info.number,))
        execute(statement("drop_collection_table", info.number))

    def _create_collection(self, change: CreateCollection) -> None:
        info = CollectionInfo(0, change.name, change.preset)
        with_collection(dict(self._tables.catalog), info, self._limits)
        self._connection.execute(statement("add_collection"), (change.name, change.preset.value))
        number = self._connection.last_insert_rowid()
        self._connection.execute(statement("create_collection_table", number))
        self._add_index(number, owner_index(0))

    def _add_index(self, collection: int, index: IndexInfo) -> None:
        row: tuple[Any, ...] = (collection, index.name, parts_text(index.parts), index.unique, index.ready)
        self._connection.execute(statement("add_index"), (*row, options_text(index)))
        number = self._connection.last_insert_rowid()
        table = "create_unique_table" if index.unique else "create_index_table"
        self._connection.execute(statement(table, x=number))

    def _remove_index(self, index: IndexInfo) -> None:
        self._connection.execute(statement("remove_index"), (index.number,))
        self._connection.execute(statement("drop_index_table", x=index.number))

    def _enter_documents(self, backfill: Backfill[T]) -> bool:
        tables, index = self._tables, backfill.index
        info = tables.catalog.get(backfill.collection)
        if info is None or all(item.number != index.number for item in info.indexes):
            raise StoreUnavailable("the collection or the index was removed meanwhile")
        if index.number in tables.withdrawn:
            raise InvalidDocument(f"a document of {info.name} cannot be held by the index {index.name}")
        rows = sqlite_file.scan(self._connection, info, backfill.after_did, BACKFILL_DOCUMENTS)
        for row in rows:
            tables.enter(info.name, index, row)
            backfill.after_did = row.did
        if len(rows) == BACKFILL_DOCUMENTS:
            return False
        self._connection.execute(statement("publish_index"), (index.number,))
        return True

    def _abandon(self, backfill: Backfill[T]) -> None:
        self.backfills.popleft()
        try:
            with self._connection:
                info = self._tables.catalog.get(backfill.collection)
                if info is not None and any(item.number == backfill.index.number for item in info.indexes):
                    self._remove_index(backfill.index)
            self._tables.load()
        except (apsw.Error, PlatformError) as exc:
            log.error("index_not_removed", index=backfill.index.name, error=str(exc))
