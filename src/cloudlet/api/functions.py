"""Functions: what is deployed, what runs, calling one, its logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request

from cloudlet.api.http import Answer, body_of, environment_of, number
from cloudlet.api.log_filter import LogFilter
from cloudlet.api.ports import AdminServices
from cloudlet.auth.service import identity_of
from cloudlet.model.errors import FunctionNotFound, NodeUnavailable
from cloudlet.model.function import Alias, Version
from cloudlet.model.identity import Identity
from cloudlet.model.ids import new_request_id
from cloudlet.model.invocation import Invocation
from cloudlet.model.sandbox import InstanceStatus
from cloudlet.node.logs import QUERY_RECORDS_MAX, LogQuery
from cloudlet.node.wire import LogRecord


class _Invoke(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    event: msgspec.Raw = msgspec.Raw(b"{}")
    openid: str = ""


class _Rollback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    to: int | None = None


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
        "versions": _versions(services, version),
        "scale": msgspec.to_builtins(config.scale),
        "running": [shown_instance(status) for status in running],
    }


async def list_versions(services: AdminServices, request: Request) -> Answer:
    version, _ = _current(services, request)
    return 200, {"versions": _versions(services, version)}


async def rollback(services: AdminServices, request: Request) -> Answer:
    """Answers once calls move to the version."""
    environment, wanted = environment_of(services, request), await body_of(request, _Rollback)
    done = await services.deploys.rollback(environment, request.path_params["fn"], wanted.to)
    return 200, {"former": _shown_version(done.former, done.now), "now": _shown_version(done.now, done.now)}


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
    """Of a function that is gone, too, as long as its file is there. Raise FunctionNotFound for one that has
    neither."""
    wanted = int(number(request, "limit", 100, 1, QUERY_RECORDS_MAX))
    lines = LogFilter.of(request.query_params.get("level", ""), request.query_params.get("text", ""))
    query = LogQuery(
        environment_of(services, request),
        request.path_params["fn"],
        request.query_params.get("request_id", ""),
        number(request, "since", 0, 0, 1e11),
        QUERY_RECORDS_MAX if lines.narrow else wanted,
    )
    records = await services.node.logs(query)
    if not records and not services.records.versions(query.environment, query.function):
        raise FunctionNotFound(f"function {query.function[:80]!r} does not exist and has no log")
    found = [record for record in records if lines.keeps(record)]
    return 200, {"records": [_shown_record(record) for record in found[-wanted:]]}


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


def _shown_record(record: LogRecord) -> dict[str, Any]:
    return {
        "t": record.t,
        "instance": record.instance,
        "request_id": record.request_id,
        "level": record.level,
        "text": record.text,
    }


def _versions(services: AdminServices, current: Version) -> list[dict[str, Any]]:
    known = services.records.versions(current.environment, current.function)
    return [_shown_version(version, current) for version in known]


def _shown_version(version: Version, current: Version) -> dict[str, Any]:
    return {
        "digest": version.digest,
        "number": version.number,
        "created_at": version.created_at,
        "current": version.digest == current.digest,
        "runtime": version.config.runtime,
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
        "unpatched": config.runtime.unpatched,
        "handler": config.handler,
        "timeout_s": config.timeout_s,
        "memory_mb": config.memory_mb,
        "concurrency": config.concurrency,
        "version": version.digest,
        "number": version.number,
        "updated_at": alias.updated_at,
        "instances": len(running),
    }
