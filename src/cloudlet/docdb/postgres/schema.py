"""Changes of an environment's schema, and the filling of new indexes piece by piece.

Everything runs inside a transaction that holds the environment's lock; the caller begins and ends it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import structlog

from cloudlet.docdb.base import (
    CollectionInfo,
    CreateCollection,
    CreateIndex,
    DropCollection,
    DropIndex,
    SchemaChange,
    SetPreset,
    SetRule,
    find_collection,
)
from cloudlet.docdb.catalog import (
    duplicate_key,
    new_index,
    options_text,
    owner_index,
    parts_text,
    with_collection,
    with_index,
    without_index,
)
from cloudlet.docdb.indexes.entries import entries_of
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.planner import IndexInfo
from cloudlet.docdb.postgres.candidates import make_row
from cloudlet.docdb.postgres.catalog import Catalog, read_catalog
from cloudlet.docdb.postgres.flush import write_flags
from cloudlet.docdb.postgres.sql import FORMAT, Names, statement
from cloudlet.model.errors import Conflict, StoreUnavailable

log = structlog.get_logger(__name__)

BACKFILL_DOCUMENTS: Final = 1_000


async def make_schema(connection: Any, at: Names, base: int = 0, loading: str | None = None) -> None:
    """Make an environment's tables if they are missing; numbers of changes begin above ``base`` then.

    ``loading`` names the copy that will be loaded into them; until then nobody may use them.
    """
    await connection.execute(statement("create_schema", at))
    await connection.execute(statement("add_state", at), FORMAT, base, loading)


async def has_schema(connection: Any, at: Names) -> bool:
    """Whether the environment has tables."""
    return bool(await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{at.quoted}.state"))


async def check_schema(connection: Any, at: Names) -> None:
    """Raises Conflict for tables of a newer version, or that a migration has not finished."""
    if await connection.fetchval(statement("loading", at)) is not None:
        raise Conflict(f"the schema {at.schema} was not loaded completely: migrate again, or drop it")
    known = await connection.fetchval(statement("format", at))
    if known > FORMAT:
        raise Conflict(
            f"the schema {at.schema} was written by a newer version of cloudlet "
            f"(format {known}, this one knows {FORMAT}); use that version or a newer one"
        )


async def drop_unfinished_indexes(connection: Any, at: Names) -> Catalog:
    """Remove indexes whose filling was cut off; those that another process is filling stay."""
    catalog = await read_catalog(connection, at)
    dropped = False
    for info in catalog.collections.values():
        for index in info.indexes:
            if index.ready or not await connection.fetchval(statement("hold_index", at), index.number):
                continue
            await connection.fetchval(statement("release_index", at), index.number)
            log.warning("unfinished_index_removed", collection=info.name, index=index.name)
            await _remove_index(connection, at, index)
            dropped = True
    if not dropped:
        return catalog
    await connection.execute(statement("next_version", at))
    return await read_catalog(connection, at)


async def change_schema(
    connection: Any, at: Names, catalog: Catalog, change: SchemaChange, limits: DocdbLimits
) -> Catalog:
    """Make one change; returns the catalog after it. A new index is empty and not ready."""
    execute = connection.execute
    collections = catalog.collections
    match change:
        case CreateCollection():
            await _create_collection(connection, at, catalog, change, limits)
        case DropCollection(name):
            await _drop_collection(connection, at, find_collection(collections, name))
        case SetPreset(name, preset):
            number = find_collection(collections, name).number
            await execute(statement("set_preset", at), preset.value, number)
        case SetRule(name, rule):
            await execute(statement("set_rule", at), rule, find_collection(collections, name).number)
        case CreateIndex(collection):
            info = find_collection(collections, collection)
            index = new_index(change, 0, ready=False)
            with_index(info, index, limits)
            await _add_index(connection, at, info.number, index)
        case DropIndex(collection, name):
            index = without_index(find_collection(collections, collection), name)[1]
            await _remove_index(connection, at, index)
    await execute(statement("next_version", at))
    return await read_catalog(connection, at)


async def abandon_index(connection: Any, at: Names, catalog: Catalog, name: str, index: IndexInfo) -> Catalog:
    """Remove an index that cannot be filled."""
    info = catalog.collections.get(name)
    if info is None or all(item.number != index.number for item in info.indexes):
        return catalog
    await _remove_index(connection, at, index)
    await connection.execute(statement("next_version", at))
    return await read_catalog(connection, at)


async def fill_piece(
    connection: Any, at: Names, catalog: Catalog, name: str, index: IndexInfo, after_did: int
) -> tuple[Catalog, int | None]:
    """Enter the next documents; returns the catalog and the last of them, None when the index is ready.

    Raises DuplicateKey, InvalidDocument, StoreUnavailable: the index has to be abandoned.
    """
    info = catalog.collections.get(name)
    current = next((item for item in info.indexes if item.number == index.number), None) if info else None
    if info is None or current is None:
        raise StoreUnavailable("the collection or the index was removed meanwhile")
    text = statement("scan_after", at, info.number)
    stored = await connection.fetch(text, after_did, BACKFILL_DOCUMENTS)
    rows = [make_row(item) for item in stored]
    noted = catalog
    entries: dict[bytes, int] = {}
    pairs: list[tuple[bytes, int]] = []
    for row in rows:
        made = entries_of(row.document, current)
        for key in made.keys:
            if current.unique and entries.setdefault(key, row.did) != row.did:
                raise duplicate_key(name, current.name)
            pairs.append((key, row.did))
        noted = noted.noted(name, current, made)
        current = next(item for item in noted.collections[name].indexes if item.number == index.number)
    await _enter(connection, at, name, current, pairs)
    if noted is not catalog:
        await write_flags(connection, at, catalog, noted)
        noted = replace(noted, version=catalog.version + 1)
    if len(rows) == BACKFILL_DOCUMENTS:
        return noted, rows[-1].did
    await connection.execute(statement("publish_index", at), index.number)
    await connection.execute(statement("next_version", at))
    return await read_catalog(connection, at), None


async def _enter(
    connection: Any, at: Names, name: str, index: IndexInfo, pairs: list[tuple[bytes, int]]
) -> None:
    """Documents written since the index exists may have their entries already."""
    keys = [key for key, _ in pairs]
    await connection.execute(statement("add_entries", at, x=index.number), keys, [did for _, did in pairs])
    if not index.unique:
        return
    owners = dict(await connection.fetch(statement("owners", at, x=index.number), keys))
    if any(owners.get(key) != did for key, did in pairs):
        raise duplicate_key(name, index.name)


async def _create_collection(
    connection: Any, at: Names, catalog: Catalog, change: CreateCollection, limits: DocdbLimits
) -> None:
    with_collection(dict(catalog.collections), CollectionInfo(0, change.name, change.preset), limits)
    number = await connection.fetchval(statement("add_collection", at), change.name, change.preset.value)
    await connection.execute(statement("create_collection_table", at, number))
    await _add_index(connection, at, number, owner_index(0))


async def _drop_collection(connection: Any, at: Names, info: CollectionInfo) -> None:
    for index in info.indexes:
        await connection.execute(statement("drop_index_table", at, x=index.number))
    await connection.execute(statement("remove_indexes_of", at), info.number)
    await connection.execute(statement("remove_collection", at), info.number)
    await connection.execute(statement("drop_collection_table", at, info.number))


async def _add_index(connection: Any, at: Names, collection: int, index: IndexInfo) -> None:
    row = (collection, index.name, parts_text(index.parts), options_text(index), index.unique, index.ready)
    number = await connection.fetchval(statement("add_index", at), *row)
    table = "create_unique_table" if index.unique else "create_index_table"
    await connection.execute(statement(table, at, x=number))


async def _remove_index(connection: Any, at: Names, index: IndexInfo) -> None:
    await connection.execute(statement("remove_index", at), index.number)
    await connection.execute(statement("drop_index_table", at, x=index.number))
