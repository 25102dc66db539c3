"""A read that costs more than the server's process allows, in the process that may be killed for it."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final

from cloudlet.docdb.base import Found, Read, Row, find_collection
from cloudlet.docdb.execute import index_name, select
from cloudlet.docdb.geo.nearest import Nearest
from cloudlet.docdb.geo.rings import Rings
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.planner import Ranges, Source
from cloudlet.docdb.postgres.address import Address
from cloudlet.docdb.postgres.candidates import (
    Table,
    choose,
    count_entries,
    make_row,
    parts,
    repeats,
)
from cloudlet.docdb.postgres.catalog import Catalog, read_catalog
from cloudlet.docdb.postgres.faults import ENGINE_ERRORS, translated
from cloudlet.docdb.postgres.paging import pages
from cloudlet.docdb.postgres.pool import connect
from cloudlet.docdb.postgres.sql import Names, names, statement

_ALL: Final = 2**62


@contextmanager
def snapshot(
    url: str, environment: str, seconds: float
) -> Iterator[tuple[asyncio.Runner, Any, Names, Catalog]]:
    """A connection inside one snapshot, and the catalog in it. The server stops its part after ``seconds``,
    should this process die. Raises StoreUnavailable.
    """
    at = names(environment)
    with asyncio.Runner() as runner:
        connection = runner.run(connect(Address(url), int(seconds * 1000)))
        try:
            runner.run(connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            yield runner, connection, at, runner.run(read_catalog(connection, at))
        except ENGINE_ERRORS as exc:
            raise translated(exc) from exc
        finally:
            connection.terminate()


def run_on_postgres(read: Read, limits: DocdbLimits, url: str, environment: str, seconds: float) -> Found:
    """Answer a read in one snapshot. Raises what a store's read raises."""
    with snapshot(url, environment, seconds) as (runner, connection, at, catalog):
        info = find_collection(catalog.collections, read.collection)
        if read.counts_all:
            text = statement("count_documents", at, info.number)
            return Found(count=runner.run(connection.fetchval(text, _ALL)))
        table = Table(at, info, catalog.version)
        chosen = runner.run(choose(connection, table, read))
        counted = read.counted(chosen)
        if counted is not None:
            count = runner.run(count_entries(connection, table, counted, _ALL))
            return Found(count=count, index=index_name(counted))
        rows = candidates(runner, connection, table, chosen.source)
        return select(rows, read, chosen.ordered, None, limits, chosen.source)


def candidates(runner: asyncio.Runner, connection: Any, table: Table, source: Source) -> Iterator[Row]:
    """All candidates, page by page, so that memory holds one page whatever the collection's size."""
    if isinstance(source, Rings):
        index = source.index
        return Nearest(source, lambda ranges: _paged(runner, connection, table, Ranges(index, ranges)))
    return _paged(runner, connection, table, source)


def _paged(
    runner: asyncio.Runner, connection: Any, table: Table, source: Source
) -> Generator[Row, None, None]:
    seen: set[int] = set()
    for part in parts(source):
        for page in pages(runner, connection, *table.query(part, _ALL, _ALL)):
            for stored in page:
                if repeats(source):
                    if stored[0] in seen:
                        continue
                    seen.add(stored[0])
                yield make_row(stored)
