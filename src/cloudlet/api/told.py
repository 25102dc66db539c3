"""Answering with lines while something long is done: what is told, and at the end what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import msgspec
import structlog
from starlette.responses import StreamingResponse

from cloudlet.model.errors import Internal, PlatformError

LINES: Final = "application/x-ndjson"
BEAT_S: Final = 10.0
"""A line comes at least so often, so that the reader knows that work goes on."""

Tell = Callable[[dict[str, Any]], None]
Work = Callable[[Tell], Awaitable[dict[str, Any]]]

log = structlog.get_logger(__name__)


def told(work: Work) -> StreamingResponse:
    """One JSON object a line: ``{"event": "progress", …}`` and ``{"event": "working"}``, then ``{"event":
    "done", …}`` or ``{"event": "error", "code", "message"}``. A reader that goes away ends the work.
    """
    return StreamingResponse(_lines(work), 200, media_type=LINES)


async def _lines(work: Work) -> AsyncIterator[bytes]:
    latest: dict[str, Any] = {}
    news = asyncio.Event()

    def tell(progress: dict[str, Any]) -> None:
        # Only the latest counts: whoever reads slowly misses steps, and nothing piles up.
        latest.clear()
        latest.update(progress)
        news.set()

    running = asyncio.ensure_future(_outcome(work, tell))
    try:
        while not running.done():
            waiting = asyncio.ensure_future(news.wait())
            await asyncio.wait((running, waiting), timeout=BEAT_S, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if news.is_set():
                news.clear()
                yield _line({"event": "progress", **latest})
            elif not running.done():
                yield _line({"event": "working"})
        yield _line(running.result())
    finally:
        if not running.done():
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def _outcome(work: Work, tell: Tell) -> dict[str, Any]:
    try:
        return {"event": "done", **await work(tell)}
    except PlatformError as error:
        return {"event": "error", "code": error.code, "message": error.message}
    except Exception:
        log.exception("work_failed")
        return {"event": "error", "code": Internal.code, "message": Internal().message}


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"
