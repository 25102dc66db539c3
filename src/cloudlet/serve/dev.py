"""What api does differently while an app is being written (``cloudlet dev``): it tells more, and it makes
collections.

Each difference is a setting of its own, off by default. What is told goes to api's log as events, which
``cli/dev`` shows; the names of the events and their fields are the contract between the two.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import structlog

from cloudlet.docdb.base import Preset
from cloudlet.docdb.permissions import owner_of
from cloudlet.docdb.service import (
    DocumentService,
    FindResult,
    Modify,
    ModifyResult,
    Query,
    UpdateResult,
)
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.values import Value
from cloudlet.model.access import Access
from cloudlet.model.clock import Clock
from cloudlet.model.errors import AlreadyExists, CollectionNotFound, Internal, InvalidName, PlatformError
from cloudlet.model.invocation import Invocation, InvocationResult, Invoker
from cloudlet.settings import Settings

COLLECTION_CREATED = "collection_created"
LIST_EMPTY = "list_empty"
CALL = "call"

T = TypeVar("T")

log = structlog.get_logger(__name__)


def documents_of(settings: Settings, stores: Stores, clock: Clock) -> DocumentService:
    """The document service that the settings ask for."""
    if settings.create_collections or settings.explain_empty:
        return DevDocuments(stores, clock, settings)
    return DocumentService(stores, clock, automatic_indexes=_automatic_indexes(settings))


def _automatic_indexes(settings: Settings) -> Callable[[str, str], bool]:
    """Whether indexes may be made for the queries of a collection."""
    off = frozenset(settings.automatic_indexes_off)
    if not settings.automatic_indexes:
        return lambda _environment, _collection: False
    return lambda environment, name: environment not in off and f"{environment}/{name}" not in off


def invoker_of(settings: Settings, invoker: Invoker, clock: Clock) -> Invoker:
    """The invoker that the settings ask for."""
    return ToldInvoker(invoker, clock) if settings.access_log else invoker


class DevDocuments(DocumentService):
    """Documents whose collections are made at their first use, and whose empty lists say why they are
    empty."""

    def __init__(self, stores: Stores, clock: Clock, settings: Settings) -> None:
        super().__init__(stores, clock, automatic_indexes=_automatic_indexes(settings))
        self._create = settings.create_collections
        self._explain = settings.explain_empty

    async def find(self, access: Access, collection: str, query: Query) -> FindResult:
        found = await self._made(access, collection, partial(super().find, access, collection, query))
        if self._explain and not found.documents:
            await self._tell_why(access, collection, found.skip)
        return found

    async def count(self, access: Access, collection: str, filter: Value = None) -> int:
        return await self._made(access, collection, partial(super().count, access, collection, filter))

    async def insert(self, access: Access, collection: str, documents: Sequence[Value]) -> list[Value]:
        return await self._made(access, collection, partial(super().insert, access, collection, documents))

    async def update(
        self,
        access: Access,
        collection: str,
        filter: Value,
        update: Value,
        *,
        multi: bool = False,
        upsert: bool = False,
        replace: bool = False,
        array_filters: Value = None,
    ) -> UpdateResult:
        options = {"multi": multi, "upsert": upsert, "replace": replace, "array_filters": array_filters}
        call = partial(super().update, access, collection, filter, update, **options)
        return await self._made(access, collection, call)

    async def find_and_modify(
        self, access: Access, collection: str, filter: Value, modify: Modify
    ) -> ModifyResult:
        call = partial(super().find_and_modify, access, collection, filter, modify)
        return await self._made(access, collection, call)

    async def distinct(self, access: Access, collection: str, path: str, filter: Value = None) -> list[Value]:
        return await self._made(
            access, collection, partial(super().distinct, access, collection, path, filter)
        )

    async def delete(self, access: Access, collection: str, filter: Value, *, multi: bool = False) -> int:
        call = partial(super().delete, access, collection, filter, multi=multi)
        return await self._made(access, collection, call)

    async def _made(self, access: Access, collection: str, call: Callable[[], Awaitable[T]]) -> T:
        """The call, once more when it found no collection: nothing had been done then."""
        try:
            return await call()
        except CollectionNotFound as missing:
            if not self._create:
                raise
            try:
                made = await self.create_collection(access.environment, collection, Preset.PRIVATE)
            except AlreadyExists:
                return await call()  # another call was faster
            except InvalidName:
                raise missing from None
        log.info(
            COLLECTION_CREATED,
            environment=access.environment,
            collection=collection,
            preset=made.preset.value,
        )
        return await call()

    async def _tell_why(self, access: Access, collection: str, skip: int) -> None:
        everyone = Access(access.environment, admin=True)
        try:
            preset = (await self.collection_info(access.environment, collection)).preset
            total = await super().count(everyone, collection)
            visible = total if access.admin else await super().count(access, collection)
        except PlatformError as error:
            # An explanation is a courtesy: the call itself went well.
            why = f"cannot be explained: {error.message}"
        else:
            why = explain_empty(preset, access, total, visible, skip)
        log.info(LIST_EMPTY, environment=access.environment, collection=collection, why=why)


def explain_empty(preset: Preset, access: Access, total: int, visible: int, skip: int = 0) -> str:
    """Why a query found nothing, of `total` documents of which the caller may see `visible`. Pure."""
    if not total:
        return "the collection has no documents"
    documents = f"{total} document" + "s" * (total != 1)
    if not visible:
        who = f"caller {owner_of(access)}" if owner_of(access) else "a caller without a user"
        return f"{preset.value} preset, {who} owns none of {documents}"
    if visible < total:
        documents = (
            f"the {visible} of {documents} that caller {owner_of(access)} owns ({preset.value} preset)"
        )
    behind = f" behind the first {skip}" if skip else ""
    return f"the query matches none of {documents}{behind}"


class ToldInvoker:
    """An invoker whose calls are told like those that come through the edge."""

    def __init__(self, invoker: Invoker, clock: Clock) -> None:
        self._invoker = invoker
        self._clock = clock

    async def invoke(self, invocation: Invocation) -> InvocationResult:
        started = self._clock.monotonic()
        error = Internal.code
        timing: dict[str, float] = {}
        try:
            result = await self._invoker.invoke(invocation)
            error, timing = "", dict(result.timing)
        except PlatformError as failure:
            error = failure.code
            raise
        finally:
            log.info(
                CALL,
                environment=invocation.identity.environment,
                function=invocation.function,
                openid=invocation.identity.openid,
                request_id=invocation.request_id,
                nested=invocation.depth > 0,
                ms=round((self._clock.monotonic() - started) * 1000, 1),
                error=error,
                timing=timing,
            )
        return result
