"""``database.*`` of dialect A (facts: wire-protocol 3.2): Extended JSON texts in, Extended JSON texts out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cloudlet.dialects.a.actions import Action, Call
from cloudlet.dialects.a.envelope import parameters
from cloudlet.docdb.ejson import decode, encode_canonical, to_plain
from cloudlet.docdb.service import DocumentService, Query
from cloudlet.model.access import Access
from cloudlet.model.errors import (
    InvalidDocument,
    InvalidFilter,
    InvalidParameter,
    InvalidProjection,
    InvalidRequest,
    InvalidSort,
    InvalidUpdate,
)

ONE_DOCUMENT = "DOC"
"""``queryType`` of operations on ``doc(id)``; the other is ``WHERE``."""


class _Collection(msgspec.Struct, frozen=True):
    collectionName: str


class _Insert(_Collection, frozen=True):
    data: list[str] | str
    transactionId: str | None = None


class _Find(_Collection, frozen=True):
    query: str | None = None
    queryType: str | None = None
    order: str | None = None
    projection: str | None = None
    offset: int | None = None
    limit: int | None = None
    transactionId: str | None = None


class _Modify(_Collection, frozen=True):
    data: str
    query: str | None = None
    queryType: str | None = None
    multi: bool | None = None
    merge: bool | None = None
    upsert: bool | None = None
    transactionId: str | None = None


class _Remove(_Collection, frozen=True):
    query: str | None = None
    queryType: str | None = None
    multi: bool | None = None
    transactionId: str | None = None


_collection = msgspec.json.Decoder(_Collection)
_insert = msgspec.json.Decoder(_Insert)
_find = msgspec.json.Decoder(_Find)
_modify = msgspec.json.Decoder(_Modify)
_remove = msgspec.json.Decoder(_Remove)


class DatabaseActions:
    """Documents for server-side callers: no preset holds them back."""

    def __init__(self, documents: DocumentService) -> None:
        self._documents = documents

    def table(self) -> Mapping[str, Action]:
        return {
            "database.addCollection": self.add_collection,
            "database.insertDocument": self.insert,
            "database.getDocument": self.find,
            "database.calculateDocument": self.count,
            "database.modifyDocument": self.modify,
            "database.modifyAndReturnDoc": self.modify_and_return,
            "database.removeDocument": self.remove,
        }

    async def add_collection(self, call: Call) -> dict[str, Any]:
        wanted = parameters(call.body, _collection)
        await self._documents.create_collection(call.caller.identity.environment, wanted.collectionName)
        return {}

    async def insert(self, call: Call) -> dict[str, Any]:
        wanted = parameters(call.body, _insert)
        _refuse_transaction(wanted.transactionId)
        texts = [wanted.data] if isinstance(wanted.data, str) else wanted.data
        documents = [_object(text, "data", InvalidDocument) for text in texts]
        ids = await self._documents.insert(_access(call), wanted.collectionName, documents)
        return {"data": {"insertedIds": [to_plain(found) for found in ids]}}

    async def find(self, call: Call) -> dict[str, Any]:
        wanted = parameters(call.body, _find)
        _refuse_transaction(wanted.transactionId)
        query = Query(
            filter=_filter(wanted.query),
            sort=_optional(wanted.order, "order", InvalidSort),
            skip=wanted.offset or 0,
            limit=1 if wanted.queryType == ONE_DOCUMENT else wanted.limit,
            projection=_optional(wanted.projection, "projection", InvalidProjection),
        )
        found = await self._documents.find(_access(call), wanted.collectionName, query)
        return {"data": {"list": [encode_canonical(document) for document in found.documents]}}

    async def count(self, call: Call) -> dict[str, Any]:
        wanted = parameters(call.body, _find)
        total = await self._documents.count(_access(call), wanted.collectionName, _filter(wanted.query))
        return {"data": {"total": total}}

    async def modify(self, call: Call) -> dict[str, Any]:
        """``merge`` false replaces the whole document (``doc.set``), otherwise `data` holds update
        operators."""
        wanted = parameters(call.body, _modify)
        _refuse_transaction(wanted.transactionId)
        result = await self._documents.update(
            _access(call),
            wanted.collectionName,
            _filter(wanted.query),
            _object(wanted.data, "data", InvalidUpdate),
            multi=_multi(wanted.multi, wanted.queryType),
            upsert=bool(wanted.upsert),
            replace=wanted.merge is False,
        )
        return {"data": {"updated": result.updated, "upsert_id": to_plain(result.upserted_id)}}

    async def modify_and_return(self, call: Call) -> dict[str, Any]:
        wanted = parameters(call.body, _modify)
        _refuse_transaction(wanted.transactionId)
        updated, document = await self._documents.find_and_update(
            _access(call),
            wanted.collectionName,
            _filter(wanted.query),
            _object(wanted.data, "data", InvalidUpdate),
        )
        text = None if document is None else encode_canonical(document)
        return {"data": {"updated": updated, "doc": text}}

    async def remove(self, call: Call) -> dict[str, Any]:
        wanted = parameters(call.body, _remove)
        _refuse_transaction(wanted.transactionId)
        deleted = await self._documents.delete(
            _access(call),
            wanted.collectionName,
            _filter(wanted.query),
            multi=_multi(wanted.multi, wanted.queryType),
        )
        return {"data": {"deleted": deleted}}


def _access(call: Call) -> Access:
    identity = call.caller.identity
    return Access(identity.environment, identity.admin, identity.openid, identity.uid)


def _multi(multi: bool | None, query_type: str | None) -> bool:
    return query_type != ONE_DOCUMENT if multi is None else multi


def _filter(text: str | None) -> dict[str, Any]:
    """No query at all is sent for a bare ``collection.get()``."""
    return _object(text, "query", InvalidFilter) if text else {}


def _optional(text: str | None, name: str, error: type[InvalidRequest]) -> dict[str, Any] | None:
    return _object(text, name, error) if text else None


def _object(text: str, name: str, error: type[InvalidRequest]) -> dict[str, Any]:
    value = decode(text, error)
    if not isinstance(value, dict):
        raise error(f"{name} must be an object")
    return value


def _refuse_transaction(transaction_id: str | None) -> None:
    if transaction_id:
        raise InvalidParameter("transactions are not supported yet: call without transactionId")
