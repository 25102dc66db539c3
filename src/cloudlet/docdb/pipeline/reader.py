"""How a running pipeline reads collections, and what every engine does with its candidates there.

An engine implements ``CollectionReader`` over one snapshot: SQLite on its own connection (in the server or in
a worker), the memory store on its rows, any other engine on whatever it can read synchronously.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Protocol

from cloudlet.docdb.base import CollectionInfo, Read, Row
from cloudlet.docdb.filter import Where, where
from cloudlet.docdb.geo.nearest import Nearest
from cloudlet.docdb.limits import PATTERN_SUBJECT_MAX, Overrun
from cloudlet.docdb.pipeline.memory import Held
from cloudlet.docdb.planner import Plan, Scan, Source
from cloudlet.docdb.sort import Sort, sort_documents
from cloudlet.docdb.values import Document
from cloudlet.model.errors import QueryTooCostly

_NOTHING: Final[tuple[Document, ...]] = ({"$nor": [{}]},)
_SLACK: Final = 1_000
"""Documents that are collected beyond the wanted ones before a sort throws the rest away."""


@dataclass(frozen=True, slots=True)
class Sought:
    """What a stage wants from one collection."""

    collection: str
    conditions: tuple[Document, ...] = ()
    """Filters that all have to hold."""
    sort: Sort = ()
    skip: int = 0
    limit: int | None = None
    fields: frozenset[str] | None = None
    """Top-level fields that will be looked at; None: all. A reader may return more."""


class CollectionReader(Protocol):
    """Synchronous reads of one committed state. Nothing that is returned may be changed by the pipeline."""

    def find(self, sought: Sought) -> Iterator[Document]:
        """The documents that match, in order; nothing for a collection that does not exist.

        Raises Overrun where more documents are looked at than is allowed, and InvalidFilter.
        """
        ...

    def is_indexed(self, sought: Sought) -> bool:
        """Whether an index leads to the candidates, so that asking often is cheap."""
        ...

    def info(self, collection: str) -> CollectionInfo | None:
        """The catalog's entry, or None."""
        ...

    def count(self, collection: str) -> int:
        """How many documents the collection has."""
        ...


@dataclass(slots=True)
class Examined:
    """Documents that were looked at, by all reads of one pipeline together."""

    most: int | None = None
    count: int = 0

    def one(self) -> None:
        """Raises Overrun beyond ``most``."""
        self.count += 1
        if self.most is not None and self.count > self.most:
            raise Overrun(f"the pipeline would look at more than {self.most} documents")


def chosen(
    candidates: Iterable[Row], sought: Sought, condition: Where, ordered: bool, examined: Examined
) -> Iterator[Document]:
    """The documents sought among candidates that come in the wanted order or not."""
    matching = _matching(candidates, condition, examined)
    if sought.limit == 0:
        return iter(())
    if isinstance(candidates, Nearest):
        candidates.one = examined.one
    elif not sought.sort and condition.order:
        sought, ordered = replace(sought, sort=condition.order), False
    if not ordered:
        return iter(_sorted(matching, sought))
    return window(matching, sought.skip, sought.limit)


def is_indexed(source: Source) -> bool:
    """Whether a plan's source is narrower than the collection."""
    return not isinstance(source, Scan)


def _matching(candidates: Iterable[Row], condition: Where, examined: Examined) -> Iterator[Document]:
    match = condition.match
    one = _nothing if isinstance(candidates, Nearest) else examined.one
    for row in candidates:
        one()
        if match(row.document):
            yield row.document


def window(documents: Iterable[Document], skip: int, limit: int | None) -> Iterator[Document]:
    """So many documents, after so many that are left out."""
    if not skip and limit is None:
        return iter(documents)
    return islice(documents, skip, None if limit is None else skip + limit)


