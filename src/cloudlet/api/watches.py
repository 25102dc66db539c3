"""A watch as a plain stream of lines, for administrators and programs without an SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from cloudlet.api.deploys import LINES
from cloudlet.api.http import Answer, environment_of, number
from cloudlet.api.ports import AdminServices
from cloudlet.docdb.ejson import decode, encode_relaxed
from cloudlet.docdb.watch.events import DocChange, WatchEvent
from cloudlet.docdb.watch.watch import Watch
from cloudlet.model.access import Access
from cloudlet.model.errors import InvalidFilter, InvalidSort, PlatformError

_LIMIT_MAX = 1e6


async def watch(services: AdminServices, request: Request) -> Answer:
    environment, asked = environment_of(services, request), request.query_params
    filter, sort = asked.get("filter", ""), asked.get("sort", "")
    limit = int(number(request, "limit", 0, 1, _LIMIT_MAX))
    opened = await services.documents.watch(
        Access(environment, admin=True),
        request.path_params["name"],
        decode(filter, InvalidFilter) if filter else None,
        decode(sort, InvalidSort) if sort else None,
        limit or None,
        asked.get("resume"),
    )
    return _Stream(opened)


class _Stream(StreamingResponse):
    """Ends its watch with the client's connection, even if nothing could be sent."""

    def __init__(self, opened: Watch) -> None:
        super().__init__(_lines(opened), 200, media_type=LINES)
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._opened.close()


async def _lines(opened: Watch) -> AsyncIterator[bytes]:
    """One event a line; an error is the last line."""
    try:
        if opened.resumed:
            yield msgspec.json.encode({"resumed": True}) + b"\n"
        async for event in opened:
            yield msgspec.json.encode(_shown(event)) + b"\n"
    except PlatformError as error:
        yield msgspec.json.encode({"error": {"code": error.code, "message": error.message}}) + b"\n"


def _shown(event: WatchEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "initial": event.initial,
        "token": event.token,
        "changes": [_shown_change(change) for change in event.changes],
    }


def _shown_change(change: DocChange) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "queueType": change.queue_type.value,
        "dataType": change.data_type.value,
        "docId": _raw(change.document_id),
        "doc": _raw(change.document),
    }
    if change.updated_fields is not None:
        shown["updatedFields"] = _raw(change.updated_fields)
    if change.removed_fields is not None:
        shown["removedFields"] = change.removed_fields
    return shown


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(encode_relaxed(value).encode())
