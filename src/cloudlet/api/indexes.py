"""Indexes and sizes of collections, and how a query is answered."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request

from cloudlet.api.http import Answer, body_of, environment_of
from cloudlet.api.ports import AdminServices
from cloudlet.api.transfers import database_of
from cloudlet.docdb.base import CollectionStats
from cloudlet.docdb.bytekeys import KeyKind
from cloudlet.docdb.ejson import decode, encode_relaxed
from cloudlet.docdb.planner import IndexInfo
from cloudlet.docdb.service import IndexField, Query
from cloudlet.model.access import Access
from cloudlet.model.errors import InvalidFilter, InvalidParameter, InvalidSort

FIELDS_MAX = 32


class _Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    direction: str = "1"


class _Create(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    fields: list[_Field]
    name: str = ""
    unique: bool = False
    sparse: bool = False
    partial: dict[str, Any] | None = None
    expire_after_s: int | None = None


class _Explain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    filter: dict[str, Any] = {}
    sort: msgspec.Raw = msgspec.Raw(b"null")
    skip: int = 0
    limit: int | None = None
    openid: str | None = None


_DIRECTIONS: dict[str, tuple[bool, KeyKind]] = {
    "1": (False, "value"),
    "-1": (True, "value"),
    "2d": (False, "2d"),
    "2dsphere": (False, "2dsphere"),
}


async def list_indexes(services: AdminServices, request: Request) -> Answer:
    environment, name = environment_of(services, request), request.path_params["name"]
    info = await services.documents.collection_info(environment, name)
    return 200, {"indexes": [_ID, *(_shown(index) for index in info.indexes)]}


async def create_index(services: AdminServices, request: Request) -> Answer:
    environment, collection = environment_of(services, request), request.path_params["name"]
    wanted = await body_of(request, _Create)
    if not 1 <= len(wanted.fields) <= FIELDS_MAX:
        raise InvalidParameter(f"an index has 1 to {FIELDS_MAX} fields")
    fields = [_field(each) for each in wanted.fields]
    name = wanted.name or "_".join(f"{each.path}_{each.direction}" for each in wanted.fields)
    partial = None if wanted.partial is None else decode(wanted.partial, InvalidFilter)
    await services.documents.create_index(
        environment,
        collection,
        name,
        fields,
        wanted.unique,
        sparse=wanted.sparse,
        partial=partial,
        expire_after_s=wanted.expire_after_s,
    )
    info = await services.documents.collection_info(environment, collection)
    return 201, next(_shown(index) for index in info.indexes if index.name == name)


async def drop_index(services: AdminServices, request: Request) -> Answer:
    environment, collection = environment_of(services, request), request.path_params["name"]
    await services.documents.drop_index(environment, collection, request.path_params["index"])
    return 200, {"dropped": request.path_params["index"]}


async def stats(services: AdminServices, request: Request) -> Answer:
    environment, name = environment_of(services, request), request.path_params["name"]
    store = await database_of(services).stores.open(environment)
    return 200, _sizes(name, await store.stats(name))


async def explain(services: AdminServices, request: Request) -> Answer:
    """How a query is answered: as the server asks it, or as a user."""
    environment, name = environment_of(services, request), request.path_params["name"]
    asked = await body_of(request, _Explain)
    query = Query(decode(asked.filter, InvalidFilter), _sort(asked.sort), skip=asked.skip, limit=asked.limit)
    access = Access(environment, admin=asked.openid is None, openid=asked.openid or "")
    return 200, msgspec.to_builtins(await services.documents.explain(access, name, query))


def _field(field: _Field) -> IndexField:
    if field.direction not in _DIRECTIONS:
        raise InvalidParameter(
            f"the direction of {field.path[:80]} must be one of {', '.join(_DIRECTIONS)}, "
            f"not {field.direction[:20]!r}"
        )
    return IndexField(field.path, *_DIRECTIONS[field.direction])


def _sort(raw: msgspec.Raw) -> Any:
    return decode(bytes(raw), InvalidSort)


def _shown(index: IndexInfo) -> dict[str, Any]:
    return {
        "name": index.name,
        "fields": [
            {"path": part.path, "direction": _direction(part.descending, part.kind)} for part in index.parts
        ],
        "unique": index.unique,
        "sparse": index.sparse,
        "partial": None
        if index.partial is None
        else msgspec.Raw(encode_relaxed(index.partial.filter).encode()),
        "expire_after_s": index.expire_after_s,
        "automatic": index.automatic,
        "ready": index.ready,
    }


def _direction(descending: bool, kind: KeyKind) -> str:
    return ("-1" if descending else "1") if kind == "value" else kind


def _sizes(name: str, found: CollectionStats) -> dict[str, Any]:
    return {
        "name": name,
        "documents": found.documents,
        "bytes": found.bytes,
        "indexes": [{"name": index, "entries": count} for index, count in found.entries.items()],
    }


_ID = {
    "name": "_id_",
    "fields": [{"path": "_id", "direction": "1"}],
    "unique": True,
    "sparse": False,
    "partial": None,
    "expire_after_s": None,
    "automatic": False,
    "ready": True,
}
