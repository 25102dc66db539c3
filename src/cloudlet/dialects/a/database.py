"""``database.*`` of dialect A (facts: wire-protocol 3.2): Extended JSON texts in, Extended JSON texts out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from cloudlet.dialects.a.actions import Action, Call
from cloudlet.dialects.a.envelope import parameters
from cloudlet.docdb.ejson import decode, encode_canonical, to_plain
from cloudlet.docdb.pipeline.serving import Rows
from cloudlet.docdb.service import DocumentService, Modify, Query
from cloudlet.docdb.values import Document
from cloudlet.model.access import Access
from cloudlet.model.errors import (
    InvalidDocument,
    InvalidFilter,
    InvalidProjection,
    InvalidRequest,
    InvalidSort,
    InvalidUpdate,
)

WECHAT_SDK = "wx-server-sdk/"
AGGREGATE_ROWS = Rows(default=20, most=10_000)
"""Documents of a pipeline without ``$limit``, and of any pipeline (facts: wire-protocol 4.5)."""
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


class _Stage(msgspec.Struct, frozen=True):
    stageKey: str
    stageValue: str


class _Aggregate(_Collection, frozen=True):
    stages: list[_Stage]
    transactionId: str | None = None


class _Transaction(msgspec.Struct, frozen=True):
    transactionId: str


_collection = msgspec.json.Decoder(_Collection)
_insert = msgspec.json.Decoder(_Insert)
_find = msgspec.json.Decoder(_Find)
_modify = msgspec.json.Decoder(_Modify)
_remove = msgspec.json.Decoder(_Remove)
_aggregate = msgspec.json.Decoder(_Aggregate)
_transaction = msgspec.json.Decoder(_Transaction)


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
            "database.aggregateDocuments": self.aggregate,
            "database.startTransaction": self.start_transaction,
            "database.commitTransaction": self.commit_transaction,
            "database.abortTransaction": self.abort_transaction,
        }

    async def add_collection(self, call: Call) -> dict[str, Any]:
        wanted = parameters(call.body, _collection)
        await self._documents.create_collection(call.caller.identity.environment, wanted.collectionName)
        return {}

    async def insert(self, call: Call) -> dict[str, Any]:
        wanted = parameters(call.body, _insert)
        texts = [wanted.data] if isinstance(wanted.data, str) else wanted.data
        documents = [_object(text, "data", InvalidDocument) for text in texts]
        ids = await self._documents.insert(
            _access(call, wanted.transactionId), wanted.collectionName, documents
        )
        return {"data": {"insertedIds": [to_plain(found) for found in ids]}}

    async def find(self, call: Call) -> dict[str, Any]:
        wanted = parameters(call.body, _find)
        query = Query(
            filter=_filter(wanted.query),
            sort=_optional(wanted.order, "order", InvalidSort),
            skip=wanted.offset or 0,
            limit=1 if wanted.queryType == ONE_DOCUMENT else wanted.limit,
            projection=_optional(wanted.projection, "projection", InvalidProjection),
        )
        found = await self._documents.find(_access(call, wanted.transactionId), wanted.collectionName, query)
        return {"data": {"list": _texts(found.documents)}}

    async def count(self, call: Call) -> dict[str, Any]:
        wanted = parameters(call.body, _find)
        total = await self._documents.count(
            _access(call, wanted.transactionId), wanted.collectionName, _filter(wanted.query)
        )
        return {"data": {"total": total}}

    async def modify(self, call: Call) -> dict[str, Any]:
        """``merge`` false replaces the whole document (``doc.set``), otherwise `data` holds update
        operators. A document that is replaced by the same counts, one that an operator leaves as it was does
        not."""
        wanted = parameters(call.body, _modify)
        replace = wanted.merge is False
        result = await self._documents.update(
            _access(call, wanted.transactionId),
            wanted.collectionName,
            _filter(wanted.query),
            _object(wanted.data, "data", InvalidUpdate),
            multi=_multi(wanted.multi, wanted.queryType),
            upsert=bool(wanted.upsert),
            replace=replace,
        )
        updated = result.matched if replace else result.updated
        return {"data": {"updated": updated, "upsert_id": to_plain(result.upserted_id)}}

    async def modify_and_return(self, call: Call) -> dict[str, Any]:
        """``updated`` counts the document that was found, changed or not."""
        wanted = parameters(call.body, _modify)
        modify = Modify(_object(wanted.data, "data", InvalidUpdate), after=True)
        result = await self._documents.find_and_modify(
            _access(call, wanted.transactionId), wanted.collectionName, _filter(wanted.query), modify
        )
        text = None if result.document is None else _texts([result.document])[0]
        return {"data": {"updated": result.matched, "doc": text}}

    async def remove(self, call: Call) -> dict[str, Any]:
        wanted = parameters(call.body, _remove)
        deleted = await self._documents.delete(
            _access(call, wanted.transactionId),
            wanted.collectionName,
            _filter(wanted.query),
            multi=_multi(wanted.multi, wanted.queryType),
        )
        return {"data": {"deleted": deleted}}

    async def aggregate(self, call: Call) -> dict[str, Any]:
        """Each stage's value is an Extended JSON text of its own."""
        wanted = parameters(call.body, _aggregate)
        stages = [{stage.stageKey: decode(stage.stageValue, InvalidFilter)} for stage in wanted.stages]
        found = await self._documents.aggregate(
            _access(call, wanted.transactionId), wanted.collectionName, stages, AGGREGATE_ROWS
        )
        return {"data": {"list": _texts(found)}}

    async def start_transaction(self, call: Call) -> dict[str, Any]:
        """wx-server-sdk turns the error of an operation into a number before it reaches the part that would
        start the transaction again; of a commit it does not, so it is told of conflicts there."""
        late = call.sdk.startswith(WECHAT_SDK)
        return {"transactionId": await self._documents.start_transaction(_access(call), late_conflicts=late)}

    async def commit_transaction(self, call: Call) -> dict[str, Any]:
        wanted = parameters(call.body, _transaction)
        await self._documents.commit_transaction(_access(call), wanted.transactionId)
        return {}

    async def abort_transaction(self, call: Call) -> dict[str, Any]:
        wanted = parameters(call.body, _transaction)
        await self._documents.abort_transaction(_access(call), wanted.transactionId)
        return {}


def _access(call: Call, transaction_id: str | None = None) -> Access:
    identity = call.caller.identity
    return Access(identity.environment, identity.admin, identity.openid, identity.uid, transaction_id or "")


def _texts(documents: Iterable[Document]) -> list[str]:
    return [encode_canonical(document, ids_as_text=True) for document in documents]


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
