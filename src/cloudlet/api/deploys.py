"""Deploys: uploads, and the stream of what happens."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import StreamingResponse

from cloudlet.api.http import Answer, raw_body
from cloudlet.api.ports import AdminServices
from cloudlet.functions.wire import DeployEvent, decode_request, encode_event

LINES = "application/x-ndjson"


async def upload(services: AdminServices, request: Request) -> Answer:
    stored = await services.uploads.receive(request.stream())
    return 201, {"upload": stored.id, "bytes": stored.bytes}


async def deploy(services: AdminServices, request: Request) -> Answer:
    """The first event is awaited before the status is sent, so that what makes a deploy impossible is an
    error."""
    events = services.deploys.deploy(decode_request(await raw_body(request)))
    first = await anext(aiter(events))
    return StreamingResponse(_lines(first, events), 200, media_type=LINES)


async def _lines(first: DeployEvent, events: AsyncIterator[DeployEvent]) -> AsyncIterator[bytes]:
    try:
        yield encode_event(first) + b"\n"
        async for event in events:
            yield encode_event(event) + b"\n"
    finally:
        # A client that goes away ends its builds.
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()
