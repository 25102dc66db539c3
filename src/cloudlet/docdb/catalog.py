"""Decisions about collections and indexes that are the same for every engine."""

from __future__ import annotations

from dataclasses import replace

from cloudlet.docdb.base import CollectionInfo
from cloudlet.docdb.bytekeys import KeyPart
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.paths import split_path
from cloudlet.docdb.planner import IndexInfo
from cloudlet.docdb.values import Value
from cloudlet.model.errors import AlreadyExists, DuplicateKey, InvalidParameter, LimitExceeded, NotFound

OWNER_INDEX = "_openid_id_"


def key_part(path: str, descending: bool = False) -> KeyPart:
    """One field of an index. Raises InvalidParameter for a path that cannot be indexed."""
    if path.startswith("$") or ".$" in path:
        raise InvalidParameter(f"the path {path[:80]!r} cannot be indexed")
    return KeyPart(path, split_path(path, InvalidParameter), descending)


def owner_index(number: int) -> IndexInfo:
    """The index every collection has: documents of one owner, by id."""
    return IndexInfo(number, OWNER_INDEX, (key_part("_openid"), key_part("_id")))


def with_collection(catalog: dict[str, CollectionInfo], info: CollectionInfo, limits: DocdbLimits) -> None:
    """Add a collection to a catalog. Raises AlreadyExists or LimitExceeded."""
    if info.name in catalog:
        raise AlreadyExists(f"the collection {info.name} exists already")
    if len(catalog) >= limits.collections_max:
        raise LimitExceeded(f"an environment may have {limits.collections_max} collections")
    catalog[info.name] = info


def with_index(info: CollectionInfo, index: IndexInfo, limits: DocdbLimits) -> CollectionInfo:
    """The collection with one more index. Raises AlreadyExists, InvalidParameter or LimitExceeded."""
    if index.name == "_id_" or any(known.name == index.name for known in info.indexes):
        raise AlreadyExists(f"the index {index.name} of {info.name} exists already")
    if not index.parts or len({part.path for part in index.parts}) != len(index.parts):
        raise InvalidParameter("an index needs fields, each one once")
    if len(index.parts) > 31:
        raise InvalidParameter("an index may have 31 fields")
    if len(info.indexes) >= limits.indexes_max:
        raise LimitExceeded(f"a collection may have {limits.indexes_max} indexes")
    return replace(info, indexes=(*info.indexes, index))


def without_index(info: CollectionInfo, name: str) -> tuple[CollectionInfo, IndexInfo]:
    """The collection with one index less, and that index. Raises NotFound or InvalidParameter."""
    if name in ("_id_", OWNER_INDEX):
        raise InvalidParameter(f"the index {name} cannot be removed")
    for index in info.indexes:
        if index.name == name:
            return replace(info, indexes=tuple(item for item in info.indexes if item is not index)), index
    raise NotFound(f"the collection {info.name} has no index {name[:80]}")


def duplicate_key(collection: str, index: str, value: Value = None) -> DuplicateKey:
    """The error for a second document with a key that may exist once, in the words drivers look for."""
    shown = "" if value is None else f" dup key: {{ _id: {str(value)[:80]!r} }}"
    return DuplicateKey(f"E11000 duplicate key error collection: {collection} index: {index}{shown}")
