"""The document service: the only thing the dialects see. Values in, values out.

Each call names its caller (``Access``) and its collection. The service checks limits and permissions,
resolves the server's dates, compiles the query and hands it to the environment's store; it never looks at a
wire format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from cloudlet.docdb import writes
from cloudlet.docdb.base import (
    CollectionInfo,
    CreateCollection,
    CreateIndex,
    Decision,
    DropCollection,
    DropIndex,
    Explained,
    Found,
    Keys,
    Preset,
    Read,
    Row,
    Select,
    SetPreset,
    SetRule,
    Store,
    Turn,
    Want,
    find_collection,
)
from cloudlet.docdb.bytekeys import KeyKind, lossless_key
from cloudlet.docdb.catalog import check_index_name, key_part
from cloudlet.docdb.distinct import distinct_path, distinct_stages, distinct_values
from cloudlet.docdb.filter import Where, where
from cloudlet.docdb.ids import IdSource
from cloudlet.docdb.indexes.keeper import IndexKeeper
from cloudlet.docdb.limits import DEFAULT_LIMITS, DocdbLimits, Overrun
from cloudlet.docdb.metrics import DocumentMetrics, measured
from cloudlet.docdb.permissions import Permission, Reading, sees, without_own_name
from cloudlet.docdb.pipeline.execute import make_aggregation
from cloudlet.docdb.pipeline.expressions.binding import with_now
from cloudlet.docdb.pipeline.serving import ALL_ROWS, Rows, Writer, for_client, with_limit
from cloudlet.docdb.pipeline.writing import Out, Write
from cloudlet.docdb.projection import Projector, compile_projection
from cloudlet.docdb.rules.compile import Operation, compile_rule
from cloudlet.docdb.rules.explain import explain_denial
from cloudlet.docdb.rules.fetch import fetcher
from cloudlet.docdb.rules.written import Written, written_by, written_by_update
from cloudlet.docdb.sort import Sort, parse_sort
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.transactions.base import Documents
from cloudlet.docdb.transactions.manager import Transactions
from cloudlet.docdb.update import parse_replacement, parse_update
from cloudlet.docdb.values import Document, Value, prepare
from cloudlet.docdb.watch.service import WatchService
from cloudlet.docdb.watch.watch import Watch
from cloudlet.docdb.writes import Deleted, NewDocument, Replacement, Taken, Updated, Writes
from cloudlet.model.access import Access
from cloudlet.model.clock import Clock, SystemClock
from cloudlet.model.errors import (
    DuplicateKey,
    InvalidDocument,
    InvalidFilter,
    InvalidParameter,
    InvalidProjection,
    InvalidUpdate,
    PermissionDenied,
    QueryTooCostly,
    ResultTooLarge,
    RevisionConflict,
)
from cloudlet.model.ids import check_collection_name

T = TypeVar("T")

SKIP_MAX = 10**9
FIND_LIMIT_ADMIN, FIND_LIMIT_ADMIN_MAX = 100, 1_000
FIND_LIMIT_CLIENT, FIND_LIMIT_CLIENT_MAX = 20, 20
CANDIDATES = 32
"""Documents that find-and-modify holds ready after the first one was taken by somebody else."""


class Query(msgspec.Struct, frozen=True):
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


class FindResult(msgspec.Struct, frozen=True):
    """Documents, and the skip and limit that were applied."""

    documents: list[Document]
    skip: int
    limit: int


class UpdateResult(msgspec.Struct, frozen=True):
    """``updated`` counts documents that really changed; ``upserted_id`` is set when one was inserted."""

    matched: int
    updated: int
    upserted_id: Value = None


class Modify(msgspec.Struct, frozen=True):
    """What find-and-modify does with the first document in the order of ``sort``: one of update, replacement
    (``replace``) and removal (``remove``). ``after``: the document as it is then, otherwise as it was.
    """

    update: Value = None
    remove: bool = False
    replace: bool = False
    upsert: bool = False
    sort: Value = None
    projection: Value = None
    after: bool = False
    array_filters: Value = None


class ModifyResult(msgspec.Struct, frozen=True):
    """As UpdateResult (a removal counts as an update), with the document that was asked for, if any."""

    matched: int
    updated: int
    upserted_id: Value = None
    document: Document | None = None


@dataclass(frozen=True, slots=True)
class IndexField:
    """One field of a declared index."""

    path: str
    descending: bool = False
    kind: KeyKind = "value"


class DocumentService:
    """Documents of all environments."""

    def __init__(
        self,
        stores: Stores,
        clock: Clock | None = None,
        limits: DocdbLimits = DEFAULT_LIMITS,
        ids: IdSource | None = None,
        automatic_indexes: Callable[[str, str], bool] = lambda _environment, _collection: True,
    ) -> None:
        """``automatic_indexes``: whether a collection of an environment may have them."""
        self._stores = stores
        self._clock = clock or SystemClock()
        self._limits = limits
        self._ids = ids or IdSource()
        self._transactions = Transactions(self._clock, limits, stores.metrics)
        self.watches = WatchService(stores, self._clock, limits)
        """Live queries. ``close_for`` ends a user's; ``close`` all, to be called before the stores close."""
        self.indexes = IndexKeeper(stores, self._clock, limits, automatic=automatic_indexes)
        """Counts what queries cost; its ``run`` is the background work on indexes and expiry."""

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
        self.watches.recheck(environment, name)

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
        self.watches.recheck(environment, name)

    @measured("define")
    async def set_rule(self, environment: str, name: str, rule: str | None) -> None:
        """Set a collection's custom rule (JSON text, ``docdb.rules.compile``) or take it away, at once.

        Raises CollectionNotFound, InvalidParameter that says what to write instead.
        """
        if rule is not None:
            compile_rule(rule)
        await (await self._open(environment)).define(SetRule(name, rule))
        self.watches.recheck(environment, name)

    async def explain_access(
        self,
        access: Access,
        collection: str,
        operation: Operation,
        filter: Value = None,
        data: Value = None,
    ) -> str | None:
        """Why the caller may not do this, with the values that were compared (for the operator's eyes only);
        None if it may. Nothing is changed. ``data``: the document, or the operators of an update.
        """
        store = await self._documents(access)
        info = find_collection(store.catalog(), collection)
        now_ms = self._now_ms()
        permission = self._permission(store, access, info, now_ms)
        try:
            if operation is Operation.CREATE:
                await permission.decided(lambda: self._new_document(permission, data, now_ms, "new"))
                return None
            asked, written = self._filter(filter, now_ms), None
            if operation is Operation.UPDATE:
                written = written_by_update(prepare(data or {}, now_ms, InvalidUpdate))
            if operation is Operation.READ:
                reading = await permission.read(asked)
                found = await store.read(Read(collection, where(*reading.conditions), limit=1))
                await _shown(found.rows, reading)
            else:
                changing = await permission.change(asked, written)
                found = await store.read(Read(collection, where(*changing.conditions), limit=1))
                check = changing.guarded(lambda _rows: Decision(None))
                await permission.decided(lambda: check(found.rows))
        except PermissionDenied as denied:
            return explain_denial(denied)
        return None

    @measured("define")
    async def create_index(
        self,
        environment: str,
        collection: str,
        name: str,
        fields: Sequence[IndexField],
        unique: bool = False,
        *,
        sparse: bool = False,
        partial: Value = None,
        expire_after_s: int | None = None,
    ) -> None:
        """Make an index (see ``CreateIndex``); returns when it is filled.

        Raises AlreadyExists, InvalidParameter, LimitExceeded, and InvalidDocument or DuplicateKey if a
        document is in the way.
        """
        check_index_name(name)
        parts = tuple(key_part(item.path, item.descending, item.kind) for item in fields)
        condition = None if partial is None else self._filter(partial, self._now_ms())
        wanted = CreateIndex(collection, name, parts, unique, sparse, condition, expire_after_s)
        await self.define_index(environment, wanted)

    async def define_index(self, environment: str, index: CreateIndex) -> None:
        """The same for an index whose description was checked before."""
        await (await self._open(environment)).define(index)

    @measured("define")
    async def drop_index(self, environment: str, collection: str, name: str) -> None:
        """Remove an index. Raises CollectionNotFound, NotFound."""
        store = await self._open(environment)
        self.indexes.refuse(environment, collection, name, store)
        await store.define(DropIndex(collection, name))

    # Transactions (server-side callers only): what is called with ``access.transaction`` is a part of one.

    @measured("start_transaction")
    async def start_transaction(self, access: Access, *, late_conflicts: bool = False) -> str:
        """Open a transaction (``docdb.transactions`` says what holds in it); returns its id.

        ``late_conflicts``: a conflict is told by the commit, not by the operation that meets it. Raises
        PermissionDenied, LimitExceeded.
        """
        return self._transactions.start(await self._open(access.environment), access, late_conflicts)

    @measured("commit_transaction")
    async def commit_transaction(self, access: Access, transaction_id: str) -> None:
        """Write everything or nothing. Raises RevisionConflict (the program starts again from the first
        operation), TransactionNotFound, DuplicateKey.
        """
        await self._transactions.commit(await self._open(access.environment), access, transaction_id)

    @measured("abort_transaction")
    async def abort_transaction(self, access: Access, transaction_id: str) -> None:
        """Forget what was written. Raises TransactionNotFound."""
        self._transactions.abort(await self._open(access.environment), access, transaction_id)

    def sweep_transactions(self) -> None:
        """End transactions whose time is up, now instead of within a moment."""
        self._transactions.sweep()

    # Reading.

    @measured("find")
    async def find(self, access: Access, collection: str, query: Query) -> FindResult:
        """Documents that match, in order. Raises CollectionNotFound, Invalid…, PermissionDenied,
        QueryTooCostly.
        """
        limit, key = _limit(access, query), _only_id(query)
        if key is not None and limit and not access.transaction:
            document = await self._visible(access, collection, key)
            if document is not None:
                return FindResult([document], 0, limit)
        store = await self._documents(access)
        info = find_collection(store.catalog(), collection)
        sort = parse_sort(query.sort)
        reading = await self._reading(store, access, info, query.filter, _paths(sort))
        condition = where(*reading.conditions)
        project = _projector(query.projection, condition)
        skip = _skip(query.skip)
        found = await self._read(store, access, Read(collection, condition, sort, skip, limit))
        documents = await _shown(found.rows, reading)
        return FindResult([project(item) for item in documents] if project else documents, skip, limit)

    @measured("count")
    async def count(self, access: Access, collection: str, filter: Value = None) -> int:
        """How many documents match; skip and limit do not exist here."""
        store = await self._documents(access)
        info = find_collection(store.catalog(), collection)
        reading = await self._reading(store, access, info, filter)
        condition = where(*reading.conditions)
        if reading.checks:
            found = await self._read(store, access, Read(collection, condition))
            return len(await _shown(found.rows, reading))
        return (await self._read(store, access, Read(collection, condition, want=Want.COUNT))).count

    @measured("explain")
    async def explain(self, access: Access, collection: str, query: Query) -> Explained:
        """Answer a query as ``find`` does, and say how: the index, what was looked at, how long it took."""
        store = await self._open(access.environment)
        info = find_collection(store.catalog(), collection)
        sort = parse_sort(query.sort)
        reading = await self._reading(store, access, info, query.filter, _paths(sort))
        condition = where(*reading.conditions)
        return await store.explain(
            Read(collection, condition, sort, _skip(query.skip), _limit(access, query))
        )

    @measured("distinct")
    async def distinct(self, access: Access, collection: str, path: str, filter: Value = None) -> list[Value]:
        """The different values at ``path`` in the documents that match, in MongoDB's order of values.

        Of an array its elements count (one level), and of equal values the first. Raises InvalidParameter,
        ResultTooLarge beyond the size of one document.
        """
        store = await self._documents(access)
        info = find_collection(store.catalog(), collection)
        segments = distinct_path(path)
        reading = await self._reading(store, access, info, filter, [path])
        if access.transaction or reading.checks or reading.hides:
            found = await store.read(Read(collection, where(*reading.conditions)))
            documents = await _shown(found.rows, reading)
        else:
            work = make_aggregation(collection, distinct_stages(segments, reading.conditions), self._now_ms())
            groups = (await (await self._open(access.environment)).aggregate(work)).documents
            documents = [group["_id"] for group in groups]
        return distinct_values(documents, segments, self._limits.document_bytes_max)

    @measured("aggregate")
    async def aggregate(
        self, access: Access, collection: str, stages: Value, rows: Rows = ALL_ROWS
    ) -> list[Document]:
        """The result of an aggregation pipeline, which sees one state of all its collections.

        For clients the first ``$match`` is what rules judge; other collections show what a query without a
        filter would. ``$out`` and ``$merge`` are for server-side callers and return nothing. Raises
        CollectionNotFound, InvalidFilter, InvalidSort, PermissionDenied, QueryTooCostly, ResultTooLarge.
        """
        if access.transaction:
            raise InvalidParameter("a pipeline cannot run inside a transaction; use queries by id")
        store = await self._open(access.environment)
        find_collection(store.catalog(), collection)
        now_ms = self._now_ms()
        prepared = with_limit(prepare(stages, now_ms, InvalidFilter), rows)
        if access.admin:
            work = make_aggregation(collection, prepared, now_ms)
        else:
            work = await for_client(
                collection,
                prepared,
                now_ms,
                store.catalog().get,
                lambda info, filter: self._reading(store, access, info, filter),
                store,
            )
        found = (await store.aggregate(work)).documents
        if work.pipeline.write is None:
            return found
        await self._write(access, work.pipeline.write, found, now_ms)
        return []

    async def _write(self, access: Access, write: Write, found: Sequence[Document], now_ms: int) -> None:
        """Put a pipeline's result into a collection, which is made if it does not exist."""
        store = await self._open(access.environment)
        if write.collection not in store.catalog():
            await store.define(CreateCollection(check_collection_name(write.collection), Preset.PRIVATE))
        writer = Writer(await self._documents(access), self._limits, now_ms, lambda: self._ids.next(now_ms))
        if isinstance(write, Out):
            await writer.out(write.collection, found)
        else:
            await writer.merge(find_collection(store.catalog(), write.collection), write, found)

    @measured("watch")
    async def watch(
        self,
        access: Access,
        collection: str,
        filter: Value = None,
        sort: Value = None,
        limit: int | None = None,
        resume: str | None = None,
        connection: str = "",
    ) -> Watch:
        """What a query returns, and then every change of that (``WatchService.watch``)."""
        return await self.watches.watch(access, collection, filter, sort, limit, resume, connection)

    # Writing.

    @measured("insert")
    async def insert(self, access: Access, collection: str, documents: Sequence[Value]) -> list[Value]:
        """Insert all documents or none; returns their ids. Raises DuplicateKey, InvalidDocument,
        PermissionDenied.
        """
        store = await self._documents(access)
        info = find_collection(store.catalog(), collection)
        if not documents or len(documents) > self._limits.insert_documents_max:
            raise InvalidParameter(f"insert 1 to {self._limits.insert_documents_max} documents at once")
        now_ms = self._now_ms()
        permission = self._permission(store, access, info, now_ms)
        ids = [self._ids.next(now_ms) for _ in documents]
        prepared = await permission.decided(
            lambda: [
                self._new_document(permission, document, now_ms, spare_id)
                for document, spare_id in zip(documents, ids, strict=True)
            ]
        )
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
        array_filters: Value = None,
    ) -> UpdateResult:
        """Change what matches: the first document, or all with ``multi``.

        ``replace``: ``update`` is the whole new document (id and owner are kept). ``upsert``: insert if
        nothing matches. ``array_filters``: what ``$[id]`` in paths stands for. Raises InvalidUpdate,
        InvalidFilter, DuplicateKey, PermissionDenied; one document is changed wholly or not at all, and so
        are up to ``turn_documents_max`` of them together.
        """
        multi = multi and not replace
        modify = Modify(update, replace=replace, upsert=upsert, array_filters=array_filters)
        updated = await self._update(access, collection, filter, modify, multi)
        return UpdateResult(updated.matched, updated.modified, updated.upserted_id)

    @measured("find_and_modify")
    async def find_and_modify(
        self, access: Access, collection: str, filter: Value, modify: Modify
    ) -> ModifyResult:
        """Change or remove one document and return it. Raises what ``update`` raises, InvalidSort and
        InvalidProjection.

        With an order the first document is found before it is changed: one that others change meanwhile is
        taken if it still matches, otherwise the next one is.
        """
        updated = await self._update(access, collection, filter, modify, False, returns=True)
        document = updated.document if modify.after and not modify.remove else updated.before
        return ModifyResult(updated.matched, updated.modified, updated.upserted_id, document)

    @measured("delete")
    async def delete(self, access: Access, collection: str, filter: Value, *, multi: bool = False) -> int:
        """Remove what matches, the first document or all; returns how many."""
        store = await self._documents(access)
        info = find_collection(store.catalog(), collection)
        now_ms = self._now_ms()
        permission = self._permission(store, access, info, now_ms)
        changing = await permission.change(self._filter(filter, now_ms), None)
        condition = where(*changing.conditions)
        work = changing.guarded(Deleted(condition))
        return sum(
            await permission.settled(lambda: self._work_on(store, collection, condition, multi, work, now_ms))
        )

    async def _update(
        self,
        access: Access,
        collection: str,
        filter: Value,
        modify: Modify,
        multi: bool,
        returns: bool = False,
    ) -> Updated:
        store = await self._documents(access)
        info = find_collection(store.catalog(), collection)
        now_ms = self._now_ms()
        prepared = None if modify.remove else prepare(modify.update, now_ms, InvalidUpdate)
        sort = parse_sort(modify.sort)
        permission = self._permission(store, access, info, now_ms)
        changing = await permission.change(
            self._filter(filter, now_ms),
            _written(modify, prepared),
            upsert=modify.upsert,
            returns=returns,
            paths=_paths(sort),
        )
        condition = where(*changing.conditions)
        project = _projector(modify.projection, condition)
        work = self._work(condition, modify, prepared, now_ms)
        if modify.upsert:
            spare_id = self._ids.next(now_ms)
            new = NewDocument(
                where(changing.conditions[-1]),
                lambda document: self._new_document(
                    permission, without_own_name(access, document), now_ms, spare_id
                ),
            )
            work = writes.Upsert(work, new)
        work = changing.guarded(work)

        async def attempt() -> Updated:
            if sort:
                return await self._work_on_first(store, collection, condition, sort, work, now_ms)
            return Updated.total(await self._work_on(store, collection, condition, multi, work, now_ms))

        try:
            done = await permission.settled(attempt)
        except DuplicateKey as exc:
            if modify.upsert and not access.admin and "index: _id_" in exc.message:
                # The id exists but is not the caller's: the same answer as to any write without permission.
                raise PermissionDenied("the document belongs to somebody else") from exc
            raise
        if changing.reading.hides:
            done = done.projected(changing.reading.show)
        return done if project is None else done.projected(project)

    def _work(self, condition: Where, modify: Modify, prepared: Value, now_ms: int) -> Writes[Updated]:
        """What is done with the documents that match. Raises InvalidUpdate, InvalidParameter."""
        if modify.remove:
            if modify.update is not None or modify.upsert or modify.replace:
                raise InvalidParameter("a removal has neither an update nor a replacement nor an upsert")
            return Taken()
        if modify.replace:
            if modify.array_filters is not None:
                raise InvalidParameter("array filters belong to update operators, not to a replacement")
            return Replacement(condition, parse_replacement(prepared))
        filters = prepare(modify.array_filters, now_ms, InvalidUpdate)
        return writes.Update(condition, parse_update(prepared, filters), now_ms)

    async def _work_on_first(
        self,
        store: Documents,
        collection: str,
        condition: Where,
        sort: Sort,
        work: Writes[Updated],
        now_ms: int,
    ) -> Updated:
        """Work on the first document in an order. After a conflict several are held ready, so that many
        callers who take the first one each do not have to try as often as there are callers.
        """
        ready = 1
        for _ in range(self._limits.conflicts_max):
            found = await store.read(Read(collection, condition, sort, limit=ready))
            if not found.rows:
                return (await self._work_on(store, collection, condition, False, work, now_ms))[0]
            revisions = {row.id_key: row.rev for row in found.rows}
            decide = writes.first_of(work, condition, revisions)
            piece = await store.commit(Turn(collection, now_ms, decide, Keys(list(revisions))))
            if piece.result is not None:
                return piece.result
            ready = CANDIDATES
        raise RevisionConflict("documents changed faster than the first of them could be taken")

    async def _work_on(
        self, store: Documents, collection: str, condition: Where, multi: bool, work: Writes[T], now_ms: int
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
        self, store: Documents, collection: str, condition: Where, multi: bool, work: Writes[T], now_ms: int
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

    async def _documents(self, access: Access) -> Documents:
        """What the caller reads and writes: the store, or its transaction's view of it."""
        return self._transactions.documents(await self._open(access.environment), access)

    async def _visible(self, access: Access, collection: str, key: bytes) -> Document | None:
        """The document of an id, if it is there and surely visible: the short way for the commonest query."""
        store = await self._open(access.environment)
        test = sees(access, find_collection(store.catalog(), collection))
        rows = () if test is None else await store.get_many(collection, (key,))
        return rows[0].document if rows and test is not None and test(rows[0].document) else None

    async def _read(self, store: Documents, access: Access, read: Read) -> Found:
        """Answer a query, and count what it cost: it may deserve an index."""
        try:
            found = await store.read(read)
        except QueryTooCostly:
            self.indexes.note_too_costly(access.environment, read)
            raise
        self.indexes.note(access.environment, read, found)
        return found

    async def _open(self, environment: str) -> Store:
        return self._stores.get(environment) or await self._stores.open(environment)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)

    def _filter(self, filter: Value, now_ms: int) -> Document:
        prepared = prepare({} if filter is None else filter, now_ms, InvalidFilter)
        if type(prepared) is not dict:
            raise InvalidFilter("a filter must be an object")
        return with_now(prepared, now_ms)

    async def _reading(
        self,
        store: Documents,
        access: Access,
        info: CollectionInfo,
        filter: Value,
        paths: Iterable[str] = (),
    ) -> Reading:
        """What a query may find, with what it is narrowed by. Raises InvalidFilter, PermissionDenied."""
        now_ms = self._now_ms()
        permission = self._permission(store, access, info, now_ms)
        return await permission.read(self._filter(filter, now_ms), paths)

    def _permission(self, store: Documents, access: Access, info: CollectionInfo, now_ms: int) -> Permission:
        return Permission(access, info, now_ms, fetcher(store))

    def _new_document(self, permission: Permission, document: Value, now_ms: int, spare_id: str) -> Document:
        """A checked document with id and owner, that may be inserted."""
        prepared = prepare(document, now_ms)
        if type(prepared) is not dict:
            raise InvalidDocument("a document must be an object")
        for name in prepared:
            if name.startswith("$"):
                raise InvalidDocument(f"the dollar ($) prefixed field '{name[:80]}' is not valid for storage")
        owned = permission.owned(prepared)
        if "_id" not in owned:
            owned = {"_id": spare_id, **owned}
        elif next(iter(owned)) != "_id":
            owned = {"_id": owned["_id"], **owned}
        permission.check_insert(owned, prepared)
        return owned


