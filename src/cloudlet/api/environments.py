"""Environments, their aliases, credentials and users' tokens."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request

from cloudlet.api.http import Answer, body_of, environment_of
from cloudlet.api.ports import AdminServices
from cloudlet.model.app import Environment


class _Create(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


class _Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    openid: str
    appid: str = ""
    unionid: str = ""


async def list_environments(services: AdminServices, request: Request) -> Answer:
    return 200, {"environments": [_shown(found) for found in services.records.environments()]}


async def create_environment(services: AdminServices, request: Request) -> Answer:
    wanted = await body_of(request, _Create)
    made = await services.records.create_environment(wanted.name)
    await services.publisher.publish(services.records.sequence())
    return 201, _shown(made)


async def delete_environment(services: AdminServices, request: Request) -> Answer:
    """Functions end first, then nobody can get in, then the documents go."""
    name = environment_of(services, request)
    await services.records.delete_environment(name)
    try:
        await services.publisher.publish(services.records.sequence())
    finally:
        await services.drop_documents(name)
    return 200, {"deleted": name}


async def set_alias(services: AdminServices, request: Request) -> Answer:
    name = environment_of(services, request)
    await services.records.set_environment_alias(request.path_params["alias"], name)
    await services.publisher.publish(services.records.sequence())
    return 200, _shown(services.records.resolve_environment(name))


async def credentials(services: AdminServices, request: Request) -> Answer:
    found = await services.records.credential(environment_of(services, request))
    return 200, {
        "envId": found.environment,
        "secretId": found.secret_id,
        "secretKey": found.secret_key,
        "serviceUrl": f"{services.service_url()}/admin",
    }


async def token(services: AdminServices, request: Request) -> Answer:
    """A session for an openid that whoever may use this socket vouches for."""
    environment = environment_of(services, request)
    wanted = await body_of(request, _Token)
    session = await services.auth.sign_in_openid(environment, wanted.openid, wanted.appid, wanted.unionid)
    return 200, {
        "access_token": session.access_token,
        "refresh_token": session.refresh_token,
        "token_type": "Bearer",
        "expires_in": session.expires_in_s,
        "sub": session.user.uid,
        "env": environment,
        "openid": session.user.openid,
    }


def _shown(environment: Environment) -> dict[str, Any]:
    return {
        "name": environment.name,
        "created_at": environment.created_at,
        "aliases": list(environment.aliases),
    }
