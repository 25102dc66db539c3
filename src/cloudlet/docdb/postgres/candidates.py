"""From a plan to rows: statements that bring candidates in key order, a bounded number and size at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import asyncpg

from cloudlet.docdb.base import CollectionInfo, Found, Read, Row
from cloudlet.docdb.body import decode_body
from cloudlet.docdb.execute import index_name, select
from cloudlet.docdb.geo.nearest import Nearest
from cloudlet.docdb.geo.rings import Rings
from cloudlet.docdb.limits import DocdbLimits, Overrun
from cloudlet.docdb.planner import Ids, Plan, Ranges, Scan, Source, Union, plan
from cloudlet.docdb.postgres.faults import CatalogChanged
from cloudlet.docdb.postgres.sql import Names, statement

BYTES_MAX: Final = 16 * 1024 * 1024
"""Bodies that one statement brings into this process; what needs more goes to a worker."""
_GROWTH: Final = 8
_PROBES_MAX: Final = 32
_IDS_PER_DOCUMENT: Final = 10
"""Ids that may be looked up for each document that may be looked at: most of them may not exist."""

Stored: TypeAlias = Sequence[Any]
KeyRanges: TypeAlias = tuple[tuple[bytes, bytes], ...]
Query: TypeAlias = tuple[str, tuple[Any, ...]]


class _Incomplete(Exception):
    """There are more candidates than were fetched."""


class _Wanted(Exception):
    """The planner wants to know how many entries there are."""

    def __init__(self, source: Ranges, most: int) -> None:
        self.source = source
        self.most = most


class _Missing(Exception):
    """A ring has not been fetched yet."""

    def __init__(self, ranges: KeyRanges) -> None:
        self.ranges = ranges


@dataclass(frozen=True, slots=True)
class Table:
    """A collection as it was when the catalog had this version."""

    at: Names
    info: CollectionInfo
    version: int

    def query(self, source: Ids | Ranges | Scan, count: int, size: int) -> Query:
        """The statement for the first ``count`` candidates of about ``size`` bytes, and its values."""
        number = self.info.number
        if isinstance(source, Ids):
            if len(source.keys) == 1:
                return statement("get", self.at, number), source.keys
            return statement("ids", self.at, number), (source.keys, count, size)
        if isinstance(source, Scan):
            return statement("scan", self.at, number), (count, size)
        index = source.index
        ranges = source.ranges[::-1] if source.reverse else source.ranges
        kind = "id_range" if index.number == 0 else "index_range"
        if len(ranges) == 1:
            text = statement(kind, self.at, number, index.number, source.reverse)
            return text, (*ranges[0], count, size, self.version)
        text = statement(f"{kind}s", self.at, number, index.number, source.reverse)
        return text, ([low for low, _ in ranges], [high for _, high in ranges], count, size, self.version)


@dataclass(frozen=True, slots=True)
class _Fetched:
    """Candidates of one source, and whether these are all."""

    rows: Sequence[Stored]
    complete: bool


def parts(source: Source) -> tuple[Ids | Ranges | Scan, ...]:
    """What has to be read one after the other (of rings: everything in no order)."""
    if isinstance(source, Rings):
        return (Ranges(source.index, source.disc(source.search.farthest)),)
    return source.sources if isinstance(source, Union) else (source,)


def repeats(source: Source) -> bool:
    """Whether a document may come several times."""
    return isinstance(source, Union) or (isinstance(source, Ranges) and source.index.multikey)


def make_row(stored: Stored) -> Row:
    """A row as read by the statements that return documents."""
    did, key, rev, body = stored
    return Row(did, key, rev, len(body), decode_body(body))


async def choose(connection: Any, table: Table, read: Read) -> Plan:
    """The plan for a read. What the planner wants counted is counted, unless it wants too much."""
    known: dict[tuple[int, tuple[tuple[bytes, bytes], ...], int], int] = {}

    def probe(source: Ranges, most: int) -> int:
        count = known.get((source.index.number, source.ranges, most))
        if count is None:
            raise _Wanted(source, most)
        return count

    node, indexes = read.where.node, table.info.indexes
    for _ in range(_PROBES_MAX):
        try:
            return plan(node, read.sort, indexes, read.wanted, probe, unions=True)
        except _Wanted as wanted:
            count = await count_entries(connection, table, wanted.source, wanted.most)
            known[wanted.source.index.number, wanted.source.ranges, wanted.most] = count
    return plan(node, read.sort, indexes, read.wanted, unions=True)


async def answer(connection: Any, table: Table, chosen: Plan, read: Read, limits: DocdbLimits) -> Found:
    """The answer to a read, within what may be looked at in this process.

    Raises Overrun, ResultTooLarge, and CatalogChanged if the plan was made for an older catalog. Plans of
    several parts need a connection inside a transaction of one snapshot.
    """
    counted = read.counted(chosen)
    if counted is not None:
        return await _count(connection, table, counted, limits)
    examined_max = limits.examined_max(read.where.patterned)
    if isinstance(chosen.source, Ids) and len(chosen.source.keys) > _IDS_PER_DOCUMENT * examined_max:
        raise Overrun("the query names too many ids")
    if isinstance(chosen.source, Rings):
        return await _answer_rings(connection, table, chosen.source, read, limits)
    for count in _steps(read, chosen.ordered, examined_max):
        fetched = [await _fetch(connection, table, part, count) for part in parts(chosen.source)]
        rows = _rows(fetched, repeats(chosen.source))
        try:
            return select(rows, read, chosen.ordered, examined_max, limits, chosen.source)
        except _Incomplete:
            continue
    raise Overrun("the query would look at too many or too large documents")


async def _answer_rings(
    connection: Any, table: Table, source: Rings, read: Read, limits: DocdbLimits
) -> Found:
    """The same for what is read ring by ring: whenever one is missing, it is fetched and all begins anew."""
    most = limits.examined_max(read.where.patterned)
    known: dict[KeyRanges, list[Row]] = {}

    def ring(ranges: KeyRanges) -> Generator[Row, None, None]:
        if ranges not in known:
            raise _Missing(ranges)
        yield from known[ranges]

    while True:
        try:
            return select(Nearest(source, ring), read, True, most, limits, source)
        except _Missing as missing:
            wanted = Ranges(source.index, missing.ranges)
            fetched = await _fetch(connection, table, wanted, most + 1)
            known[missing.ranges] = [make_row(stored) for stored in fetched.rows]
            if not fetched.complete:
                raise Overrun("the query would look at too many or too large documents") from missing


async def count_entries(connection: Any, table: Table, source: Ids | Ranges, most: int) -> int:
    """How many entries a source leads to, counted up to ``most``. Raises CatalogChanged."""
    at, number = table.at, table.info.number
    if isinstance(source, Ids):
        return int(await connection.fetchval(statement("count_ids", at, number), source.keys))
    ranges = ([low for low, _ in source.ranges], [high for _, high in source.ranges])
    name = "count_index_ranges" if source.index.number else "count_id_ranges"
    try:
        row = await connection.fetchrow(statement(name, at, number, source.index.number), *ranges, most)
    except asyncpg.UndefinedTableError as exc:
        raise CatalogChanged from exc
    if row[1] != table.version:
        raise CatalogChanged
    return int(row[0])


async def _count(connection: Any, table: Table, source: Ids | Ranges, limits: DocdbLimits) -> Found:
    most = limits.counted_inline_max
    count = await count_entries(connection, table, source, most)
    if count >= most:
        raise Overrun(f"the query would count more than {most} index entries")
    return Found(count=count, index=index_name(source))


def _steps(read: Read, ordered: bool, examined_max: int) -> Iterator[int]:
    """How many candidates to fetch: few where the first may be enough, then all that may be looked at."""
    if ordered and read.limit is not None:
        count = max(1, read.skip + read.limit)
        for _ in range(2):
            if count > examined_max:
                break
            yield count
            count *= _GROWTH
    yield examined_max + 1


async def _fetch(connection: Any, table: Table, source: Ids | Ranges | Scan, count: int) -> _Fetched:
    text, values = table.query(source, count, BYTES_MAX)
    try:
        stored = await connection.fetch(text, *values)
        if not stored and isinstance(source, Ranges):
            # The statement finds nothing if the catalog is another one than the plan was made for.
            version = await connection.fetchval(statement("version", table.at))
            if version != table.version:
                raise CatalogChanged
    except asyncpg.UndefinedTableError as exc:
        raise CatalogChanged from exc
    single = isinstance(source, Ids) and len(source.keys) == 1
    return _Fetched(stored, single or (len(stored) < count and _within(stored)))


def _within(stored: Sequence[Stored]) -> bool:
    """Whether the bodies are surely not all that the statement's limit on size let through."""
    if sum(len(row[3]) for row in stored) <= BYTES_MAX // 4:  # A character has at most four bytes.
        return True
    return sum(len(row[3].encode()) for row in stored) <= BYTES_MAX


def _rows(fetched: Sequence[_Fetched], repeating: bool) -> Iterator[Row]:
    seen: set[int] = set()
    for part in fetched:
        for stored in part.rows:
            if repeating:
                if stored[0] in seen:
                    continue
                seen.add(stored[0])
            yield make_row(stored)
        if not part.complete:
            raise _Incomplete
