"""The two doors of the dialects: what the edge sends to api, and the platform socket of one instance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloudlet.auth.service import AuthService
from cloudlet.dialects.a.actions import Action, merged
from cloudlet.dialects.a.app import AdminApp
from cloudlet.dialects.a.database import DatabaseActions
from cloudlet.dialects.a.entrance import InstanceEntrance, OutsideEntrance
from cloudlet.dialects.a.functions import FunctionActions
from cloudlet.dialects.callers import InstanceIdentity
from cloudlet.dialects.d.auth import AuthApp
from cloudlet.dialects.d.documents import ROOT as DOCUMENTS
from cloudlet.dialects.d.documents import DocumentsApp
from cloudlet.dialects.d.functions import FindCaller, FunctionsApp, edge_caller, instance_caller
from cloudlet.dialects.errors import error_body
from cloudlet.dialects.http import App, Receive, Scope, Send, request_of, send_reply
from cloudlet.docdb.service import DocumentService
from cloudlet.model.clock import Clock
from cloudlet.model.errors import NotFound
from cloudlet.model.invocation import Invoker
from cloudlet.state.base import ControlRecords


@dataclass(frozen=True, slots=True)
class Services:
    """What the dialects translate for."""

    records: ControlRecords
    auth: AuthService
    documents: DocumentService
    invoker: Invoker
    clock: Clock


def edge_app(services: Services) -> App:
    """The application for what Envoy sends to api: ``/admin`` from outside, ``/auth``, ``/v1`` that the
    edge did not route, ``/health``. The edge's headers (identity, request id) are believed."""
    outside = OutsideEntrance(services.records, services.clock)
    return PathSwitch(
        {
            "/admin": AdminApp(_actions(services), outside, trusted_id=True),
            "/auth": AuthApp(services.auth, services.records),
            "/v1": _gateway(services, edge_caller, trusted_id=True),
            "/health": health,
        }
    )


def instance_app(services: Services, instance: InstanceIdentity) -> App:
    """The application for the platform socket of one instance: ``/admin`` and ``/v1``."""
    outside = OutsideEntrance(services.records, services.clock)
    entrance = InstanceEntrance(instance, outside, services.records)
    return PathSwitch(
        {
            "/admin": AdminApp(_actions(services), entrance, trusted_id=False),
            "/v1": _gateway(services, instance_caller(instance), trusted_id=False),
        }
    )


class PathSwitch:
    """Chooses an application by the first segment of the path."""

    def __init__(self, apps: Mapping[str, App]) -> None:
        self._apps = dict(apps)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotFound(f"nothing here speaks {scope['type']}")
        app = self._apps.get("/" + scope["path"].split("/", 2)[1] if "/" in scope["path"] else "", nowhere)
        await app(scope, receive, send)


def _gateway(services: Services, caller: FindCaller, trusted_id: bool) -> App:
    """Everything below ``/v1``: documents and functions."""
    functions = FunctionsApp(services.invoker, services.records, caller, trusted_id)
    documents = DocumentsApp(services.documents, services.records, caller, trusted_id)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (documents if scope["path"].startswith(DOCUMENTS) else functions)(scope, receive, send)

    return app


async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """The answer for addresses that do not exist."""
    request = request_of(scope, trusted_id=True)
    error = NotFound(f"there is no {request.path[:80]!r} here")
    await send_reply(send, 404, error_body(error, request.request_id))


async def health(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers as long as this process does."""
    await send_reply(send, 200, b'{"status":"ok"}')


def _actions(services: Services) -> dict[str, Action]:
    return merged(FunctionActions(services.invoker).table(), DatabaseActions(services.documents).table())
