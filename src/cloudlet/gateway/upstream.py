"""Sending one call to one instance over its unix socket, with every way it can end told apart.

Requests are always POST: the HTTP client repeats idempotent methods by itself when a kept connection
breaks, and no call may be started twice.
"""

from __future__ import annotations

import asyncio
import io
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from cloudlet.model.invocation import BUSY, FINAL, RESULT_BYTES_MAX

SESSIONS_MAX = 1024
IDLE_CONNECTION_S = 600.0
CONNECT_S_MAX = 1.0
WHOLE_WRITE_BYTES_MAX = 256 * 1024
WHOLE_BODY_BYTES_MAX = RESULT_BYTES_MAX + 64 * 1024
"""Replies of a known length up to here are read at once, so that a slow reader does not hold the
instance."""


class NotSent(Exception):
    """The instance could not be connected: nothing was started."""


class Refused(Exception):
    """The instance was busy: nothing was started."""


class Broken(Exception):
    """The connection ended after the call was sent: it may have run."""


class OutOfTime(Exception):
    """No answer by the deadline."""


@dataclass(frozen=True, slots=True)
class Head:
    """How the instance's answer begins."""

    status: int
    headers: CIMultiDictProxy[str]
    closes: bool
    """The instance says that this is its last answer, or closes the connection after it."""


@dataclass(eq=False, slots=True)
class Answer:
    """An answer that has begun. Either `body` holds all of it, or `rest` streams it."""

    head: Head
    body: bytes | None
    rest: AsyncIterator[bytes] | None = None


class Upstreams:
    """Kept connections to instances. One client per socket; the least recently used is closed beyond a
    limit."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, aiohttp.ClientSession] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    async def send(
        self, socket_path: str, target: str, headers: CIMultiDict[str], body: bytes, limit_s: float
    ) -> Answer:
        """Send the call and return the answer's begin. Raise NotSent, Refused, Broken or OutOfTime;
        `limit_s` bounds the time until the answer has begun (or is complete, when it is small)."""
        try:
            async with asyncio.timeout(limit_s):
                return await self._exchange(socket_path, target, headers, body)
        except TimeoutError as error:
            raise OutOfTime from error

    def forget(self, socket_path: str) -> None:
        """The instance is gone: close its connections."""
        session = self._sessions.pop(socket_path, None)
        if session is not None:
            task = asyncio.create_task(session.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        for socket_path in tuple(self._sessions):
            self.forget(socket_path)
        await asyncio.gather(*self._closing)

    async def _exchange(
        self, socket_path: str, target: str, headers: CIMultiDict[str], body: bytes
    ) -> Answer:
        try:
            response = await self._session(socket_path).post(
                URL(f"http://instance{target}", encoded=True),
                headers=headers,
                data=sendable(body),
                allow_redirects=False,
            )
        except aiohttp.ClientConnectorError as error:
            raise NotSent from error
        except aiohttp.ConnectionTimeoutError as error:
            raise NotSent from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Broken(repr(error)) from error
        try:
            return await self._begin(response)
        except BaseException:
            response.close()
            raise

    async def _begin(self, response: aiohttp.ClientResponse) -> Answer:
        head = Head(response.status, response.headers, _closes(response))
        if response.status == 503 and BUSY in response.headers:
            await self._read(response)
            raise Refused
        size = response.content_length
        if size is not None and size <= WHOLE_BODY_BYTES_MAX:
            return Answer(head, await self._read(response))
        return Answer(head, None, _stream(response))

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        try:
            return await response.read()
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Broken(repr(error)) from error

    def _session(self, socket_path: str) -> aiohttp.ClientSession:
        session = self._sessions.get(socket_path)
        if session is not None:
            self._sessions.move_to_end(socket_path)
            return session
        # Leases bound how many calls an instance gets; the connector must not queue.
        connector = aiohttp.UnixConnector(path=socket_path, limit=0, keepalive_timeout=IDLE_CONNECTION_S)
        session = self._sessions[socket_path] = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S_MAX),
            skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
            max_line_size=65536,
            max_field_size=65536,
        )
        if len(self._sessions) > SESSIONS_MAX:
            self.forget(next(iter(self._sessions)))
        return session


async def _stream(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The rest of the body; ends the connection when the reader gives up. Raise Broken."""
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, ConnectionError) as error:
        raise Broken(repr(error)) from error
    finally:
        response.close()


def sendable(body: bytes) -> bytes | io.BytesIO:
    """`body` for the HTTP client: a large one as a file, so that it is written piece by piece."""
    return body if len(body) <= WHOLE_WRITE_BYTES_MAX else io.BytesIO(body)


def _closes(response: aiohttp.ClientResponse) -> bool:
    return FINAL in response.headers or response.headers.get("connection", "").lower() == "close"
