"""Both doors of the dialects over real services in memory; only the calling of functions is a twin."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from cloudlet.auth.keys import KeyRing
from cloudlet.auth.service import AuthService
from cloudlet.dialects.app import Services, edge_app, instance_app
from cloudlet.dialects.callers import InstanceIdentity
from cloudlet.dialects.http import App
from cloudlet.docdb.service import DocumentService
from cloudlet.docdb.stores import Stores
from cloudlet.model.errors import PlatformError
from cloudlet.model.function import FunctionConfig, VersionKey
from cloudlet.model.invocation import Invocation, InvocationResult
from cloudlet.state.memory import MemoryRecords

NOW = 1_700_000_000.0
HOST = "127.0.0.1:8787"
INSTANCE = InstanceIdentity("i1", "default", "hello", "AKIDinstance", "session-of-instance")


class FixedClock:
    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


class RecordingInvoker:
    """Answers every call with what it was told, and remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[Invocation] = []
        self.answer: bytes | Exception = b'{"ok":true}'

    async def invoke(self, invocation: Invocation) -> InvocationResult:
        self.calls.append(invocation)
        if isinstance(self.answer, Exception):
            raise self.answer
        return InvocationResult(self.answer, invocation.request_id, {"queue": 0.5})

    def fail(self, error: PlatformError) -> None:
        self.answer = error


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def call(
    app: App,
    method: str,
    target: str,
    body: bytes | Any = b"",
    headers: Mapping[str, str] | None = None,
    chunk: int = 1 << 20,
) -> Reply:
    """One request, as the server hands it to an ASGI application, the body in chunks."""
    path, _, query = target.partition("?")
    raw = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    given = {"host": HOST, **(headers or {})}
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
    }
    pieces = [raw[at : at + chunk] for at in range(0, len(raw), chunk)] or [b""]
    sent: list[Any] = []

    async def receive() -> Any:
        if not pieces:
            return {"type": "http.disconnect"}
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *parts = sent
    names = {name.decode(): value.decode() for name, value in start["headers"]}
    reply = b"".join(part.get("body", b"") for part in parts)
    assert names["content-length"] == str(len(reply))
    return Reply(start["status"], names, reply)


@dataclass
class Rig:
    services: Services
    clock: FixedClock
    invoker: RecordingInvoker
    records: MemoryRecords
    auth: AuthService
    documents: DocumentService
    banned: list[str] = field(default_factory=list)

    @property
    def edge(self) -> App:
        return edge_app(self.services)

    @property
    def inside(self) -> App:
        return instance_app(self.services, INSTANCE)

    async def deployed(self, function: str, environment: str = "default") -> None:
        key = VersionKey(environment, function, "a" * 16)
        await self.records.add_version(key, FunctionConfig(), "/code", NOW)
        await self.records.point_alias(key, "$LATEST", NOW)

    async def from_inside(self, body: Any, target: str = "/admin?env=default&seqId=1", **headers: str) -> Any:
        """A dialect A request as an SDK inside the instance sends it: signed, but nobody looks at that."""
        credential = (
            f"TC3-HMAC-SHA256 Credential={INSTANCE.secret_id}/2023-11-14/tcb/tc3_request, SignedParams="
        )
        reply = await call(self.inside, "POST", target, body, {"authorization": credential, **headers})
        assert reply.status == 200
        return reply.json

    async def from_outside(
        self,
        body: dict[str, Any],
        environment: str = "default",
        query: str = "env=default&seqId=1",
        **how: Any,
    ) -> Any:
        """A dialect A request signed with the environment's own key pair."""
        credential = await self.records.credential(environment)
        headers = sign(body, credential.secret_id, how.pop("key", credential.secret_key), query, **how)
        reply = await call(self.edge, "POST", f"/admin?{query}", body, headers)
        assert reply.status == 200
        return reply.json


@asynccontextmanager
async def started(anonymous: bool = True) -> AsyncIterator[Rig]:
    clock = FixedClock()
    records = MemoryRecords(clock)
    keys = KeyRing(records)
    await keys.maintain(clock.now())
    banned: list[str] = []

    async def ban(session_id: str, until: float) -> None:
        banned.append(session_id)

    auth = AuthService(records, keys, clock, anonymous, ban)
    stores = Stores.in_memory()
    documents = DocumentService(stores, clock)
    invoker = RecordingInvoker()
    try:
        yield Rig(
            Services(records, auth, documents, invoker, clock),
            clock,
            invoker,
            records,
            auth,
            documents,
            banned,
        )
    finally:
        await stores.close()


def sign(
    body: dict[str, Any], secret_id: str, secret_key: str, query: str, timestamp: int = int(NOW)
) -> dict[str, str]:
    """The headers of a server-side SDK outside (facts: wire-protocol 2.1)."""
    headers = {"content-type": "application/json", "host": HOST, "x-tcb-source": ",unknown"}
    texts = {}
    for name, value in body.items():
        text = value.strip() if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        if text:
            texts[quote(name.lower(), safe="")] = text
    names = sorted(texts)
    payload = hashlib.sha256("".join(f"&{name}={texts[name]}\r\n" for name in names).encode()).hexdigest()
    lines = "".join(f"{name}:{headers[name].lower()}\n" for name in headers)
    canonical = f"post\n//{HOST}/admin\n{query}\n{lines}\n{';'.join(headers)}\n{payload}"
    date = time.strftime("%Y-%m-%d", time.gmtime(timestamp))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"TC3-HMAC-SHA256\n{timestamp}\n{date}/tcb/tc3_request\n{digest}"
    key = f"TC3{secret_key}".encode()
    for part in (date, "tcb", "tc3_request"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    return headers | {
        "authorization": f"TC3-HMAC-SHA256 Credential={secret_id}/{date}/tcb/tc3_request, "
        f"SignedParams={';'.join(names)}, SignedHeaders={';'.join(headers)}, Signature={signature}",
        "x-timestamp": str(timestamp),
        "x-signature-expires": "600",
    }


def invocation_token(**fields: Any) -> str:
    """What the shim puts into WX_API_TOKEN and TCB_SESSIONTOKEN."""
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()
