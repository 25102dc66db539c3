"""The api process: documents, identity, deploys and the signed dialects; the owner of every SQLite writer."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from prometheus_client import CollectorRegistry

from cloudlet.api.app import admin_app
from cloudlet.api.ports import AdminServices
from cloudlet.auth.keys import KeyRing
from cloudlet.auth.service import AuthService
from cloudlet.dialects.app import Services, edge_app, instance_app
from cloudlet.docdb.metrics import DocumentMetrics
from cloudlet.docdb.service import DocumentService
from cloudlet.docdb.stores import Stores
from cloudlet.functions.build import Builder
from cloudlet.functions.deploy import Deployer
from cloudlet.functions.toolchain import find_toolchain
from cloudlet.functions.uploads import Uploads
from cloudlet.gateway.envoy.admin import AdminClient
from cloudlet.gateway.envoy.metrics import edge_metrics
from cloudlet.gateway.envoy.options import EdgeOptions
from cloudlet.gateway.invoker import HttpInvoker
from cloudlet.model.clock import SystemClock
from cloudlet.model.errors import Unavailable
from cloudlet.node.client import SocketNodeClient
from cloudlet.observe.metrics import LoopPauses
from cloudlet.serve.asgi import AsgiListener
from cloudlet.serve.collections import DocumentCollections
from cloudlet.serve.control_link import ControlLink
from cloudlet.serve.database import dropper, make_database
from cloudlet.serve.dev import documents_of, invoker_of
from cloudlet.serve.doors import Doors
from cloudlet.serve.process import Listeners, ended
from cloudlet.serve.scrape import Scrape
from cloudlet.settings import Paths, Settings
from cloudlet.state.sqlite import SqliteRecords

log = structlog.get_logger(__name__)

DRAIN_S = 10.0
KEY_PACE_S = 600.0
"""How often it is looked whether a signing key is due."""
TRANSACTION_PACE_S = 0.5
"""How often transactions that are past their time are ended."""


async def run_api(settings: Settings, listeners: Listeners, stop: asyncio.Event) -> None:
    """Run until `stop` is set; requests in flight finish first. Listeners: ``api``, ``admin``."""
    paths = Paths(settings.data)
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        records = SqliteRecords(paths.control_db)
        stack.callback(records.close)
        keys = KeyRing(records)
        await keys.maintain(clock.now())
        registry = CollectorRegistry()
        url = settings.documents_url
        stores = Stores.in_directory(
            paths.documents,
            metrics=DocumentMetrics(registry),
            postgres_url=url.get_secret_value() if url else None,
        )
        stack.push_async_callback(stores.close)
        documents = documents_of(settings, stores, clock)
        stack.callback(documents.watches.close)
        database = make_database(settings, paths, stores, clock)
        control = ControlLink(paths.control_socket)
        stack.push_async_callback(control.close)
        activator = HttpInvoker(paths.activator_socket)
        stack.push_async_callback(activator.close)
        invoker = invoker_of(settings, activator, clock)
        node = SocketNodeClient(paths.node_socket)
        stack.push_async_callback(node.close)
        edge = AdminClient(EdgeOptions.of(settings, paths, ()).files.admin_socket)
        stack.push_async_callback(edge.close)

        async def sessions_changed(*_: object) -> None:
            # A ban must reach the edge; when control is away it reads the records at its start.
            with contextlib.suppress(Unavailable):
                await control.publish(records.sequence())

        auth = AuthService(records, keys, clock, settings.anonymous_sign_in, sessions_changed)
        services = Services(records, auth, documents, invoker, clock)
        builder = Builder(paths, find_toolchain(os.environ))
        uploads = Uploads(paths.cache / "uploads")
        deployer = Deployer(records, builder, uploads, control, DocumentCollections(documents), clock)
        await deployer.clean()
        admin = AdminServices(
            records=records,
            auth=auth,
            documents=documents,
            invoker=invoker,
            node=node,
            publisher=control,
            deploys=deployer,
            uploads=uploads,
            drop_documents=dropper(database, documents),
            service_url=lambda: settings.service_url,
            database=database,
            metrics=Scrape(
                registry,
                {"edge": partial(edge_metrics, edge), "control": control.metrics, "node": node.metrics},
            ),
        )
        for app, name in ((edge_app(services), "api"), (admin_app(admin), "admin")):
            listener = AsgiListener(app, listeners[name])
            await listener.start()
            stack.push_async_callback(listener.close, DRAIN_S)
        doors = Doors(paths.platform_socket, lambda identity: instance_app(services, identity))
        pauses = LoopPauses("api", registry)
        for work in (
            doors.run(),
            _keep_keys(keys, clock, sessions_changed),
            pauses.run(),
            documents.indexes.run(),
            _sweep_transactions(documents),
            database.imports.run(),
            database.backups.run(lambda: [found.name for found in records.environments()]),
        ):
            stack.push_async_callback(ended, asyncio.create_task(work))
        log.info("api_started", sequence=records.sequence())
        await stop.wait()


async def _sweep_transactions(documents: DocumentService) -> None:
    """Nobody comes back for a transaction whose client has vanished."""
    while True:
        await asyncio.sleep(TRANSACTION_PACE_S)
        documents.sweep_transactions()


async def _keep_keys(keys: KeyRing, clock: SystemClock, changed: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(KEY_PACE_S)
        if await keys.maintain(clock.now()):
            await changed()
