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
            lambda: HttpToolsProtocol(self._config, self._state, {}), sock=self._listener, backlog=2048
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
