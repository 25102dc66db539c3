"""The catalog of one environment as a process holds it: collections, and the version they belong to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cloudlet.docdb.base import CollectionInfo, Preset
from cloudlet.docdb.bytekeys import Entries
from cloudlet.docdb.catalog import flagged, parts_of, with_options
from cloudlet.docdb.planner import IndexInfo
from cloudlet.docdb.postgres.sql import Names, statement


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every change of the catalog, by whatever process, raises ``version``."""

    version: int
    collections: dict[str, CollectionInfo]
    """Never changed: a new catalog has a new one."""

    def noted(self, collection: str, index: IndexInfo, made: Entries) -> Catalog:
        """With what these entries tell about an index; the same object if that is nothing new."""
        changed = flagged(index, made)
        return self if changed is index else self._with(collection, changed)

    def withdrawn(self, collection: str, index: IndexInfo) -> Catalog:
        """With an automatic index that is not read any more, because it lacks a document."""
        return self._with(collection, replace(index, ready=False)) if index.ready else self

    def _with(self, collection: str, index: IndexInfo) -> Catalog:
        info = self.collections[collection]
        indexes = tuple(index if item.number == index.number else item for item in info.indexes)
        return replace(self, collections={**self.collections, collection: replace(info, indexes=indexes)})


EMPTY = Catalog(0, {})


async def load_catalog(connection: Any, at: Names) -> Catalog:
    """The catalog as of one moment."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return await read_catalog(connection, at)


async def read_catalog(connection: Any, at: Names) -> Catalog:
    """The catalog, inside a transaction in which it cannot change."""
    version = await connection.fetchval(statement("version", at))
    indexes: dict[int, list[IndexInfo]] = {}
    for number, owner, name, parts, options, unique, multikey, lossy, ready in await connection.fetch(
        statement("indexes", at)
    ):
        index = IndexInfo(number, name, parts_of(parts), unique, multikey, lossy, ready)
        indexes.setdefault(owner, []).append(with_options(index, options))
    return Catalog(
        version,
        {
            name: CollectionInfo(number, name, Preset(preset), tuple(indexes.get(number, ())), rule)
            for number, name, preset, rule in await connection.fetch(statement("collections", at))
        },
    )
