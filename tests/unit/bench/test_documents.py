"""The requests and the rows of bench-documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from bench import documents
from bench.harness import notes
from bench.harness.documents import ROLES, answer_is_right
from bench.harness.engine import ENVIRONMENT, BareCalls, OurCalls, created, grown, matcher_us, plain
from bench.harness.wrk import Load, Request, Requests
from bench.peers import HERE
from cloudlet.docdb.base import Preset
from cloudlet.docdb.service import DocumentService, IndexField
from cloudlet.docdb.stores import Stores
from cloudlet.model.access import Access
from tests.unit.dialects.rig import call, started

OWNERS = {notes.owner(number): f"token-{number}" for number in range(notes.OWNERS)}


@pytest.mark.parametrize("operation", notes.OPERATIONS)
def test_both_sides_ask_for_the_same_notes(operation: str) -> None:
    ours, theirs = notes.our_requests(operation, OWNERS), notes.parse_requests(operation, "key")
    assert len(ours) == len(theirs) == notes.REQUESTS
    for mine, other in zip(ours, theirs, strict=True):
        assert _subject(operation, mine) == _subject(operation, other)


def _subject(operation: str, request: Request) -> object:
    """The id, the owner or the title that a request of either side is about."""
    fields = parse_qs(urlsplit(request.path).query)
    body = json.loads(request.body) if request.body else {}
    if operation == "insert":
        return (body["data"][0] if "data" in body else body)["title"]
    if operation == "list20" and "where" in fields:
        return json.loads(fields["where"][0])["owner"]
    if operation == "list20":
        token = request.headers["authorization"].removeprefix("Bearer ")
        return next(owner for owner, known in OWNERS.items() if known == token)
    query = body.get("query") or json.loads(fields.get("query", ["{}"])[0])
    return query["_id"] if query else request.path.rpartition("/")[2]


@pytest.mark.anyio
@pytest.mark.parametrize("operation", notes.OPERATIONS)
async def test_our_requests_are_answered_as_the_benchmark_expects(
    operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes, "NOTES", 1_200)
    monkeypatch.setattr(notes, "REQUESTS", 5)
    async with started() as rig:
        for name in ("notes", "fresh"):
            await rig.documents.create_collection("default", name, Preset.PRIVATE)
            await rig.documents.set_rule("default", name, notes.RULE)
        index = [IndexField("_openid"), IndexField("at", descending=True)]
        await rig.documents.create_index("default", "notes", "newest", index)
        stored = [notes.stored(number) for number in range(notes.NOTES)]
        await rig.documents.insert(Access("default", admin=True), "notes", stored)
        for request in notes.our_requests(operation, {name: name for name in OWNERS}):
            owner = request.headers["authorization"].removeprefix("Bearer ")
            user = {"x-cloudlet-env": "default", "x-cloudlet-uid": "u", "x-cloudlet-openid": owner}
            reply = await call(rig.edge, request.method, request.path, request.body.encode(), user)
            assert reply.status == 200, reply.json
            assert answer_is_right(operation, True, reply.body)


@pytest.mark.parametrize(
    ("operation", "ours", "body"),
    [
        ("list20", True, {"list": [{}] * 19}),
        ("get", True, {"list": []}),
        ("insert", True, {"insertedIds": []}),
        ("inc", True, {"updated": 0}),
        ("list20", False, {"results": []}),
        ("get", False, {"error": "x"}),
    ],
)
def test_a_wrong_answer_is_noticed(operation: str, ours: bool, body: object) -> None:
    assert not answer_is_right(operation, ours, json.dumps(body).encode())


def test_a_request_is_one_line_of_four_parts(tmp_path: Path) -> None:
    request = Request("POST", "/x?a=1", {"a": "b", "c": "d"}, '{"n":1}')
    written = Requests.written("ours", "http://127.0.0.1:1", tmp_path / "r", [request, request])
    assert written.file.read_text() == 'POST\t/x?a=1\ta: b|c: d\t{"n":1}\n' * 2
    assert written.file.stat().st_mode & 0o077 == 0


def test_every_case_is_paired_with_the_peer_round_by_round() -> None:
    measured = documents.Measured()
    for engine, rate in (("sqlite", 400.0), ("postgres", 150.0), (documents.PEER, 100.0)):
        measured.loads["get", engine] = [Load(rate, 2, 8, 1), Load(rate / 10, 2, 8, 0), Load(rate, 2, 8, 0)]
        measured.cpu_us["get", engine] = [rate, rate, rate]
        for role in ROLES:
            measured.role_us["get", engine, role] = [100.0, 300.0, 200.0]
    found = {(row.case, row.metric, row.peer): (row.value, row.ratio) for row in measured.rows()}
    assert found["sqlite-get", "ops_per_s", None] == (400, None)
    assert found["sqlite-get", "ops_per_s", "parse-server"] == (100, 4)
    assert found["postgres-get", "ops_per_s", "parse-server"] == (100, 1.5)
    assert found["sqlite-get", "p99_ms", "parse-server"] == (8, 1)
    assert found["sqlite-get", "errors", None] == (1, None)
    assert found["postgres-get", "cpu_us", "parse-server"] == (100, 1.5)
    assert found["postgres-get-cpu", "api_us", None] == (200, None)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(notes, "NOTES", 1_000)
    yield tmp_path


@pytest.mark.anyio
async def test_the_bare_statements_do_what_the_engine_does(folder: Path) -> None:
    numbers = range(64)
    stores = Stores.in_directory(folder)
    service = DocumentService(stores)
    admin = Access(ENVIRONMENT, admin=True)
    await created(service)
    await grown(service, 0, notes.NOTES, plain)
    ours = OurCalls(await stores.open(ENVIRONMENT))
    for operation in notes.OPERATIONS:
        for one in ours.many(operation, numbers):
            await one
    assert await service.count(admin, "notes", {"count": 1}) == await service.count(admin, "fresh") == 64
    await stores.close()

    with closing(BareCalls(folder / f"{ENVIRONMENT}.db")) as bare:
        for operation in ("get", "list20", "inc"):
            assert bare.per_second(operation, numbers) > 0
    stores = Stores.in_directory(folder)
    service = DocumentService(stores)
    try:
        assert await service.count(admin, "notes", {"count": 2}) == 64
        assert await (await stores.open(ENVIRONMENT)).last_seq() == notes.NOTES + 3 * 64
    finally:
        await stores.close()


def test_the_matcher_is_timed_on_documents_that_match_and_others() -> None:
    assert matcher_us() > 0


def test_the_peer_is_pinned() -> None:
    pins = json.loads((HERE / "parse-server" / "package.json").read_text())["dependencies"]
    lock = json.loads((HERE / "parse-server" / "package-lock.json").read_text())["packages"]
    assert {name: lock[f"node_modules/{name}"]["version"] for name in pins} == pins
