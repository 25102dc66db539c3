"""``/v1/database``: documents for whoever has a session (facts: wire-protocol 3.6, 4).

Query strings carry Extended JSON, bodies the older forms of values; both are accepted in both places. Answers
are plain JSON with ``{"$date": ms}``. Below
``/v1/database/instances/(default)/databases/(default)``, with C for ``/collections/{name}/documents``::

    POST   /collections      {collectionName}                              → {}
    GET    C                 ?query &projection &order &offset &limit &transactionId
                                                                           → {offset, limit, list}
    GET    C?count=true      ?query                                        → {total}
    GET    C/{id}            ?projection &transactionId                    → document | null
    POST   C                 {data: [document]}                            → {insertedIds}
    PATCH  C                 {query, data, multi, upsert, replaceMode}     → {matched, updated, upsert_id}
    POST   C/remove          {query, multi}                                → {deleted}
    POST   C/aggregations    {pipeline}                                    → {list}
    POST   /transactions                                                   → {transactionId}
    POST   /transactions/{id}/commit | rollback                            → {}

Bodies may name a ``transactionId``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import unquote, unquote_to_bytes

import msgspec
import structlog

from cloudlet.dialects.callers import SESSIONS_KEPT, Caller, check_environment
from cloudlet.dialects.d.functions import FindCaller
from cloudlet.dialects.errors import error_body, wire_of
from cloudlet.dialects.http import (
    QUERY_FIELDS_MAX,
    ClientGone,
    Receive,
    Request,
    Scope,
    Send,
    read_body,
    request_of,
    send_reply,
)
from cloudlet.docdb.ejson import decode, encode_plain, to_plain
from cloudlet.docdb.pipeline.serving import Rows
from cloudlet.docdb.service import DocumentService, Query
from cloudlet.docdb.values import Value
from cloudlet.model.access import Access
from cloudlet.model.errors import (
    Internal,
    InvalidDocument,
    InvalidFilter,
    InvalidParameter,
    InvalidProjection,
    InvalidRequest,
    InvalidSort,
    InvalidUpdate,
    MalformedBody,
    NotFound,
    PermissionDenied,
    PlatformError,
)
from cloudlet.model.identity import Identity
from cloudlet.state.base import EnvironmentRecords

ROOT = "/v1/database/"
DATABASE = "/v1/database/instances/(default)/databases/(default)/"
"""There is one database in an environment."""
BODY_BYTES_MAX = 8 * 1024 * 1024
LIMIT_DEFAULT, LIMIT_MAX = 100, 1_000
AGGREGATE_ROWS = Rows(default=20, most=10_000)
_DIRECTIONS = {"asc": 1, "desc": -1}

T = TypeVar("T")
log = structlog.get_logger(__name__)


class _Collection(msgspec.Struct, frozen=True):
    collectionName: str


class _Insert(msgspec.Struct, frozen=True):
    data: Any
    transactionId: str | None = None


class _Update(msgspec.Struct, frozen=True):
    data: Any
    query: Any = None
    multi: bool = False
    upsert: bool = False
    replaceMode: bool = False
    transactionId: str | None = None


class _Remove(msgspec.Struct, frozen=True):
    query: Any = None
    multi: bool = False
    transactionId: str | None = None


class _Aggregate(msgspec.Struct, frozen=True):
    pipeline: list[Any]
    transactionId: str | None = None


class _Order(msgspec.Struct, frozen=True):
    field: str
    direction: str = "asc"


_collection = msgspec.json.Decoder(_Collection)
_insert = msgspec.json.Decoder(_Insert)
_update = msgspec.json.Decoder(_Update)
_remove = msgspec.json.Decoder(_Remove)
_aggregate = msgspec.json.Decoder(_Aggregate)
_order = msgspec.json.Decoder(list[_Order])
_encoder = msgspec.json.Encoder()


class _Call(msgspec.Struct):
    """One request whose caller is known."""

    caller: Caller
    fields: Mapping[str, str]
    """Of the query string."""
    body: bytes

    def access(self, transaction_id: str | None = None) -> Access:
        access = _access(self.caller.identity)
        return replace(access, transaction=transaction_id) if transaction_id else access


_Handler = Callable[[_Call, str], Awaitable[bytes]]
"""Given the call and the part of the path that varies: a collection or a transaction; returns the body."""


class DocumentsApp:
    """The ASGI application below ``/v1/database``. `caller` says who calls, or raises."""

    def __init__(
        self, documents: DocumentService, records: EnvironmentRecords, caller: FindCaller, trusted_id: bool
    ) -> None:
        self._documents = documents
        self._records = records
        self._caller = caller
        self._trusted_id = trusted_id
        self._routes: dict[tuple[str, str], _Handler] = {
            ("POST", "collections"): self._add_collection,
            ("GET", "collections/*/documents"): self._list,
            ("POST", "collections/*/documents"): self._insert,
            ("PATCH", "collections/*/documents"): self._update,
            ("POST", "collections/*/documents/remove"): self._remove,
            ("POST", "collections/*/documents/aggregations"): self._aggregate,
            ("POST", "transactions"): self._start_transaction,
            ("POST", "transactions/*/commit"): self._commit,
            ("POST", "transactions/*/rollback"): self._rollback,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = request_of(scope, self._trusted_id)
        status = 200
        try:
            body = await self._answer(request, receive)
        except ClientGone:
            return
        except PlatformError as error:
            status, body = wire_of(error).status, error_body(error, request.request_id, "database")
        except Exception:
            log.exception("request_failed", request_id=request.request_id, path=request.path[:200])
            status, body = 500, error_body(Internal(), request.request_id)
        await send_reply(send, status, body, [(b"x-request-id", request.request_id.encode("latin-1"))])

    async def _answer(self, request: Request, receive: Receive) -> bytes:
        handler, variable = self._handler(request)
        caller = self._caller(request)
        fields = _fields(request.query)
        check_environment(
            self._records,
            caller.identity.environment,
            request.headers.get("x-env", ""),
            fields.get("env", ""),
        )
        body = await read_body(request, receive, BODY_BYTES_MAX)
        return await handler(_Call(caller, fields, body), variable)

    def _handler(self, request: Request) -> tuple[_Handler, str]:
        """The handler of an address and the part of it that varies. Raise NotFound, InvalidRequest."""
        variable, path = "", request.raw_path
        if "%28" in path:
            path = path.replace("%28", "(").replace("%29", ")")
        if not path.startswith(DATABASE):
            raise NotFound(f"there is no {request.path[:120]!r} here")
        parts = path[len(DATABASE) :].split("/")
        if len(parts) > 1:
            variable, parts[1] = unquote(parts[1]), "*"
        pattern = "/".join(parts)
        handler = self._routes.get((request.method, pattern))
        if handler is not None:
            return handler, variable
        return self._handler_of_document(request, pattern), variable

    def _handler_of_document(self, request: Request, pattern: str) -> _Handler:
        """For the address of one document; the raw id may hold an escaped slash."""
        prefix = "collections/*/documents/"
        if pattern.startswith(prefix) and request.method == "GET":
            rest = pattern[len(prefix) :]
            if rest and "/" not in rest:
                return lambda call, collection: self._get(call, collection, unquote(rest))
        if any(known == pattern for _, known in self._routes):
            raise InvalidRequest(f"{request.method} is not possible on this address")
        raise NotFound(f"there is no {request.path[:120]!r} here")

    async def _add_collection(self, call: _Call, _variable: str) -> bytes:
        if not call.caller.identity.admin:
            raise PermissionDenied("collections are made by the server side, not by users")
        wanted = _parameters(call.body, _collection)
        await self._documents.create_collection(call.caller.identity.environment, wanted.collectionName)
        return b"{}"

    async def _list(self, call: _Call, collection: str) -> bytes:
        fields = call.fields
        access = call.access(fields.get("transactionId"))
        filter = _value(fields.get("query"), "query", InvalidFilter)
        if fields.get("count") == "true":
            return _encoder.encode({"total": await self._documents.count(access, collection, filter)})
        query = Query(
            filter,
            _sort(fields.get("order")),
            _number(fields, "offset") or 0,
            _number(fields, "limit"),
            _value(fields.get("projection"), "projection", InvalidProjection),
            LIMIT_DEFAULT,
            LIMIT_MAX,
        )
        found = await self._documents.find(access, collection, query)
        documents = [to_plain(document) for document in found.documents]
        return _encoder.encode({"offset": found.skip, "limit": found.limit, "list": documents})

    async def _get(self, call: _Call, collection: str, id: str) -> bytes:
        """``null`` when there is none that the caller may see, as a transaction's ``doc().get()`` has it."""
        projection = _value(call.fields.get("projection"), "projection", InvalidProjection)
        query = Query({"_id": id}, limit=1, projection=projection)
        found = await self._documents.find(call.access(call.fields.get("transactionId")), collection, query)
        return encode_plain(found.documents[0]).encode() if found.documents else b"null"

    async def _insert(self, call: _Call, collection: str) -> bytes:
        wanted = _parameters(call.body, _insert)
        data = decode(wanted.data, InvalidDocument)
        documents = data if isinstance(data, list) else [data]
        ids = await self._documents.insert(call.access(wanted.transactionId), collection, documents)
        return _encoder.encode({"insertedIds": [to_plain(found) for found in ids]})

    async def _update(self, call: _Call, collection: str) -> bytes:
        """``doc.set`` sends the bare document with ``upsert`` and without ``replaceMode``."""
        wanted = _parameters(call.body, _update)
        data = _value(wanted.data, "data", InvalidUpdate)
        bare = not any(name.startswith("$") for name in data)
        result = await self._documents.update(
            call.access(wanted.transactionId),
            collection,
            _value(wanted.query, "query", InvalidFilter),
            data,
            multi=wanted.multi,
            upsert=wanted.upsert,
            replace=wanted.replaceMode or (wanted.upsert and bare),
        )
        return _encoder.encode(
            {
                "matched": result.matched,
                "updated": result.updated,
                "upsert_id": to_plain(result.upserted_id),
            }
        )

    async def _remove(self, call: _Call, collection: str) -> bytes:
        wanted = _parameters(call.body, _remove)
        deleted = await self._documents.delete(
            call.access(wanted.transactionId),
            collection,
            _value(wanted.query, "query", InvalidFilter),
            multi=wanted.multi,
        )
        return _encoder.encode({"deleted": deleted})

    async def _aggregate(self, call: _Call, collection: str) -> bytes:
        wanted = _parameters(call.body, _aggregate)
        stages = decode(wanted.pipeline, InvalidFilter)
        found = await self._documents.aggregate(
            call.access(wanted.transactionId), collection, stages, AGGREGATE_ROWS
        )
        return _encoder.encode({"list": [to_plain(document) for document in found]})

    async def _start_transaction(self, call: _Call, _variable: str) -> bytes:
        return _encoder.encode({"transactionId": await self._documents.start_transaction(call.access())})

    async def _commit(self, call: _Call, transaction_id: str) -> bytes:
        await self._documents.commit_transaction(call.access(), transaction_id)
        return b"{}"

    async def _rollback(self, call: _Call, transaction_id: str) -> bytes:
        await self._documents.abort_transaction(call.access(), transaction_id)
        return b"{}"


