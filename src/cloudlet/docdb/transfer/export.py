"""A collection, or what matches a query, as a file: JSON Lines or CSV, in order of insertion.

Everything in the file is of one moment. A small collection is read by one statement; for any other the
environment is copied (``Store.backup``) and the copy is read, so that an export of any size neither sees half
of a transaction nor keeps a snapshot open.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cloudlet.docdb import sqlite_file
from cloudlet.docdb.aside import in_thread
from cloudlet.docdb.base import Row, Store, find_collection
from cloudlet.docdb.ejson import encode_canonical, encode_relaxed
from cloudlet.docdb.filter import Where, where
from cloudlet.docdb.migrate.home import remove_files
from cloudlet.docdb.projection import compile_projection
from cloudlet.docdb.transfer.csvrows import COLUMNS_MAX, cells_of, check_columns, write_row
from cloudlet.docdb.transfer.reading import Format
from cloudlet.docdb.values import Document, prepare
from cloudlet.model.clock import Clock
from cloudlet.model.errors import InvalidFilter, InvalidParameter, ResultTooLarge, StoreUnavailable

HERE_DOCUMENTS: Final = 500
"""A collection of at most so many documents is read at once, in a few milliseconds."""
PAGE_DOCUMENTS: Final = 200
CHUNK_BYTES: Final = 256 * 1024

Rows = Callable[[], Iterator[Row]]


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export is asked for. Without ``fields``: whole documents, in CSV all fields at the top."""

    collection: str
    format: Format = "json"
    filter: Document = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    relaxed: bool = False
    """Relaxed Extended JSON: easier to read, but types of numbers are lost."""
    gzip: bool = False


class Exporter:
    """Writes exports; copies are made in ``directory``, in which nothing must survive a restart."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._lock = asyncio.Semaphore(2)

    def clean(self) -> None:
        """Remove what a process that ended has left. Blocks."""
        with contextlib.suppress(OSError):  # What stays is only in the way of the disk.
            for path in self._directory.glob("*"):
                path.unlink(missing_ok=True)

    async def write(self, store: Store, wanted: Exported) -> AsyncIterator[bytes]:
        """The file, piece by piece. What is wrong with the request is raised before the first piece.

        Raises CollectionNotFound, InvalidFilter, InvalidParameter, StoreUnavailable.
        """
        find_collection(store.catalog(), wanted.collection)
        condition = _condition(wanted.filter, int(self._clock.now() * 1000))
        fields = check_columns(wanted.fields) if wanted.fields else ()
        if fields and wanted.format == "json":
            compile_projection(dict.fromkeys(fields, 1))
        few = await store.scan(wanted.collection, 0, HERE_DOCUMENTS + 1)
        if len(few) <= HERE_DOCUMENTS:
            for piece in _packed(wanted, _lines(wanted, fields, lambda: _matching(few, condition))):
                yield piece
            return
        async with self._lock, self._copied(store) as copy:
            pieces = _packed(wanted, _copied_lines(copy, wanted, fields, condition))
            while piece := await in_thread(lambda: next(pieces, b"")):
                yield piece

    @asynccontextmanager
    async def _copied(self, store: Store) -> AsyncIterator[Path]:
        copy = self._directory / f"{secrets.token_hex(8)}.db"
        try:
            await in_thread(lambda: self._directory.mkdir(0o700, parents=True, exist_ok=True))
        except OSError as exc:
            raise StoreUnavailable(f"there is no place for a copy: {exc}") from exc
        try:
            await store.backup(copy)
            yield copy
        finally:
            remove_files(copy)


def _condition(filter: Document, now_ms: int) -> Where:
    condition = where(prepare(filter, now_ms, InvalidFilter), subject_max=None)
    if condition.costly:
        raise InvalidFilter(
            "an export cannot search with a regular expression that may take long, or with very many "
            "conditions: export without it, or with a simpler one"
        )
    return condition


def _matching(rows: Sequence[Row] | Iterator[Row], condition: Where) -> Iterator[Row]:
    return (row for row in rows if condition.match(row.document))


def _copied_lines(copy: Path, wanted: Exported, fields: tuple[str, ...], condition: Where) -> Iterator[str]:
    """Lines from a copy, whose connection is used by one thread at a time."""
    with sqlite_file.engine_errors(), closing(sqlite_file.open_reader(copy)) as connection:
        info = find_collection(sqlite_file.load_catalog(connection), wanted.collection)

        def rows() -> Iterator[Row]:
            after = 0
            while page := sqlite_file.scan(connection, info, after, PAGE_DOCUMENTS):
                yield from _matching(page, condition)
                after = page[-1].did

        yield from _lines(wanted, fields, rows)


def _lines(wanted: Exported, fields: tuple[str, ...], rows: Rows) -> Iterator[str]:
    if wanted.format == "csv":
        return _csv(fields or _top_fields(rows), rows)
    return _json(wanted, fields, rows)


def _json(wanted: Exported, fields: tuple[str, ...], rows: Rows) -> Iterator[str]:
    encode = encode_relaxed if wanted.relaxed else encode_canonical
    project = compile_projection(dict.fromkeys(fields, 1)) if fields else None
    for row in rows():
        yield encode(row.document if project is None else project(row.document)) + "\n"


def _csv(columns: tuple[str, ...], rows: Rows) -> Iterator[str]:
    yield write_row(columns)
    for row in rows():
        yield write_row(cells_of(columns, row.document))


def _top_fields(rows: Rows) -> tuple[str, ...]:
    """The fields at the top of all documents, in the order in which they first appear."""
    found: dict[str, None] = {"_id": None}
    for row in rows():
        for name in row.document:
            if name not in found:
                if "." in name:
                    raise InvalidParameter(f"the field {name[:80]!r} has a dot in its name: export as JSON")
                found[name] = None
                if len(found) > COLUMNS_MAX:
                    raise ResultTooLarge(f"there are more than {COLUMNS_MAX} fields: name those you want")
    return tuple(found)


def _packed(wanted: Exported, lines: Iterator[str]) -> Iterator[bytes]:
    """Text in pieces that are worth sending, compressed if asked for."""
    packer = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS | 16) if wanted.gzip else None
    buffer = bytearray()
    for line in lines:
        raw = line.encode()
        buffer += raw if packer is None else packer.compress(raw)
        if len(buffer) >= CHUNK_BYTES:
            yield bytes(buffer)
            buffer.clear()
    if packer is not None:
        buffer += packer.flush()
    if buffer:
        yield bytes(buffer)
