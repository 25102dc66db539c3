"""What the turns of one group change: collected and checked in memory, then written with few statements.

The group's transaction holds the environment's lock, so nobody else changes what was read here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cloudlet.docdb.base import Change, CollectionInfo, Operation, Row, id_key
from cloudlet.docdb.body import decode_body, encode_body
from cloudlet.docdb.bytekeys import Entries
from cloudlet.docdb.catalog import duplicate_key
from cloudlet.docdb.indexes.entries import entries_of
from cloudlet.docdb.planner import IndexInfo
from cloudlet.docdb.postgres.catalog import Catalog
from cloudlet.docdb.values import Document, Value
from cloudlet.model.errors import Internal, InvalidDocument, RevisionConflict

_NONE: Final[frozenset[bytes]] = frozenset()
WITHDRAWN: Final = Entries(_NONE, multikey=False, lossy=True)
"""Stands for the entries of a document that an automatic index cannot hold."""
Place: TypeAlias = tuple[int, bytes]
"""Number of a collection and id key, or number of a unique index and key."""


@dataclass(slots=True)
class Held:
    """A document as it is now, with its stored text; ``entries`` by number of index, where they are known.

    ``given``: the document is the object a turn came with, not what its text says.
    """

    row: Row
    body: str
    entries: dict[int, Entries] = field(default_factory=dict)
    given: bool = False

    def keys(self, index: IndexInfo) -> frozenset[bytes]:
        """Its keys in an index.

        Raises InvalidDocument if the index cannot hold it; an automatic one, which nobody asked for, is
        marked as withdrawn instead.
        """
        made = self.entries.get(index.number)
        if made is None:
            try:
                made = entries_of(self.row.document, index)
            except InvalidDocument:
                if not index.automatic:
                    raise
                made = WITHDRAWN
            self.entries[index.number] = made
        return made.keys


@dataclass(frozen=True, slots=True)
class Write:
    """One put or removal of a turn, made ready without knowing what is stored.

    ``error``: the document cannot be stored at all. It is raised when the write has its turn, so that of
    several errors the caller is told the first.
    """

    info: CollectionInfo
    key: bytes
    before: Row | None
    after: Held | None
    error: InvalidDocument | None = None


@dataclass(frozen=True, slots=True)
class Logged:
    """A row of the change log to be."""

    seq: int
    info: CollectionInfo
    before: Held | None
    after: Held | None
    at_ms: int

    @property
    def operation(self) -> Operation:
        if self.before is None:
            return Operation.INSERT
        return Operation.UPDATE if self.after is not None else Operation.DELETE

    def change(self) -> Change:
        """As listeners hear it; the documents are theirs."""
        before = decode_body(self.before.body) if self.before else None
        after = decode_body(self.after.body) if self.after else None
        document_id: Value = (after or before or {}).get("_id")
        return Change(
            self.seq, self.info.name, document_id, self.seq, self.operation, before, after, self.at_ms
        )


def put(info: CollectionInfo, document: Document, before: Row | None, bytes_max: int) -> Write:
    """A put, with everything computed that does not depend on the store."""
    try:
        body = encode_body(document, bytes_max)
        key = id_key(document["_id"])
    except InvalidDocument as exc:
        return Write(info, b"", before, None, exc)
    held = Held(Row(before.did if before else 0, key, 0, len(body), document), body, given=True)
    # An index that cannot hold the document says so again when the write has its turn.
    with contextlib.suppress(InvalidDocument):
        for index in info.indexes:
            held.keys(index)
    return Write(info, key, before, held)


def removal(info: CollectionInfo, row: Row) -> Write:
    """A removal."""
    return Write(info, row.id_key, row, None)


class Stage:
    """The documents and unique keys that are known, and what the turns so far have done to them."""

    def __init__(self, catalog: Catalog, seq: int) -> None:
        self.catalog = catalog
        self.seq = seq
        self.log: list[Logged] = []
        self._stored: dict[Place, Held | None] = {}
        self._rows: dict[Place, Held | None] = {}
        self._owners: dict[Place, int | None] = {}
        self._infos: dict[int, CollectionInfo] = {}
        self._touched: dict[Place, None] = {}
        """Documents that may differ from what is stored."""

    # What is known.

    def learn(self, info: CollectionInfo, keys: Iterable[bytes], found: Iterable[Held]) -> None:
        """These ids were looked up, and these documents found."""
        self._infos[info.number] = info
        for key in keys:
            if (info.number, key) not in self._rows:
                self._stored[info.number, key] = self._rows[info.number, key] = None
        for held in found:
            place = (info.number, held.row.id_key)
            if self._rows.get(place) is None and self._stored.get(place) is None:
                self._stored[place] = self._rows[place] = held

    def learn_owners(
        self, index: IndexInfo, keys: Iterable[bytes], found: Iterable[tuple[bytes, int]]
    ) -> None:
        """These keys of a unique index were looked up; some belong to documents."""
        for key in keys:
            self._owners.setdefault((index.number, key), None)
        for key, did in found:
            self._owners[index.number, key] = did

    def unknown(self, info: CollectionInfo, keys: Iterable[bytes]) -> list[bytes]:
        """The ids among these that were never looked up."""
        return [key for key in dict.fromkeys(keys) if (info.number, key) not in self._rows]

    def unknown_owners(self, index: IndexInfo, writes: Iterable[Write]) -> list[bytes]:
        """The keys of a unique index that matter to these writes and were never looked up."""
        keys: dict[bytes, None] = {}
        for write in writes:
            with contextlib.suppress(InvalidDocument):
                if write.after is not None:
                    keys.update(dict.fromkeys(write.after.keys(index)))
        return [key for key in keys if (index.number, key) not in self._owners]

    def held(self, info: CollectionInfo, key: bytes) -> Held | None:
        """A document as the turns so far have left it. The id must be known."""
        return self._rows[info.number, key]

    def rows(self, info: CollectionInfo, keys: Iterable[bytes]) -> list[Row]:
        """Those of these documents that exist, as their stored text says."""
        held = (self._rows[info.number, key] for key in keys)
        return [_read_again(item) if item.given else item.row for item in held if item is not None]

    @property
    def dirty(self) -> bool:
        """Whether something is staged that the database does not have."""
        return any(self._stored[place] is not self._rows[place] for place in self._touched)

    # What turns do.

    def apply(self, writes: Sequence[Write], at_ms: int) -> None:
        """All writes of one turn, or none if one of them cannot be: DuplicateKey, RevisionConflict.

        Ids and unique keys that the writes are about must be known.
        """
        undo = _Undo(self.seq, len(self.log), self.catalog, {}, {})
        try:
            for write in writes:
                self._write(write, at_ms, undo)
        except BaseException:
            self._rows.update(undo.rows)
            self._owners.update(undo.owners)
            self.seq, self.catalog = undo.seq, undo.catalog
            del self.log[undo.logged :]
            raise

    def _write(self, write: Write, at_ms: int, undo: _Undo) -> None:
        if write.error is not None:
            raise write.error
        info, place = write.info, (write.info.number, write.key)
        self._infos[info.number] = info
        current = self._rows[place]
        if write.before is None and current is not None:
            document = current.row.document
            raise duplicate_key(info.name, "_id_", document["_id"])
        if write.before is not None and (current is None or current.row.rev != write.before.rev):
            raise RevisionConflict(f"document {write.before.document['_id']!r} was changed in the meantime")
        self.seq += 1
        after = write.after
        if after is not None:
            row = after.row
            did = current.row.did if current else self.seq
            after = Held(
                Row(did, row.id_key, self.seq, row.size, row.document), after.body, after.entries, given=True
            )
        self._move_owners(info, current, after, undo)
        undo.rows.setdefault(place, current)
        self._touched[place] = None
        self._rows[place] = after
        self.log.append(Logged(self.seq, info, current, after, at_ms))

    def _move_owners(
        self, info: CollectionInfo, before: Held | None, after: Held | None, undo: _Undo
    ) -> None:
        for index in self.catalog.collections[info.name].indexes:
            if after is not None:
                new = after.keys(index)
                made = after.entries[index.number]
                if made is WITHDRAWN:
                    self.catalog = self.catalog.withdrawn(info.name, index)
                else:
                    self.catalog = self.catalog.noted(info.name, index, made)
            else:
                new = _NONE
            if not index.unique:
                continue
            old = before.keys(index) if before is not None else _NONE
            for key in old - new:
                self._own((index.number, key), None, undo)
            for key in new - old:
                if self._owners.get((index.number, key)) is not None:
                    raise duplicate_key(info.name, index.name)
                self._own((index.number, key), after.row.did if after else None, undo)

    def _own(self, place: Place, did: int | None, undo: _Undo) -> None:
        undo.owners.setdefault(place, self._owners.get(place))
        self._owners[place] = did

    # What is to be written.

    def outcome(self) -> list[CollectionWrites]:
        """The difference to the database, a collection at a time; from now on it counts as written."""
        found: dict[int, CollectionWrites] = {}
        touched, self._touched = self._touched, {}
        for place in touched:
            held, stored = self._rows[place], self._stored[place]
            if held is stored:
                continue
            info = self._infos[place[0]]
            writes = found.setdefault(place[0], CollectionWrites(info))
            writes.add(stored, held, self.catalog.collections[info.name].indexes)
            self._stored[place] = held
        return list(found.values())


@dataclass(slots=True)
class _Undo:
    """How everything was before a turn."""

    seq: int
    logged: int
    catalog: Catalog
    rows: dict[Place, Held | None]
    owners: dict[Place, int | None]


@dataclass(slots=True)
class CollectionWrites:
    """The rows and entries of one collection that have to be written."""

    info: CollectionInfo
    inserts: list[Held] = field(default_factory=list)
    updates: list[Held] = field(default_factory=list)
    deletes: list[int] = field(default_factory=list)
    added: dict[int, list[tuple[bytes, int]]] = field(default_factory=dict)
    removed: dict[int, list[tuple[bytes, int]]] = field(default_factory=dict)

    def add(self, before: Held | None, after: Held | None, indexes: Sequence[IndexInfo]) -> None:
        """One document's way from what is stored to what it is now."""
        if before is not None and (after is None or after.row.did != before.row.did):
            self.deletes.append(before.row.did)
        if after is not None:
            same = before is not None and before.row.did == after.row.did
            (self.updates if same else self.inserts).append(after)
        for index in indexes:
            old = {(key, before.row.did) for key in before.keys(index)} if before else set()
            new = {(key, after.row.did) for key in after.keys(index)} if after else set()
            if old != new:
                self.added.setdefault(index.number, []).extend(new - old)
                self.removed.setdefault(index.number, []).extend(old - new)


def held(stored: Sequence[object]) -> Held:
    """A document as read by the statements that return documents. Raises Internal."""
    did, key, rev, body = stored
    if not (
        isinstance(did, int) and isinstance(key, bytes) and isinstance(rev, int) and isinstance(body, str)
    ):
        raise Internal("the database returned a row of the wrong shape")
    return Held(Row(did, key, rev, len(body), decode_body(body)), body)


def _read_again(item: Held) -> Row:
    row = item.row
    return Row(row.did, row.id_key, row.rev, row.size, decode_body(item.body))
