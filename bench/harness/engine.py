"""The document engine without HTTP, beside the same statements sent to SQLite with nothing around them.

Ours is the store as the document service uses it: a filter compiled and planned, documents decoded, writes
handed to the writing thread by 32 clients and committed in groups with the change log. Bare is one thread
that knows the statement, the keys and the entries before and commits 32 writes at a time. Both are durable,
and both return the same values: the time of a note is a number here, because plain JSON has no dates.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from pathlib import Path

import msgspec
import uvloop

from cloudlet.docdb import writes
from cloudlet.docdb.base import CollectionInfo, Read, Select, Store, Turn, id_key
from cloudlet.docdb.body import encode_body
from cloudlet.docdb.filter import where
from cloudlet.docdb.indexes.entries import entries_of
from cloudlet.docdb.limits import DEFAULT_LIMITS
from cloudlet.docdb.planner import Ranges, plan
from cloudlet.docdb.service import DocumentService, IndexField
from cloudlet.docdb.sort import parse_sort
from cloudlet.docdb.sqlite_file import load_catalog, open_reader, open_writer, statement
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.update import parse_update
from cloudlet.model.access import Access

from . import notes
from .results import Row
from .stats import median, paired_ratio

ENVIRONMENT = "bench"
CLIENTS = 32
CALLS = {"get": 20_000, "list20": 3_000, "insert": 4_096, "inc": 4_096}
"""Per round; between a fifth of a second and one second each."""
PEER = "apsw"
_AT_MS = notes.STARTED_MS
_NEWEST = {"at": -1}
_INCREMENT = {"$inc": {"count": 1}}

Made = Callable[[int], dict[str, object]]
"""Makes the note of a number."""


def engine_rows(work: Path, rounds: int, progress: Callable[[str], None]) -> list[Row]:
    """``engine-*`` cases with the peer, and the matcher."""
    measured: dict[tuple[str, str | None], list[float]] = defaultdict(list)
    folder = work / "engine"
    uvloop.run(_rounds(folder, rounds, measured, progress))
    rows: list[Row] = []
    for operation in notes.OPERATIONS:
        ours, bare = measured[operation, None], measured[operation, PEER]
        case = f"engine-{operation}"
        rows.append(Row(case, "ops_per_s", round(median(ours), 1), "ops/s"))
        ratio = round(paired_ratio(ours, bare), 3)
        rows.append(Row(case, "ops_per_s", round(median(bare), 1), "ops/s", PEER, ratio))
    return [*rows, Row("matcher", "us_per_doc", round(matcher_us(), 3), "µs")]


def plain(number: int) -> dict[str, object]:
    """A note that JSON holds as it is."""
    return {**notes.stored(number), "at": notes.at_ms(number)}


async def grown(service: DocumentService, first: int, end: int, made: Made = notes.stored) -> None:
    """Notes from `first` up to `end`, in batches of 1,000."""
    access = Access(ENVIRONMENT, admin=True)
    for start in range(first, end, 1_000):
        batch = [made(number) for number in range(start, min(start + 1_000, end))]
        await service.insert(access, "notes", batch)


async def created(service: DocumentService) -> None:
    """The collections, indexed."""
    for collection in ("notes", "fresh"):
        await service.create_collection(ENVIRONMENT, collection)
        index = [IndexField("_openid"), IndexField("at", descending=True)]
        await service.create_index(ENVIRONMENT, collection, "newest", index)


async def per_second(calls: Sequence[Awaitable[object]], clients: int) -> float:
    """Calls per second of so many clients, each with one call at a time."""
    waiting = iter(calls)

    async def client() -> None:
        for call in waiting:
            await call

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return len(calls) / (time.perf_counter() - started)


def matcher_us() -> float:
    """µs per document of a nested equality and a range, the least of several passes."""
    documents = [notes.stored(number) for number in range(2_000)]
    condition = {"place.number": 12, "price": {"$gte": 100.0, "$lt": 700.0}}
    match, times = where(condition).match, []
    for _ in range(20):
        started = time.perf_counter()
        for document in documents:
            match(document)
        times.append((time.perf_counter() - started) / len(documents))
    return min(times) * 1e6


class OurCalls:
    """The operations as calls of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sort = parse_sort(_NEWEST)
        self._inserted = notes.NOTES
        self._update = parse_update(_INCREMENT)

    def many(self, operation: str, numbers: Sequence[int]) -> list[Awaitable[object]]:
        """Coroutines that have not begun."""
        return [getattr(self, f"_{operation}")(number) for number in numbers]

    async def _get(self, number: int) -> None:
        (_row,) = await self._store.get_many("notes", [id_key(notes.note_id(number))])

    async def _list20(self, number: int) -> None:
        condition = where({"_openid": notes.owner(number)})
        found = await self._store.read(Read("notes", condition, self._sort, 0, 20))
        if len(found.rows) != 20:
            raise RuntimeError(f"{len(found.rows)} documents instead of 20")

    async def _insert(self, number: int) -> None:
        self._inserted += 1
        document = plain(self._inserted)
        await self._store.commit(Turn("fresh", _AT_MS, writes.insert([document])))

    async def _inc(self, number: int) -> None:
        condition = where({"_id": notes.note_id(number)})
        work = writes.Update(condition, self._update, _AT_MS)
        await self._store.commit(Turn("notes", _AT_MS, work, Select(condition, 1)))


