"""The platform listeners of the instances, served by api.

The node makes one listener per instance and hands it over; on which listener a call arrives says
which instance speaks. When the node goes away so do its instances, and the listeners with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from cloudlet.dialects.callers import InstanceIdentity
from cloudlet.dialects.http import App
from cloudlet.model.errors import NodeUnavailable
from cloudlet.node.platform_client import DoorAdded, PlatformListeners
from cloudlet.serve.asgi import AsgiListener

log = structlog.get_logger(__name__)

RECONNECT_S = 0.1
CLOSE_GRACE_S = 1.0


class Doors:
    """Keeps one application per instance served, for as long as the instance lives."""

    def __init__(self, platform_socket: Path, app: Callable[[InstanceIdentity], App]) -> None:
        self._socket = platform_socket
        self._app = app
        self._open: dict[str, AsgiListener] = {}

    async def run(self) -> None:
        """Serve until cancelled; the node is asked again whenever it went away."""
        try:
            while True:
                try:
                    async with PlatformListeners(self._socket) as changes:
                        await self._follow(changes)
                except NodeUnavailable as error:
                    log.warning("node_away", error=error.message)
                await self._close_all()
                await asyncio.sleep(RECONNECT_S)
        finally:
            await self._close_all()

    async def _follow(self, changes: PlatformListeners) -> None:
        async for change in changes:
            if isinstance(change, DoorAdded):
                await self._add(change)
            else:
                await self._remove(change.instance)

    async def _add(self, door: DoorAdded) -> None:
        identity = InstanceIdentity(
            instance_id=door.instance,
            environment=door.environment,
            function=door.function,
            secret_id=door.secret_id,
            session_token=door.session_token,
        )
        listener = AsgiListener(self._app(identity), door.listener)
        await listener.start()
        self._open[door.instance] = listener

    async def _remove(self, instance: str) -> None:
        listener = self._open.pop(instance, None)
        if listener is not None:
            await listener.close(0.0)

    async def _close_all(self) -> None:
        listeners = [*self._open.values()]
        self._open.clear()
        await asyncio.gather(*(listener.close(CLOSE_GRACE_S) for listener in listeners))
