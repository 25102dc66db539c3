"""The admin interface's stream of a watch, line by line."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.types import Message

from cloudlet.api import routes
from cloudlet.api.ports import AdminServices
from cloudlet.docdb.service import DocumentService
from cloudlet.model.access import Access
from cloudlet.model.errors import CollectionNotFound

pytestmark = pytest.mark.anyio

ADMIN = Access("e", admin=True)


class Stream:
    """One request to the watch route, whose answer is read piece by piece."""

    def __init__(self, service: DocumentService, query: str, collection: str = "private") -> None:
        records = SimpleNamespace(resolve_environment=lambda name: SimpleNamespace(name=name))
        services = cast(AdminServices, SimpleNamespace(records=records, documents=service))
        app = Starlette(routes=routes.routes(services))
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._gone = asyncio.Event()
        path = f"/environments/e/collections/{collection}/watch"
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [],
            "root_path": "",
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, self._messages.put))

    async def _receive(self) -> Message:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def status(self) -> int:
        async with asyncio.timeout(10):
            return int((await self._messages.get())["status"])

    async def line(self) -> Any:
        async with asyncio.timeout(10):
            return json.loads((await self._messages.get())["body"])

    async def leave(self) -> None:
        self._gone.set()
        async with asyncio.timeout(10):
            await self.task


async def test_a_stream_tells_events_and_goes_on_after_a_token(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": number, "n": number} for number in range(3)])
    stream = Stream(service, 'filter={"n":{"$gte":1}}&sort={"n":-1}&limit=1')
    assert await stream.status() == 200
    first = await stream.line()
    assert (first["id"], first["initial"]) == (0, True)
    assert [change["docId"] for change in first["changes"]] == [2]
    await service.update(ADMIN, "private", {"_id": 2}, {"$set": {"m": 1}})
    (change,) = (await stream.line())["changes"]
    assert change == {
        "queueType": "update",
        "dataType": "update",
        "docId": 2,
        "doc": {"_id": 2, "n": 2, "m": 1},
        "updatedFields": {"m": 1},
        "removedFields": [],
    }
    await stream.leave()
    await service.delete(ADMIN, "private", {"_id": 2})
    again = Stream(service, f'filter={{"n":{{"$gte":1}}}}&sort={{"n":-1}}&limit=1&resume={first["token"]}')
    assert await again.status() == 200
    assert await again.line() == {"resumed": True}
    event = await again.line()
    assert [(change["queueType"], change["docId"]) for change in event["changes"]] == [
        ("dequeue", 2),
        ("enqueue", 1),
    ]
    await service.drop_collection("e", "private")
    assert (await again.line())["error"]["code"] == CollectionNotFound.code
    await again.task
    assert service.watches._rooms["e"].seats.taken == 0


async def test_what_cannot_be_watched_is_an_error_before_the_stream(service: DocumentService) -> None:
    for query, collection, status in (
        ("filter=[", "private", 400),
        ("sort=1", "private", 400),
        ("limit=0", "private", 400),
        ("", "none", 404),
    ):
        stream = Stream(service, query, collection)
        assert await stream.status() == status
        await stream.task
