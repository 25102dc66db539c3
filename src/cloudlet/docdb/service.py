"""The document service: the only thing the dialects see. Values in, values out.

Each call names its caller (``Access``) and its collection. The service checks limits and permissions,
resolves the server's dates, compiles the query and hands it to the environment's store; it never looks at a
wire format.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cloudlet.docdb import writes
from cloudlet.docdb.base import (
    CollectionInfo,
    CreateCollection,
    CreateIndex,
    DropCollection,
    DropIndex,
    Keys,
    Preset,
    Read,
    Select,
    SetPreset,
    Store,
    Turn,
    Want,
    find_collection,
)
from cloudlet.docdb.catalog import key_part
from cloudlet.docdb.filter import Where, where
from cloudlet.docdb.ids import IdSource
from cloudlet.docdb.limits import DEFAULT_LIMITS, DocdbLimits, Overrun
from cloudlet.docdb.metrics import DocumentMetrics, measured
from cloudlet.docdb.permissions import (
    check_replacement,
    check_update,
    owned_document,
    read_conditions,
    without_own_name,
    write_conditions,
)
from cloudlet.docdb.projection import compile_projection
from cloudlet.docdb.sort import parse_sort
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.update import parse_replacement, parse_update
from cloudlet.docdb.values import Document, Value, prepare
from cloudlet.docdb.writes import Deleted, NewDocument, Replacement, Updated, Writes
from cloudlet.model.access import Access
from cloudlet.model.clock import Clock, SystemClock
from cloudlet.model.errors import (
    DuplicateKey,
    InvalidDocument,
    InvalidFilter,
    InvalidParameter,
    InvalidUpdate,
    PermissionDenied,
    ResultTooLarge,
    RevisionConflict,
)
from cloudlet.model.ids import check_collection_name

T = TypeVar("T")

SKIP_MAX = 10**9
FIND_LIMIT_ADMIN, FIND_LIMIT_ADMIN_MAX = 100, 1_000
FIND_LIMIT_CLIENT, FIND_LIMIT_CLIENT_MAX = 20, 20


@dataclass(frozen=True, slots=True)
class Query:
    """One query. ``limit`` outside 1 to the maximum is brought there silently, as upstream does.

    ``limit_default`` and ``limit_max`` are for dialects whose numbers differ from those of the caller's kind.
    """

    filter: Value = None
    sort: Value = None
    skip: int = 0
    limit: int | None = None
    projection: Value = None
    limit_default: int | None = None
    limit_max: int | None = None


@dataclass(frozen=True, slots=True)
class FindResult:
    """Documents, and the skip and limit that were applied."""

    documents: list[Document]
    skip: int
    limit: int


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """``updated`` counts documents that really changed; ``upserted_id`` is set when one was inserted."""

    matched: int
    updated: int
    upserted_id: Value = None


@dataclass(frozen=True, slots=True)
class IndexField:
    """One field of a declared index."""

    path: str
    descending: bool = False


class DocumentService:
    """Documents of all environments."""

    def __init__(
        self,
        stores: Stores,
        clock: Clock | None = None,
        limits: DocdbLimits = DEFAULT_LIMITS,
        ids: IdSource | None = None,
    ) -> None:
        self._stores = stores
        self._clock = clock or SystemClock()
        self._limits = limits
        self._ids = ids or IdSource()

    @property
    def metrics(self) -> DocumentMetrics:
        """Where operations are counted."""
        return self._stores.metrics

    # Collections: server-side callers only; the dialects decide who that is.

    @measured("define")
    async def create_collection(
        self, environment: str, name: str, preset: Preset = Preset.PRIVATE
    ) -> CollectionInfo:
        """Make a collection. Raises InvalidName, AlreadyExists, LimitExceeded."""
        store = await self._open(environment)
        await store.define(CreateCollection(check_collection_name(name), preset))
        return find_collection(store.catalog(), name)

    @measured("define")
    async def drop_collection(self, environment: str, name: str) -> None:
        """Remove a collection and its documents. Raises CollectionNotFound."""
        await (await self._open(environment)).define(DropCollection(name))

    async def list_collections(self, environment: str) -> list[CollectionInfo]:
        """All collections by name."""
        catalog = (await self._open(environment)).catalog()
        return [catalog[name] for name in sorted(catalog)]

    async def collection_info(self, environment: str, name: str) -> CollectionInfo:
        """One collection. Raises CollectionNotFound."""
        return find_collection((await self._open(environment)).catalog(), name)

    @measured("define")
    async def set_preset(self, environment: str, name: str, preset: Preset) -> None:
        """Change who may do what, at once. Raises CollectionNotFound."""
        await (await self._open(environment)).define(SetPreset(name, preset))

    @measured("define")
    async def create_index(
        self, environment: str, collection: str, name: str, fields: Sequence[IndexField], unique: bool = False
    ) -> None:
        """Make an index; returns when it is filled. Raises AlreadyExists, InvalidParameter, DuplicateKey."""
        if not name or len(name) > 128 or "\0" in name:
            raise InvalidParameter("an index needs a name of at most 128 characters")
        parts = tuple(key_part(item.path, item.descending) for item in fields)
        await (await self._open(environment)).define(CreateIndex(collection, name, parts, unique))

    @measured("define")
    async def drop_index(self, environment: str, collection: str, name: str) -> None:
        """Remove an index. Raises CollectionNotFound, NotFound."""
        await (await self._open(environment)).define(DropIndex(collection, name))

    # Reading.

    @measured("find")
    async def find(self, access: Access, collection: str, query: Query) -> FindResult:
        """Documents that match, in order. Raises CollectionNotFound, Invalid…, PermissionDenied,
        QueryTooCostly.
        """
        store = await self._open(access.environment)
        info = find_collection(store.catalog(), collection)
        condition = self._readable(access, info, query.filter)
        sort, project = parse_sort(query.sort), compile_projection(query.projection)
        limit, skip = _limit(access, query), _skip(query.skip)
        found = await store.read(Read(collection, condition, sort, skip, limit))
        documents = [row.document for row in found.rows]
        return FindResult([project(item) for item in documents] if project else documents, skip, limit)

    @measured("count")
    async def count(self, access: Access, collection: str, filter: Value = None) -> int:
        """How many documents match; skip and limit do not exist here."""
        store = await self._open(access.environment)
        info = find_collection(store.catalog(), collection)
        condition = self._readable(access, info, filter)
        return (await store.read(Read(collection, condition, want=Want.COUNT))).count

    # Writing.

    @measured("insert")
    async def insert(self, access: Access, collection: str, documents: Sequence[Value]) -> list[Value]:
        """Insert all documents or none; returns their ids. Raises DuplicateKey, InvalidDocument,
        PermissionDenied.
        """
        store = await self._open(access.environment)
        info = find_collection(store.catalog(), collection)
        if not documents or len(documents) > self._limits.insert_documents_max:
            raise InvalidParameter(f"insert 1 to {self._limits.insert_documents_max} documents at once")
        now_ms = self._now_ms()
        prepared = [
            self._new_document(access, info, document, now_ms, self._ids.next(now_ms))
            for document in documents
        ]
        decide = writes.insert(prepared)
        await store.commit(Turn(collection, now_ms, decide))
        return [document["_id"] for document in prepared]

    @measured("update")
    async def update(
        self,
        access: Access,
        collection: str,
        filter: Value,
        update: Value,
        *,
        multi: bool = False,
        upsert: bool = False,
        replace: bool = False,
    ) -> UpdateResult:
        """Change what matches: the first document, or all with ``multi``.

        ``replace``: ``update`` is the whole new document (id and owner are kept). ``upsert``: insert if
        nothing matches. Raises InvalidUpdate, InvalidFilter, DuplicateKey, PermissionDenied; one document is
        changed wholly or not at all, and so are up to ``turn_documents_max`` of them together.
        """
        multi = multi and not replace
        updated = await self._update(access, collection, filter, update, multi, upsert, replace)
        return UpdateResult(updated.matched, updated.modified, updated.upserted_id)

    @measured("find_and_update")
    async def find_and_update(
        self, access: Access, collection: str, filter: Value, update: Value, *, upsert: bool = False
    ) -> tuple[int, Document | None]:
        """Change the first document that matches; returns how many changed and the document as it is now."""
        updated = await self._update(access, collection, filter, update, False, upsert, False)
        return updated.modified, updated.document

    @measured("delete")
    async def delete(self, access: Access, collection: str, filter: Value, *, multi: bool = False) -> int:
        """Remove what matches, the first document or all; returns how many."""
        store = await self._open(access.environment)
        info = find_collection(store.catalog(), collection)
        now_ms = self._now_ms()
        condition = self._writable(access, info, filter, now_ms)
        work = Deleted(condition)
        return sum(await self._work_on(store, collection, condition, multi, work, now_ms))

    async def _update(
        self,
        access: Access,
        collection: str,
        filter: Value,
        update: Value,
        multi: bool,
        upsert: bool,
        replace: bool,
    ) -> Updated:
        store = await self._open(access.environment)
        info = find_collection(store.catalog(), collection)
        now_ms = self._now_ms()
        condition = self._writable(access, info, filter, now_ms)
        prepared = prepare(update, now_ms, InvalidUpdate)
        work: Writes[Updated]
        if replace:
            replacement = parse_replacement(prepared)
            check_replacement(access, replacement)
            work = Replacement(condition, replacement)
        else:
            operators = parse_update(prepared)
            check_update(access, operators)
            work = writes.Update(condition, operators, now_ms)
        if upsert:
            user_filter = self._filter(filter, now_ms)
            spare_id = self._ids.next(now_ms)
            new = NewDocument(
                where(user_filter),
                lambda document: self._new_document(
                    access, info, without_own_name(access, document), now_ms, spare_id
                ),
            )
            work = writes.Upsert(work, new)
        try:
            return Updated.total(await self._work_on(store, collection, condition, multi, work, now_ms))
        except DuplicateKey as exc:
            if upsert and not access.admin and "index: _id_" in exc.message:
                # The id exists but is not the caller's: the same answer as to any write without permission.
                raise PermissionDenied("the document belongs to somebody else") from exc
            raise

    async def _work_on(
        self, store: Store, collection: str, condition: Where, multi: bool, work: Writes[T], now_ms: int
    ) -> list[T]:
        """Run a write on what matches, inside one turn if the documents can be found cheaply enough there."""
        if not condition.costly:
            target = Select(condition, self._limits.turn_documents_max + 1 if multi else 1)
            try:
                return [await store.commit(Turn(collection, now_ms, writes.bounded(work, target), target))]
            except (Overrun, ResultTooLarge):
                pass
        return await self._work_on_keys(store, collection, condition, multi, work, now_ms)

    async def _work_on_keys(
        self, store: Store, collection: str, condition: Where, multi: bool, work: Writes[T], now_ms: int
    ) -> list[T]:
        """Find the documents with a read first, then change them turn by turn.

        Each document is changed once: what has to be matched again is looked for among the ids that were
        left.
        """
        results: list[T] = []
        scope = condition
        for _ in range(self._limits.conflicts_max):
            read = Read(collection, scope, limit=None if multi else 1, want=Want.KEYS)
            keys = (await store.read(read)).keys
            left: list[Value] = []
            for revisions in self._pieces(keys):
                decide = writes.rechecked(work, condition, revisions)
                piece = await store.commit(Turn(collection, now_ms, decide, Keys(list(revisions))))
                left += piece.left
                if piece.result is not None:
                    results.append(piece.result)
            if results and not (multi and left):
                return results
            if not left and (multi or not keys):
                return [
                    await store.commit(Turn(collection, now_ms, work))
                ]  # Nothing matched: an upsert inserts.
            if multi:
                scope = where(*condition.conditions, {"_id": {"$in": left}})
        raise RevisionConflict("documents changed faster than the query could match them")

    def _pieces(self, keys: Sequence[tuple[bytes, int, int]]) -> Iterator[dict[bytes, int]]:
        """Ids and revisions for one turn each."""
        piece: dict[bytes, int] = {}
        size = 0
        for key, rev, document_size in keys:
            full = len(piece) == self._limits.turn_documents_max
            if piece and (full or size + document_size > self._limits.turn_bytes_max):
                yield piece
                piece, size = {}, 0
            piece[key] = rev
            size += document_size
        if piece:
            yield piece

    async def _open(self, environment: str) -> Store:
        return self._stores.get(environment) or await self._stores.open(environment)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)

    def _filter(self, filter: Value, now_ms: int) -> Document:
        prepared = prepare({} if filter is None else filter, now_ms, InvalidFilter)
        if type(prepared) is not dict:
            raise InvalidFilter("a filter must be an object")
        return prepared

    def _readable(self, access: Access, info: CollectionInfo, filter: Value) -> Where:
        return where(*read_conditions(access, info.preset), self._filter(filter, self._now_ms()))

    def _writable(self, access: Access, info: CollectionInfo, filter: Value, now_ms: int) -> Where:
        return where(*write_conditions(access, info.preset), self._filter(filter, now_ms))

    def _new_document(
        self, access: Access, info: CollectionInfo, document: Value, now_ms: int, spare_id: str
    ) -> Document:
        """A checked document with id and owner."""
        prepared = prepare(document, now_ms)
        if type(prepared) is not dict:
            raise InvalidDocument("a document must be an object")
        for name in prepared:
            if name.startswith("$"):
                raise InvalidDocument(f"the dollar ($) prefixed field '{name[:80]}' is not valid for storage")
        owned = owned_document(access, info.preset, prepared)
        if "_id" in owned:
            return owned if next(iter(owned)) == "_id" else {"_id": owned["_id"], **owned}
        return {"_id": spare_id, **owned}


def _limit(access: Access, query: Query) -> int:
    default = FIND_LIMIT_ADMIN if access.admin else FIND_LIMIT_CLIENT
    highest = FIND_LIMIT_ADMIN_MAX if access.admin else FIND_LIMIT_CLIENT_MAX
    if query.limit_max is not None:
        highest = query.limit_max
    if query.limit_default is not None:
        default = query.limit_default
    wanted = query.limit if query.limit is not None and query.limit > 0 else default
    return min(wanted, highest)


def _skip(skip: int) -> int:
    if not 0 <= skip <= SKIP_MAX:
        raise InvalidParameter(f"skip must be between 0 and {SKIP_MAX}")
    return skip
