"""What every engine does with its candidates: match, count, sort, skip, limit, within the limits."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from cloudlet.docdb.base import Explained, Found, Read, Row, Want
from cloudlet.docdb.geo.nearest import Nearest
from cloudlet.docdb.geo.rings import Rings
from cloudlet.docdb.limits import DocdbLimits, Overrun
from cloudlet.docdb.planner import ID_INDEX, SCAN, Ids, Plan, Ranges, Source, Union
from cloudlet.docdb.sort import sort_documents
from cloudlet.model.errors import ChangesPruned, QueryTooCostly, ResultTooLarge

KEYS_MAX = 1_000_000
_SLACK = 1_000
"""Rows that are collected beyond the wanted ones before a sort throws the rest away."""


def select(
    candidates: Iterable[Row],
    read: Read,
    ordered: bool,
    examined_max: int | None,
    limits: DocdbLimits,
    source: Source = SCAN,
) -> Found:
    """The answer to ``read`` from candidates that come in the wanted order or not.

    Raises Overrun after ``examined_max`` candidates, ResultTooLarge if rows would take more memory than
    allowed.
    """
    if isinstance(candidates, Nearest):
        return _counted(candidates, read, examined_max, limits, source)
    index = index_name(source)
    if read.want is Want.ROWS:
        return _rows(candidates, read, ordered, examined_max, limits, index)
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
    return Found(count=count, keys=keys, examined=examined, index=index)


def only(row: Row | None, read: Read, limits: DocdbLimits) -> Found:
    """``select`` for a query of one id, from the document of that id."""
    if row is None:
        return Found(index=ID_INDEX.name)
    if read.want is not Want.ROWS:
        return select((row,), read, True, None, limits, Ids((row.id_key,)))
    if read.limit == 0:
        return Found()
    found = () if read.skip or not read.where.match(row.document) else (row,)
    if found and row.size > limits.result_bytes_max:
        raise too_large(limits.result_bytes_max)
    return Found(found, examined=1, index=ID_INDEX.name)


def too_large(bytes_max: int) -> ResultTooLarge:
    """The error of a result that is larger than allowed."""
    return ResultTooLarge(f"the result is larger than {bytes_max} bytes; use limit()")


def index_name(source: Source) -> str | None:
    """The index candidates come from (several: joined); None for a scan."""
    if isinstance(source, Ids):
        return ID_INDEX.name
    if isinstance(source, Ranges | Rings):
        return source.index.name
    if isinstance(source, Union):
        return ", ".join(dict.fromkeys(filter(None, map(index_name, source.sources))))
    return None


def pieces(source: Source) -> int:
    """How many ids or key ranges are looked up (of rings: in the first one); 0 for a scan."""
    if isinstance(source, Rings):
        return 1 + len(source.disc(source.start or source.usual_start))
    if isinstance(source, Ids):
        return len(source.keys)
    if isinstance(source, Ranges):
        return len(source.ranges)
    return sum(map(pieces, source.sources)) if isinstance(source, Union) else 0


def explained(chosen: Plan, found: Found, worker: bool, ms: float) -> Explained:
    """How a read was answered by a plan."""
    source = chosen.source
    returned = len(found.rows) or len(found.keys) or found.count
    return Explained(
        index_name(source), pieces(source), chosen.ordered, found.examined, returned, worker, round(ms, 3)
    )


def check_reaches(after_seq: int, first_seq: int) -> None:
    """Raises ChangesPruned if the change log, whose oldest row is ``first_seq``, begins later."""
    if after_seq + 1 < first_seq:
        raise ChangesPruned(f"the change log begins at {first_seq}, changes after {after_seq} are gone")


def _rows(
    candidates: Iterable[Row],
    read: Read,
    ordered: bool,
    examined_max: int | None,
    limits: DocdbLimits,
    index: str | None,
) -> Found:
    if read.limit == 0:
        return Found()
    match, limit = read.where.match, read.limit
    most = sys.maxsize if examined_max is None else examined_max
    to_skip = read.skip if ordered else 0
    enough = sys.maxsize if limit is None else limit if ordered else 2 * (read.skip + limit) + _SLACK
    bytes_max = limits.result_bytes_max
    rows: list[Row] = []
    examined = size = 0
    for row in candidates:
        if examined >= most:
            raise Overrun(f"the query would look at more than {most} documents")
        examined += 1
        if not match(row.document):
            continue
        if to_skip:
            to_skip -= 1
            continue
        rows.append(row)
        size += row.size
        if size > bytes_max:
            raise too_large(bytes_max)
        if len(rows) >= enough:
            if ordered:
                break
            sort_documents(rows, read.sort, _document)
            del rows[read.wanted :]
            size = sum(row.size for row in rows)
    if not ordered:
        sort_documents(rows, read.sort, _document)
        rows = rows[read.skip : read.wanted]
    return Found(rows, examined=examined, index=index)


def _counted(
    rows: Nearest, read: Read, examined_max: int | None, limits: DocdbLimits, source: Source
) -> Found:
    """The answer from rows that are read ahead of their order: those that are read count."""
    examined = 0

    def one() -> None:
        nonlocal examined
        examined = _examine(examined, examined_max)

    rows.one = one
    found = select((row for row in rows), read, True, None, limits, source)
    found.examined = examined
    return found


def _document(row: Row) -> dict[str, object]:
    return row.document


def _examine(examined: int, examined_max: int | None) -> int:
    if examined_max is not None and examined >= examined_max:
        raise Overrun(f"the query would look at more than {examined_max} documents")
    return examined + 1
