"""What a line or a row of an import means, and where batches begin and end."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudlet.docdb.ejson import encode_canonical
from cloudlet.docdb.transfer import reading
from cloudlet.docdb.transfer.csvrows import cells_of, guess, parse_header, parse_row, write_row
from cloudlet.docdb.transfer.jsonlines import parse_line
from cloudlet.docdb.transfer.reading import Format, Record, RecordReader
from cloudlet.docdb.values import ObjectId, identical
from cloudlet.model.errors import InvalidDocument
from tests.property.docdb_strategies import documents


def read(path: Path, format: Format, offset: int = 0, line: int = 1) -> list[Record]:
    reader = RecordReader(path, format, offset, line, 0)
    try:
        found: list[Record] = []
        while (batch := reader.next()) is not None:
            found += batch.records
        return found
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}', {"a": 1}),
        ('{"a": 1.0}', {"a": 1.0}),
        ('{"_id": {"$oid": "5f9f1b9b9b9b9b9b9b9b9b9b"}}', {"_id": ObjectId.from_hex("5f9f1b9b" + "9b" * 8)}),
        (
            '{"at": {"$date": "2018-08-31T17:30:00.882Z"}}',
            {"at": datetime(2018, 8, 31, 17, 30, 0, 882000, UTC)},
        ),
        (
            '{"at": {"$date": {"$numberLong": "1535736600882"}}}',
            {"at": datetime(2018, 8, 31, 17, 30, 0, 882000, UTC)},
        ),
        ('{"at": {"$date": 1535736600882}}', {"at": datetime(2018, 8, 31, 17, 30, 0, 882000, UTC)}),
        ('{"n": {"$numberInt": "7"}}', {"n": 7}),
        ('{"a.b": 1, "a.c": 2}', {"a": {"b": 1, "c": 2}}),
        ('{"a": {"b": 1}, "a.c": 2}', {"a": {"b": 1, "c": 2}}),
        ('{"list": [{"x.y": 1}]}', {"list": [{"x": {"y": 1}}]}),
        ('  {"中文": "值"}  ', {"中文": "值"}),
    ],
)
def test_a_line_is_a_document(text: str, expected: dict[str, Any]) -> None:
    assert identical(parse_line(text), expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ("{", "one line"),
        ("[1]", "must be an object"),
        ('"text"', "must be an object"),
        ('{"$date": 5}', "must be an object with fields"),
        ('{"a": 1} {"b": 2}', "not valid JSON"),
        ('{"a": 1, "a": 2}', "given twice"),
        ('{"x": {"a": 1, "a": 1}}', "given twice"),
        ('{"a": {"b": 1}, "a.b": 2}', "given twice"),
        ('{"a": 1, "a.b": 2}', "both a value and an object"),
        ('{"a.b": 1, "a": {"b": 2}}', "given twice"),
        ('{".a": 1}', "begins or ends with a dot"),
        ('{"a.": 1}', "begins or ends with a dot"),
        ('{"a..b": 1}', "two dots"),
        ('{"": 1}', "no name"),
        ('{"a": NaN}', "$numberDouble"),
        ('{"a": 1e999}', "too large"),
        ('{"a": {"$oid": "xyz"}}', "$oid"),
        ("[" * 100_000, "nested"),
        ('{"a":' * 200 + "1" + "}" * 200, "nested"),
        ('{"' + "a." * 200 + 'b": 1}', "parts"),
    ],
)
def test_a_line_that_is_no_document_says_why(text: str, words: str) -> None:
    with pytest.raises(InvalidDocument, match=words.replace("$", r"\$")):
        parse_line(text)


@given(documents)
def test_what_is_exported_is_imported_as_it_was(document: dict[str, Any]) -> None:
    if all("." not in name and name and not name.startswith("$") for name in _names(document)):
        assert identical(parse_line(encode_canonical(document)), document)


def _names(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(name for item in value.values() for name in _names(item))]
    if isinstance(value, list):
        return [name for item in value for name in _names(item)]
    return []


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1", 1),
        ("-12", -12),
        ("0", 0),
        ("1.50", 1.5),
        ("-0.0", -0.0),
        ("1e3", 1000.0),
        ("007", "007"),
        ("+1", "+1"),
        ("1,5", "1,5"),
        ("9007199254740992", 2**53),
        ("9007199254740993", "9007199254740993"),
        ("12345678901234567890", "12345678901234567890"),
        ("1e999", "1e999"),
        ("true", True),
        ("false", False),
        ("True", "True"),
        ("null", "null"),
        ("NaN", "NaN"),
        ('["a", 1]', ["a", 1]),
        ('{"a": 1}', {"a": 1}),
        ("[draft]", "[draft]"),
        ("2018-08-31", "2018-08-31"),
        (" 1", " 1"),
    ],
)
def test_a_cell_is_guessed(cell: str, value: Any) -> None:
    assert identical(guess(cell), value)


def test_a_row_is_a_document_with_paths_and_without_its_empty_cells() -> None:
    columns = parse_header("_id,user.name,user.age,tags\r\n")
    assert parse_row(columns, 'a,"Q, ""R""",5,"[1, 2]"\r\n') == {
        "_id": "a",
        "user": {"name": 'Q, "R"', "age": 5},
        "tags": [1, 2],
    }
    assert parse_row(columns, "b,,,") == {"_id": "b"}
    assert parse_row(columns, "c") == {"_id": "c"}
    with pytest.raises(InvalidDocument, match="5 cells"):
        parse_row(columns, "1,2,3,4,5")
    with pytest.raises(InvalidDocument, match="CSV"):
        parse_row(columns, '"a"b,1')


