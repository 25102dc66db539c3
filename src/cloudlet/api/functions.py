"""Functions: what is deployed, what runs, calling one, its logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request

from cloudlet.api.http import Answer, body_of, environment_of, number
from cloudlet.api.ports import AdminServices
from cloudlet.auth.service import identity_of
from cloudlet.model.errors import FunctionNotFound, NodeUnavailable
from cloudlet.model.function import Alias, Version
from cloudlet.model.identity import Identity
from cloudlet.model.ids import new_request_id
from cloudlet.model.invocation import Invocation
from cloudlet.model.sandbox import InstanceStatus
from cloudlet.node.logs import QUERY_RECORDS_MAX, LogQuery


class _Invoke(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    event: msgspec.Raw = msgspec.Raw(b"{}")
    openid: str = ""


async def list_functions(services: AdminServices, request: Request) -> Answer:
    name = environment_of(services, request)
    running = await running_instances(services)
    return 200, {
        "functions": [
            _shown(version, alias, _of(running, version))
            for version, alias in services.records.functions(name)
        ]
    }


async def detail(services: AdminServices, request: Request) -> Answer:
    version, alias = _current(services, request)
    running = _of(await running_instances(services), version)
    config = version.config
    return 200, _shown(version, alias, running) | {
        "url": f"{services.service_url()}/v1/functions/{version.function}",
        "environment_variables": sorted(config.environment_variables),
        "versions": [
            {
                "digest": known.digest,
                "number": known.number,
                "created_at": known.created_at,
                "current": known.digest == version.digest,
            }
            for known in services.records.versions(version.environment, version.function)
        ],
        "scale": msgspec.to_builtins(config.scale),
        "running": [shown_instance(status) for status in running],
    }


async def delete_function(services: AdminServices, request: Request) -> Answer:
    name = environment_of(services, request)
    return 200, {"deleted": await services.deploys.delete(name, request.path_params["fn"])}


async def invoke(services: AdminServices, request: Request) -> Answer:
    """Without an openid the call has no user, like one of a server."""
    version, _ = _current(services, request)
    wanted = await body_of(request, _Invoke)
    identity = Identity(version.environment, admin=True)
    if wanted.openid:
        user = await services.auth.user_for_openid(version.environment, wanted.openid)
        identity = identity_of(user)
    result = await services.invoker.invoke(
        Invocation(identity, version.function, bytes(wanted.event), new_request_id())
    )
    return 200, {
        "result": msgspec.Raw(result.body or b"null"),
        "request_id": result.request_id,
        "timing": dict(result.timing),
    }


async def logs(services: AdminServices, request: Request) -> Answer:
    """Of a function that is gone, too, as long as its file is there."""
    query = LogQuery(
        environment_of(services, request),
        request.path_params["fn"],
        request.query_params.get("request_id", ""),
        number(request, "since", 0, 0, 1e11),
        int(number(request, "limit", 100, 1, QUERY_RECORDS_MAX)),
    )
    return 200, {
        "records": [
            {
                "t": record.t,
                "instance": record.instance,
                "request_id": record.request_id,
                "level": record.level,
                "text": record.text,
            }
            for record in await services.node.logs(query)
        ]
    }


async def running_instances(services: AdminServices) -> Sequence[InstanceStatus]:
    """What the node reports; nothing when it does not answer, because the records are still worth showing."""
    try:
        return (await services.node.report()).instances
    except NodeUnavailable:
        return ()


def shown_instance(status: InstanceStatus) -> dict[str, Any]:
    return {
        "instance_id": status.instance_id,
        "environment": status.version.environment,
        "function": status.version.function,
        "version": status.version.digest,
        "state": status.state,
        "pid": status.pid,
        "started_at": status.started_at,
        "memory_mb": status.memory_mb,
        "rung": status.rung,
        "timing": msgspec.to_builtins(status.timing),
    }


def _current(services: AdminServices, request: Request) -> tuple[Version, Alias]:
    name, function = environment_of(services, request), request.path_params["fn"]
    for version, alias in services.records.functions(name):
        if version.function == function:
            return version, alias
    raise FunctionNotFound(f"function {function[:80]!r} does not exist in environment {name!r}")


def _of(running: Sequence[InstanceStatus], version: Version) -> list[InstanceStatus]:
    return [
        status
        for status in running
        if (status.version.environment, status.version.function) == (version.environment, version.function)
    ]


def _shown(version: Version, alias: Alias, running: Sequence[InstanceStatus]) -> dict[str, Any]:
    config = version.config
    return {
        "name": version.function,
        "runtime": config.runtime,
        "handler": config.handler,
        "timeout_s": config.timeout_s,
        "memory_mb": config.memory_mb,
        "concurrency": config.concurrency,
        "version": version.digest,
        "number": version.number,
        "updated_at": alias.updated_at,
        "instances": len(running),
    }
