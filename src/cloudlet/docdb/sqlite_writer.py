"""The one thread that writes a document file: requests share transactions, each inside its own savepoint."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import apsw
import structlog

from cloudlet.docdb import sqlite_file
from cloudlet.docdb.base import (
    CollectionInfo,
    CreateCollection,
    CreateIndex,
    Decision,
    DropCollection,
    DropIndex,
    Keys,
    Put,
    Read,
    Row,
    SchemaChange,
    Select,
    SetPreset,
    Turn,
    find_collection,
    id_key,
)
from cloudlet.docdb.body import encode_body
from cloudlet.docdb.bytekeys import Entries, index_entries
from cloudlet.docdb.catalog import duplicate_key, owner_index, with_collection, with_index, without_index
from cloudlet.docdb.execute import select
from cloudlet.docdb.limits import DocdbLimits, Overrun
from cloudlet.docdb.metrics import DocumentMetrics
from cloudlet.docdb.planner import IndexInfo, plan
from cloudlet.docdb.sqlite_file import statement
from cloudlet.docdb.values import Document
from cloudlet.model.errors import (
    OutcomeUnknown,
    PlatformError,
    RevisionConflict,
    ShuttingDown,
    StoreUnavailable,
)

log = structlog.get_logger(__name__)

BACKFILL_DOCUMENTS: Final = 1_000
_Outcome: TypeAlias = tuple["_Task", Any, BaseException | None]


@dataclass(frozen=True, slots=True)
class _Task:
    work: Turn[Any] | SchemaChange
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


@dataclass(slots=True)
class _Backfill:
    """An index that is being filled, a piece per turn so that other writes get theirs."""

    task: _Task
    collection: str
    index: IndexInfo
    after_did: int = 0


class SqliteWriter:
    """Owns the writing connection and the catalog.

    ``catalog`` is replaced, never changed; ``version`` grows with every change of it, and before the first
    document becomes visible that contradicts an older catalog. All methods but ``submit`` and ``close`` run
    on the thread.
    """

    def __init__(self, path: Path, limits: DocdbLimits, metrics: DocumentMetrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._connection = sqlite_file.open_writer(path)
        self.version = 0
        self.catalog: dict[str, CollectionInfo] = {}
        self._stored_flags: dict[int, tuple[bool, bool]] = {}
        try:
            with sqlite_file.engine_errors():
                self._drop_unfinished_indexes()
                self._load()
        except BaseException:
            self._connection.close()
            raise
        self._tasks: queue.Queue[_Task | None] = queue.Queue(limits.writes_waiting_max)
        self._backfills: deque[_Backfill] = deque()
        self._running: list[_Task] = []
        self._closing = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"documents-{path.stem}", daemon=True)
        self._thread.start()

    def submit(self, work: Turn[Any] | SchemaChange) -> asyncio.Future[Any]:
        """Queue work for the thread. Raises ShuttingDown when closed, StoreUnavailable when the queue is
        full.
        """
        loop = asyncio.get_running_loop()
        task = _Task(work, loop, loop.create_future())
        with self._lock:
            if self._closing:
                raise ShuttingDown("the document store is closed")
            try:
                self._tasks.put_nowait(task)
            except queue.Full as exc:
                raise StoreUnavailable("too many writes are waiting") from exc
        return task.future

    def close(self) -> None:
        """Finish what is queued and end the thread. Blocks; repeating it only waits."""
        with self._lock:
            first, self._closing = not self._closing, True
        if first:
            self._tasks.put(None)
        self._thread.join()

    # On the thread from here on.

    def _run(self) -> None:
        try:
            while self._round():
                pass
        except BaseException as exc:
            log.exception("document_writer_died")
            self._refuse_all(exc)
        finally:
            self._connection.close()

    def _refuse_all(self, cause: BaseException) -> None:
        """Nobody may wait for a thread that is gone."""
        with self._lock:
            self._closing = True
        failure = OutcomeUnknown(f"the document writer ended: {cause}")
        while True:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                break
            if task is not None:
                self._settle([(task, None, failure)])
        self._settle([(task, None, failure) for task in self._running])
        self._settle([(backfill.task, None, failure) for backfill in self._backfills])

    def _round(self) -> bool:
        """One group of writes and one piece of a backfill; False when there is nothing more to come."""
        group, last, schema = self._next_group()
        self._running = group if schema is None else [*group, schema]
        if group:
            self._metrics.group.observe(len(group))
            with self._metrics.commit.time():
                outcomes = self._commit_group(group)
            self._settle(outcomes)
        if schema is not None:
            self._schema(schema)
        self._running = []
        if self._backfills:
            self._backfill_piece(self._backfills[0])
        if last:
            while self._backfills:
                self._backfill_piece(self._backfills[0])
        return not last

    def _next_group(self) -> tuple[list[_Task], bool, _Task | None]:
        """Turns that are waiting, up to the first schema change, which gets a transaction of its own."""
        group: list[_Task] = []
        while len(group) < self._limits.group_max:
            try:
                task = self._tasks.get(block=not group and not self._backfills)
            except queue.Empty:
                break
            if task is None:
                return group, True, None
            if not isinstance(task.work, Turn):
                return group, False, task
            group.append(task)
        return group, False, None

    def _commit_group(self, group: list[_Task]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        flags = self._stored_flags
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for task in group:
                outcomes.append(self._in_savepoint(task))
            self._prune()
        except Exception as exc:
            self._stored_flags = flags
            return self._failed(group, exc)
        try:
            connection.execute("COMMIT")
        except apsw.Error as exc:
            self._stored_flags = flags
            if isinstance(exc, apsw.IOError):
                # The commit record may have reached the disk before the error did us.
                failure = OutcomeUnknown(f"the disk failed while writing: {exc}")
                self._roll_back()
                return [(task, None, failure) for task in group]
            return self._failed(group, exc)
        return outcomes

    def _failed(self, group: list[_Task], error: Exception) -> list[_Outcome]:
        """Nothing of the group was written."""
        log.error("document_commit_failed", error=str(error), requests=len(group))
        self._roll_back()
        failure = sqlite_file.translated(error) if isinstance(error, apsw.Error) else error
        return [(task, None, failure) for task in group]

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except apsw.Error as exc:
                log.error("document_rollback_failed", error=str(exc))

    def _in_savepoint(self, task: _Task) -> _Outcome:
        """Run one turn; its failure undoes only itself. Raises if the whole transaction is lost."""
        connection = self._connection
        flags = self._stored_flags
        connection.execute("SAVEPOINT request")
        try:
            result = self._turn(task.work)  # type: ignore[arg-type]
        except Exception as exc:
            if not connection.in_transaction:
                raise  # Errors such as a full disk may roll back everything at once.
            connection.execute("ROLLBACK TO request")
            connection.execute("RELEASE request")
            self._stored_flags = flags
            return task, None, sqlite_file.translated(exc) if isinstance(exc, apsw.Error) else exc
        connection.execute("RELEASE request")
        return task, result, None

    def _settle(self, outcomes: Sequence[_Outcome]) -> None:
        """Hand results to the loops they belong to, one call per loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
        for outcome in outcomes:
            by_loop.setdefault(outcome[0].loop, []).append(outcome)
        for loop, mine in by_loop.items():
            try:
                loop.call_soon_threadsafe(_resolve, mine)
            except RuntimeError:
                log.warning("document_caller_gone", requests=len(mine))

    def _turn(self, turn: Turn[Any]) -> Any:
        info = find_collection(self.catalog, turn.collection)
        decision: Decision[Any] = turn.decide(self._target(info, turn.target))
        for row in decision.deletes:
            self._delete(info, row, turn.at_ms)
        for put in decision.puts:
            self._put(info, put, turn.at_ms)
        return decision.result

    def _target(self, info: CollectionInfo, target: Select | Keys | None) -> Sequence[Row]:
        if target is None:
            return ()
        if isinstance(target, Keys):
            return list(sqlite_file.by_ids(self._connection, info, target.ids))
        if target.where.costly:
            raise Overrun("the filter is too costly for the writer")
        chosen = plan(target.where.node, (), info.indexes)
        read = Read(info.name, target.where, limit=target.limit)
        with closing(sqlite_file.candidates(self._connection, info, chosen.source)) as rows:
            return select(
                rows, read, True, self._limits.examined_max(target.where.patterned), self._limits
            ).rows

    def _put(self, info: CollectionInfo, put: Put, at_ms: int) -> None:
        body = encode_body(put.document, self._limits.document_bytes_max)
        before = put.before
        if before is None:
            did = self._insert(info, put.document, body, at_ms)
        else:
            did = before.did
            bindings = (info.name, body, at_ms, did, before.rev)
            self._connection.execute(statement("log_update", info.number), bindings)
            self._expect_one(before)
            seq = self._connection.last_insert_rowid()
            self._connection.execute(statement("update_document", info.number), (seq, did))
        self._move_entries(info.name, did, before.document if before else None, put.document)

    def _insert(self, info: CollectionInfo, document: Document, body: str, at_ms: int) -> int:
        connection = self._connection
        try:
            connection.execute(statement("insert_document", info.number), (id_key(document["_id"]), body))
        except apsw.ConstraintError as exc:
            raise duplicate_key(info.name, "_id_", document["_id"]) from exc
        did = connection.last_insert_rowid()
        connection.execute(statement("log_insert", info.number), (info.name, at_ms, did))
        return did

    def _delete(self, info: CollectionInfo, row: Row, at_ms: int) -> None:
        bindings = (info.name, at_ms, row.did, row.rev)
        self._connection.execute(statement("log_delete", info.number), bindings)
        self._expect_one(row)
        self._connection.execute(statement("delete_document", info.number), (row.did,))
        self._move_entries(info.name, row.did, row.document, None)

    def _expect_one(self, row: Row) -> None:
        if self._connection.changes() != 1:
            raise RevisionConflict(f"document {row.document['_id']!r} was changed in the meantime")

    def _move_entries(self, name: str, did: int, before: Document | None, after: Document | None) -> None:
        for index in self.catalog[name].indexes:
            made = index_entries(after, index.parts, index.unique) if after is not None else None
            new = made.keys if made else frozenset()
            old = index_entries(before, index.parts, index.unique).keys if before is not None else frozenset()
            for key in old - new:
                self._connection.execute(statement("remove_entry", x=index.number), (key, did))
            for key in new - old:
                self._add_entry(name, index, key, did)
            if made:
                self._note_flags(name, index, made)

    def _add_entry(self, name: str, index: IndexInfo, key: bytes, did: int) -> None:
        """While an index is being filled the document's own entry may be there already."""
        if index.ready and not index.unique:
            self._connection.execute(statement("add_entry", x=index.number), (key, did))
            return
        self._connection.execute(statement("add_entry_again", x=index.number), (key, did))
        if index.unique and not self._connection.changes():
            owner = self._connection.execute(statement("entry_owner", x=index.number), (key,)).get
            if owner != did:
                raise duplicate_key(name, index.name)

    def _note_flags(self, name: str, index: IndexInfo, made: Entries) -> None:
        """Record that an index has met an array or a lossy key: in the file, and at once for readers."""
        multikey, lossy = self._stored_flags[index.number]
        wanted = (multikey or made.multikey, lossy or made.lossy)
        if wanted == (multikey, lossy):
            return
        self._connection.execute(statement("set_index_flags"), (*wanted, index.number))
        self._stored_flags = {**self._stored_flags, index.number: wanted}
        info = self.catalog[name]
        indexes = tuple(
            replace(item, multikey=item.multikey or wanted[0], lossy=item.lossy or wanted[1])
            if item.number == index.number
            else item
            for item in info.indexes
        )
        self._publish({**self.catalog, name: replace(info, indexes=indexes)})

    def _publish(self, catalog: dict[str, CollectionInfo]) -> None:
        self.version += 1
        self.catalog = catalog
        self.version += 1

    def _prune(self) -> None:
        last = self._connection.execute(statement("last_seq")).get
        if last > self._limits.changes_kept_max:
            self._connection.execute(statement("prune_changes"), (last - self._limits.changes_kept_max,))

    # The schema.

    def _load(self) -> None:
        self._publish(sqlite_file.load_catalog(self._connection))
        self._stored_flags = {
            index.number: (index.multikey, index.lossy)
            for info in self.catalog.values()
            for index in info.indexes
        }

    def _drop_unfinished_indexes(self) -> None:
        """An index whose filling was cut off was never answered for; it is removed."""
        with self._connection:
            for info in sqlite_file.load_catalog(self._connection).values():
                for index in info.indexes:
                    if not index.ready:
                        log.warning("unfinished_index_removed", collection=info.name, index=index.name)
                        self._connection.execute(statement("remove_index"), (index.number,))
                        self._connection.execute(statement("drop_index_table", x=index.number))

    def _schema(self, task: _Task) -> None:
        try:
            with self._connection:
                self._change_schema(task.work)  # type: ignore[arg-type]
            self._load()
        except Exception as exc:
            failure = sqlite_file.translated(exc) if isinstance(exc, apsw.Error) else exc
            self._settle([(task, None, failure)])
            return
        if isinstance(task.work, CreateIndex):
            index = self.catalog[task.work.collection].indexes[-1]
            self._backfills.append(_Backfill(task, task.work.collection, index))
        else:
            self._settle([(task, None, None)])

    def _change_schema(self, change: SchemaChange) -> None:
        match change:
            case CreateCollection():
                self._create_collection(change)
            case DropCollection(name):
                info = find_collection(self.catalog, name)
                for index in info.indexes:
                    self._connection.execute(statement("drop_index_table", x=index.number))
                self._connection.execute(statement("remove_indexes_of"), (info.number,))
                self._connection.execute(statement("remove_collection"), (info.number,))
                self._connection.execute(statement("drop_collection_table", info.number))
            case SetPreset(name, preset):
                number = find_collection(self.catalog, name).number
                self._connection.execute(statement("set_preset"), (preset.value, number))
            case CreateIndex(collection, name, parts, unique):
                info = find_collection(self.catalog, collection)
                with_index(info, IndexInfo(0, name, parts, unique), self._limits)
                self._add_index(info.number, IndexInfo(0, name, parts, unique, ready=False))
            case DropIndex(collection, name):
                _, index = without_index(find_collection(self.catalog, collection), name)
                self._connection.execute(statement("remove_index"), (index.number,))
                self._connection.execute(statement("drop_index_table", x=index.number))

    def _create_collection(self, change: CreateCollection) -> None:
        info = CollectionInfo(0, change.name, change.preset)
        with_collection(dict(self.catalog), info, self._limits)
        self._connection.execute(statement("add_collection"), (change.name, change.preset.value))
        number = self._connection.last_insert_rowid()
        self._connection.execute(statement("create_collection_table", number))
        self._add_index(number, owner_index(0))

    def _add_index(self, collection: int, index: IndexInfo) -> None:
        row = (collection, index.name, sqlite_file.parts_text(index.parts), index.unique, index.ready)
        self._connection.execute(statement("add_index"), row)
        number = self._connection.last_insert_rowid()
        table = "create_unique_table" if index.unique else "create_index_table"
        self._connection.execute(statement(table, x=number))

    def _backfill_piece(self, backfill: _Backfill) -> None:
        """Enter the next documents; publish the index after the last, remove it if it cannot be made."""
        try:
            done = self._within_transaction(lambda: self._enter_documents(backfill))
            if not done:
                return
            self._backfills.popleft()
            self._load()
            self._settle([(backfill.task, None, None)])
        except Exception as exc:
            self._backfills.popleft()
            failure = sqlite_file.translated(exc) if isinstance(exc, apsw.Error) else exc
            self._abandon(backfill)
            self._settle([(backfill.task, None, failure)])

    def _enter_documents(self, backfill: _Backfill) -> bool:
        info = self.catalog.get(backfill.collection)
        index = backfill.index
        if info is None or all(item.number != index.number for item in info.indexes):
            raise StoreUnavailable("the collection or the index was removed meanwhile")
        bindings = (backfill.after_did, BACKFILL_DOCUMENTS)
        rows = self._connection.execute(statement("scan_after", info.number), bindings).fetchall()
        for stored in rows:
            row = sqlite_file.make_row(stored)
            made = index_entries(row.document, index.parts, index.unique)
            for key in made.keys:
                self._add_entry(info.name, index, key, row.did)
            self._note_flags(info.name, index, made)
            backfill.after_did = row.did
        if len(rows) == BACKFILL_DOCUMENTS:
            return False
        self._connection.execute(statement("publish_index"), (index.number,))
        return True

    def _within_transaction(self, work: Callable[[], bool]) -> bool:
        flags = self._stored_flags
        try:
            with self._connection:
                result = work()
        except BaseException:
            self._stored_flags = flags
            raise
        return result

    def _abandon(self, backfill: _Backfill) -> None:
        try:
            with self._connection:
                info = self.catalog.get(backfill.collection)
                if info is not None and any(item.number == backfill.index.number for item in info.indexes):
                    self._change_schema(DropIndex(backfill.collection, backfill.index.name))
            self._load()
        except (apsw.Error, PlatformError) as exc:
            log.error("index_not_removed", index=backfill.index.name, error=str(exc))


def _resolve(outcomes: Sequence[_Outcome]) -> None:
    """On the loop: answer those who still wait."""
    for task, result, error in outcomes:
        if task.future.done():
            continue
        if error is None:
            task.future.set_result(result)
        else:
            task.future.set_exception(error)
