"""``cloudlet db`` on a running installation: what people type, what they see, and kill -9 in between."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloudlet.cli.exit_codes import ExitCode
from cloudlet.settings import Paths
from tests.acceptance.installation import Installation
from tests.docdb_postgres import postgres_server, postgres_url  # noqa: F401 - fixtures
from tests.integration.up_support import command, one_line, until

pytestmark = pytest.mark.xdist_group("db")


@contextmanager
def installed(data: Path) -> Iterator[Installation]:
    installation = Installation(data)
    try:
        installation.start()
        yield installation
    finally:
        left = installation.stop()
    assert left == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """With one empty collection, ``there``."""
    with installed(tmp_path_factory.mktemp("db") / "data") as installation:
        installation.command("db", "create", "there")
        yield installation


def db(shared: Installation, *words: str) -> subprocess.CompletedProcess[str]:
    return command(shared.data, "db", *words)


def written(path: Path, *documents: Any) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in documents))
    return path


def test_documents_go_in_and_come_out_as_they_were(shared: Installation, tmp_path: Path) -> None:
    shared.command("db", "create", "orders", "--preset", "READONLY")
    source = written(
        tmp_path / "orders.jsonl",
        {
            "_id": "a",
            "no": {"$numberInt": "1"},
            "at": {"$date": "2018-08-31T17:30:00.882Z"},
            "tags": ["x", None],
        },
        {"_id": "b", "no": {"$numberDouble": "2.0"}, "user.name": "B"},
    )
    job = shared.json("db", "import", "orders", str(source))
    assert (job["state"], job["inserted"], job["failed"]) == ("done", 2, 0)
    out = tmp_path / "out.jsonl.gz"
    told = shared.json("db", "export", "orders", "-o", str(out))
    assert told["bytes"] == out.stat().st_size
    lines = [json.loads(line) for line in gzip.decompress(out.read_bytes()).splitlines()]
    assert lines == [
        {
            "_id": "a",
            "no": {"$numberInt": "1"},
            "at": {"$date": {"$numberLong": "1535736600882"}},
            "tags": ["x", None],
        },
        {"_id": "b", "no": {"$numberDouble": "2.0"}, "user": {"name": "B"}},
    ]
    shared.command("db", "create", "again")
    assert shared.json("db", "import", "again", str(out))["inserted"] == 2
    assert shared.command("db", "export", "again") == shared.command("db", "export", "orders")
    table = tmp_path / "out.csv"
    shared.command(
        "db", "export", "orders", "-o", str(table), "--fields", "_id,user.name,at", "--filter", "{}"
    )
    assert list(csv.reader(table.read_text().splitlines())) == [
        ["_id", "user.name", "at"],
        ["a", "", "2018-08-31T17:30:00.882Z"],
        ["b", "B", ""],
    ]
    one_line(db(shared, "export", "orders", "-o", str(table)), ExitCode.REFUSED, "--force")
    one_line(db(shared, "export", "orders", "--filter", '{"a": {"$wrong": 1}}'), ExitCode.REFUSED, "$wrong")


def test_a_line_that_fails_is_named_and_the_command_says_so(shared: Installation, tmp_path: Path) -> None:
    shared.command("db", "create", "partly")
    source = tmp_path / "partly.json"
    source.write_text('{"_id": 1}\n{"_id": 1, "a": 2}\nnonsense\n{"_id": 2}\n')
    done = db(shared, "import", "partly", str(source))
    assert done.returncode == ExitCode.FAILED
    assert "2 inserted, 2 failed" in done.stdout
    assert "line 2: a document with this _id exists already" in done.stdout
    assert "line 3: this is not valid JSON" in done.stdout
    again = db(shared, "import", "partly", str(source), "--stop-on-error")
    assert again.returncode == ExitCode.FAILED and "stopped at line 1" in again.stdout
    assert (
        shared.json("db", "import", "partly", str(source), "--mode", "upsert", "--detach")["state"]
        == "queued"
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b'[{"_id": 1}]', "JSON array"),
        ("a.json", b"", "empty"),
        ("a.csv", b"a,a\n1,2\n", "given twice"),
        ("a.csv", "a\n1\n".encode("utf-16"), "UTF-8"),
        ("a.csv", b"PK\x03\x04", "compressed"),
    ],
)
def test_a_file_that_is_no_import_is_refused_at_once(
    shared: Installation, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    one_line(db(shared, "import", "there", str(tmp_path / name)), ExitCode.REFUSED, words)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["import", "no", "FILE.json"], ExitCode.NOT_FOUND, "not exist"),
        (["import", "there", "missing.json"], ExitCode.NOT_FOUND, "missing.json"),
        (["import", "there", "x.dat"], ExitCode.USAGE, "--format"),
        (["imports", "abc"], ExitCode.NOT_FOUND, "no import"),
        (["imports", "--cancel"], ExitCode.USAGE, "JOB"),
        (["export", "no"], ExitCode.NOT_FOUND, "not exist"),
        (["export", "../x"], ExitCode.REFUSED, "not allowed"),
        (["stats", "no"], ExitCode.NOT_FOUND, "not exist"),
        (["acl", "there", "NOBODY"], ExitCode.USAGE, "neither a preset"),
        (["acl", "there", '{"read": }'], ExitCode.REFUSED, "not valid JSON"),
        (["acl", "there", "PRIVATE", "--no-rule"], ExitCode.USAGE, "give one"),
        (["acl", "no", "PRIVATE"], ExitCode.NOT_FOUND, "not exist"),
        (["index", "create", "there", "a:up"], ExitCode.USAGE, "direction"),
        (["index", "drop", "there", "none", "--yes"], ExitCode.NOT_FOUND, "no index"),
        (["restore"], ExitCode.USAGE, "OLD=NEW"),
        (["restore", "there"], ExitCode.USAGE, "there=NEW"),
        (["restore", "a=b", "--all"], ExitCode.USAGE, "OLD=NEW"),
        (["restore", "a=b", "--at", "yesterday"], ExitCode.USAGE, "not understood"),
        (["restore", "a=b", "--at", "15m", "--backup", "x"], ExitCode.USAGE, "not both"),
        (["restore", "a=b", "--replace"], ExitCode.USAGE, "--yes"),
        (["backup", "--ask-passphrase"], ExitCode.USAGE, "no terminal"),
        (["backup", "--passphrase-file", "missing"], ExitCode.NOT_FOUND, "missing"),
        (["backup", "--env", "nowhere"], ExitCode.NOT_FOUND, "nowhere"),
        (["migrate"], ExitCode.USAGE, "--to"),
        (["migrate", "--to", "mysql://x"], ExitCode.USAGE, "postgresql://"),
        (["migrate", "--abandon"], ExitCode.REFUSED, "unfinished"),
        (["migrate", "--back"], ExitCode.REFUSED, "already"),
    ],
)
def test_nonsense_is_refused_with_what_to_do(
    shared: Installation, tmp_path: Path, words: list[str], code: ExitCode, said: str
) -> None:
    file = written(tmp_path / "FILE.json", {"a": 1})
    one_line(db(shared, *(str(file) if word == "FILE.json" else word for word in words)), code, said)


def test_indexes_sizes_and_explanations(shared: Installation, tmp_path: Path) -> None:
    shared.command("db", "create", "things")
    source = written(tmp_path / "things.json", *({"_id": n, "no": n, "kind": n % 7} for n in range(500)))
    shared.json("db", "import", "things", str(source))
    before = shared.json("db", "explain", "things", "--filter", '{"no": 7}')
    assert (before["index"], before["returned"]) == (None, 1)
    made = shared.json("db", "index", "create", "things", "no", "kind:-1", "--unique")
    assert made["name"] == "no_1_kind_-1" and made["unique"]
    after = shared.json("db", "explain", "things", "--filter", '{"no": 7}')
    assert (after["index"], after["examined"], after["returned"]) == ("no_1_kind_-1", 1, 1)
    sizes = shared.json("db", "stats", "things")["collections"][0]
    assert sizes["documents"] == 500 and {"name": "no_1_kind_-1", "entries": 500} in sizes["indexes"]
    assert "no:1, kind:-1" in shared.command("db", "index", "list", "things")
    shared.command("db", "index", "drop", "things", "no_1_kind_-1", "--yes")
    assert [each["name"] for each in shared.json("db", "index", "list", "things")["indexes"]] == [
        "_id_",
        "_openid_id_",
    ]
    assert "things" in shared.command("db", "stats")
    shared.command("db", "drop", "things", "--yes")
    assert "things" not in shared.command("db", "collections")


def test_permissions_are_shown_set_and_explained(shared: Installation, tmp_path: Path) -> None:
    shared.command("db", "create", "notes")
    assert shared.command("db", "acl", "notes").strip() == "notes: PRIVATE"
    assert shared.command("db", "acl", "notes", "readonly").strip() == "notes: READONLY"
    rule = tmp_path / "rule.json"
    rule.write_text('{"read": "doc._openid == auth.openid", "write": false}')
    assert "doc._openid" in shared.command("db", "acl", "notes", f"@{rule}")
    refused = shared.json("db", "acl", "notes", "--explain", "read", "--openid", "user-a")
    assert refused["allowed"] is False and refused["why"]
    allowed = ["--openid", "user-a", "--filter", '{"_openid": "user-a"}']
    assert shared.command("db", "acl", "notes", "--explain", "read", *allowed).strip() == "allowed"
    assert shared.command("db", "acl", "notes", "ADMINONLY").strip() == "notes: ADMINONLY"


def test_a_backup_is_made_rehearsed_and_restored(shared: Installation, tmp_path: Path) -> None:
    shared.command("env", "create", "shop")
    shared.command("db", "create", "kept", "--env", "shop")
    source = written(tmp_path / "kept.json", *({"_id": n} for n in range(300)))
    shared.command("db", "import", "kept", str(source), "--env", "shop")
    key = tmp_path / "key"
    key.write_text("a passphrase of some length\n")
    made = shared.json("db", "backup", "--env", "shop", "--passphrase-file", str(key))
    assert made["encrypted"] and made["collections"] == {"kept": 300}
    checked = shared.json("db", "rehearse", "--env", "shop", "--passphrase-file", str(key))
    assert checked["documents"] == {"kept": 300}
    one_line(db(shared, "rehearse", "--env", "shop"), ExitCode.REFUSED, "encrypted")
    key.write_text("another passphrase")
    one_line(
        db(shared, "rehearse", "--env", "shop", "--passphrase-file", str(key)), ExitCode.REFUSED, "wrong"
    )
    plain = shared.json("db", "backup", "--env", "shop")
    restored = shared.json("db", "restore", "kept=kept_old", "--env", "shop")
    assert restored["documents"] == {"kept_old": 300} and restored["backup"] == plain["id"]
    one_line(db(shared, "restore", "kept=kept", "--env", "shop"), ExitCode.REFUSED, "--replace")
    shared.command("env", "create", "shop-copy")
    shared.command("db", "restore", "--all", "--into", "shop-copy", "--env", "shop")
    assert "kept" in shared.command("db", "collections", "--env", "shop-copy")
    listed = shared.json("db", "backups", "--env", "shop")
    assert [each["id"] for each in listed["backups"]] == [plain["id"], made["id"]]
    shared.command("env", "delete", "shop", "--yes")
    shared.command("env", "create", "shop")
    assert shared.json("db", "backups", "--env", "shop")["backups"] == []


def test_an_import_survives_kill_9_without_doubling_a_document(tmp_path: Path) -> None:
    count = 30_000
    with installed(tmp_path / "data") as installation:
        installation.command("db", "create", "many")
        source = written(tmp_path / "many.json", *({"n": n, "text": "x" * 200} for n in range(count)))
        job = installation.json("db", "import", "many", str(source), "--detach")["id"]
        record = Paths(installation.data).imports / f"{job}.json"

        def shown() -> dict[str, Any]:
            return dict(json.loads(record.read_bytes()))

        offset = kills = 0
        for _ in range(3):
            api = next(each for each in installation.status()["processes"] if each["name"] == "api")
            moved = until(
                lambda: (now := shown())["offset"] > offset and now,  # noqa: B023
                "the import goes on",
            )
            if moved["state"] == "done":
                break
            os.kill(api["pid"], signal.SIGKILL)
            kills += 1
            offset = shown()["offset"]
            until(lambda: command(installation.data, "db", "imports").returncode == 0, "api is there again")
        assert kills
        done = until(lambda: (now := shown())["state"] == "done" and now, "the import is done")
        assert (done["inserted"], done["failed"]) == (count, 0)
        lines = installation.command("db", "export", "many", "--relaxed", "--fields", "n").splitlines()
        assert [json.loads(line)["n"] for line in lines] == list(range(count))


def test_an_environment_moves_to_postgresql_and_back_with_everything_else_as_before(
    shared: Installation,
    tmp_path: Path,
    postgres_url: str,  # noqa: F811 - the fixture
) -> None:
    env = ("--env", "moving")
    shared.command("env", "create", "moving")
    shared.command("db", "create", "kept", *env)
    shared.command("db", "index", "create", "kept", "no", "--unique", *env)
    source = written(tmp_path / "kept.json", *({"_id": n, "no": n} for n in range(700)))
    shared.command("db", "import", "kept", str(source), *env)
    before = shared.command("db", "export", "kept", *env)
    address = tmp_path / "address"
    address.write_text(postgres_url + "\n")
    try:
        moved = shared.json("db", "migrate", "--to", f"@{address}", *env)
        assert (moved["engine"], moved["documents"]) == ("postgresql", {"kept": 700})
        assert shared.command("db", "export", "kept", *env) == before
        assert shared.json("db", "backup", *env)["collections"] == {"kept": 700}
        again = shared.json("db", "import", "kept", str(source), "--mode", "upsert", *env)
        assert (again["unchanged"], again["inserted"]) == (700, 0)
        assert shared.json("db", "restore", "kept=copy", *env)["documents"] == {"copy": 700}
        assert shared.command("db", "export", "copy", *env) == before
        assert shared.json("db", "rehearse", *env)["documents"] == {"kept": 700}
    finally:
        back = shared.json("db", "migrate", "--back", *env)
    assert back["engine"] == "sqlite" and back["documents"] == {"kept": 700, "copy": 700}
    assert shared.command("db", "export", "copy", *env) == before
    shared.command("env", "delete", "moving", "--yes")
