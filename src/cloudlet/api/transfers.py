"""Imports and exports of collections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import StreamingResponse

from cloudlet.api.http import Answer, environment_of
from cloudlet.api.ports import AdminServices, Database
from cloudlet.docdb.ejson import decode
from cloudlet.docdb.transfer.export import Exported
from cloudlet.docdb.transfer.imports import Wanted
from cloudlet.docdb.transfer.reading import Format
from cloudlet.docdb.transfer.record import Import
from cloudlet.docdb.transfer.writing import Mode
from cloudlet.model.errors import InvalidFilter, InvalidParameter, Unavailable
from cloudlet.model.ids import check_collection_name

T = TypeVar("T")

_TYPES = {"json": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}


def database_of(services: AdminServices) -> Database:
    """Raises Unavailable where there is none."""
    if services.database is None:
        raise Unavailable("this process does not serve imports, exports and backups")
    return services.database


def flag(request: Request, name: str) -> bool:
    """A yes or no of the query. Raises InvalidParameter."""
    return choice(request, name, "false", {"true": True, "false": False, "1": True, "0": False})


def choice(request: Request, name: str, default: str, known: dict[str, T]) -> T:
    """One of a few words of the query. Raises InvalidParameter."""
    text = request.query_params.get(name) or default
    if text not in known:
        raise InvalidParameter(f"{name} must be one of {', '.join(known)}, not {text[:40]!r}")
    return known[text]


async def start_import(services: AdminServices, request: Request) -> Answer:
    environment = environment_of(services, request)
    wanted = Wanted(
        environment,
        check_collection_name(request.query_params.get("collection", "")),
        choice(request, "format", "json", _FORMATS),
        choice(request, "mode", "insert", _MODES),
        flag(request, "stop_on_error"),
    )
    job = await database_of(services).imports.receive(wanted, request.stream())
    return 202, shown(job)


async def list_imports(services: AdminServices, request: Request) -> Answer:
    environment = environment_of(services, request)
    return 200, {"imports": [shown(job) for job in await database_of(services).imports.of(environment)]}


async def get_import(services: AdminServices, request: Request) -> Answer:
    imports = database_of(services).imports
    return 200, shown(await imports.get(environment_of(services, request), request.path_params["id"]))


async def cancel_import(services: AdminServices, request: Request) -> Answer:
    imports = database_of(services).imports
    return 200, shown(await imports.cancel(environment_of(services, request), request.path_params["id"]))


async def resume_import(services: AdminServices, request: Request) -> Answer:
    imports = database_of(services).imports
    return 202, shown(await imports.resume(environment_of(services, request), request.path_params["id"]))


async def export(services: AdminServices, request: Request) -> Answer:
    """The first piece is awaited before the status is sent, so that what makes an export impossible is an
    error."""
    environment, query = environment_of(services, request), request.query_params
    filter = decode(query.get("filter") or "{}", InvalidFilter)
    if type(filter) is not dict:
        raise InvalidFilter("the filter must be an object")
    wanted = Exported(
        request.path_params["name"],
        choice(request, "format", "json", _FORMATS),
        filter,
        tuple(field for field in query.get("fields", "").split(",") if field),
        flag(request, "relaxed"),
        flag(request, "gzip"),
    )
    database = database_of(services)
    store = await database.stores.open(environment)
    pieces = database.exporter.write(store, wanted)
    first = await anext(pieces, b"")
    kind = "application/gzip" if wanted.gzip else _TYPES[wanted.format]
    return StreamingResponse(_rest(first, pieces), 200, media_type=kind)


async def _rest(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield first
        async for piece in pieces:
            yield piece
    finally:
        # A reader that goes away leaves no copy behind.
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


def shown(job: Import) -> dict[str, Any]:
    """An import as its watchers see it."""
    hidden = ("seq", "began")
    return {
        **{name: value for name, value in msgspec.to_builtins(job).items() if name not in hidden},
        "resumable": job.resumable,
    }


_FORMATS: dict[str, Format] = {"json": "json", "csv": "csv"}
_MODES: dict[str, Mode] = {"insert": "insert", "upsert": "upsert"}
