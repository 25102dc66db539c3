"""Rows of a CSV file: a header of field names (dotted ones are paths), then one document a row.

A cell has no type, so it is guessed: numbers, ``true`` and ``false``, JSON objects and arrays; nothing is a
missing field, and the rest is text. What would be changed by reading it as a number (``007``, integers that
programs in JavaScript cannot hold) stays text.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from cloudlet.docdb.ejson import decode, encode_relaxed
from cloudlet.docdb.paths import split_path
from cloudlet.docdb.transfer.names import check_name, nested, put_at
from cloudlet.docdb.values import Document, ObjectId, Value, date_to_ms
from cloudlet.model.errors import InvalidDocument, InvalidParameter

COLUMNS_MAX: Final = 1_000
CELL_CHARACTERS_MAX: Final = 16 * 1024 * 1024
_INTEGER: Final = re.compile(r"-?(0|[1-9]\d{0,15})")
_NUMBER: Final = re.compile(r"-?(0|[1-9]\d{0,15})(\.\d{1,20})?([eE][+-]?\d{1,3})?")
_SAFE: Final = 2**53
_MISSING: Final = object()


def parse_header(text: str) -> tuple[str, ...]:
    """The columns. Raises InvalidDocument for names that are not allowed or contradict each other."""
    columns = tuple(name.strip() for name in parse_cells(text))
    if len(columns) > COLUMNS_MAX:
        raise InvalidDocument(f"the header has {len(columns)} columns, the limit is {COLUMNS_MAX}")
    checked: Document = {}
    for name in columns:
        check_name(name)
        put_at(checked, name, None)
    return columns


def parse_row(columns: Sequence[str], text: str) -> Document:
    """The document of a row. Raises InvalidDocument."""
    cells = parse_cells(text)
    if len(cells) > len(columns):
        raise InvalidDocument(f"the row has {len(cells)} cells, the header has {len(columns)}")
    document: Document = {}
    for name, cell in zip(columns, cells, strict=False):
        if cell != "":
            put_at(document, name, guess(cell))
    return document


def parse_cells(text: str) -> list[str]:
    """The cells of one record, whose quoted ones may hold line breaks. Raises InvalidDocument."""
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as exc:
        raise InvalidDocument(f"this is not a row of CSV: {exc}") from exc
    if len(rows) != 1:
        raise InvalidDocument("this is not one row of CSV: a quote inside a quoted cell must be doubled")
    return rows[0]


def guess(cell: str) -> Value:
    """The value of a cell that is not empty."""
    if _INTEGER.fullmatch(cell) and cell != "-0":
        integer = int(cell)
        return integer if abs(integer) <= _SAFE else cell
    if _NUMBER.fullmatch(cell) and math.isfinite(number := float(cell)):
        return number
    if cell in ("true", "false"):
        return cell == "true"
    if cell[0] in "{[" and cell[-1] in "}]":
        try:
            value = decode(json.loads(cell), InvalidDocument)
        except (ValueError, RecursionError, InvalidDocument):
            return cell
        return nested(value) if type(value) is dict else value
    return cell


def check_columns(fields: Sequence[str]) -> tuple[str, ...]:
    """The columns of an export. Raises InvalidParameter."""
    if not fields or len(fields) > COLUMNS_MAX:
        raise InvalidParameter(f"name 1 to {COLUMNS_MAX} fields")
    if len(set(fields)) != len(fields):
        raise InvalidParameter("a field is named twice")
    for field in fields:
        split_path(field, InvalidParameter)
    return tuple(fields)


def write_row(cells: Sequence[str]) -> str:
    """One line of CSV, ended as RFC 4180 says."""
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()


def cells_of(columns: Sequence[str], document: Document) -> list[str]:
    """The cells of a document: dates as ISO text, ids as their text, objects and arrays as relaxed JSON."""
    return [_cell(_at(document, column)) for column in columns]


def _at(document: Document, path: str) -> Any:
    value: Any = document
    for part in path.split("."):
        if type(value) is not dict or part not in value:
            return _MISSING
        value = value[part]
    return value


def _cell(value: Any) -> str:
    if value is _MISSING or value is None:
        return ""
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is datetime:
        return f"{value:%Y-%m-%dT%H:%M:%S}.{date_to_ms(value) % 1000:03d}Z"
    if type(value) is ObjectId:
        return str(value)
    if isinstance(value, int | float):
        return repr(int(value)) if isinstance(value, int) else repr(value)
    return encode_relaxed(value)


# The limit is the process's; ours is on the whole record, before it comes here.
csv.field_size_limit(CELL_CHARACTERS_MAX * 4)
