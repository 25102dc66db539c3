"""Connections to one PostgreSQL server: opened when needed, kept, given up when the server is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import structlog

from cloudlet.docdb.postgres.address import Address
from cloudlet.docdb.postgres.faults import translated
from cloudlet.model.errors import ShuttingDown, StoreUnavailable

log = structlog.get_logger(__name__)

CONNECT_S: Final = 5.0
WAIT_S: Final = 5.0
"""How long a request waits for a connection that others use."""
STATEMENT_MS: Final = 30_000
BACK_OFF_FIRST_S: Final = 0.1
BACK_OFF_MAX_S: Final = 5.0

SESSION: Final = {
    "application_name": "cloudlet",
    # Every statement has one right plan, by index and nested loop. Left to statistics, PostgreSQL scans
    # whole tables when they are new, and plans each statement anew.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    "enable_memoize": "off",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
    "client_encoding": "UTF8",
    "timezone": "UTC",
}


async def connect(address: Address, statement_ms: int = STATEMENT_MS) -> Any:
    """One connection with the settings every statement of ours counts on. Raises StoreUnavailable."""
    try:
        return await asyncpg.connect(
            address.url,
            timeout=CONNECT_S,
            # The server ends what takes too long; this is for one that does not answer any more.
            command_timeout=statement_ms / 1000 + 5,
            statement_cache_size=1_024,
            max_cached_statement_lifetime=0,
            server_settings={**SESSION, "statement_timeout": str(statement_ms)},
        )
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError) as exc:
        raise StoreUnavailable(f"{address} gives no connection: {translated(exc).message}") from exc


class Pool:
    """At most ``size`` connections. The most recently used one is taken first, so that few stay warm.

    After a failed attempt further ones are refused at once for a while that doubles up to
    ``BACK_OFF_MAX_S``.
    """

    def __init__(
        self, address: Address, size: int = 8, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.address = address
        self._monotonic = monotonic
        self._slots = asyncio.Semaphore(size)
        self._idle: list[Any] = []
        self._used: set[Any] = set()
        self._closed = False
        self._back_off_s = 0.0
        self._retry_at = 0.0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """A connection for a while. It is thrown away if it is left inside a transaction or broken.

        Raises ShuttingDown, StoreUnavailable.
        """
        taken = await self.take()
        try:
            yield taken
        finally:
            self.give(taken)

    async def take(self) -> Any:
        """A connection that must be given back. Raises ShuttingDown, StoreUnavailable."""
        if self._slots.locked():
            try:
                async with asyncio.timeout(WAIT_S):
                    await self._slots.acquire()
            except TimeoutError as exc:
                raise StoreUnavailable("all connections to the document database are in use") from exc
        else:
            await self._slots.acquire()
        try:
            if self._closed:
                raise ShuttingDown("the document store is closed")
            taken = self._warm() or await self._open()
        except BaseException:
            self._slots.release()
            raise
        self._used.add(taken)
        return taken

    def give(self, taken: Any) -> None:
        """Hand a connection back."""
        self._used.discard(taken)
        self._slots.release()
        if self._closed or taken.is_closed() or taken.is_in_transaction():
            taken.terminate()
        else:
            self._idle.append(taken)

    async def close(self) -> None:
        """Let go of all connections; those in use are cut."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in self._used:
            connection.terminate()
        for connection in idle:
            try:
                await connection.close(timeout=1)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                connection.terminate()

    def _warm(self) -> Any | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    async def _open(self) -> Any:
        wait = self._retry_at - self._monotonic()
        if wait > 0:
            raise StoreUnavailable(f"{self.address} gave no connection; the next attempt is in {wait:.1f} s")
        try:
            opened = await connect(self.address)
        except StoreUnavailable as exc:
            self._back_off_s = min(max(self._back_off_s * 2, BACK_OFF_FIRST_S), BACK_OFF_MAX_S)
            self._retry_at = self._monotonic() + self._back_off_s
            log.warning("document_database_away", address=str(self.address), error=exc.message)
            raise
        self._back_off_s = 0.0
        return opened
