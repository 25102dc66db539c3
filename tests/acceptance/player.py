"""A user of a mini program, as far as the platform can see one: a token and calls."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

ANSWER_S_MAX = 30.0
_STAGE = re.compile(r"([A-Za-z_-]+);(?:[^,]*;)?dur=([0-9.]+)")


class NoAnswer(Exception):
    """The connection broke or nothing came in time: whether the call ran is not known."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one call."""

    status: int
    body: Any
    """The reply as JSON: the function's result, or ``{"code", "message", "requestId"}``."""
    request_id: str
    stages: Mapping[str, float]
    """Milliseconds by stage, from ``server-timing``."""
    elapsed_ms: float

    @property
    def ok(self) -> bool:
        """The function ran and did what was asked (functions of the example say ``success``)."""
        return self.status == 200 and isinstance(self.body, dict) and self.body.get("success") is True

    @property
    def word(self) -> str:
        """One word for what came back: ``ok``, the function's reason or the platform's code."""
        if self.ok:
            return "ok"
        known = self.body if isinstance(self.body, dict) else {}
        return str(known.get("reason") or known.get("code") or f"status {self.status}")


class Player:
    """Calls functions through the edge. May be used by several threads; each keeps one connection."""

    def __init__(self, base_url: str, token: str = "", openid: str = "") -> None:
        self.openid = openid
        self._address = urlsplit(base_url)
        self._token = token
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of all threads; no call may be running."""
        for connection in self._connections:
            connection.close()

    def call(self, function: str, data: object, headers: Mapping[str, str] | None = None) -> Answer:
        """Call `function` with `data` as its event. Raise NoAnswer."""
        return self.post(f"/v1/functions/{function}", json.dumps(data).encode(), headers)

    def send(self, function: str, body: bytes) -> Answer:
        """Call `function` with any body, JSON or not. Raise NoAnswer."""
        return self.post(f"/v1/functions/{function}", body)

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """Send any body anywhere. Raise NoAnswer."""
        headers = {"content-type": "application/json"} | dict(headers or {})
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        connection = self._connection()
        started = time.monotonic()
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException) as exc:
            connection.close()  # the next call opens it again
            raise NoAnswer(f"{path}: {exc!r}") from exc
        return Answer(
            status=response.status,
            body=_decoded(raw),
            request_id=response.getheader("x-request-id", ""),
            stages={name: float(ms) for name, ms in _STAGE.findall(response.getheader("server-timing", ""))},
            elapsed_ms=(time.monotonic() - started) * 1000,
        )

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            assert self._address.hostname is not None
            connection = http.client.HTTPConnection(
                self._address.hostname, self._address.port, timeout=ANSWER_S_MAX
            )
            self._local.connection = connection
            self._connections.append(connection)
        return connection


def _decoded(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")
