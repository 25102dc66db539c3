"""What watches tell, to whom, and how they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cloudlet.docdb.base import Preset
from cloudlet.docdb.limits import DocdbLimits, WatchLimits
from cloudlet.docdb.memory import MemoryStore
from cloudlet.docdb.metrics import DocumentMetrics
from cloudlet.docdb.service import DocumentService
from cloudlet.docdb.sqlite import SqliteStore
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.watch.watch import Watch
from cloudlet.model.access import Access
from cloudlet.model.errors import (
    CollectionNotFound,
    Conflict,
    InvalidFilter,
    InvalidParameter,
    LimitExceeded,
    PermissionDenied,
    PlatformError,
    QueryTooCostly,
    ResultTooLarge,
    ShuttingDown,
    Unauthenticated,
)
from tests.unit.docdb.watch.hearing import hear, said

pytestmark = pytest.mark.anyio

ADMIN = Access("e", admin=True)
ANN = Access("e", openid="ann", uid="u1")
BOB = Access("e", openid="bob", uid="u2")
LIMITS = DocdbLimits(
    watches=WatchLimits(
        open_max=8,
        user_max=3,
        connection_max=2,
        documents_max=6,
        bytes_max=4_000,
        held_bytes_max=7_000,
        window_bytes_max=8_000,
        unindexed_max=2,
        reserve_max=1,
        replay_max=50,
    )
)


@pytest.fixture
async def small() -> DocumentService:
    """Small limits, in memory, with one collection."""
    made = DocumentService(Stores(lambda _: MemoryStore(LIMITS)), limits=LIMITS)
    await made.create_collection("e", "c", Preset.READONLY)
    return made


async def ended(watch: Watch, error: type[PlatformError], text: str = "") -> None:
    with pytest.raises(error) as caught:
        while True:
            await hear(watch)
    assert caught.value.code == error.code
    assert text in caught.value.message


def rest(service: DocumentService) -> tuple[int, int, int, int]:
    """Nothing may be left when all watches have ended."""
    room = service.watches._rooms["e"]
    assert not (room.hub._lives or room.hub._indexes or room.hub._waiting)
    assert not (room.guard._grants or room.guard._needed)
    return room.hub.held.bytes, room.hub._window_bytes, room.hub._users, room.seats.taken


# What is told.


async def test_documents_come_change_and_go(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": 1, "room": "a", "n": 1}, {"_id": 2, "room": "b"}])
    watch = await service.watch(ADMIN, "private", {"room": "a"})
    first = await hear(watch)
    assert (first.id, first.initial, said(first)) == (0, True, [("init", "init", 1)])
    assert first.changes[0].document == {"_id": 1, "room": "a", "n": 1}

    await service.insert(ADMIN, "private", [{"_id": 3, "room": "a"}])
    assert said(await hear(watch)) == [("enqueue", "add", 3)]
    await service.update(ADMIN, "private", {"_id": 2}, {"$set": {"room": "a"}})
    assert said(await hear(watch)) == [("enqueue", "update", 2)]
    await service.update(ADMIN, "private", {"_id": 1}, {"$set": {"deep": {"x": 1}}, "$unset": {"n": ""}})
    event = await hear(watch)
    assert (event.id, said(event)) == (3, [("update", "update", 1)])
    assert event.changes[0].updated_fields == {"deep": {"x": 1}}
    assert event.changes[0].removed_fields == ["n"]
    await service.update(ADMIN, "private", {"_id": 1}, {"$set": {"deep.x": 2, "deep.y": [1]}})
    event = await hear(watch)
    assert event.changes[0].updated_fields == {"deep.x": 2, "deep.y": [1]}
    assert event.changes[0].document == {"_id": 1, "room": "a", "deep": {"x": 2, "y": [1]}}
    await service.update(ADMIN, "private", {"_id": 1}, {"y": 1, "room": "a"}, replace=True)
    assert said(await hear(watch)) == [("update", "replace", 1)]
    await service.update(ADMIN, "private", {"_id": 2}, {"$set": {"room": "c"}})
    event = await hear(watch)
    assert said(event) == [("dequeue", "update", 2)]
    assert event.changes[0].document["room"] == "a"
    await service.delete(ADMIN, "private", {"_id": 3})
    assert said(await hear(watch)) == [("dequeue", "remove", 3)]
    await watch.close()
    with pytest.raises(StopAsyncIteration):
        await anext(watch)
    assert rest(service) == (0, 0, 0, 0)


async def test_a_limit_is_filled_up_again(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": number, "n": number} for number in range(60)])
    watch = await service.watch(ADMIN, "private", {"n": {"$gte": 0}}, {"n": -1}, 2)
    assert said(await hear(watch)) == [("init", "init", 59), ("init", "init", 58)]
    await service.insert(ADMIN, "private", [{"_id": "x", "n": 60}])
    assert said(await hear(watch)) == [("dequeue", "limit", 58), ("enqueue", "add", "x")]
    await service.delete(ADMIN, "private", {"_id": "x"})
    assert said(await hear(watch)) == [("dequeue", "remove", "x"), ("enqueue", "limit", 58)]
    await service.update(ADMIN, "private", {"_id": 59}, {"$set": {"n": 0}})
    assert said(await hear(watch)) == [("dequeue", "limit", 59), ("enqueue", "limit", 57)]
    # More leave than are held in reserve: the rest is read.
    await service.delete(ADMIN, "private", {"n": {"$gt": 20}}, multi=True)
    assert said(await hear(watch))[-2:] == [("enqueue", "limit", 20), ("enqueue", "limit", 19)]
    await watch.close()
    assert rest(service) == (0, 0, 0, 0)


async def test_equal_documents_at_the_end_of_a_limit_are_chosen_by_id(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": 60 - number, "n": 0} for number in range(40)])
    watch = await service.watch(ADMIN, "private", {}, {"n": 1}, 3)
    assert [key for _, _, key in said(await hear(watch))] == [21, 22, 23]
    await service.insert(ADMIN, "private", [{"_id": 1, "n": 0}])
    assert said(await hear(watch)) == [("dequeue", "limit", 23), ("enqueue", "add", 1)]
    await watch.close()


async def test_equal_documents_at_the_end_of_the_reserve_are_not_taken_for_all(
    service: DocumentService,
) -> None:
    sizes = [1, 5, 20]
    rows = [{"_id": 100 - at, "n": n} for at, n in enumerate(n for n in range(3) for _ in range(sizes[n]))]
    await service.insert(ADMIN, "private", rows)
    watch = await service.watch(ADMIN, "private", {}, {"n": 1}, 1)
    assert said(await hear(watch)) == [("init", "init", 100)]
    await service.delete(ADMIN, "private", {"n": {"$lt": 2}}, multi=True)
    assert said(await hear(watch)) == [("dequeue", "remove", 100), ("enqueue", "limit", 75)]
    await watch.close()


async def test_what_nobody_heard_is_merged(service: DocumentService) -> None:
    watch = await service.watch(ADMIN, "private")
    assert said(await hear(watch)) == []
    await service.insert(ADMIN, "private", [{"_id": 1, "n": 0}, {"_id": 2}])
    for _ in range(20):
        await service.update(ADMIN, "private", {"_id": 1}, {"$inc": {"n": 1}})
    await service.delete(ADMIN, "private", {"_id": 2})
    await caught_up(service)
    event = await hear(watch)
    assert (event.id, said(event)) == (1, [("enqueue", "add", 1)])
    assert event.changes[0].document == {"_id": 1, "n": 20}
    await service.delete(ADMIN, "private", {"_id": 1})
    await service.insert(ADMIN, "private", [{"_id": 1, "n": 20}, {"_id": 3}])
    await caught_up(service)
    assert said(await hear(watch)) == [("enqueue", "add", 3)]  # Document 1 is as it was told.
    await watch.close()


async def caught_up(service: DocumentService) -> None:
    """Every commit has been handed to the watches."""
    hub = service.watches._rooms["e"].hub
    async with asyncio.timeout(10):
        while hub.cursor < await hub.store.last_seq():  # noqa: ASYNC110 - a test may look
            await asyncio.sleep(0)


async def test_a_cancelled_reader_loses_nothing(service: DocumentService) -> None:
    watch = await service.watch(ADMIN, "private")
    waiting = asyncio.ensure_future(anext(watch))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (await hear(watch)).initial
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await service.insert(ADMIN, "private", [{"_id": number} for number in range(250)])
    await caught_up(service)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)  # It is in the middle of many changes.
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    event = await hear(watch)
    assert (event.id, len(event.changes)) == (1, 250)
    await watch.close()
    assert rest(service) == (0, 0, 0, 0)


# Who may watch what.


async def test_presets_narrow_a_watch_as_they_narrow_a_query(service: DocumentService) -> None:
    await service.insert(ANN, "private", [{"_id": 1}])
    await service.insert(BOB, "private", [{"_id": 2}])
    watch = await service.watch(ANN, "private", sort={"_id": 1})
    assert said(await hear(watch)) == [("init", "init", 1)]
    await service.insert(BOB, "private", [{"_id": 3}])
    await service.insert(ANN, "private", [{"_id": 4}])
    assert said(await hear(watch)) == [("enqueue", "add", 4)]
    with pytest.raises(PermissionDenied):
        await service.watch(ANN, "adminonly")
    nobody = await service.watch(Access("e"), "private")
    assert said(await hear(nobody)) == []
    await watch.close()
    await nobody.close()
    assert rest(service) == (0, 0, 0, 0)


async def test_a_watch_has_to_imply_the_rule(service: DocumentService) -> None:
    await service.set_rule("e", "private", json.dumps({"read": "doc.room == 'a'"}))
    with pytest.raises(PermissionDenied):
        await service.watch(ANN, "private", {"n": 1})
    watch = await service.watch(ANN, "private", {"room": "a"})
    await hear(watch)
    await service.insert(ADMIN, "private", [{"_id": 1, "room": "b"}, {"_id": 2, "room": "a"}])
    assert said(await hear(watch)) == [("enqueue", "add", 2)]
    await watch.close()
    assert rest(service) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda service: service.set_preset("e", "private", Preset.READONLY), Conflict),
        (lambda service: service.set_preset("e", "private", Preset.ADMINONLY), PermissionDenied),
        (lambda service: service.set_rule("e", "private", '{"read": false}'), PermissionDenied),
        (lambda service: service.drop_collection("e", "private"), CollectionNotFound),
    ],
)
async def test_a_change_of_who_may_read_holds_at_once(
    service: DocumentService,
    change: Callable[[DocumentService], Awaitable[None]],
    error: type[PlatformError],
) -> None:
    watch = await service.watch(ANN, "private")
    own = await service.watch(ADMIN, "private")
    await hear(watch)
    await hear(own)
    await change(service)
    if error is not CollectionNotFound:
        await service.insert(ADMIN, "private", [{"_id": 1, "_openid": "ann"}])
        assert said(await hear(own)) == [("enqueue", "add", 1)]
    await ended(watch, error)
    assert (watch.ended, own.ended) == (True, error is CollectionNotFound)
    await own.close()
    assert rest(service) == (0, 0, 0, 0)


async def test_a_change_made_elsewhere_is_noticed_before_anything_is_told(
    service: DocumentService, stores: Stores
) -> None:
    watch = await service.watch(ANN, "private")
    await hear(watch)
    other = DocumentService(stores)
    await other.set_rule("e", "private", '{"read": false}')
    await other.insert(ADMIN, "private", [{"_id": 1, "_openid": "ann"}])
    await ended(watch, PermissionDenied)


async def test_a_collection_that_was_replaced_is_another_one(
    service: DocumentService, stores: Stores
) -> None:
    watch = await service.watch(ADMIN, "private")
    await hear(watch)
    other = DocumentService(stores)
    await other.drop_collection("e", "private")
    await other.create_collection("e", "private")
    await other.insert(ADMIN, "private", [{"_id": 1}])
    await ended(watch, Conflict, "watch again")
    assert rest(service) == (0, 0, 0, 0)


async def test_a_rule_that_still_allows_it_goes_on(service: DocumentService) -> None:
    await service.set_rule("e", "private", json.dumps({"read": "doc.room == 'a'"}))
    watch = await service.watch(ANN, "private", {"room": "a"})
    await hear(watch)
    await service.set_rule("e", "private", json.dumps({"read": "doc.room == 'a' || doc.room == 'b'"}))
    await service.insert(ADMIN, "private", [{"_id": 1, "room": "a"}])
    assert said(await hear(watch)) == [("enqueue", "add", 1)]
    await watch.close()


async def test_a_document_that_the_rule_read_is_watched_too(service: DocumentService) -> None:
    await service.insert(ADMIN, "private", [{"_id": "r1", "members": ["u1"]}])
    rule = {"read": "auth.uid in get(`database.private.${doc.room}`).members"}
    await service.set_rule("e", "readonly", json.dumps(rule))
    watch = await service.watch(ANN, "readonly", {"room": "r1"})
    await hear(watch)
    await service.update(ADMIN, "private", {"_id": "r1"}, {"$set": {"name": "x"}})
    await service.insert(ADMIN, "readonly", [{"_id": 1, "room": "r1"}])
    assert said(await hear(watch)) == [("enqueue", "add", 1)]
    await service.update(ADMIN, "private", {"_id": "r1"}, {"$set": {"members": ["u2"]}})
    await service.insert(ADMIN, "readonly", [{"_id": 2, "room": "r1"}])
    await ended(watch, PermissionDenied)
    assert rest(service) == (0, 0, 0, 0)


async def test_one_document_is_looked_at_before_it_is_told(service: DocumentService) -> None:
    await service.set_rule("e", "readonly", json.dumps({"read": "doc.open == true"}))
    await service.insert(ADMIN, "readonly", [{"_id": 1, "open": True}, {"_id": 2, "open": False}])
    await ended(await service.watch(ANN, "readonly", {"_id": 2}), PermissionDenied)
    watch = await service.watch(ANN, "readonly", {"_id": 1})
    assert said(await hear(watch)) == [("init", "init", 1)]
    await service.update(ADMIN, "readonly", {"_id": 1}, {"$set": {"n": 1}})
    assert said(await hear(watch)) == [("update", "update", 1)]
    await service.update(ADMIN, "readonly", {"_id": 1}, {"$set": {"open": False, "secret": 1}})
    await ended(watch, PermissionDenied)
    assert rest(service) == (0, 0, 0, 0)


async def test_hidden_fields_are_in_no_event(service: DocumentService) -> None:
    rule = {"read": True, "fields": {"phone": {"read": "doc._openid == auth.openid"}}}
    await service.set_rule("e", "readonly", json.dumps(rule))
    await service.insert(ADMIN, "readonly", [{"_id": 1, "_openid": "bob", "phone": "1", "n": 1}])
    watch = await service.watch(ANN, "readonly")
    assert (await hear(watch)).changes[0].document == {"_id": 1, "_openid": "bob", "n": 1}
    await service.update(ADMIN, "readonly", {"_id": 1}, {"$set": {"phone": "2"}})
    await caught_up(service)
    await service.update(ADMIN, "readonly", {"_id": 1}, {"$set": {"phone": "3", "n": 2}})
    change = (await hear(watch)).changes[0]
    assert (change.document, change.updated_fields) == ({"_id": 1, "_openid": "bob", "n": 2}, {"n": 2})
    await watch.close()


async def test_users_who_sign_out_hear_no_more(service: DocumentService) -> None:
    ann, bob, admin = [await service.watch(access, "readonly") for access in (ANN, BOB, ADMIN)]
    assert service.watches.close_for("e", "u1") == 1
    assert service.watches.close_for("e", "nobody") == service.watches.close_for("e", "") == 0
    await ended(ann, Unauthenticated, "sign in")
    assert not bob.ended and not admin.ended
    service.watches.close()
    await ended(bob, ShuttingDown)
    await ended(admin, ShuttingDown)
    with pytest.raises(ShuttingDown):
        await service.watch(ANN, "readonly")


# Limits.


@pytest.mark.parametrize(
    ("access", "asked", "error"),
    [
        (ADMIN, {"filter": 1}, InvalidFilter),
        (ADMIN, {"filter": {"$foo": 1}}, InvalidFilter),
        (ADMIN, {"filter": {"a": {"$near": [1, 2]}}}, InvalidFilter),
        (ADMIN, {"limit": 0}, InvalidParameter),
        (replace(ADMIN, transaction="t"), {}, InvalidParameter),
        (ADMIN, {"filter": {"a": {"$regex": "(a+)+$"}}}, QueryTooCostly),
        (ADMIN, {"filter": {"$or": [{"a": {"$gt": n}} for n in range(5_000)]}}, QueryTooCostly),
    ],
)
async def test_what_cannot_be_watched_is_refused(
    small: DocumentService, access: Access, asked: dict[str, Any], error: type[PlatformError]
) -> None:
    with pytest.raises(error):
        await small.watch(access, "c", **asked)
    with pytest.raises(CollectionNotFound):
        await small.watch(ADMIN, "none")


async def test_watches_are_counted(small: DocumentService) -> None:
    own = [await small.watch(ANN, "c", {"n": number}) for number in range(3)]
    with pytest.raises(LimitExceeded, match="user"):
        await small.watch(ANN, "c", {"n": 3})
    mine = [await small.watch(ADMIN, "c", {"n": number}, connection="k") for number in range(2)]
    with pytest.raises(LimitExceeded, match="connection"):
        await small.watch(ADMIN, "c", connection="k")
    await own.pop().close()
    own.append(await small.watch(ANN, "c", {"n": {"$gt": 3}}))
    more = [
        await small.watch(ADMIN, "c", {"n": {"$gt": 4}}),
        await small.watch(ADMIN, "c", {"n": {"$gt": 4}}),
    ]
    with pytest.raises(LimitExceeded, match="every change"):
        await small.watch(ADMIN, "c", {"n": {"$gt": 5}})
    more.append(await small.watch(ADMIN, "c", {"n": 1}))
    with pytest.raises(LimitExceeded, match="environment"):
        await small.watch(ADMIN, "c", {"n": 1})
    for watch in [*own, *mine, *more]:
        await watch.close()
    assert rest(small) == (0, 0, 0, 0)


async def test_a_result_that_is_or_grows_too_large_ends_its_watch(small: DocumentService) -> None:
    await small.insert(ADMIN, "c", [{"_id": number} for number in range(6)])
    watch = await small.watch(ADMIN, "c")
    await hear(watch)
    await small.insert(ADMIN, "c", [{"_id": 6}])
    await ended(watch, ResultTooLarge, "6 documents")
    with pytest.raises(ResultTooLarge, match="6 documents"):
        await small.watch(ADMIN, "c")
    limited = await small.watch(ADMIN, "c", limit=6)
    assert len((await hear(limited)).changes) == 6
    await limited.close()
    await small.update(ADMIN, "c", {"_id": 1}, {"$set": {"text": "x" * 5_000}})
    with pytest.raises(ResultTooLarge, match="bytes"):
        await small.watch(ADMIN, "c", {"_id": 1})
    assert rest(small) == (0, 0, 0, 0)


async def test_a_slow_client_ends_alone(small: DocumentService) -> None:
    slow, quick = await small.watch(ADMIN, "c"), await small.watch(ADMIN, "c")
    await hear(quick)
    await hear(slow)
    for number in range(5):
        await small.insert(ADMIN, "c", [{"_id": number, "text": "x" * 1_000}])
        assert said(await hear(quick)) == [("enqueue", "add", number)]
    await ended(slow, LimitExceeded, "too slowly")
    await quick.close()
    assert rest(small) == (0, 0, 0, 0)


async def test_the_slowest_ends_when_all_together_hold_too_much(small: DocumentService) -> None:
    watches = [await small.watch(ADMIN, "c", {"n": number}) for number in range(3)]
    same = await small.watch(ADMIN, "c", {"n": 0})
    for watch in [*watches, same]:
        await hear(watch)
    for number in range(2):
        await small.insert(ADMIN, "c", [{"_id": number, "n": number, "text": "x" * 3_000}])
    await caught_up(small)
    # Two watches that hold the same document hold it once.
    assert not any(watch.ended for watch in [*watches, same])
    await small.insert(ADMIN, "c", [{"_id": 2, "n": 2, "text": "x" * 3_000}])
    await caught_up(small)
    assert [watch.ended for watch in watches] == [True, False, False]
    await ended(same, LimitExceeded, "environment")
    assert said(await hear(watches[1])) == [("enqueue", "add", 1)]
    for watch in watches:
        await watch.close()
    assert rest(small) == (0, 0, 0, 0)


async def test_windows_may_hold_so_much_together(small: DocumentService) -> None:
    await small.insert(ADMIN, "c", [{"_id": number, "n": number, "text": "x" * 3_000} for number in range(4)])
    first = [await small.watch(ADMIN, "c", {"n": number}, limit=1) for number in range(2)]
    with pytest.raises(LimitExceeded, match="hold too many"):
        await small.watch(ADMIN, "c", {"n": 2}, limit=1)
    await hear(first[0])
    await small.update(ADMIN, "c", {"n": 1}, {"$set": {"text": "x" * 6_000}})
    await ended(first[1], LimitExceeded, "hold too many")
    await first[0].close()
    assert rest(small) == (0, 0, 0, 0)


async def test_an_expression_that_takes_too_long_ends_its_watch(small: DocumentService) -> None:
    watch = await small.watch(ADMIN, "c", {"text": {"$regex": "a"}})
    other = await small.watch(ADMIN, "c")
    await hear(watch)
    await hear(other)
    await small.insert(ADMIN, "c", [{"_id": 1, "text": "b" * 4_097}])
    with pytest.raises(QueryTooCostly):
        await hear(watch)
    await other.close()
    assert rest(small) == (0, 0, 0, 0)


# Going on.


async def test_a_watch_goes_on_after_a_restart(tmp_path: Path) -> None:
    def started() -> tuple[Stores, DocumentService]:
        stores = Stores(lambda _: SqliteStore(tmp_path / "e.db"))
        return stores, DocumentService(stores)

    stores, service = started()
    await service.create_collection("e", "c", Preset.READONLY)
    await service.insert(ADMIN, "c", [{"_id": number, "n": number} for number in range(5)])
    plain, limited = (
        await service.watch(ANN, "c", {"n": {"$lt": 9}}),
        await service.watch(ANN, "c", None, {"n": 1}, 2),
    )
    assert plain.token == ""
    tokens = [(await hear(plain)).token, (await hear(limited)).token]
    await service.insert(ADMIN, "c", [{"_id": 9, "n": 9}])
    await caught_up(service)
    assert plain.token != tokens[0]  # Nothing happened to it, and it knows.
    tokens[0] = plain.token
    service.watches.close()
    await stores.close()

    stores, service = started()
    await service.delete(ADMIN, "c", {"_id": 0})
    await service.insert(ADMIN, "c", [{"_id": 10, "n": 1.5}])
    await service.delete(ADMIN, "c", {"_id": 10})
    await service.update(ADMIN, "c", {"_id": 1}, {"$set": {"n": 9}})
    plain = await service.watch(ANN, "c", {"n": {"$lt": 9}}, resume=tokens[0])
    limited = await service.watch(ANN, "c", None, {"n": 1}, 2, resume=tokens[1])
    assert plain.resumed and limited.resumed
    event = await hear(plain)
    assert (event.id, event.initial) == (1, False)
    assert said(event) == [("dequeue", "remove", 0), ("dequeue", "update", 1)]
    event = await hear(limited)
    assert [kind for kind, _, _ in said(event)] == ["dequeue", "dequeue", "enqueue", "enqueue"]
    assert [key for _, _, key in said(event)] == [0, 1, 2, 3]
    await service.insert(ADMIN, "c", [{"_id": 11, "n": 0}])
    assert said(await hear(plain)) == [("enqueue", "add", 11)]
    assert said(await hear(limited)) == [("dequeue", "limit", 3), ("enqueue", "add", 11)]
    await plain.close()
    await limited.close()
    await stores.close()


async def test_what_cannot_be_resumed_begins_anew(small: DocumentService) -> None:
    await small.insert(ADMIN, "c", [{"_id": 1, "n": 1}])
    watch = await small.watch(ADMIN, "c", {"n": 1})
    token = (await hear(watch)).token
    await watch.close()
    seq, event, documents, digest = token.split(".")
    wrong = [
        "",
        "nonsense",
        "9" * 400,
        f"{seq}.{event}.{documents}",
        f"-1.{event}.{documents}.{digest}",
        f"{int(seq) + 1}.{event}.{documents}.{digest}",
    ]
    for resume in wrong:
        again = await small.watch(ADMIN, "c", {"n": 1}, resume=resume)
        assert (again.resumed, (await hear(again)).initial) == (False, True)
        await again.close()
    other = await small.watch(ADMIN, "c", {"n": 2}, resume=token)
    assert not other.resumed
    await other.close()
    for number in range(60):  # More than one may catch up with.
        await small.update(ADMIN, "c", {"_id": 1}, {"$set": {"m": number}})
    late = await small.watch(ADMIN, "c", {"n": 1}, resume=token)
    assert not late.resumed
    await late.close()
    await small.drop_collection("e", "c")
    await small.create_collection("e", "c")
    again = await small.watch(ADMIN, "c", {"n": 1}, resume=token)
    assert not again.resumed
    await again.close()


async def test_a_log_that_was_pruned_is_told() -> None:
    limits = DocdbLimits(changes_kept_max=5)
    service = DocumentService(Stores(lambda _: MemoryStore(limits)), limits=limits)
    await service.create_collection("e", "c")
    watch = await service.watch(ADMIN, "c")
    token = (await hear(watch)).token
    await watch.close()
    for number in range(10):
        await service.insert(ADMIN, "c", [{"_id": number}])
    watch = await service.watch(ADMIN, "c", resume=token)
    assert not watch.resumed
    assert len((await hear(watch)).changes) == 10
    await watch.close()


async def test_metrics_tell_what_watches_do() -> None:
    registry = CollectorRegistry()
    stores = Stores(lambda _: MemoryStore(LIMITS), metrics=DocumentMetrics(registry))
    service = DocumentService(stores, limits=LIMITS)
    await service.create_collection("e", "c")
    watch, slow = await service.watch(ADMIN, "c"), await service.watch(ADMIN, "c")
    await hear(watch)
    await hear(slow)
    await service.insert(ADMIN, "c", [{"_id": 1}])
    await service.update(ADMIN, "c", {"_id": 1}, {"$set": {"n": 1}})
    await caught_up(service)
    await hear(watch)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"cloudlet_documents_{name}", labels)

    assert value("open_watches") == 2
    assert value("watch_events_total") == 3
    assert value("watch_merged_total") == 2
    assert value("watch_dispatch_seconds_count") == 2
    await watch.close()
    await service.drop_collection("e", "c")
    await ended(slow, CollectionNotFound)
    assert value("open_watches") == 0
    assert value("watches_ended_total", outcome="closed") == 1
    assert value("watches_ended_total", outcome=CollectionNotFound.code) == 1
