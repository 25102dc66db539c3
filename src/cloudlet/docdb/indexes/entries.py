"""What one document enters into one index."""

from __future__ import annotations

from typing import Final

from cloudlet.docdb.bytekeys import Entries, index_entries, plain_key
from cloudlet.docdb.planner import IndexInfo
from cloudlet.docdb.values import MISSING, Document
from cloudlet.model.errors import InvalidDocument

NOTHING: Final = Entries(frozenset(), multikey=False, lossy=False)


def entries_of(document: Document, index: IndexInfo) -> Entries:
    """The keys of a document in an index: none if the index is partial or sparse and leaves it out.

    Raises InvalidDocument with the name of the index if the document has too many entries, or arrays in two
    of the fields.
    """
    if index.partial is not None and not index.partial.match(document):
        return NOTHING
    key = plain_key(document, index.parts, index.unique, index.sparse)
    if key is not None:
        return Entries(frozenset((key,)), multikey=False, lossy=False)
    try:
        return index_entries(document, index.parts, index.unique, index.sparse)
    except InvalidDocument as exc:
        raise InvalidDocument(f"{exc.message} (index {index.name})") from exc


def unchanged(before: Document, after: Document, index: IndexInfo) -> bool:
    """Whether an index sees no difference for sure: the fields' values are the same objects.

    Updates leave what they do not touch as it is, so that this spares most of them all keys.
    """
    if index.partial is not None:
        return False
    for part in index.parts:
        name = part.segments[0][0]
        if before.get(name, MISSING) is not after.get(name, MISSING):
            return False
    return True