@pytest.mark.parametrize("header", ["a,a", "a,a.b", "a.b,a", "a,,b", ".a", "a..b"])
def test_a_header_that_contradicts_itself_is_refused(header: str) -> None:
    with pytest.raises(InvalidDocument):
        parse_header(header)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_text_survives_csv(cells: list[str]) -> None:
    columns = [f"c{n}" for n in range(len(cells))]
    document = dict(zip(columns, cells, strict=True))
    row = write_row(cells_of(columns, document))
    read = parse_row(columns, row)
    assert {name: value for name, value in read.items() if isinstance(value, str)}.items() <= document.items()


def test_batches_are_the_same_wherever_reading_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BATCH_RECORDS", 3)
    path = tmp_path / "f.csv"
    path.write_bytes(b'\xef\xbb\xbfa,b\r\n1,"x\r\ny ""z"""\r\n\r\n2,b\n3,c\n4,"\n\n"\n5,\xff\n6,last')
    reader = RecordReader(path, "csv", 0, 1, 0)
    batches = []
    while (batch := reader.next()) is not None:
        batches.append(batch)
    reader.close()
    whole = [record for batch in batches for record in batch.records]
    assert [(each.line, (each.document or {}).get("a")) for each in whole] == [
        (2, 1),
        (5, 2),
        (6, 3),
        (7, 4),
        (10, None),
        (11, 6),
    ]
    assert whole[0].document == {"a": 1, "b": 'x\r\ny "z"'}
    assert "UTF-8" in whole[4].problem
    for number, batch in enumerate(batches):
        rest = [record for later in batches[number + 1 :] for record in later.records]
        assert read(path, "csv", batch.offset, batch.line) == rest


def test_a_quote_that_is_never_closed_ends_the_import(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text('a\n1\n"2\n3\n')
    with pytest.raises(InvalidDocument, match="opens in line 3"):
        read(path, "csv")


def test_a_record_that_is_too_long_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "RECORD_BYTES_MAX", 50)
    path = tmp_path / "f.json"
    path.write_text('{"a": 1}\n{"a": "' + "x" * 1000 + '"}\n{"a": 2}\n{"$set": {"a": 1}}')
    found = read(path, "json")
    assert [each.document for each in found] == [{"a": 1}, None, {"a": 2}, None]
    assert [each.line for each in found] == [1, 2, 3, 4]
    assert "more than 50 bytes" in found[1].problem and "dollar" in found[3].problem
