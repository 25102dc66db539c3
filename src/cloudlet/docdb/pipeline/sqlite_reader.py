"""Reading collections of a SQLite file for a pipeline, on one connection inside one snapshot."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from functools import lru_cache
from typing import Final

import apsw
import msgspec

from cloudlet.docdb import sqlite_file
from cloudlet.docdb.base import CollectionInfo
from cloudlet.docdb.body import decode_value
from cloudlet.docdb.filter import Matcher, Where, where
from cloudlet.docdb.geo.nearest import Nearest
from cloudlet.docdb.limits import PATTERN_SUBJECT_MAX, Overrun
from cloudlet.docdb.pipeline.reader import Examined, Sought, chosen, is_indexed, window
from cloudlet.docdb.planner import Plan, Scan, plan
from cloudlet.docdb.values import Document, Value

FIELDS_MAX: Final = 6
"""Up to so many fields it is faster to take them out of the stored form than to read whole documents."""
_PLAIN_NAME: Final = re.compile(r"\w+\Z")
_decoder: Final = msgspec.json.Decoder()


class SqliteReader:
    """A ``CollectionReader``. ``close`` must be called inside the snapshot it was used in."""

    def __init__(
        self,
        connection: apsw.Connection,
        catalog: Mapping[str, CollectionInfo],
        examined: Examined,
        subject_max: int | None = PATTERN_SUBJECT_MAX,
    ) -> None:
        self._connection = connection
        self._catalog = catalog
        self._examined = examined
        self._subject_max = subject_max
        self._open: list[Generator[object, None, None] | Nearest] = []

    def find(self, sought: Sought) -> Iterator[Document]:
        info = self._catalog.get(sought.collection)
        if info is None:
            return iter(())
        condition, found = self._planned(sought, info)
        if isinstance(found.source, Scan):
            self._check_scan(sought, info)
            if not sought.sort and (fields := _extracted(sought, condition)) is not None:
                test = condition.match if sought.conditions else None
                documents = _field_documents(self._connection, info, fields, test, self._examined)
                self._open.append(documents)
                return window(documents, sought.skip, sought.limit)
        rows = sqlite_file.candidates(self._connection, info, found.source)
        self._open.append(rows)
        return chosen(rows, sought, condition, found.ordered, self._examined)

    def is_indexed(self, sought: Sought) -> bool:
        info = self._catalog.get(sought.collection)
        return info is None or is_indexed(self._planned(sought, info)[1].source)

    def info(self, collection: str) -> CollectionInfo | None:
        return self._catalog.get(collection)

    def count(self, collection: str) -> int:
        info = self._catalog.get(collection)
        return 0 if info is None else sqlite_file.count_all(self._connection, info)

    def close(self) -> None:
        """Let go of reads that were not followed to their end."""
        for rows in self._open:
            rows.close()
        self._open.clear()

    def _planned(self, sought: Sought, info: CollectionInfo) -> tuple[Where, Plan]:
        condition = where(*sought.conditions, subject_max=self._subject_max)
        wanted = None if sought.limit is None else sought.skip + sought.limit
        return condition, plan(
            condition.node,
            sought.sort,
            info.indexes,
            wanted,
            lambda source, most: sqlite_file.entries(self._connection, info, source, most),
            unions=True,
        )

    def _check_scan(self, sought: Sought, info: CollectionInfo) -> None:
        """A scan that cannot stop early, of a collection far beyond the limit, need not be begun."""
        most = self._examined.most
        if most is None or (sought.limit is not None and not sought.sort):
            return
        newest = self._connection.execute(sqlite_file.statement("newest_document", info.number)).get
        if int(newest) > 4 * most:
            raise Overrun("a scan of a large collection")


def _extracted(sought: Sought, condition: Where) -> tuple[str, ...] | None:
    """The fields to take out of each document, or None if whole documents have to be read."""
    if sought.fields is None:
        return None
    needed = set(sought.fields)
    for spec in condition.conditions:
        looked_at = _looked_at(spec)
        if looked_at is None:
            return None
        needed |= looked_at
    if len(needed) > FIELDS_MAX or not all(_PLAIN_NAME.match(name) for name in needed):
        return None
    return tuple(sorted(needed))


def _looked_at(spec: Value) -> set[str] | None:
    """Top-level fields of a filter; None if it may look at others."""
    found: set[str] = set()
    for name, value in spec.items():
        if name in ("$and", "$or", "$nor"):
            for item in value:
                inner = _looked_at(item)
                if inner is None:
                    return None
                found |= inner
        elif name == "$comment":
            continue
        elif name.startswith("$"):
            return None
        else:
            found.add(name.split(".", 1)[0])
    return found


@lru_cache(maxsize=256)
def _field_scan(collection: int, count: int) -> str:
    columns = ", ".join(["body -> ?"] * count) or "1"
    return f"SELECT {columns} FROM c_{collection:d} ORDER BY did"  # noqa: S608 - numbers only


def _field_documents(
    connection: apsw.Connection,
    info: CollectionInfo,
    fields: tuple[str, ...],
    test: Matcher | None,
    examined: Examined,
) -> Generator[Document, None, None]:
    """Documents with these fields only. This loop decides what grouping a large collection costs."""
    paths = tuple(f'$."{name}"' for name in fields)
    cursor = connection.execute(_field_scan(info.number, len(fields)), paths)
    decode, one = _decoder.decode, examined.one
    try:
        for stored in cursor:
            one()
            document: Document = {}
            if fields:
                for name, text in zip(fields, stored):  # noqa: B905 - as many columns as fields
                    if text is not None:
                        document[name] = decode_value(text) if '"$' in text else decode(text)
            if test is None or test(document):
                yield document
    finally:
        cursor.close()
