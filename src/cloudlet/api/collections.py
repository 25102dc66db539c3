"""Collections of documents, as an administrator sees them."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request

from cloudlet.api.http import Answer, body_of, environment_of, number
from cloudlet.api.ports import AdminServices
from cloudlet.docdb.base import CollectionInfo, Preset
from cloudlet.docdb.ejson import decode, encode_relaxed
from cloudlet.docdb.rules.compile import Operation
from cloudlet.docdb.service import Query
from cloudlet.model.access import Access
from cloudlet.model.errors import InvalidDocument, InvalidFilter

DOCUMENTS_MAX = 1000


class _Create(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    preset: Preset = Preset.PRIVATE


class _SetPreset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    preset: Preset


class _SetRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rule: msgspec.Raw


class _AskAccess(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    operation: Operation
    filter: dict[str, Any] = {}
    data: dict[str, Any] = {}
    openid: str = ""
    uid: str = ""
    login_type: str = ""


async def list_collections(services: AdminServices, request: Request) -> Answer:
    name = environment_of(services, request)
    return 200, {"collections": [_shown(info) for info in await services.documents.list_collections(name)]}


async def create_collection(services: AdminServices, request: Request) -> Answer:
    environment = environment_of(services, request)
    wanted = await body_of(request, _Create)
    return 201, _shown(await services.documents.create_collection(environment, wanted.name, wanted.preset))


async def set_preset(services: AdminServices, request: Request) -> Answer:
    environment, name = environment_of(services, request), request.path_params["name"]
    wanted = await body_of(request, _SetPreset)
    await services.documents.set_preset(environment, name, wanted.preset)
    return 200, _shown(await services.documents.collection_info(environment, name))


async def set_rule(services: AdminServices, request: Request) -> Answer:
    environment, name = environment_of(services, request), request.path_params["name"]
    text = bytes((await body_of(request, _SetRule)).rule).decode()
    await services.documents.set_rule(environment, name, None if text == "null" else text)
    return 200, _shown(await services.documents.collection_info(environment, name))


async def ask_access(services: AdminServices, request: Request) -> Answer:
    environment, name = environment_of(services, request), request.path_params["name"]
    asked = await body_of(request, _AskAccess)
    access = Access(environment, openid=asked.openid, uid=asked.uid, login_type=asked.login_type)
    filter = decode(msgspec.json.encode(asked.filter).decode(), InvalidFilter)
    data = decode(msgspec.json.encode(asked.data).decode(), InvalidDocument)
    why = await services.documents.explain_access(access, name, asked.operation, filter, data)
    return 200, {"allowed": why is None, "why": why or ""}


async def delete_collection(services: AdminServices, request: Request) -> Answer:
    environment, name = environment_of(services, request), request.path_params["name"]
    await services.documents.drop_collection(environment, name)
    return 200, {"deleted": name}


async def list_documents(services: AdminServices, request: Request) -> Answer:
    environment = environment_of(services, request)
    query = Query(
        filter=_filter(request.query_params.get("filter", "")),
        skip=int(number(request, "skip", 0, 0, 1e9)),
        limit=int(number(request, "limit", 20, 1, DOCUMENTS_MAX)),
    )
    access = Access(environment, admin=True)
    found = await services.documents.find(access, request.path_params["name"], query)
    return 200, {
        "documents": [msgspec.Raw(encode_relaxed(document).encode()) for document in found.documents]
    }


def _filter(text: str) -> dict[str, Any]:
    value = decode(text, InvalidFilter) if text else {}
    if not isinstance(value, dict):
        raise InvalidFilter("the filter must be an object")
    return value


def _shown(info: CollectionInfo) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": info.name, "preset": info.preset.value}
    if info.rule is not None:
        shown["rule"] = msgspec.Raw(info.rule.encode())
    return shown
