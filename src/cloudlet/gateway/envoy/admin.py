"""Envoy's administration over its unix socket: what is in effect, what is being served."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from cloudlet.model.errors import EdgeUnavailable

_REPLY_LIMIT_S = 5.0
_POLL_S = 0.01


class AdminClient:
    """One Envoy. Every call raises EdgeUnavailable when Envoy does not answer or answers with an error."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ready(self) -> bool:
        """Whether Envoy serves. False also while it is starting or cannot be reached."""
        try:
            return (await self._request("GET", "/ready")).strip() == b"LIVE"
        except EdgeUnavailable:
            return False

    async def alive(self) -> bool:
        """Whether Envoy answers anything, also while it is draining."""
        try:
            await self._request("GET", "/hot_restart_version")
        except EdgeUnavailable:
            return False
        return True

    async def wait_ready(self, limit_s: float) -> None:
        """Return once Envoy serves; raise EdgeUnavailable after `limit_s`."""
        deadline = time.monotonic() + limit_s
        while not await self.ready():
            if time.monotonic() > deadline:
                raise EdgeUnavailable(f"the edge is not ready after {limit_s:g} s")
            await asyncio.sleep(_POLL_S)

    async def listening_port(self) -> int:
        """The port of the listener (useful when port 0 was asked for)."""
        reply = _decode(await self._request("GET", "/listeners?format=json"))
        try:
            return int(reply["listener_statuses"][0]["local_address"]["socket_address"]["port_value"])
        except (KeyError, IndexError, TypeError) as exc:
            raise EdgeUnavailable("the edge has no listener") from exc

    async def stats(self, pattern: str) -> Mapping[str, Any]:
        """Statistics whose name matches the regular expression: numbers, texts, and histograms as a mapping
        of percentile to milliseconds (the last interval of 5 s)."""
        query = {"format": "json", "filter": pattern}
        reply = _decode(await self._request("GET", "/stats", query))
        return _flatten(reply)

    async def prometheus(self, pattern: str) -> str:
        """Statistics that were ever counted and whose name matches, as Envoy tells them to Prometheus."""
        body = await self._request("GET", "/stats/prometheus", {"usedonly": "", "filter": pattern})
        return body.decode()

    async def drain(self, limit_s: float) -> bool:
        """Let calls in flight end: no new connections, kept ones are closed after their answer.

        True when nothing was running any more before `limit_s` was over.
        """
        await self._request("POST", "/drain_listeners?graceful&skip_exit")
        deadline = time.monotonic() + limit_s
        while True:
            active = (await self.stats(r"^http\.edge\.downstream_rq_active$")).values()
            if not any(active):
                return True
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_POLL_S)

    async def _request(self, method: str, path: str, query: Mapping[str, str] | None = None) -> bytes:
        if self._session is None:
            connector = aiohttp.UnixConnector(path=str(self._socket), limit=4)
            timeout = aiohttp.ClientTimeout(total=_REPLY_LIMIT_S)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        try:
            async with self._session.request(method, f"http://envoy{path}", params=query) as reply:
                body = await reply.read()
                if reply.status != 200:
                    raise EdgeUnavailable(f"the edge answered {path} with {reply.status}")
                return body
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise EdgeUnavailable(f"the edge does not answer on {self._socket}: {exc}") from exc


async def listening_port(socket: Path) -> int:
    """The port that the Envoy behind this admin socket listens on. Raise EdgeUnavailable."""
    client = AdminClient(socket)
    try:
        return await client.listening_port()
    finally:
        await client.close()


async def ready(socket: Path) -> bool:
    """Whether the Envoy behind this admin socket serves."""
    client = AdminClient(socket)
    try:
        return await client.ready()
    finally:
        await client.close()


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as exc:
        raise EdgeUnavailable("the edge answered with something that is not JSON") from exc


def _flatten(reply: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for entry in reply.get("stats", ()):
        if "name" in entry:
            values[entry["name"]] = entry["value"]
            continue
        histograms = entry["histograms"]
        quantiles = histograms.get("supported_quantiles", ())
        for histogram in histograms.get("computed_quantiles", ()):
            interval = (value["interval"] for value in histogram["values"])
            values[histogram["name"]] = dict(zip(quantiles, interval, strict=True))
    return values
