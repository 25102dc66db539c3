"""Serving ASGI applications on listeners that somebody else made.

The node holds the listening sockets of the other processes and hands them over, and each instance
has a listener of its own: so one process serves many listeners, which come and go. uvicorn's server
owns signals and one set of sockets; its protocol class is what we need.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

KEEP_ALIVE_S = 3600
"""Longer than anything in front keeps a connection, so that we are never the side that closes an idle one."""

HEAD_BYTES_MAX = 64 * 1024


class AsgiListener:
    """One application on one listening socket. `close` finishes what runs."""

    def __init__(self, app: Any, listener: socket.socket) -> None:
        self._config = Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._config.load()
        self._state = ServerState()
        self._listener = listener
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Accept connections, those waiting in the backlog first."""
        self._listener.setblocking(False)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Protocol(self._config, self._state, {}), sock=self._listener, backlog=2048
        )

    async def close(self, grace_s: float) -> None:
        """Accept nothing more, let running requests finish for `grace_s` seconds, then cut them."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        tasks = list(self._state.tasks)
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=grace_s)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        for connection in list(self._state.connections):
            connection.transport.close()
        self._server = None


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol on a transport that keeps answers whole."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(WholeAnswers(transport))


class WholeAnswers(asyncio.Transport):
    """Holds the head of an answer back until its body comes, at most to the next turn of the loop.

    An application gives head and body one after the other, and uvloop would send them so. Were this process
    killed between the two, a client would be left with an answer that breaks off; and every answer would cost
    two system calls here and two turns of whoever reads it.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._head = b""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._head:
            whole = self._head + data
            self._head = b""
            self._transport.write(whole)
        elif len(data) <= HEAD_BYTES_MAX and bytes(data[:5]) == b"HTTP/" and bytes(data[-4:]) == b"\r\n\r\n":
            self._head = bytes(data)
            asyncio.get_running_loop().call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size() + len(self._head)

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head:
            self._transport.write(head)
