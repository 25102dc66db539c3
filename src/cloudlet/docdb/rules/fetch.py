"""How the documents that ``get()`` names are read."""

from __future__ import annotations

from typing import Final

from cloudlet.docdb.base import Read
from cloudlet.docdb.filter import where
from cloudlet.docdb.rules.judge import Fetch
from cloudlet.docdb.transactions.base import Documents
from cloudlet.docdb.values import Document, Value

_DIGITS_MAX: Final = 15


def fetcher(documents: Documents) -> Fetch:
    """Reads one document, whatever its collection's own rule says; None if there is none.

    An id written in digits means the text first, then the number.
    """

    async def fetch(collection: str, text: str) -> Document | None:
        if collection not in documents.catalog():
            return None
        ids: list[Value] = [text]
        if text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX:
            ids.append(int(text))
        found = await documents.read(Read(collection, where({"_id": {"$in": ids}}), limit=2))
        rows = sorted(found.rows, key=lambda row: row.document["_id"] != text)
        return rows[0].document if rows else None

    return fetch
