"""What the admin interface needs from the rest of the platform: ``serve.py`` hands in the real ones, tests
twins."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from cloudlet.auth.service import AuthService
from cloudlet.docdb.backup.service import Backups
from cloudlet.docdb.service import DocumentService
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.transfer.export import Exporter
from cloudlet.docdb.transfer.imports import Imports
from cloudlet.functions.uploads import Upload
from cloudlet.functions.versions import Rollback
from cloudlet.functions.wire import DeployEvent, DeployRequest
from cloudlet.model.invocation import Invoker
from cloudlet.model.sandbox import NodeReport
from cloudlet.node.logs import LogQuery
from cloudlet.node.wire import LogRecord
from cloudlet.state.base import ControlRecords


class Node(Protocol):
    """The part of a node that people look at. Both raise NodeUnavailable."""

    async def report(self) -> NodeReport: ...

    async def logs(self, query: LogQuery) -> list[LogRecord]:
        """The latest matching lines, oldest first."""
        ...


class Publisher(Protocol):
    """Tells control that the records changed."""

    async def publish(self, sequence: int) -> None:
        """Return once control and the edge work with records of at least `sequence`. Raise
        EdgeUnavailable."""
        ...


class Deploys(Protocol):
    """Makes and removes functions (`functions.deploy.Deployer`)."""

    def deploy(self, request: DeployRequest) -> AsyncIterator[DeployEvent]: ...

    async def delete(self, environment: str, function: str) -> list[str]: ...

    async def rollback(self, environment: str, function: str, number: int | None = None) -> Rollback: ...


class UploadStore(Protocol):
    """Keeps uploads until their deploy (`functions.uploads.Uploads`)."""

    async def receive(self, chunks: AsyncIterable[bytes]) -> Upload: ...


async def _no_metrics() -> bytes:
    return b""


@dataclass(frozen=True, slots=True)
class Database:
    """What is done with the documents of an environment as a whole."""

    stores: Stores
    imports: Imports
    exporter: Exporter
    backups: Backups


@dataclass(frozen=True, slots=True)
class AdminServices:
    """Everything the admin routes work with."""

    records: ControlRecords
    auth: AuthService
    documents: DocumentService
    invoker: Invoker
    node: Node
    publisher: Publisher
    deploys: Deploys
    uploads: UploadStore
    drop_documents: Callable[[str], Awaitable[None]]
    """Closes the documents of a deleted environment and removes them."""
    service_url: Callable[[], str]
    """The public address of the edge, without a slash at the end (the port may be known late)."""
    database: Database | None = None
    """Without it there are no imports, exports, backups and moves."""
    metrics: Callable[[], Awaitable[bytes]] = _no_metrics
    """The metrics of all processes in Prometheus's text form; without it there are none."""