async def _shown(rows: Sequence[Row], reading: Reading) -> list[Document]:
    """The documents that were found, as their reader may see them. Raises PermissionDenied."""
    if reading.checks:
        for row in rows:
            await reading.check(row.document)
    return [reading.show(row.document) for row in rows] if reading.hides else [row.document for row in rows]


def _written(modify: Modify, prepared: Value) -> Written | None:
    """What rules see of an update; nothing of a removal."""
    if modify.remove:
        return None
    if type(prepared) is not dict:
        return Written({}, ())  # Refused when it is parsed.
    return written_by(prepared) if modify.replace else written_by_update(prepared)


def _paths(sort: Sort) -> list[str]:
    """The fields an order looks at."""
    return [item.path for item in sort]


def _projector(projection: Value, condition: Where) -> Projector | None:
    """Raises InvalidProjection; the positional ``$`` runs conditions of the filter again, in this process."""
    if condition.costly and type(projection) is dict and any(path.endswith(".$") for path in projection):
        raise InvalidProjection("the positional operator cannot follow a costly regular expression")
    return compile_projection(projection, condition.node)


def _only_id(query: Query) -> bytes | None:
    """The key of the id if a query asks for nothing but one text as ``_id``; None for all others.

    Texts that ``prepare`` may refuse and templates are others, too.
    """
    filter = query.filter
    if query.skip or query.projection is not None or query.sort is not None:
        return None
    if type(filter) is not dict or len(filter) != 1:
        return None
    value = filter.get("_id")
    if type(value) is not str or not value.isascii() or value[:1] == "{":
        return None
    return lossless_key(value)


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
