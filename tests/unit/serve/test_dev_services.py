"""What api does differently while an app is being written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog.testing

from cloudlet.docdb.base import Preset
from cloudlet.docdb.service import DocumentService, Modify, Query
from cloudlet.docdb.stores import Stores
from cloudlet.model.access import Access
from cloudlet.model.errors import CollectionNotFound, FunctionFailed
from cloudlet.model.identity import Identity
from cloudlet.model.invocation import Invocation, InvocationResult
from cloudlet.serve.dev import DevDocuments, ToldInvoker, documents_of, explain_empty, invoker_of
from cloudlet.settings import Settings

pytestmark = pytest.mark.anyio

SERVER = Access("default", admin=True)
ALICE = Access("default", openid="alice")


class FixedClock:
    def now(self) -> float:
        return 1_700_000_000.0

    def monotonic(self) -> float:
        return 5.0


class Invoker:
    """Answers, or fails when told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def invoke(self, invocation: Invocation) -> InvocationResult:
        if self.error:
            raise self.error
        return InvocationResult(b"1", invocation.request_id, {"handler": 2.0})


@asynccontextmanager
async def documents(create: bool = True, explain: bool = True) -> AsyncIterator[DocumentService]:
    stores = Stores.in_memory()
    try:
        yield documents_of(Settings(create_collections=create, explain_empty=explain), stores, FixedClock())
    finally:
        await stores.close()


Operation = Callable[[DocumentService], Awaitable[Any]]


@pytest.mark.parametrize(
    "operation",
    [
        lambda found: found.find(SERVER, "notes", Query()),
        lambda found: found.count(SERVER, "notes"),
        lambda found: found.insert(SERVER, "notes", [{"a": 1}]),
        lambda found: found.update(SERVER, "notes", {}, {"$set": {"a": 1}}, multi=True),
        lambda found: found.find_and_modify(SERVER, "notes", {}, Modify({"$set": {"a": 1}})),
        lambda found: found.distinct(SERVER, "notes", "a"),
        lambda found: found.delete(SERVER, "notes", {}),
    ],
    ids=["find", "count", "insert", "update", "find_and_modify", "distinct", "delete"],
)
async def test_every_operation_makes_a_collection_that_is_missing(operation: Operation) -> None:
    async with documents(explain=False) as found:
        with structlog.testing.capture_logs() as told:
            await operation(found)
        assert (await found.collection_info("default", "notes")).preset is Preset.PRIVATE
        with structlog.testing.capture_logs() as again:
            await operation(found)
    assert [event["event"] for event in told if event["event"] == "collection_created"]
    assert (told[0]["collection"], told[0]["preset"]) == ("notes", "PRIVATE")
    assert [event for event in again if event["event"] == "collection_created"] == []


async def test_what_cannot_be_a_collection_is_refused_as_ever() -> None:
    async with documents() as found:
        with pytest.raises(CollectionNotFound):
            await found.count(SERVER, "../notes")
        assert await found.list_collections("default") == []


async def test_only_what_was_asked_for_is_different() -> None:
    async with documents(create=False) as found:
        with pytest.raises(CollectionNotFound):
            await found.count(SERVER, "notes")
    async with documents(create=False, explain=False) as found:
        assert type(found) is DocumentService
    invoker = Invoker()
    assert invoker_of(Settings(), invoker, FixedClock()) is invoker
    assert isinstance(invoker_of(Settings(access_log=True), invoker, FixedClock()), ToldInvoker)


async def why(found: DocumentService, access: Access, query: Query) -> list[str]:
    with structlog.testing.capture_logs() as told:
        await found.find(access, "notes", query)
    return [event["why"] for event in told if event["event"] == "list_empty"]


async def test_an_empty_list_explains_itself() -> None:
    async with documents() as found:
        assert await why(found, ALICE, Query()) == ["the collection has no documents"]
        await found.insert(SERVER, "notes", [{"n": n, "_openid": "bob"} for n in range(12)])
        assert await why(found, ALICE, Query()) == ["PRIVATE preset, caller alice owns none of 12 documents"]
        assert await why(found, Access("default"), Query()) == [
            "PRIVATE preset, a caller without a user owns none of 12 documents"
        ]
        assert await why(found, SERVER, Query({"n": 99})) == ["the query matches none of 12 documents"]
        assert await why(found, SERVER, Query(skip=50)) == [
            "the query matches none of 12 documents behind the first 50"
        ]
        await found.insert(ALICE, "notes", [{"n": 1}])
        assert await why(found, ALICE, Query({"n": 2})) == [
            "the query matches none of the 1 of 13 documents that caller alice owns (PRIVATE preset)"
        ]
        assert await why(found, ALICE, Query({"n": 1})) == []


async def test_an_explanation_that_fails_does_not_fail_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    async with documents() as found:
        assert isinstance(found, DevDocuments)
        await found.create_collection("default", "notes")

        async def gone(*_: object) -> None:
            raise CollectionNotFound("dropped meanwhile")

        monkeypatch.setattr(found, "collection_info", gone)
        assert await why(found, SERVER, Query()) == ["cannot be explained: dropped meanwhile"]


def test_one_document_is_no_documents() -> None:
    assert explain_empty(Preset.READONLY, ALICE, 1, 1) == "the query matches none of 1 document"


@pytest.mark.parametrize(("error", "code"), [(None, ""), (FunctionFailed("x"), "function_failed")])
async def test_calls_that_do_not_come_through_the_edge_are_told(error: Exception | None, code: str) -> None:
    call = Invocation(Identity("default", openid="alice"), "order", b"{}", "r1", depth=1)
    told_invoker = ToldInvoker(Invoker(error), FixedClock())
    with structlog.testing.capture_logs() as told:
        if error is None:
            assert (await told_invoker.invoke(call)).body == b"1"
        else:
            with pytest.raises(type(error)):
                await told_invoker.invoke(call)
    assert told == [
        {
            "event": "call",
            "log_level": "info",
            "environment": "default",
            "function": "order",
            "openid": "alice",
            "request_id": "r1",
            "nested": True,
            "ms": 0.0,
            "error": code,
            "timing": {} if error else {"handler": 2.0},
        }
    ]
