"""One environment's documents as a SQLite file: opening, migrating, the catalog, and reading candidates.

Used by the store's reader and writer and by the scanning workers. See ``migrations/`` for the tables.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeAlias

import apsw

from cloudlet.docdb.base import CollectionInfo, Preset, Row
from cloudlet.docdb.body import decode_body
from cloudlet.docdb.catalog import parts_of, with_options
from cloudlet.docdb.filter import Where
from cloudlet.docdb.geo.nearest import Nearest
from cloudlet.docdb.geo.rings import Rings
from cloudlet.docdb.planner import Ids, IndexInfo, Ranges, Source, Union
from cloudlet.docdb.sqlite_prefilter import prefilter
from cloudlet.model.errors import Conflict, Internal, PlatformError, StoreUnavailable

APPLICATION_ID: Final = 0x636C6474
"""Marks the file as ours ("cldt")."""
SQLITE_VERSION_MIN: Final = 3_045_000
"""JSONB appeared in 3.45."""

_WRITER_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    # Measured: left to a background thread alone, the log grew to 472 MB in 1.5 s of load.
    "PRAGMA wal_autocheckpoint = 4000",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA cache_size = -16384",
)
_READER_PRAGMAS: Final = (
    "PRAGMA query_only = ON",
    "PRAGMA cache_size = -16384",
    "PRAGMA mmap_size = 67108864",
)
_BUSY_MS: Final = 5_000
_RENUMBERING: Final = 2
"""The migration that makes revisions sequence numbers."""

Rows: TypeAlias = Generator[Row, None, None]


def open_writer(path: Path) -> apsw.Connection:
    """The one connection that writes, on a file of the current schema; makes and migrates the file.

    Raises Conflict for a file of a newer version or of another program, StoreUnavailable if it cannot be
    written.
    """
    if apsw.SQLITE_VERSION_NUMBER < SQLITE_VERSION_MIN:
        raise Internal("SQLite is older than 3.45 and has no JSONB")
    with engine_errors():
        connection = apsw.Connection(str(path))
    try:
        with engine_errors():
            connection.set_busy_timeout(_BUSY_MS)
            _check_ours(connection, path)
            for pragma in _WRITER_PRAGMAS:
                connection.execute(pragma).fetchall()
            _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> apsw.Connection:
    """A connection that only reads. Raises StoreUnavailable."""
    with engine_errors():
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(_BUSY_MS)
        for pragma in _READER_PRAGMAS:
            connection.execute(pragma).fetchall()
    return connection


def open_plain(path: Path) -> apsw.Connection:
    """A connection for one long piece of reading. Raises StoreUnavailable."""
    with engine_errors():
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(_BUSY_MS)
    return connection


@contextmanager
def engine_errors() -> Iterator[None]:
    """Turns SQLite's errors into ours: what an operator can mend is StoreUnavailable, the rest Internal."""
    try:
        yield
    except apsw.Error as exc:
        raise translated(exc) from exc


def translated(error: apsw.Error) -> PlatformError:
    """Our error for one of SQLite's."""
    mendable = (
        apsw.FullError,
        apsw.ReadOnlyError,
        apsw.CantOpenError,
        apsw.IOError,
        apsw.BusyError,
        apsw.LockedError,
        apsw.PermissionsError,
    )
    if isinstance(error, mendable):
        return StoreUnavailable(f"the document store cannot work right now: {error}")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return StoreUnavailable(f"the document file is damaged: {error}")
    return Internal(f"the document store failed: {error}")


@contextmanager
def snapshot(connection: apsw.Connection) -> Iterator[None]:
    """Several statements that see one committed state."""
    with engine_errors(), one_state(connection):
        yield


