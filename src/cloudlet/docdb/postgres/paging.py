"""Reading a long result page by page in a process or thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Final

PAGE_FIRST: Final = 20
PAGE_MAX: Final = 1_000
PAGE_BYTES: Final = 4 * 1024 * 1024
"""Pages grow until they have about this size, so that large documents do not pile up."""


def pages(
    runner: asyncio.Runner, connection: Any, text: str, values: Sequence[Any] = ()
) -> Iterator[Sequence[Any]]:
    """The rows of a statement; the connection must be inside a transaction."""
    cursor = runner.run(_open(connection, text, values))
    count = PAGE_FIRST
    while page := runner.run(cursor.fetch(count)):
        yield page
        size = sum(len(value) for row in page for value in row if isinstance(value, str | bytes))
        count = min(PAGE_MAX, count * 2) if size < PAGE_BYTES else max(1, count // 2)


async def _open(connection: Any, text: str, values: Sequence[Any]) -> Any:
    return await connection.cursor(text, *values)
