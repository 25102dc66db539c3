"""The state of the installation on one page."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from cloudlet import __version__
from cloudlet.api.functions import shown_instance
from cloudlet.api.http import Answer
from cloudlet.api.ports import AdminServices
from cloudlet.model.errors import NodeUnavailable
from cloudlet.model.sandbox import NodeReport
from cloudlet.observe.metrics import CONTENT_TYPE


async def status(services: AdminServices, request: Request) -> Answer:
    """Answers also while the node does not: that is what one wants to see then."""
    report: NodeReport | None = None
    with contextlib.suppress(NodeUnavailable):
        report = await services.node.report()
    environments = services.records.environments()
    return 200, {
        "version": __version__,
        "pid": report.pid if report else None,
        "url": services.service_url(),
        "rung": report.rung if report else None,
        "sequence": services.records.sequence(),
        "environments": len(environments),
        "functions": services.records.count_functions(),
        "running": [shown_instance(found) for found in report.instances] if report else [],
        "pools": dict(report.pools) if report else {},
        "node": report.node if report else None,
        "processes": _processes(report) if report else [],
    }


async def metrics(services: AdminServices, request: Request) -> Answer:
    """Prometheus's text form. A process that does not answer is missing."""
    return Response(await services.metrics(), media_type=CONTENT_TYPE)


def _processes(report: NodeReport) -> list[dict[str, Any]]:
    """The platform's own processes, the node first."""
    node = {"name": "node", "pid": report.pid, "ready": True, "restarts": 0}
    return [node, *(msgspec.to_builtins(each) for each in report.processes)]