@contextmanager
def one_state(connection: apsw.Connection) -> Iterator[None]:
    """The same, with SQLite's own errors."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


@lru_cache(maxsize=4096)
def statement(name: str, c: int = 0, x: int = 0, condition: str = "") -> str:
    """A statement of ``queries.sql`` for the tables of collection ``c`` and index ``x``.

    ``condition``: of those that take one, with all its values as parameters.
    """
    return _templates()[name].format(c=c, x=x, condition=condition)


def load_catalog(connection: apsw.Connection) -> dict[str, CollectionInfo]:
    """The collections and indexes of the file."""
    indexes: dict[int, list[IndexInfo]] = {}
    for number, owner, name, parts, *flags, options in connection.execute(statement("indexes")):
        unique, multikey, lossy, ready = map(bool, flags)
        index = IndexInfo(number, name, parts_of(parts), unique, multikey, lossy, ready)
        indexes.setdefault(owner, []).append(with_options(index, options))
    return {
        name: CollectionInfo(number, name, Preset(preset), tuple(indexes.get(number, ())), rule)
        for number, name, preset, rule in connection.execute(statement("collections"))
    }


def candidates(connection: apsw.Connection, info: CollectionInfo, source: Source) -> Rows | Nearest:
    """The rows a plan leads to, each once. Must be closed if it is not read to its end."""
    if isinstance(source, Ids):
        return by_ids(connection, info, source.keys)
    if isinstance(source, Ranges):
        return _in_ranges(connection, info, source)
    if isinstance(source, Union):
        return _in_union(connection, info, source)
    if isinstance(source, Rings):
        return Nearest(source, lambda ranges: _in_ring(connection, info, source, ranges))
    return _rows(connection, statement("scan", info.number), ())


def by_ids(connection: apsw.Connection, info: CollectionInfo, ids: Sequence[bytes]) -> Rows:
    """The documents of those ids that exist, in the order asked for."""
    text = statement("get", info.number)
    for key in ids:
        for stored in connection.execute(text, (key,)):
            yield make_row(stored)


def by_id(connection: apsw.Connection, info: CollectionInfo, key: bytes) -> Row | None:
    """The document of that id."""
    for stored in connection.execute(statement("get", info.number), (key,)):
        return make_row(stored)
    return None


def count_all(connection: apsw.Connection, info: CollectionInfo) -> int:
    """How many documents the collection has."""
    return int(connection.execute(statement("count_documents", info.number)).get)


def scan(connection: apsw.Connection, info: CollectionInfo, after_did: int, limit: int) -> list[Row]:
    """The next documents in order of insertion."""
    stored = connection.execute(statement("scan_after", info.number), (after_did, limit))
    return [make_row(row) for row in stored]


def last_seq(connection: apsw.Connection) -> int:
    """The sequence number of the newest change; 0 before the first."""
    return int(connection.execute(statement("last_seq")).get)


def make_row(stored: tuple[Any, ...]) -> Row:
    """A row as read by the statements that return documents."""
    did, id_key, rev, body = stored
    return Row(did, id_key, rev, len(body), decode_body(body))


def sieved(connection: apsw.Connection, info: CollectionInfo, where: Where) -> Rows:
    """All documents but those of which SQLite can tell that they do not match. Must be closed."""
    condition = prefilter(where.node)
    if condition is None:
        return _rows(connection, statement("scan", info.number), ())
    text, values = condition
    return _rows(connection, statement("scan_where", info.number, condition=text), values)


def entries(connection: apsw.Connection, info: CollectionInfo, source: Ids | Ranges, most: int) -> int:
    """How many entries a source leads to, counted up to ``most``."""
    count = 0
    if isinstance(source, Ids):
        text = statement("get_rev", info.number)
        for key in source.keys:
            count += connection.execute(text, (key,)).get is not None
        return count
    name = "probe_entries" if source.index.number else "probe_ids"
    text = statement(name, info.number, source.index.number)
    for low, high in source.ranges:
        count += connection.execute(text, (low, high, most - count)).get
        if count >= most:
            break
    return count


def _in_union(connection: apsw.Connection, info: CollectionInfo, source: Union) -> Rows:
    seen: set[int] = set()
    for part in source.sources:
        with closing(candidates(connection, info, part)) as rows:
            for row in rows:
                if row.did not in seen:
                    seen.add(row.did)
                    yield row


def _in_ranges(connection: apsw.Connection, info: CollectionInfo, source: Ranges) -> Rows:
    index, text = source.index, range_statement(info, source)
    ranges = source.ranges[::-1] if source.reverse else source.ranges
    if not index.multikey:
        if len(ranges) == 1:
            return _rows(connection, text, ranges[0])
        return _in_turn(connection, text, ranges)
    return _each_once(connection, text, ranges)


def _in_ring(
    connection: apsw.Connection,
    info: CollectionInfo,
    source: Rings,
    ranges: tuple[tuple[bytes, bytes], ...],
) -> Generator[Row, None, None]:
    yield from _in_ranges(connection, info, Ranges(source.index, ranges))


def range_statement(info: CollectionInfo, source: Ranges) -> str:
    """The statement that reads one of the ranges."""
    index = source.index
    kind = "id_range" if index.number == 0 else "unique_range" if index.unique else "index_range"
    return statement(f"{kind}_reverse" if source.reverse else kind, info.number, index.number)


def _in_turn(connection: apsw.Connection, text: str, ranges: Sequence[tuple[bytes, bytes]]) -> Rows:
    for bounds in ranges:
        yield from _rows(connection, text, bounds)


def _each_once(connection: apsw.Connection, text: str, ranges: Sequence[tuple[bytes, bytes]]) -> Rows:
    seen: set[int] = set()
    for bounds in ranges:
        with closing(_rows(connection, text, bounds)) as rows:
            for row in rows:
                if row.did not in seen:
                    seen.add(row.did)
                    yield row


def _rows(connection: apsw.Connection, text: str, bindings: tuple[Any, ...]) -> Rows:
    cursor = connection.execute(text, bindings)
    try:
        for did, id_key, rev, body in cursor:
            yield Row(did, id_key, rev, len(body), decode_body(body))
    finally:
        cursor.close()


def _check_ours(connection: apsw.Connection, path: Path) -> None:
    mark = connection.pragma("application_id")
    version = connection.pragma("user_version")
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    if mark != APPLICATION_ID and (mark or version or tables):
        raise Conflict(f"{path.name} is not a document file of cloudlet")
    newest = len(_migrations())
    if version > newest:
        raise Conflict(
            f"{path.name} was written by a newer version of cloudlet "
            f"(schema {version}, this one knows {newest}); use that version or a newer one"
        )


def _migrate(connection: apsw.Connection) -> None:
    """Bring the schema to the newest version, each step in its own transaction."""
    for number, script in enumerate(_migrations()[connection.pragma("user_version") :]):
        version = connection.pragma("user_version") + 1
        with connection:
            connection.execute(script)
            if version == _RENUMBERING:
                _renumber(connection)
            connection.execute(f"PRAGMA user_version = {version:d}")
            if number == 0:
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")


def _renumber(connection: apsw.Connection) -> None:
    """Part of migration 2: which tables there are is not known to its script."""
    connection.execute("CREATE INDEX chg_by_id ON chg (coll, id, seq)")
    for number, name in connection.execute("SELECT n, name FROM coll").fetchall():
        connection.execute(statement("renumber_documents", number), (name,))
    connection.execute("DROP INDEX chg_by_id")


@cache
def _migrations() -> tuple[str, ...]:
    """The scripts in order; the file names are numbered without gaps."""
    folder = resources.files("cloudlet.docdb") / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    if [int(name.split("_")[0]) for name in names] != list(range(1, len(names) + 1)):
        raise Internal("the migrations of the document store are not numbered without gaps")
    return tuple((folder / name).read_text() for name in names)


@cache
def _templates() -> dict[str, str]:
    text = (resources.files("cloudlet.docdb") / "queries.sql").read_text()
    found = {}
    for block in text.split("-- name: ")[1:]:
        name, _description, body = block.split("\n", 2)
        found[name.strip()] = body.strip()
    return found