def _sorted(documents: Iterable[Document], sought: Sought) -> list[Document]:
    wanted = None if sought.limit is None else sought.skip + sought.limit
    held = Held("$sort")
    kept: list[Document] = []
    for document in documents:
        held.add(document)
        kept.append(document)
        if wanted is not None and len(kept) >= 2 * wanted + _SLACK:
            sort_documents(kept, sought.sort, _itself)
            del kept[wanted:]
            held.reset(kept)
    sort_documents(kept, sought.sort, _itself)
    return kept[sought.skip : wanted]


def _nothing() -> None:
    return None


def _itself(document: Document) -> Document:
    return document


class RestrictedReader:
    """A reader for a caller who sees only a part of some collections.

    ``conditions`` has an entry for every collection the pipeline names; others cannot be read at all.
    """

    def __init__(self, reader: CollectionReader, conditions: Mapping[str, Sequence[Document]]) -> None:
        self._reader = reader
        self._conditions = conditions

    def find(self, sought: Sought) -> Iterator[Document]:
        return self._reader.find(self._narrowed(sought))

    def is_indexed(self, sought: Sought) -> bool:
        return self._reader.is_indexed(self._narrowed(sought))

    def info(self, collection: str) -> CollectionInfo | None:
        return self._reader.info(collection) if collection in self._conditions else None

    def count(self, collection: str) -> int:
        return sum(1 for _ in self.find(Sought(collection, fields=frozenset())))

    def _narrowed(self, sought: Sought) -> Sought:
        conditions = self._conditions.get(sought.collection, _NOTHING)
        return replace(sought, conditions=(*conditions, *sought.conditions))


class PlannedReader:
    """A reader for an engine that can give the candidates of any source one after the other."""

    def __init__(
        self,
        catalog: Mapping[str, CollectionInfo],
        plan: Callable[[CollectionInfo, Read], Plan],
        candidates: Callable[[CollectionInfo, Source], Iterator[Row]],
        count: Callable[[CollectionInfo], int],
        examined: Examined,
        subject_max: int | None = PATTERN_SUBJECT_MAX,
    ) -> None:
        self._catalog = catalog
        self._plan = plan
        self._candidates = candidates
        self._count = count
        self._examined = examined
        self._subject_max = subject_max

    def find(self, sought: Sought) -> Iterator[Document]:
        info = self._catalog.get(sought.collection)
        if info is None:
            return iter(())
        read = self._read(sought)
        found = self._plan(info, read)
        rows = self._candidates(info, found.source)
        return chosen(rows, sought, read.where, found.ordered, self._examined)

    def is_indexed(self, sought: Sought) -> bool:
        info = self._catalog.get(sought.collection)
        return info is None or is_indexed(self._plan(info, self._read(sought)).source)

    def info(self, collection: str) -> CollectionInfo | None:
        return self._catalog.get(collection)

    def count(self, collection: str) -> int:
        info = self._catalog.get(collection)
        return 0 if info is None else self._count(info)

    def _read(self, sought: Sought) -> Read:
        condition = where(*sought.conditions, subject_max=self._subject_max)
        return Read(sought.collection, condition, sought.sort, sought.skip, sought.limit)


class RowsReader:
    """A reader of rows that are all at hand, without indexes (what a worker gets from the memory store)."""

    def __init__(
        self,
        collections: Mapping[str, Sequence[Row]],
        examined: Examined | None = None,
        subject_max: int | None = PATTERN_SUBJECT_MAX,
    ) -> None:
        self._collections = collections
        self._examined = examined or Examined()
        self._subject_max = subject_max

    def find(self, sought: Sought) -> Iterator[Document]:
        condition = where(*sought.conditions, subject_max=self._subject_max)
        rows = self._collections.get(sought.collection, ())
        return chosen(rows, sought, condition, not sought.sort, self._examined)

    def is_indexed(self, sought: Sought) -> bool:
        return False

    def info(self, collection: str) -> CollectionInfo | None:
        if collection in self._collections:
            raise QueryTooCostly("this stage cannot run in a process that only has the documents")
        return None

    def count(self, collection: str) -> int:
        return len(self._collections.get(collection, ()))