@lru_cache(maxsize=SESSIONS_KEPT)
def _access(who: Identity) -> Access:
    return Access(who.environment, who.admin, who.openid, who.uid, login_type=who.login_type)


def _fields(query: str) -> dict[str, str]:
    """The fields of a query string. Raise InvalidParameter for too many, and for one that is there twice."""
    if not query:
        return {}
    pairs = query.split("&")
    if len(pairs) > QUERY_FIELDS_MAX:
        raise InvalidParameter(f"the query has more than {QUERY_FIELDS_MAX} fields")
    fields: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        name = _text(name)
        if name in fields:
            raise InvalidParameter(f"the field {name[:80]!r} of the query is there twice")
        if name:
            fields[name] = _text(value)
    return fields


def _text(escaped: str) -> str:
    """A name or value of a query string."""
    if "+" in escaped:
        escaped = escaped.replace("+", " ")
    return unquote_to_bytes(escaped).decode("utf-8", "replace") if "%" in escaped else escaped


def _parameters(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The body by its decoder. Raise InvalidParameter, MalformedBody."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidParameter(str(error)) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedBody(f"the body is not a JSON object: {error}") from error
    except RecursionError as error:
        raise MalformedBody("the body is nested too deeply") from error


def _value(given: Any, name: str, error: type[InvalidRequest]) -> dict[str, Value]:
    """An object of values, given as JSON text or as JSON already; nothing is an empty one."""
    if given is None or given == "":
        return {}
    value = decode(given, error)
    if not isinstance(value, dict):
        raise error(f"{name} must be an object")
    return value


def _sort(text: str | None) -> dict[str, int] | None:
    """``[{field, direction}]`` as an order of the document service."""
    if not text:
        return None
    try:
        items = _order.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidSort(f"order must be a list of field and direction: {error}") from error
    for item in items:
        if item.direction not in _DIRECTIONS:
            raise InvalidSort(f"the direction of {item.field[:80]!r} must be asc or desc")
    return {item.field: _DIRECTIONS[item.direction] for item in items}


def _number(fields: Mapping[str, str], name: str) -> int | None:
    text = fields.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidParameter(f"{name} must be a whole number, not {text[:40]!r}")
    return int(text)
