"""The store seam: what an engine has to give, and the records that cross the seam.

An engine gives durability, consistent reads, ordered byte-key indexes and a change log. What a filter, an
order or an update *means* is never decided by an engine: it runs the closures it is handed.

Nobody changes a record. Those that are made for every call or document are not frozen all the same: making a
frozen one takes three times as long, and ten of them per call were a third of the time of a read by id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from cloudlet.docdb.bytekeys import LOSSLESS_BYTES_MAX, KeyPart, lossless_key
from cloudlet.docdb.filter import Where
from cloudlet.docdb.filter.ast import EVERYTHING
from cloudlet.docdb.planner import Ids, IndexInfo, Plan, Ranges
from cloudlet.docdb.sort import Sort
from cloudlet.docdb.values import Document, Regex, Value
from cloudlet.model.errors import CollectionNotFound, InvalidDocument

if TYPE_CHECKING:
    from cloudlet.docdb.pipeline.execute import Aggregated, Aggregation

T = TypeVar("T")


class Preset(Enum):
    """Who may do what with a collection without a custom rule (the vendors' four values of ``aclTag``)."""

    READONLY = "READONLY"
    """Everybody reads, the creator writes."""
    PRIVATE = "PRIVATE"
    """Only the creator reads and writes."""
    ADMINWRITE = "ADMINWRITE"
    """Everybody reads, only the server writes."""
    ADMINONLY = "ADMINONLY"
    """Only the server reads and writes."""


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """One collection as the catalog knows it. ``number`` names its tables and is never used again."""

    number: int
    name: str
    preset: Preset
    indexes: tuple[IndexInfo, ...] = ()
    rule: str | None = None
    """The custom rule as JSON text; where there is one the preset does not count."""


class Row(msgspec.Struct):
    """One stored document. ``rev`` is the sequence number of its last change; ``size`` is that of the stored
    text.
    """

    did: int
    id_key: bytes
    rev: int
    size: int
    document: Document


class Want(Enum):
    """What a read returns."""

    ROWS = "rows"
    COUNT = "count"
    KEYS = "keys"


@dataclass(slots=True)
class Read:
    """One query. Without a limit everything that matches is wanted, within the limits on size and time.

    Without an order the filter's own counts, if it has one (``$near``).
    """

    collection: str
    where: Where
    sort: Sort = ()
    skip: int = 0
    limit: int | None = None
    want: Want = Want.ROWS

    def __post_init__(self) -> None:
        if self.where.order and not self.sort:
            self.sort = self.where.order

    @property
    def counts_all(self) -> bool:
        """Whether this is the size of the whole collection, which needs no look at the documents."""
        return self.want is Want.COUNT and self.limit is None and self.where.node == EVERYTHING

    @property
    def wanted(self) -> int | None:
        """How many documents have to be found, skipped ones included."""
        return None if self.limit is None else self.skip + self.limit

    def counted(self, plan: Plan) -> Ids | Ranges | None:
        """The source whose entries only have to be counted to answer; None if documents must be looked at."""
        if plan.exact and self.want is Want.COUNT and self.limit is None:
            return plan.source if isinstance(plan.source, Ids | Ranges) else None
        return None


@dataclass(slots=True)
class Found:
    """The answer to a read; of ``rows``, ``count`` and ``keys`` the one that was wanted is filled."""

    rows: Sequence[Row] = ()
    count: int = 0
    keys: Sequence[tuple[bytes, int, int]] = ()
    """Id key, revision and size."""
    examined: int = 0
    index: str | None = None
    """The index that led to the candidates; None for a scan."""


@dataclass(slots=True)
class Put:
    """Store this document: a new one, or in place of ``before``."""

    document: Document
    before: Row | None = None


@dataclass(slots=True)
class Decision(Generic[T]):
    """What a turn changes, and what its caller is told."""

    result: T
    puts: Sequence[Put] = ()
    deletes: Sequence[Row] = ()


@dataclass(slots=True)
class Select:
    """The rows a turn works on: what matches now, at most ``limit`` of it (None: all)."""

    where: Where
    limit: int | None


@dataclass(slots=True)
class Keys:
    """The rows a turn works on: those of these ids that exist now."""

    ids: Sequence[bytes]


@dataclass(slots=True)
class Turn(Generic[T]):
    """One atomic write: read the target, decide, write.

    ``decide`` is a pure function of the rows (an engine may call it again after a conflict). What it raises
    undoes nothing but this turn and reaches the caller.
    """

    collection: str
    at_ms: int
    decide: Callable[[Sequence[Row]], Decision[T]]
    target: Select | Keys | None = None


class Operation(Enum):
    """What happened to a document."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the change log. Sequence numbers ascend without gaps in the order of commits."""

    seq: int
    collection: str
    document_id: Value
    rev: int
    operation: Operation
    before: Document | None
    after: Document | None
    at_ms: int


@dataclass(frozen=True, slots=True)
class Expected:
    """A document that must still be as it was seen: at this revision, or absent (None)."""

    collection: str
    id_key: bytes
    rev: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents of several collections that are written together, if everything expected still holds.

    What is written must also be expected, so that every write has a known predecessor.
    """

    at_ms: int
    expected: Sequence[Expected]
    puts: Sequence[tuple[str, Document]] = ()
    deletes: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """Sizes of one collection: documents, bytes of their stored text, and entries of each index by name."""

    documents: int
    bytes: int
    entries: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Explained:
    """How a read was answered: ``index`` is None for a scan; ``worker`` says that it left the process."""

    index: str | None
    ranges: int
    ordered: bool
    examined: int
    returned: int
    worker: bool
    ms: float


@dataclass(frozen=True, slots=True)
class CreateCollection:
    """Make an empty collection with the index on owner and id. AlreadyExists if there is one of that name."""

    name: str
    preset: Preset


@dataclass(frozen=True, slots=True)
class DropCollection:
    """Remove a collection, its documents and its indexes. Its past changes stay in the log."""

    name: str


@dataclass(frozen=True, slots=True)
class SetPreset:
    """Change a collection's preset, effective for the next request."""

    name: str
    preset: Preset


@dataclass(frozen=True, slots=True)
class SetRule:
    """Set a collection's custom rule (checked JSON text), or take it away (None): the preset counts again."""

    name: str
    rule: str | None


@dataclass(frozen=True, slots=True)
class CreateIndex:
    """Make an index and fill it. DuplicateKey if it is unique and documents collide.

    ``sparse``: only documents that have one of the fields. ``partial``: only documents this filter matches.
    ``expire_after_s``: documents vanish that long after the date in the (only) field. ``automatic``: made by
    the platform from measured queries.
    """

    collection: str
    name: str
    parts: tuple[KeyPart, ...]
    unique: bool = False
    sparse: bool = False
    partial: Document | None = None
    expire_after_s: int | None = None
    automatic: bool = False


@dataclass(frozen=True, slots=True)
class DropIndex:
    """Remove an index. NotFound if there is none of that name."""

    collection: str
    name: str


SchemaChange: TypeAlias = CreateCollection | DropCollection | SetPreset | SetRule | CreateIndex | DropIndex

Listener: TypeAlias = Callable[[Sequence[Change]], None]
"""Called on the event loop with what was committed, in order of ``seq``. It must not block or raise."""


class Store(Protocol):
    """The documents of one environment.

    *Reads* see one committed state, and everything whose commit was answered before they began. A read that
    looks at few documents runs at once; one that would cost more, or whose filter is costly, runs in a
    process that is killed at its time limit (QueryTooCostly). *Commits* are atomic, durable when they return,
    and applied in the order of ``seq``. A cancelled commit may still happen. Errors of every method:
    CollectionNotFound, and StoreUnavailable when the engine cannot work (nothing was changed), OutcomeUnknown
    when a write may or may not have happened.
    """

    def catalog(self) -> Mapping[str, CollectionInfo]:
        """The collections by name, as of the last schema change. The mapping never changes."""
        ...

    async def define(self, change: SchemaChange) -> None:
        """Change the schema: all of it or nothing."""
        ...

    async def read(self, read: Read) -> Found:
        """Answer a query. Also raises QueryTooCostly and ResultTooLarge."""
        ...

    async def aggregate(self, work: Aggregation) -> Aggregated:
        """Run a pipeline over one committed state of all the collections it reads.

        Small inputs are worked on at once, all others in a worker process, as with ``read``. Also raises
        InvalidFilter, QueryTooCostly and ResultTooLarge.
        """
        ...

    async def get_many(self, collection: str, ids: Sequence[bytes]) -> list[Row]:
        """The rows of those id keys that exist, in the order asked for."""
        ...

    async def commit(self, turn: Turn[T]) -> T:
        """Run one turn; returns the decision's result once it is durable.

        Also raises DuplicateKey, InvalidDocument, what ``decide`` raises, and Overrun if the target cannot be
        read cheaply inside the writer (find the ids with a read, then come with Keys).
        """
        ...

    async def commit_batch(self, batch: Batch) -> int:
        """Write documents of several collections at once; returns the last ``seq`` it was given.

        Raises RevisionConflict (nothing was written) if something expected no longer holds; DuplicateKey,
        InvalidDocument.
        """
        ...

    async def last_seq(self) -> int:
        """The sequence number of the last commit; 0 before the first. A read begun later sees that commit."""
        ...

    async def changes(self, after_seq: int, limit: int, collection: str | None = None) -> list[Change]:
        """Changes with ``seq`` above ``after_seq``, oldest first, at most ``limit``; of one collection if
        named. Raises ChangesPruned if the log no longer reaches back to ``after_seq``.
        """
        ...

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Hear of every commit of this installation, in order; returns the call that ends it.

        A listener that notices a gap in ``seq`` fills it from ``changes``.
        """
        ...

    async def scan(self, collection: str, after_did: int, limit: int) -> list[Row]:
        """The next documents in order of insertion, for export and checks; empty at the end."""
        ...

    async def explain(self, read: Read) -> Explained:
        """Answer a query and say how that was done."""
        ...

    async def stats(self, collection: str) -> CollectionStats:
        """Sizes of one collection."""
        ...

    async def backup(self, target: Path) -> int:
        """Write a consistent copy of everything to a new file; returns the last ``seq`` in it.

        Writes go on meanwhile. The file is complete or absent. Raises StoreUnavailable.
        """
        ...

    async def close(self) -> None:
        """Finish the writes that wait, then let go of everything. Repeating it does nothing."""
        ...


def find_collection(catalog: Mapping[str, CollectionInfo], name: str) -> CollectionInfo:
    """The collection's entry; raises CollectionNotFound."""
    info = catalog.get(name)
    if info is None:
        raise missing_collection(name)
    return info


def missing_collection(name: str) -> CollectionNotFound:
    """The error with both texts that applications look for."""
    return CollectionNotFound(f"database collection not exists: Db or Table not exist: {name[:80]}")


def id_key(value: Value) -> bytes:
    """The key of an ``_id``; raises InvalidDocument for what cannot be an id."""
    kind = type(value)
    if value is None or kind is list or kind is Regex:
        raise InvalidDocument("the _id of a document cannot be null, an array or a regular expression")
    if kind is dict and any(name.startswith("$") for name in value):
        raise InvalidDocument("the _id of a document cannot be an object with fields that start with $")
    key = lossless_key(value)
    if len(key) > LOSSLESS_BYTES_MAX:
        raise InvalidDocument(f"the _id of a document may have {LOSSLESS_BYTES_MAX} bytes")
    return key
