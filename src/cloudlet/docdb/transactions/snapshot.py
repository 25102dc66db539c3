"""The documents as they were at one commit, from the documents of now and the change log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from cloudlet.docdb.base import Change, Found, Read, Row, Store, Want, id_key
from cloudlet.docdb.body import encode_body
from cloudlet.docdb.filter import Where
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.sort import sort_documents
from cloudlet.docdb.transactions.base import Key
from cloudlet.docdb.values import Document
from cloudlet.model.errors import ChangesPruned, QueryTooCostly, RevisionConflict

PAGE: Final = 500
"""Changes that are read at once."""
READS_MAX: Final = 5
"""How often a query is asked again because documents changed under it."""

Charge = Callable[[int], None]
"""Counts bytes that are kept in memory; raises LimitExceeded."""


@dataclass(slots=True)
class _Changed:
    """The documents of one collection that changed since the snapshot, as they were in it (None: absent)."""

    upto: int
    rows: dict[bytes, Row | None] = field(default_factory=dict)


class Snapshot:
    """What the store held when the commit `seq` was its last.

    Reads raise what the store's reads raise, and RevisionConflict if the snapshot cannot be told any more:
    the change log was pruned, or too much has changed since.
    """

    def __init__(self, store: Store, seq: int, limits: DocdbLimits, charge: Charge) -> None:
        self.seq = seq
        self.size = 0
        """Stored size of the older states that are kept."""
        self._store = store
        self._limits = limits
        self._charge = charge
        self._changed: dict[str, _Changed] = {}
        self._changes = 0

    def is_stale(self, key: Key) -> bool:
        """Whether the document, which has been read, has changed since the snapshot."""
        collection, document = key
        changed = self._changed.get(collection)
        return changed is not None and document in changed.rows

    async def rows(self, collection: str, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """Those of these documents that the snapshot has."""
        found = {row.id_key: row for row in await self._store.get_many(collection, keys)}
        if all(key in found and found[key].rev <= self.seq for key in keys):
            return found
        changed = await self._changes_of(collection)
        then = {key: changed[key] if key in changed else found.get(key) for key in keys}
        for key, row in then.items():
            if key not in changed and row is not None and row.rev > self.seq:
                raise RevisionConflict(f"a document of {collection} has a change that the log does not have")
        return {key: row for key, row in then.items() if row is not None}

    async def find(self, read: Read, own: Mapping[bytes, Row | None]) -> Found:
        """Answer a query on the snapshot with `own` written over it (None: removed)."""
        if read.want is Want.COUNT and not own:
            found = await self._store.read(read)
            if not await self._changes_of(read.collection):
                return found
        rows = await self._rows_of(read, own)
        match read.want:
            case Want.ROWS:
                return Found(rows=rows)
            case Want.KEYS:
                return Found(keys=[(row.id_key, row.rev, row.size) for row in rows])
            case Want.COUNT:
                return Found(count=len(rows))

    async def _rows_of(self, read: Read, own: Mapping[bytes, Row | None]) -> list[Row]:
        wanted = None if read.limit is None else read.skip + read.limit
        for _ in range(READS_MAX):
            # Every document that is written over may take the place of one that counts.
            margin = len(await self._changes_of(read.collection)) + len(own)
            limit = None if wanted is None else wanted + margin
            asked = replace(read, skip=0, limit=limit, want=Want.ROWS)
            found = (await self._store.read(asked)).rows
            # What the store has just read may hold changes that are only in the log since.
            over = {**await self._changes_of(read.collection), **own}
            kept = sum(row.id_key not in over for row in found)
            if wanted is None or limit is None or len(found) < limit or kept >= wanted:
                rows = _written_over(found, over, read.where)
                sort_documents(rows, read.sort, _document)
                return rows[read.skip : wanted]
        raise RevisionConflict("documents change faster than the transaction can read them")

    async def _changes_of(self, collection: str) -> Mapping[bytes, Row | None]:
        """Bring what is known of a collection up to now."""
        changed = self._changed.setdefault(collection, _Changed(self.seq))
        last = await self._store.last_seq()
        while changed.upto < last:
            try:
                page = await self._store.changes(changed.upto, PAGE, collection)
            except ChangesPruned as exc:
                raise RevisionConflict("the change log no longer reaches back to the snapshot") from exc
            for change in page:
                self._note(changed, change)
            changed.upto = page[-1].seq if len(page) == PAGE else max(last, changed.upto)
        return changed.rows

    def _note(self, changed: _Changed, change: Change) -> None:
        self._changes += 1
        if self._changes > self._limits.transactions.changes_max:
            raise RevisionConflict("too many documents changed since the transaction began")
        changed.upto = max(changed.upto, change.seq)
        key = id_key(change.document_id)
        if key not in changed.rows:
            changed.rows[key] = None if change.before is None else self._then(key, change.before)

    def _then(self, key: bytes, document: Document) -> Row:
        size = len(encode_body(document, self._limits.document_bytes_max))
        self._charge(size)
        self.size += size
        return Row(0, key, self.seq, size, document)


def _written_over(found: Sequence[Row], over: Mapping[bytes, Row | None], where: Where) -> list[Row]:
    """What was found, with each document that is written over in its place or, if it had none, at the end."""
    if not over:
        return list(found)
    if where.costly and any(row is not None for row in over.values()):
        raise QueryTooCostly(
            "this regular expression cannot be used in a transaction: documents of the collection were "
            "changed since it began; anchor the expression or read before writing"
        )
    fitting = {key: row for key, row in over.items() if row is not None and where.match(row.document)}
    rows = []
    for row in found:
        now = fitting.pop(row.id_key, None) if row.id_key in over else row
        if now is not None:
            rows.append(now)
    return [*rows, *fitting.values()]


def _document(row: Row) -> Document:
    return row.document
