"""Decisions about collections and indexes that are the same for every engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from cloudlet.docdb.base import CollectionInfo, CreateIndex
from cloudlet.docdb.body import decode_value, encode_value
from cloudlet.docdb.bytekeys import Entries, KeyKind, KeyPart
from cloudlet.docdb.indexes.partial import partial_filter
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.paths import split_path
from cloudlet.docdb.planner import IndexInfo
from cloudlet.docdb.values import Value
from cloudlet.model.errors import AlreadyExists, DuplicateKey, InvalidParameter, LimitExceeded, NotFound

OWNER_INDEX: Final = "_openid_id_"
INDEX_NAME_MAX: Final = 128
PARTS_MAX: Final = 31
EXPIRE_S_MAX: Final = 2**31 - 1


def key_part(path: str, descending: bool = False, kind: KeyKind = "value") -> KeyPart:
    """One field of an index. Raises InvalidParameter for a path that cannot be indexed."""
    if path.startswith("$") or ".$" in path:
        raise InvalidParameter(f"the path {path[:80]!r} cannot be indexed")
    return KeyPart(path, split_path(path, InvalidParameter), descending, kind)


def check_index_name(name: str) -> None:
    """Raises InvalidParameter."""
    if not name or len(name) > INDEX_NAME_MAX or "\0" in name:
        raise InvalidParameter(f"an index needs a name of at most {INDEX_NAME_MAX} characters")


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


def new_index(change: CreateIndex, number: int, ready: bool = True) -> IndexInfo:
    """The index that a change asks for. Raises InvalidParameter for options that do not go together."""
    parts = change.parts
    if not parts or len({part.path for part in parts}) != len(parts):
        raise InvalidParameter("an index needs fields, each one once")
    if len(parts) > PARTS_MAX:
        raise InvalidParameter(f"an index may have {PARTS_MAX} fields, this one has {len(parts)}")
    _check_places(change)
    if change.sparse and change.partial is not None:
        raise InvalidParameter("an index cannot be sparse and partial: put $exists into the partial filter")
    expire = change.expire_after_s
    if expire is not None and (len(parts) > 1 or parts[0].path == "_id"):
        raise InvalidParameter("an index that lets documents expire has one field, which is not _id")
    if expire is not None and not 0 <= expire <= EXPIRE_S_MAX:
        raise InvalidParameter(f"the time to expire must be 0 to {EXPIRE_S_MAX} seconds")
    return IndexInfo(
        number,
        change.name,
        parts,
        change.unique,
        ready=ready,
        sparse=change.sparse,
        partial=None if change.partial is None else partial_filter(change.partial),
        expire_after_s=expire,
        automatic=change.automatic,
    )


def _check_places(change: CreateIndex) -> None:
    kinds = [part.kind for part in change.parts]
    if all(kind == "value" for kind in kinds):
        return
    if "2d" in kinds[1:]:
        raise InvalidParameter("2d has to be first in index (code 16800); 2dsphere may follow other fields")
    if change.unique or change.expire_after_s is not None:
        raise InvalidParameter("an index on places can neither be unique nor let documents expire")
    if any(part.descending for part in change.parts if part.kind != "value"):
        raise InvalidParameter("a field of places has no direction")


def flagged(index: IndexInfo, made: Entries) -> IndexInfo:
    """The index with what these entries tell about it; the same object if that is nothing new."""
    if (made.multikey and not index.multikey) or (made.lossy and not index.lossy):
        return replace(index, multikey=index.multikey or made.multikey, lossy=index.lossy or made.lossy)
    return index


def parts_text(parts: Sequence[KeyPart]) -> str:
    """The fields of an index as a catalog stores them."""
    return json.dumps(
        [
            [part.path, -1 if part.descending else 1, *([] if part.kind == "value" else [part.kind])]
            for part in parts
        ]
    )


def parts_of(text: str) -> tuple[KeyPart, ...]:
    """The reverse of ``parts_text``."""
    return tuple(key_part(path, direction == -1, *kind) for path, direction, *kind in json.loads(text))


def options_text(index: IndexInfo) -> str:
    """The rarer options of an index as a catalog stores them."""
    options: dict[str, Any] = {}
    if index.sparse:
        options["sparse"] = True
    if index.partial is not None:
        options["partial"] = encode_value(index.partial.filter)
    if index.expire_after_s is not None:
        options["expire_after_s"] = index.expire_after_s
    if index.automatic:
        options["automatic"] = True
    return json.dumps(options)


def with_options(index: IndexInfo, text: str) -> IndexInfo:
    """The index with the options that ``options_text`` wrote."""
    options = json.loads(text)
    if not options:
        return index
    partial = options.get("partial")
    return replace(
        index,
        sparse=options.get("sparse", False),
        partial=None if partial is None else partial_filter(decode_value(partial)),
        expire_after_s=options.get("expire_after_s"),
        automatic=options.get("automatic", False),
    )


def with_index(info: CollectionInfo, index: IndexInfo, limits: DocdbLimits) -> CollectionInfo:
    """The collection with one more index. Raises AlreadyExists, InvalidParameter or LimitExceeded."""
    if index.name in ("_id_", OWNER_INDEX) or any(known.name == index.name for known in info.indexes):
        raise AlreadyExists(f"the index {index.name} of {info.name} exists already")
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
