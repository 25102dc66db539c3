"""The command line against the real admin interface on its real socket; what runs functions is a twin."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from cloudlet.api.app import admin_app
from cloudlet.api.ports import AdminServices
from cloudlet.auth.keys import KeyRing
from cloudlet.auth.service import AuthService
from cloudlet.cli.main import run
from cloudlet.docdb.service import DocumentService
from cloudlet.docdb.stores import Stores
from cloudlet.functions.build import Builder
from cloudlet.functions.deploy import Deployer
from cloudlet.functions.toolchain import Toolchain
from cloudlet.functions.uploads import Uploads
from cloudlet.model.clock import SystemClock
from cloudlet.model.errors import FunctionLoadFailed
from cloudlet.model.function import Runtime, Version
from cloudlet.model.invocation import Invocation, InvocationResult
from cloudlet.model.sandbox import NodeReport, Rung
from cloudlet.node.logs import LogQuery
from cloudlet.node.wire import LogRecord
from cloudlet.serve.asgi import AsgiListener
from cloudlet.serve.collections import DocumentCollections
from cloudlet.serve.installation import listen_unix
from cloudlet.settings import Paths
from cloudlet.state.memory import MemoryRecords


@dataclass
class Twins:
    """Control, node and functions, as far as the command line sees them."""

    broken: set[str] = field(default_factory=set)
    answer: bytes | Exception = b'{"ok": true}'
    calls: list[Invocation] = field(default_factory=list)
    lines: list[LogRecord] = field(default_factory=list)

    async def prepare(self, version: Version) -> None:
        if version.function in self.broken:
            raise FunctionLoadFailed("Error: Cannot find module 'x'\n    at index.js:1")

    async def publish(self, sequence: int) -> None:
        """The edge has everything at once."""

    async def invoke(self, invocation: Invocation) -> InvocationResult:
        self.calls.append(invocation)
        if isinstance(self.answer, Exception):
            raise self.answer
        return InvocationResult(self.answer, invocation.request_id, {"handler": 1.0})

    async def report(self) -> NodeReport:
        return NodeReport("node-1", (), {Runtime.NODE24: 1}, Rung.PROCESS)

    async def logs(self, query: LogQuery) -> list[LogRecord]:
        return self.lines[-query.limit :]

    async def drop(self, environment: str) -> None:
        """There are no files to remove."""


class Cli:
    """Runs commands and reads what they print."""

    def __init__(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data = data
        self.twins = Twins()
        self.records = MemoryRecords()
        self._capsys = capsys

    async def __call__(self, *words: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self._capsys.readouterr()
        code = await asyncio.to_thread(run, [*words, "--data", str(self.data)])
        out, err = self._capsys.readouterr()
        return code, out, err

    async def json(self, *words: str, code: int = 0) -> Any:
        """What a command prints with ``--json``."""
        ended, out, err = await self(*words, "--json")
        assert ended == code, (out, err)
        return json.loads(out)


@contextmanager
def run_directory(paths: Paths) -> Iterator[None]:
    paths.run.mkdir(mode=0o700, parents=True)
    try:
        yield
    finally:
        shutil.rmtree(paths.run)


@asynccontextmanager
async def platform(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Cli]:
    """A running admin interface for the data directory of the Cli that is handed out."""
    cli = Cli(tmp_path / "data", capsys)
    paths = Paths(cli.data)
    clock = SystemClock()
    stores = Stores.in_memory()
    documents = DocumentService(stores)
    keys = KeyRing(cli.records)
    await keys.maintain(clock.now())
    uploads = Uploads(paths.cache / "uploads")
    builder = Builder(paths, Toolchain(Path("node"), Path("npm"), Path("python"), {"PATH": "/bin"}))
    twins = cli.twins
    deployer = Deployer(cli.records, builder, uploads, twins, DocumentCollections(documents), clock)
    services = AdminServices(
        records=cli.records,
        auth=AuthService(cli.records, keys, clock),
        documents=documents,
        invoker=twins,
        node=twins,
        publisher=twins,
        deploys=deployer,
        uploads=uploads,
        drop_documents=twins.drop,
        service_url=lambda: "http://127.0.0.1:8787",
    )
    # Events of this process would stand between what the commands print.
    with run_directory(paths), structlog.testing.capture_logs():
        listener = AsgiListener(admin_app(services), listen_unix(paths.admin_socket))
        await listener.start()
        try:
            yield cli
        finally:
            await listener.close(5.0)
            await stores.close()
