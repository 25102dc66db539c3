"""What the writing thread does to the tables of a document file: documents, index entries, the change log.

Everything here runs inside a transaction that somebody else began.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Final, TypeAlias

import apsw
import msgspec
import structlog

from cloudlet.docdb import sqlite_file
from cloudlet.docdb.base import (
    Batch,
    Change,
    CollectionInfo,
    Decision,
    Keys,
    Operation,
    Put,
    Read,
    Row,
    Select,
    Turn,
    find_collection,
    id_key,
)
from cloudlet.docdb.batches import BatchStep, batch_steps, check_revision
from cloudlet.docdb.body import decode_body, encode_body
from cloudlet.docdb.bytekeys import Entries, lossless_key
from cloudlet.docdb.catalog import duplicate_key
from cloudlet.docdb.execute import select
from cloudlet.docdb.indexes.entries import NOTHING, entries_of, unchanged
from cloudlet.docdb.limits import DocdbLimits, Overrun
from cloudlet.docdb.planner import Ids, IndexInfo, plan
from cloudlet.docdb.sqlite_file import statement
from cloudlet.docdb.values import Document
from cloudlet.model.errors import InvalidDocument, RevisionConflict

log = structlog.get_logger(__name__)

Mark: TypeAlias = tuple[dict[int, tuple[bool, bool]], int, int, frozenset[int]]
_PRUNED_TOGETHER: Final = 256
"""Changes beyond the limit that are forgotten at once, so that not every transaction has to."""


class Written(msgspec.Struct, frozen=True):
    """One change as it was made; its documents are read from their text only if somebody listens."""

    seq: int
    collection: str
    before: Row | None
    body: str | None
    at_ms: int

    def change(self) -> Change:
        """The change for listeners, who share no object with anybody else."""
        # Parts of the old document live on in the new one, which the writer's caller was given.
        before = None if self.before is None else decode_body(encode_body(self.before.document, sys.maxsize))
        after = None if self.body is None else decode_body(self.body)
        operation = Operation.UPDATE
        if before is None or after is None:
            operation = Operation.INSERT if before is None else Operation.DELETE
        document_id = (after or before or {}).get("_id")
        return Change(self.seq, self.collection, document_id, self.seq, operation, before, after, self.at_ms)


class SqliteTables:
    """The catalog, and the changes to documents that keep entries and change log in step with them.

    ``catalog`` is replaced, never changed; ``version`` grows with every change of it, and before the first
    document becomes visible that contradicts an older catalog.
    """

    def __init__(self, connection: apsw.Connection, limits: DocdbLimits) -> None:
        self.connection = connection
        self.version = 0
        self.catalog: dict[str, CollectionInfo] = {}
        self.withdrawn: frozenset[int] = frozenset()
        """Automatic indexes that met a document they cannot hold."""
        self.touched = False
        """Set by the first statement of a request that changed something."""
        self._limits = limits
        self._flags: dict[int, tuple[bool, bool]] = {}
        self._seq = 0
        self._first_seq = 0
        self._written: list[Written] = []

    def load(self) -> None:
        """Read the catalog anew."""
        self._publish(sqlite_file.load_catalog(self.connection))
        self._flags = {
            index.number: (index.multikey, index.lossy)
            for info in self.catalog.values()
            for index in info.indexes
        }

    # One transaction.

    def begin(self) -> None:
        """Start a transaction."""
        self.connection.execute("BEGIN IMMEDIATE")
        self._seq = sqlite_file.last_seq(self.connection)
        self._written = []

    def mark(self) -> Mark:
        """What ``restore`` needs when the tables are rolled back to here."""
        return self._flags, self._seq, len(self._written), self.withdrawn

    def restore(self, mark: Mark) -> None:
        """Follow a roll-back."""
        self._flags, self._seq, written, self.withdrawn = mark
        del self._written[written:]

    def written(self) -> list[Written]:
        """The changes of the transaction, in order."""
        return self._written

    def prune(self) -> None:
        """Forget old changes; the newest is always kept, because it tells the sequence number."""
        kept = max(1, self._limits.changes_kept_max)
        if self._seq - self._first_seq < kept + min(_PRUNED_TOGETHER, kept // 64):
            return
        self.connection.execute(statement("prune_changes"), (self._seq - kept,))
        self._first_seq = self.connection.execute(statement("first_seq")).get

    def run(self, work: Turn[Any] | Batch) -> Any:
        """Do one request's work; returns what its caller is told.

        If it raises, ``touched`` says whether there is something to undo.
        """
        self.touched = False
        return self._turn(work) if isinstance(work, Turn) else self._batch(work)

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
            return list(sqlite_file.by_ids(self.connection, info, target.ids))
        if target.where.costly:
            raise Overrun("the filter is too costly for the writer")
        if (text := target.where.only_id) is not None and target.limit == 1:
            row = sqlite_file.by_id(self.connection, info, lossless_key(text))
            return () if row is None or not target.where.match(row.document) else (row,)
        chosen = plan(target.where.node, (), info.indexes, unions=True)
        source, read = chosen.source, Read(info.name, target.where, limit=target.limit)
        if isinstance(source, Ids) and len(source.keys) == 1:
            row = sqlite_file.by_id(self.connection, info, source.keys[0])
            return () if row is None else select((row,), read, True, None, self._limits).rows
        with closing(sqlite_file.candidates(self.connection, info, source)) as rows:
            examined_max = self._limits.examined_max(target.where.patterned)
            return select(rows, read, True, examined_max, self._limits).rows

    def _batch(self, batch: Batch) -> int:
        checked = [(step, *self._expect(step)) for step in batch_steps(batch)]
        for step, info, row in checked:
            if step.document is not None:
                self._put(info, Put(step.document, row), batch.at_ms)
            elif step.writes and row is not None:
                self._delete(info, row, batch.at_ms)
        return self._seq

    def _expect(self, step: BatchStep) -> tuple[CollectionInfo, Row | None]:
        """The document of a step as it is now; only its revision is read if it is not written."""
        expected = step.expected
        info = find_collection(self.catalog, expected.collection)
        row = None
        if step.writes:
            row = sqlite_file.by_id(self.connection, info, expected.id_key)
            rev = None if row is None else row.rev
        else:
            rev = self.connection.execute(statement("get_rev", info.number), (expected.id_key,)).get
        check_revision(expected, rev)
        return info, row

    # One document.

    def _put(self, info: CollectionInfo, put: Put, at_ms: int) -> None:
        body = encode_body(put.document, self._limits.document_bytes_max)
        before, seq = put.before, self._seq + 1
        if before is None:
            did = self._insert(info, put.document, body, seq, at_ms)
        else:
            did = before.did
            bindings = (seq, info.name, body, at_ms, did, before.rev)
            self.connection.execute(statement("log_update", info.number), bindings)
            self._expect_one(before)
            self.touched = True
            self.connection.execute(statement("update_document", info.number), (seq, did))
        self._log(info, before, body, at_ms)
        self._move_entries(info.name, did, before.document if before else None, put.document)

    def _insert(self, info: CollectionInfo, document: Document, body: str, seq: int, at_ms: int) -> int:
        connection = self.connection
        try:
            connection.execute(
                statement("insert_document", info.number), (id_key(document["_id"]), seq, body)
            )
        except apsw.ConstraintError as exc:
            raise duplicate_key(info.name, "_id_", document["_id"]) from exc
        self.touched = True
        did = connection.last_insert_rowid()
        connection.execute(statement("log_insert", info.number), (info.name, at_ms, did))
        return did

    def _delete(self, info: CollectionInfo, row: Row, at_ms: int) -> None:
        bindings = (self._seq + 1, info.name, at_ms, row.did, row.rev)
        self.connection.execute(statement("log_delete", info.number), bindings)
        self._expect_one(row)
        self.touched = True
        self.connection.execute(statement("delete_document", info.number), (row.did,))
        self._log(info, row, None, at_ms)
        self._move_entries(info.name, row.did, row.document, None)

    def _log(self, info: CollectionInfo, before: Row | None, body: str | None, at_ms: int) -> None:
        self._seq += 1
        self._written.append(Written(self._seq, info.name, before, body, at_ms))

    def _expect_one(self, row: Row) -> None:
        if self.connection.changes() != 1:
            raise RevisionConflict(f"document {row.document['_id']!r} was changed in the meantime")

    # Index entries.

    def enter(self, name: str, index: IndexInfo, row: Row) -> None:
        """Enter a stored document into an index that is being filled."""
        made = entries_of(row.document, index)
        for key in made.keys:
            self._add_entry(name, index, key, row.did)
        self._note_flags(name, index, made)

    def _move_entries(self, name: str, did: int, before: Document | None, after: Document | None) -> None:
        for index in self.catalog[name].indexes:
            if before is not None and after is not None and unchanged(before, after, index):
                continue
            old = NOTHING if before is None else self._entries(name, index, before)
            new = NOTHING if after is None else self._entries(name, index, after)
            if old.keys == new.keys:
                continue
            for key in old.keys - new.keys:
                self.connection.execute(statement("remove_entry", x=index.number), (key, did))
            for key in new.keys - old.keys:
                self._add_entry(name, index, key, did)
            self._note_flags(name, index, new)

    def _entries(self, name: str, index: IndexInfo, document: Document) -> Entries:
        """Nobody asked for an automatic index: what it cannot hold withdraws it instead of being refused."""
        try:
            return entries_of(document, index)
        except InvalidDocument as exc:
            if not index.automatic:
                raise
            self._withdraw(name, index, exc.message)
            return NOTHING

    def _add_entry(self, name: str, index: IndexInfo, key: bytes, did: int) -> None:
        """While an index is being filled the document's own entry may be there already."""
        if index.ready and not index.unique:
            self.connection.execute(statement("add_entry", x=index.number), (key, did))
            return
        self.connection.execute(statement("add_entry_again", x=index.number), (key, did))
        if index.unique and not self.connection.changes():
            owner = self.connection.execute(statement("entry_owner", x=index.number), (key,)).get
            if owner != did:
                raise duplicate_key(name, index.name)

    def _note_flags(self, name: str, index: IndexInfo, made: Entries) -> None:
        """Record that an index has met an array or a lossy key: in the file, and at once for readers."""
        multikey, lossy = self._flags[index.number]
        wanted = (multikey or made.multikey, lossy or made.lossy)
        if wanted == (multikey, lossy):
            return
        self.connection.execute(statement("set_index_flags"), (*wanted, index.number))
        self._flags = {**self._flags, index.number: wanted}
        known = next(item for item in self.catalog[name].indexes if item.number == index.number)
        self._replace_index(
            name, replace(known, multikey=known.multikey or wanted[0], lossy=known.lossy or wanted[1])
        )

    def _withdraw(self, name: str, index: IndexInfo, reason: str) -> None:
        if index.number in self.withdrawn:
            return
        log.warning("automatic_index_withdrawn", collection=name, index=index.name, reason=reason)
        self.connection.execute(statement("withdraw_index"), (index.number,))
        self.withdrawn |= {index.number}
        self._replace_index(name, replace(index, ready=False))

    def _replace_index(self, name: str, index: IndexInfo) -> None:
        info = self.catalog[name]
        indexes = tuple(index if item.number == index.number else item for item in info.indexes)
        self._publish({**self.catalog, name: replace(info, indexes=indexes)})

    def _publish(self, catalog: dict[str, CollectionInfo]) -> None:
        self.version += 1
        self.catalog = catalog
        self.version += 1
