"""One PostgreSQL database for any number of environments: connections, and word of others' commits."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import structlog

from cloudlet.docdb.postgres.address import Address
from cloudlet.docdb.postgres.faults import ENGINE_ERRORS
from cloudlet.docdb.postgres.pool import Pool, connect
from cloudlet.docdb.postgres.sql import CHANNEL
from cloudlet.model.errors import PlatformError

log = structlog.get_logger(__name__)

NOTIFY_S: Final = 0.01
"""Commits of this time share one notification."""
LOOK_S: Final = 5.0
"""How often it is looked for commits whose notification was lost with its process or connection."""

Noticed: TypeAlias = Callable[[int], Awaitable[None]]
"""Told that others have committed up to this sequence number (0: perhaps)."""


class Database:
    """Shared by the stores of one database; ``close`` ends it. Made inside the event loop it is used in."""

    def __init__(self, url: str, connections: int = 8) -> None:
        """Raises InvalidParameter for a wrong address."""
        self.address = Address(url)
        self.pool = Pool(self.address, connections)
        self._mark = secrets.token_hex(8)
        self._stores: dict[str, Noticed] = {}
        self._news: dict[str, int] = {}
        self._telling: asyncio.Task[None] | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._looks: set[asyncio.Task[None]] = set()
        self._closed = False

    def attach(self, schema: str, noticed: Noticed) -> None:
        """From now on tell this store of others' commits."""
        self._stores[schema] = noticed
        if self._hearing is None:
            self._hearing = asyncio.get_running_loop().create_task(self._hear(), name="documents-notices")

    def detach(self, schema: str, noticed: Noticed) -> None:
        """The store is closed."""
        if self._stores.get(schema) == noticed:
            del self._stores[schema]

    def committed(self, schema: str, seq: int) -> None:
        """This process has committed; others are told within a moment."""
        self._news[schema] = max(seq, self._news.get(schema, 0))
        if self._telling is None and not self._closed:
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def close(self) -> None:
        """Tell what is untold and let go of all connections."""
        self._closed = True
        if self._telling is not None:
            await asyncio.gather(self._telling, return_exceptions=True)
        tasks = [task for task in (self._hearing, *self._looks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.pool.close()

    async def _tell(self) -> None:
        try:
            while self._news:
                if not self._closed:
                    await asyncio.sleep(NOTIFY_S)
                news, self._news = self._news, {}
                payloads = [f"{self._mark} {schema} {seq}" for schema, seq in news.items()]
                async with self.pool.connection() as connection:
                    await connection.execute(
                        "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload", CHANNEL, payloads
                    )
        except (*ENGINE_ERRORS, PlatformError) as exc:
            # The others look by themselves after a while.
            log.warning("notification_lost", error=str(exc)[:200])
        finally:
            self._telling = None

    async def _hear(self) -> None:
        while True:
            with contextlib.suppress(*ENGINE_ERRORS, PlatformError):
                connection = await connect(self.address)
                try:
                    await connection.add_listener(CHANNEL, self._heard)
                    while not connection.is_closed():
                        self._look_everywhere()
                        await asyncio.sleep(LOOK_S)
                finally:
                    connection.terminate()
            await asyncio.sleep(LOOK_S)

    def _heard(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        mark, _, rest = payload.partition(" ")
        schema, _, seq = rest.rpartition(" ")
        if mark != self._mark and seq.isdigit():
            self._look(schema, int(seq))

    def _look_everywhere(self) -> None:
        for schema in self._stores:
            self._look(schema, 0)

    def _look(self, schema: str, seq: int) -> None:
        noticed = self._stores.get(schema)
        if noticed is None:
            return
        task = asyncio.get_running_loop().create_task(self._looked(noticed, seq))
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    async def _looked(self, noticed: Noticed, seq: int) -> None:
        try:
            await noticed(seq)
        except PlatformError as exc:
            log.warning("notice_lost", error=exc.message)
