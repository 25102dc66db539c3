"""Function logs on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudlet.node.logs import LogQuery, LogStore, RotatingFile, previous
from cloudlet.node.wire import LogRecord

pytestmark = pytest.mark.anyio


def record(number: int, request_id: str = "") -> LogRecord:
    return LogRecord(float(number), "i1", "info", f"line {number}", request_id)


async def texts(store: LogStore, **wanted: object) -> list[str]:
    query = LogQuery("env", "fn", **wanted)  # type: ignore[arg-type]  # each test names a few fields
    return [each.text for each in await store.query(query)]


async def test_the_latest_records_are_found_oldest_first(tmp_path: Path) -> None:
    store = LogStore(tmp_path)
    store.write("env", "fn", [record(number) for number in range(1, 6)])
    store.write("env", "other", [record(9)])
    assert await texts(store, limit=2) == ["line 4", "line 5"]
    assert await texts(store, limit=0) == []
    assert await texts(store, since=3.0) == ["line 4", "line 5"]
    assert (await store.query(LogQuery("env", "missing"))) == []
    store.close()


async def test_records_are_found_by_request(tmp_path: Path) -> None:
    store = LogStore(tmp_path)
    store.write("env", "fn", [record(1, "r-1"), record(2, "r-2"), record(3, "r-1"), record(4, "r-11")])
    assert await texts(store, request_id="r-1") == ["line 1", "line 3"]
    store.close()


async def test_a_cut_line_is_passed_over(tmp_path: Path) -> None:
    store = LogStore(tmp_path)
    store.write("env", "fn", [record(1)])
    with store.path("env", "fn").open("ab") as file:
        file.write(b'{"t":2.0,"inst')
    assert await texts(store) == ["line 1"]
    assert await texts(store, since=0.5) == ["line 1"]
    store.close()


async def test_reading_goes_on_over_chunks_and_into_the_file_before(tmp_path: Path) -> None:
    store = LogStore(tmp_path)
    path = store.path("env", "fn")
    before = [LogRecord(float(number), "i", "info", "x" * 9000) for number in range(1, 60)]
    store.write("env", "fn", before)
    path.rename(previous(path))
    store.close()
    store.write("env", "fn", [record(60)])
    found = await store.query(LogQuery("env", "fn", limit=1000))
    assert [each.t for each in found] == [float(number) for number in range(1, 61)]
    store.close()


def test_a_file_is_moved_aside_before_it_grows_too_large(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log"
    file = RotatingFile(path, bytes_max=9)
    for text in (b"aaaaa\n", b"bbbbb\n", b"ccc\n"):
        file.append(text)
    file.close()
    assert previous(path).read_bytes() == b"bbbbb\n"
    assert path.read_bytes() == b"ccc\n"


def test_a_file_that_was_there_counts(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"123456789\n")
    file = RotatingFile(path, bytes_max=12)
    file.append(b"a\n")
    file.append(b"b\n")
    file.close()
    assert (previous(path).read_bytes(), path.read_bytes()) == (b"123456789\na\n", b"b\n")


def test_a_disk_that_cannot_be_written_to_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = RotatingFile(tmp_path / "file" / "log")
    file.append(b"lost\n")
    file.append(b"lost\n")
    file.close()
