"""Custom rules as clients meet them: reads, writes, single documents, get(), denials, changes of rules."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloudlet.docdb.base import CollectionInfo, Preset, Row
from cloudlet.docdb.filter import where
from cloudlet.docdb.permissions import Permission
from cloudlet.docdb.rules.compile import Operation
from cloudlet.docdb.service import DocumentService, Modify, Query, UpdateResult
from cloudlet.docdb.writes import Deleted
from cloudlet.model.access import Access
from cloudlet.model.errors import InvalidParameter, PermissionDenied

pytestmark = pytest.mark.anyio

ADMIN = Access("e", admin=True)
ANN = Access("e", openid="ann", uid="u1", login_type="WECHAT_OPEN")
WEB = Access("e", uid="web")
NOBODY = Access("e")
OWNER = "doc._openid == auth.openid"


async def ruled(service: DocumentService, *documents: dict[str, Any], **rule: Any) -> None:
    """The collection ``things`` with a rule and documents."""
    if not any(info.name == "things" for info in await service.list_collections("e")):
        await service.create_collection("e", "things", Preset.ADMINONLY)
    await service.set_rule("e", "things", json.dumps(rule))
    if documents:
        await service.insert(ADMIN, "things", documents)


async def ids(service: DocumentService, access: Access, filter: Any = None, **more: Any) -> list[Any]:
    return [item["_id"] for item in (await service.find(access, "things", Query(filter, **more))).documents]


async def denied(call: Any) -> str:
    with pytest.raises(PermissionDenied) as caught:
        await call
    return caught.value.message


async def test_queries_must_imply_the_rule_and_are_not_narrowed(service: DocumentService) -> None:
    await ruled(
        service, {"_id": 1, "age": 9}, {"_id": 2, "age": 11}, {"_id": 3, "age": 16}, read="doc.age > 10"
    )
    assert await ids(service, ANN, {"age": {"$gt": 15}}) == [3]
    assert await service.count(ANN, "things", {"age": {"$gte": 11}}) == 2
    assert await service.distinct(ANN, "things", "age", {"age": {"$gt": 10}}) == [11, 16]
    for call in (
        service.find(ANN, "things", Query({"age": {"$gt": 8}})),
        service.find(ANN, "things", Query()),
        service.count(ANN, "things"),
        service.distinct(ANN, "things", "age"),
    ):
        assert "read on things is denied by the rule's read: doc.age > 10 (the query says" in await denied(
            call
        )
    assert await ids(service, ADMIN) == [1, 2, 3]


async def test_the_callers_ids_are_filled_into_queries(service: DocumentService) -> None:
    await ruled(
        service,
        *(
            {"_id": 1, "_openid": "ann"},
            {"_id": 2, "_openid": "ben"},
            {"_id": 3, "_openid": "web"},
            {"_id": 4},
        ),
        *({"_id": 5, "_openid": "{openid}"}, {"_id": 6, "user": "u1"}),
        read=f"{OWNER} || doc._openid == auth.uid || doc.user == auth.uid",
        write=OWNER,
    )
    mine = {"_openid": "{openid}"}
    for own in (mine, {"$and": [{"_openid": {"$in": ["{openid}"]}}]}):
        assert await ids(service, ANN, own) == [1]
        assert await ids(service, WEB, own) == [3]
    assert await ids(service, ANN, {"user": "{uid}"}) == [6]
    assert await service.update(ANN, "things", mine, {"$set": {"n": 1}}) == UpdateResult(1, 1)
    assert "sign in first" in await denied(service.find(NOBODY, "things", Query(mine)))
    # Nobody's documents belong to nobody.
    for access in (NOBODY, WEB):
        for filter in ({"_openid": None}, {"_openid": {"$exists": False}}, {}):
            await denied(service.find(access, "things", Query(filter)))
            await denied(service.delete(access, "things", filter))
    assert await ids(service, ADMIN, {"_openid": "{openid}"}) == [5]


async def test_one_document_by_id_is_read_and_checked(service: DocumentService) -> None:
    mine, other = {"_id": "mine", "_openid": "ann"}, {"_id": "other", "_openid": "ben"}
    await ruled(service, mine, other, read=OWNER, write=OWNER)
    assert await ids(service, ANN, {"_id": "mine"}) == ["mine"]
    assert await ids(service, ANN, {"_id": "none"}) == []
    assert await service.count(ANN, "things", {"_id": "mine"}) == 1
    message = await denied(service.find(ANN, "things", Query({"_id": "other"})))
    assert message == (
        "read on things is denied by the rule's read: "
        "doc._openid == auth.openid (it is not so in the stored document)"
    )
    await denied(service.count(ANN, "things", {"_id": "other"}))
    # With other conditions it is a query like any other, or its answer would tell what is in the document.
    await denied(service.find(ANN, "things", Query({"_id": "other", "secret": 1})))
    assert await ids(service, ANN, {"_id": "mine", "_openid": "{openid}"}) == ["mine"]

    update = {"$set": {"n": 1}}
    assert await service.update(ANN, "things", {"_id": "mine"}, update) == UpdateResult(1, 1)
    assert await service.update(ANN, "things", {"_id": "none"}, update) == UpdateResult(0, 0)
    with_owner = {"_id": "mine", "_openid": "{openid}"}
    assert await service.update(ANN, "things", with_owner, {"$inc": {"n": 1}}) == UpdateResult(1, 1)
    await denied(service.update(ANN, "things", {"_id": "other"}, update))
    await denied(service.find_and_modify(ANN, "things", {"_id": "other"}, Modify(update)))
    await denied(service.delete(ANN, "things", {"_id": "other"}))
    assert await service.delete(ANN, "things", {"_id": "mine"}) == 1
    assert await ids(service, ADMIN) == ["other"]


async def test_updates_and_removals_of_many(service: DocumentService) -> None:
    documents = [{"_id": n, "_openid": "ann" if n < 3 else "ben", "done": n % 2 == 0} for n in range(6)]
    await ruled(service, *documents, write=f"{OWNER} && doc.done == false")
    both = {"_openid": "{openid}", "done": False}
    assert await service.update(ANN, "things", both, {"$set": {"x": 1}}, multi=True) == UpdateResult(1, 1)
    for filter in ({"_openid": "{openid}"}, {"done": False}, {}):
        await denied(service.update(ANN, "things", filter, {"$set": {"x": 2}}, multi=True))
        await denied(service.delete(ANN, "things", filter, multi=True))
    assert await service.delete(ANN, "things", both, multi=True) == 1
    assert len(await ids(service, ADMIN)) == 5


async def test_create_checks_what_is_written(service: DocumentService) -> None:
    await ruled(
        service,
        create=f"{OWNER} && request.data.kind in ['a', 'b'] && doc.n > 0 && request.data.role == undefined",
    )
    made = await service.insert(ANN, "things", [{"kind": "a", "n": 1}, {"kind": "b", "n": 2}])
    assert len(made) == 2
    # Each document is judged by its own data.
    for bad in ({"kind": "c", "n": 1}, {"kind": "a", "n": 0}, {"kind": "a", "n": 1, "role": "admin"}, {}):
        await denied(service.insert(ANN, "things", [{"kind": "a", "n": 1}, bad]))
    await denied(service.insert(WEB, "things", [{"kind": "a", "n": 1}]))
    await denied(service.insert(NOBODY, "things", [{"kind": "a", "n": 1}]))
    with pytest.raises(PermissionDenied, match="a client cannot write the field _openid"):
        await service.insert(ANN, "things", [{"kind": "a", "n": 1, "_openid": "ann"}])
    assert await service.count(ADMIN, "things") == 2
    assert (await service.find(ADMIN, "things", Query({"n": 1}))).documents[0]["_openid"] == "ann"
    await ruled(service, create=True)
    await service.insert(NOBODY, "things", [{"_id": "free"}])
    assert (await service.find(ADMIN, "things", Query({"_id": "free"}))).documents == [{"_id": "free"}]


@pytest.mark.parametrize(
    ("update", "allowed"),
    [
        ({"$set": {"name": "x"}}, True),
        ({"$set": {"name": "x", "n": 5}}, True),
        ({"$set": {"a.b": 1, "a.c": 2}}, True),
        ({"$set": {"role": "admin"}}, False),
        ({"$set": {"role.x": 1}}, False),
        ({"$inc": {"role": 1}}, False),
        ({"$unset": {"role": ""}}, False),
        ({"$rename": {"name": "role"}}, False),
        ({"$rename": {"role": "name"}}, False),
        ({"$setOnInsert": {"role": 1}}, False),
        ({"$set": {"a.b": 3}}, False),
    ],
)
async def test_request_data_of_an_update(service: DocumentService, update: Any, allowed: bool) -> None:
    await ruled(
        service,
        {"_id": 1, "_openid": "ann", "role": 1},
        update=f"{OWNER} && request.data.role == undefined"
        " && (request.data.a == null || request.data.a.b == 1)",
    )
    call = service.update(ANN, "things", {"_id": 1}, update)
    if allowed:
        assert (await call).updated == 1
    else:
        await denied(call)


async def test_set_creates_by_create_and_replaces_by_update(service: DocumentService) -> None:
    await ruled(
        service,
        *({"_id": "mine", "_openid": "ann"}, {"_id": "other", "_openid": "ben"}),
        create="request.data.n == 1",
        update=OWNER,
    )

    async def put(id_: str, document: dict[str, Any]) -> UpdateResult:
        return await service.update(ANN, "things", {"_id": id_}, document, replace=True, upsert=True)

    assert await put("mine", {"n": 5}) == UpdateResult(1, 1)
    assert (await put("new", {"n": 1})).upserted_id == "new"
    await denied(put("new2", {"n": 2}))
    await denied(put("other", {"n": 1}))
    assert await ids(service, ADMIN, {"_openid": "ann"}) == ["mine", "new"]
    await ruled(service, create=True, update=False)
    assert (await put("newer", {})).upserted_id == "newer"
    await denied(put("newer", {}))
    await denied(service.update(ANN, "things", {"_id": "none"}, {"$set": {"a": 1}}))


async def test_get_reads_other_documents(service: DocumentService) -> None:
    await service.create_collection("e", "rooms", Preset.ADMINONLY)
    await service.insert(
        ADMIN,
        "rooms",
        [{"_id": "r1", "members": ["ann"], "by": "x"}, {"_id": 2, "members": []}, {"_id": "x", "ok": 1}],
    )
    member = "auth.openid in get(`database.rooms.${doc.room}`).members"
    await ruled(
        service,
        *({"_id": 1, "room": "r1"}, {"_id": 2, "room": 2}, {"_id": 3}, {"_id": 4, "room": ["r9", "r1"]}),
        read=member,
        create=member,
        delete=f"{member} && get('database.rooms.' + get(`database.rooms.${{doc.room}}`).by).ok == 1",
    )
    assert await ids(service, ANN, {"room": "r1"}) == [1, 4]
    assert await ids(service, ANN, {"_id": 1}) == [1]
    assert await ids(service, ANN, {"_id": 4}) == [4]
    for filter in ({"room": "2"}, {"room": 2}, {"room": "none"}, {}, {"_id": 2}, {"_id": 3}):
        await denied(service.find(ANN, "things", Query(filter)))
    await service.insert(ANN, "things", [{"_id": 5, "room": "r1"}])
    for room in (2, "none", None, {"a": 1}):
        await denied(service.insert(ANN, "things", [{"room": room}]))
    await denied(service.delete(ANN, "things", {"_id": 2}))
    assert await service.delete(ANN, "things", {"_id": 1}) == 1
    assert await service.delete(ANN, "things", {"room": "r1"}, multi=True) == 2
    # A change of what get() reads holds for the next call.
    await service.update(ADMIN, "rooms", {"_id": "r1"}, {"$set": {"members": []}})
    await denied(service.find(ANN, "things", Query({"room": "r1"})))


async def test_get_reads_ten_documents_at_most(service: DocumentService) -> None:
    await service.create_collection("e", "rooms", Preset.ADMINONLY)
    await service.insert(ADMIN, "rooms", [{"_id": f"r{number}", "open": True} for number in range(11)])
    await ruled(service, create="get(`database.rooms.${doc.room}`).open")
    rooms = [{"room": f"r{number}"} for number in range(11)]
    await service.insert(ANN, "things", [*rooms[:10], *rooms[:10]])
    message = await denied(service.insert(ANN, "things", rooms))
    assert message == "the rule of things would read more than 10 documents in a request"


async def test_a_change_of_rule_or_preset_holds_for_the_next_call(service: DocumentService) -> None:
    await ruled(service, {"_id": 1, "_openid": "ben"}, read=True)
    assert await ids(service, ANN) == [1]
    await service.set_rule("e", "things", '{"read": false}')
    await denied(service.find(ANN, "things", Query()))
    assert (await service.collection_info("e", "things")).rule == '{"read": false}'
    await service.set_rule("e", "things", None)
    assert "can only be read by the server" in await denied(service.find(ANN, "things", Query()))
    await service.set_preset("e", "things", Preset.READONLY)
    assert await ids(service, ANN) == [1]
    with pytest.raises(InvalidParameter, match="rule read: character 7: write == instead of ="):
        await service.set_rule("e", "things", '{"read": "doc.a = 1"}')
    assert (await service.collection_info("e", "things")).rule is None


async def test_find_and_modify_also_needs_the_read_rule(service: DocumentService) -> None:
    await ruled(service, {"_id": 1, "_openid": "ann", "n": 1}, read="doc.n == 9", update=OWNER)
    update = {"$inc": {"n": 1}}
    await denied(service.find_and_modify(ANN, "things", {"_id": 1}, Modify(update)))
    await denied(service.find_and_modify(ANN, "things", {"_openid": "{openid}"}, Modify(update)))
    assert (await service.update(ANN, "things", {"_id": 1}, update)).updated == 1
    await ruled(service, read="doc.n == 2", update=OWNER)
    found = await service.find_and_modify(ANN, "things", {"_id": 1}, Modify(update))
    assert found.document == {"_id": 1, "_openid": "ann", "n": 2}


async def test_denials_are_explained_with_values(service: DocumentService) -> None:
    await ruled(
        service,
        {"_id": 1, "_openid": "ben", "age": 7},
        read="doc.age > 10 && auth.openid != null",
        write=f"{OWNER} || doc.shared == true",
        create="request.data.a.b == 1",
    )

    async def why(access: Access, operation: Operation, filter: Any = None, data: Any = None) -> str | None:
        return await service.explain_access(access, "things", operation, filter, data)

    assert await why(ANN, Operation.READ, {"age": 11}) is None
    assert await why(ANN, Operation.READ, {"age": {"$gt": 8}}) == (
        "read on things is denied by the rule's read: doc.age > 10 (age > 10; the query says age > 8)"
    )
    assert await why(ANN, Operation.READ, {"_id": 1}) == (
        "read on things is denied by the rule's read: doc.age > 10 (age > 10; the stored document has age: 7)"
    )
    assert await why(NOBODY, Operation.READ, {"age": 11}) == (
        "read on things is denied by the rule's read: auth.openid "
        "(openid is a field of something that is null or undefined; "
        "openid is a field of something that is null or undefined)"
    )
    assert await why(ANN, Operation.UPDATE, {"_id": 1}, {"$set": {"a": 1}}) == (
        "update on things is denied by the rule's write: "
        "doc._openid == auth.openid (_openid == 'ann'; the stored document has _openid: 'ben') and "
        "doc.shared == true (shared == true; the stored document has shared: undefined)"
    )
    assert await why(ANN, Operation.DELETE, {}) == (
        "delete on things is denied by the rule's write: "
        "doc._openid == auth.openid (_openid == 'ann'; the query says nothing about _openid) and "
        "doc.shared == true (shared == true; the query says nothing about shared)"
    )
    assert "b is a field of something that is null" in str(await why(ANN, Operation.CREATE, None, {"n": 1}))
    assert await why(ANN, Operation.CREATE, None, {"a": {"b": 1}}) is None
    assert await why(ADMIN, Operation.DELETE) is None
    assert await service.count(ADMIN, "things") == 1


async def test_the_document_of_a_write_is_checked_inside_its_turn(service: DocumentService) -> None:
    """Whoever owned it when the call began: what counts is the row that is about to change."""
    info = CollectionInfo(1, "things", Preset.PRIVATE, rule=json.dumps({"write": OWNER}))
    permission = Permission(ANN, info, 0, _no_documents)
    changing = await permission.change({"_id": 1}, None)
    work = changing.guarded(Deleted(where(*changing.conditions)))
    assert work([Row(1, b"", 1, 10, {"_id": 1, "_openid": "ann"})]).result == 1
    with pytest.raises(PermissionDenied):
        work([Row(1, b"", 2, 10, {"_id": 1, "_openid": "ben"})])


async def test_a_rule_that_cannot_be_read_denies_everything() -> None:
    info = CollectionInfo(1, "things", Preset.READONLY, rule='{"read": "new syntax"}')
    with pytest.raises(PermissionDenied, match="the rule of things is not valid, set it again: rule read"):
        Permission(ANN, info, 0, _no_documents)
    assert (await Permission(ADMIN, info, 0, _no_documents).read({})).conditions == ({},)


async def test_texts_too_long_for_a_pattern_do_not_match(service: DocumentService) -> None:
    long = {"_id": 1, "name": "a" * 5_000}
    await ruled(
        service, long, {"_id": 2, "name": "ab"}, read="/^a/.test(doc.name)", delete="!/^b/.test(doc.name)"
    )
    assert await ids(service, ANN, {"_id": 2}) == [2]
    await denied(service.find(ANN, "things", Query({"_id": 1})))
    await denied(service.delete(ANN, "things", {"_id": 1}))
    assert await service.delete(ANN, "things", {"_id": 2}) == 1


async def _no_documents(_collection: str, _id: str) -> None:
    raise AssertionError("get() is not used")


async def test_messages_for_callers_hold_no_values_of_documents(service: DocumentService) -> None:
    await service.create_collection("e", "rooms", Preset.ADMINONLY)
    await service.insert(ADMIN, "rooms", [{"_id": "r", "code": "topsecret"}])
    await ruled(service, {"_id": 1, "code": "hidden"}, read="doc.code == get('database.rooms.r').code")
    for filter in ({"_id": 1}, {"code": "guess"}, {}):
        message = await denied(service.find(ANN, "things", Query(filter)))
        assert "topsecret" not in message and "hidden" not in message