class BareCalls:
    """The statements of the same operations on a copy of the file."""

    def __init__(self, path: Path) -> None:
        self._writer, self._reader = open_writer(path), open_reader(path)
        catalog = load_catalog(self._reader)
        self._notes, self._fresh = catalog["notes"], catalog["fresh"]
        self._decode = msgspec.json.Decoder().decode
        self._encode = msgspec.json.Encoder().encode
        self._seq: int = self._reader.execute(statement("last_seq")).get
        self._inserted = notes.NOTES

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def per_second(self, operation: str, numbers: Sequence[int]) -> float:
        call, given = getattr(self, f"_{operation}")(numbers)
        size = CLIENTS if operation in {"insert", "inc"} else 0
        started = time.perf_counter()
        if size:
            for first in range(0, len(given), size):
                self._writer.execute("BEGIN IMMEDIATE")
                for item in given[first : first + size]:
                    call(*item)
                self._writer.execute("COMMIT")
        else:
            for item in given:
                call(*item)
        return len(numbers) / (time.perf_counter() - started)

    def _get(self, numbers: Sequence[int]) -> _Bare:
        text = statement("get", self._notes.number)

        def call(key: bytes) -> None:
            for row in self._reader.execute(text, (key,)):
                self._decode(row[3])

        return call, [(id_key(notes.note_id(number)),) for number in numbers]

    def _list20(self, numbers: Sequence[int]) -> _Bare:
        sources = {owner: _newest(self._notes, owner) for owner in map(notes.owner, range(notes.OWNERS))}
        index = next(iter(sources.values())).index.number
        reverse = next(iter(sources.values())).reverse
        name = "index_range_reverse" if reverse else "index_range"
        text = statement(name, self._notes.number, index)

        def call(bounds: tuple[bytes, bytes]) -> None:
            cursor = self._reader.execute(text, bounds)
            for row in islice(cursor, 20):
                self._decode(row[3])
            cursor.close()

        return call, [(sources[notes.owner(number)].ranges[0],) for number in numbers]

    def _insert(self, numbers: Sequence[int]) -> _Bare:
        info, given = self._fresh, []
        for _ in numbers:
            self._inserted += 1
            given.append(_prepared(info, plain(self._inserted)))
        insert, log = statement("insert_document", info.number), statement("log_insert", info.number)
        add = [statement("add_entry", x=index.number) for index in info.indexes]

        def call(key: bytes, body: str, entries: Sequence[bytes]) -> None:
            self._seq += 1
            self._writer.execute(insert, (key, self._seq, body))
            did = self._writer.last_insert_rowid()
            self._writer.execute(log, ("fresh", _AT_MS, did))
            for text, entry in zip(add, entries, strict=True):
                self._writer.execute(text, (entry, did))

        return call, given

    def _inc(self, numbers: Sequence[int]) -> _Bare:
        number = self._notes.number
        get, log = statement("get", number), statement("log_update", number)
        update = statement("update_document", number)

        def call(key: bytes) -> None:
            ((did, _key, rev, body),) = self._writer.execute(get, (key,)).fetchall()
            document = self._decode(str(body))
            document["count"] += 1
            self._seq += 1
            changed = self._encode(document).decode()
            self._writer.execute(log, (self._seq, "notes", changed, _AT_MS, did, rev))
            self._writer.execute(update, (self._seq, did))

        return call, [(id_key(notes.note_id(number)),) for number in numbers]


_Bare = tuple[Callable[..., None], Sequence[tuple[object, ...]]]


def _newest(info: CollectionInfo, owner: str) -> Ranges:
    source = plan(where({"_openid": owner}).node, parse_sort(_NEWEST), info.indexes, 20).source
    if not isinstance(source, Ranges):
        raise RuntimeError("the newest notes of an owner are not found by an index")
    return source


def _prepared(info: CollectionInfo, document: dict[str, object]) -> tuple[bytes, str, list[bytes]]:
    entries = [next(iter(entries_of(document, index).keys)) for index in info.indexes]
    return id_key(document["_id"]), encode_body(document, DEFAULT_LIMITS.document_bytes_max), entries


async def _rounds(
    folder: Path,
    rounds: int,
    measured: dict[tuple[str, str | None], list[float]],
    progress: Callable[[str], None],
) -> None:
    stores = Stores.in_directory(folder)
    try:
        service = DocumentService(stores)
        await created(service)
        await grown(service, 0, notes.NOTES, plain)
        await stores.close()
        copy = folder / "bare.db"
        shutil.copy(folder / f"{ENVIRONMENT}.db", copy)
        stores = Stores.in_directory(folder)
        ours, bare = OurCalls(await stores.open(ENVIRONMENT)), BareCalls(copy)
        try:
            for number in range(-1, rounds):
                # The first one only warms up.
                await _round(ours, bare, number, measured if number >= 0 else defaultdict(list))
            progress(f"engine: {rounds} rounds")
        finally:
            bare.close()
    finally:
        await stores.close()


async def _round(
    ours: OurCalls, bare: BareCalls, seed: int, measured: dict[tuple[str, str | None], list[float]]
) -> None:
    for operation in notes.OPERATIONS:
        numbers = random.Random(seed).choices(range(notes.NOTES), k=CALLS[operation])
        clients = CLIENTS if operation in {"insert", "inc"} else 1
        measured[operation, None].append(await per_second(ours.many(operation, numbers), clients))
        measured[operation, PEER].append(bare.per_second(operation, numbers))
