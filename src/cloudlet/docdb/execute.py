"""What every engine does with its candidates: match, count, sort, skip, limit, within the limits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cloudlet.docdb.base import Found, Read, Row, Want
from cloudlet.docdb.limits import DocdbLimits, Overrun
from cloudlet.docdb.sort import sort_documents
from cloudlet.model.errors import QueryTooCostly, ResultTooLarge

KEYS_MAX = 1_000_000
_SLACK = 1_000
"""Rows that are collected beyond the wanted ones before a sort throws the rest away."""


def select(
    candidates: Iterable[Row], read: Read, ordered: bool, examined_max: int | None, limits: DocdbLimits
) -> Found:
    """The answer to ``read`` from candidates that come in the wanted order or not.

    Raises Overrun after ``examined_max`` candidates, ResultTooLarge if rows would take more memory than
    allowed.
    """
    if read.want is Want.ROWS:
        return _rows(candidates, read, ordered, examined_max, limits)
    match = read.where.match
    examined = count = 0
    keys: list[tuple[bytes, int, int]] = []
    for row in candidates:
        examined = _examine(examined, examined_max)
        if match(row.document):
            count += 1
            if read.want is Want.KEYS:
                if count > KEYS_MAX:
                    raise QueryTooCostly(f"the query matches more than {KEYS_MAX} documents")
                keys.append((row.id_key, row.rev, row.size))
                if count == read.limit:
                    break
    return Found(count=count, keys=keys, examined=examined)


@dataclass(slots=True)
class _Collected:
    """Rows that may be part of the answer, and their size."""

    bytes_max: int
    rows: list[Row] = field(default_factory=list)
    size: int = 0

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self.size += row.size
        if self.size > self.bytes_max:
            raise ResultTooLarge(f"the result is larger than {self.bytes_max} bytes; use limit()")

    def truncate(self, length: int) -> None:
        del self.rows[length:]
        self.size = sum(row.size for row in self.rows)


def _rows(
    candidates: Iterable[Row], read: Read, ordered: bool, examined_max: int | None, limits: DocdbLimits
) -> Found:
    match = read.where.match
    wanted = None if read.limit is None else read.skip + read.limit
    collected = _Collected(limits.result_bytes_max)
    examined = skipped = 0
    if wanted == 0 or read.limit == 0:
        return Found()
    for row in candidates:
        examined = _examine(examined, examined_max)
        if not match(row.document):
            continue
        if ordered and skipped < read.skip:
            skipped += 1
            continue
        collected.add(row)
        if wanted is None:
            continue
        if ordered and len(collected.rows) == read.limit:
            break
        if not ordered and len(collected.rows) >= 2 * wanted + _SLACK:
            sort_documents(collected.rows, read.sort, _document)
            collected.truncate(wanted)
    if ordered:
        return Found(rows=collected.rows, examined=examined)
    sort_documents(collected.rows, read.sort, _document)
    return Found(rows=collected.rows[read.skip : wanted], examined=examined)


def _document(row: Row) -> dict[str, object]:
    return row.document


def _examine(examined: int, examined_max: int | None) -> int:
    if examined_max is not None and examined >= examined_max:
        raise Overrun(f"the query would look at more than {examined_max} documents")
    return examined + 1
