"""Plain ASGI: reading a request and writing a reply, without a framework, because it is on the way of every
call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from cloudlet.model.errors import BodyTooLarge, InvalidParameter
from cloudlet.model.ids import new_request_id
from cloudlet.model.invocation import REQUEST_ID

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

QUERY_FIELDS_MAX = 100
JSON = b"application/json; charset=utf-8"


class ClientGone(Exception):
    """The client closed the connection before its request was complete; there is nobody to answer."""


@dataclass(slots=True)
class Request:
    """The head of a request. Nobody changes it; making a frozen one takes three times as long."""

    method: str
    path: str
    raw_path: str
    """As it was sent, without the query."""
    query: str
    headers: Mapping[str, str]
    """Names in lower case; what was sent twice is joined by a comma, so that it fits nothing."""
    request_id: str


def request_of(scope: Scope, trusted_id: bool) -> Request:
    """The head of an HTTP scope. The request id of the caller is taken over from the edge only."""
    given = scope["headers"]
    # ASGI has names in lower case.
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in given}
    if len(headers) != len(given):
        headers = _joined(given)
    request_id = headers.get(REQUEST_ID, "") if trusted_id else ""
    raw_path = scope.get("raw_path") or scope["path"].encode()
    return Request(
        scope["method"],
        scope["path"],
        raw_path.split(b"?", 1)[0].decode("latin-1"),
        scope["query_string"].decode("latin-1"),
        headers,
        request_id or new_request_id(),
    )


def _joined(given: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers of which one was sent twice."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in given:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


def query_values(query: str, name: str) -> list[str]:
    """Every value of `name` in a query string. Raise InvalidParameter when it has too many fields."""
    if f"{name}=" not in query:
        return []
    try:
        return parse_qs(query, max_num_fields=QUERY_FIELDS_MAX).get(name, [])
    except ValueError as error:
        raise InvalidParameter(f"the query has more than {QUERY_FIELDS_MAX} fields") from error


DISCARDED_BYTES_MAX = 64 * 1024 * 1024


async def read_body(request: Request, receive: Receive, bytes_max: int) -> bytes:
    """The whole body. Raise BodyTooLarge, ClientGone.

    A body that is too large is read to its end first, and thrown away (the edge bounds it): a client that
    still writes would see a broken connection instead of the answer.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= bytes_max:
            chunks.append(chunk)
        else:
            chunks.clear()
        last = not message.get("more_body", False)
        if size > bytes_max and (last or size > DISCARDED_BYTES_MAX):
            raise BodyTooLarge(f"the body is larger than {bytes_max} bytes")
        if last:
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def send_reply(
    send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = (), kind: bytes = JSON
) -> None:
    """One reply with its length."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", kind),
                (b"content-length", str(len(body)).encode()),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
