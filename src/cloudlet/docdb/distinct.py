"""The different values of a field. Manual: "db.collection.distinct()"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cloudlet.docdb.body import encode_value
from cloudlet.docdb.paths import Segments, resolve, split_path
from cloudlet.docdb.values import MISSING, Document, OrderKey, Value, order_key
from cloudlet.model.errors import InvalidParameter, ResultTooLarge


def distinct_path(path: str) -> Segments:
    """The segments of the path. Raises InvalidParameter."""
    segments = split_path(path, InvalidParameter)
    if segments[0][0].startswith("$"):
        raise InvalidParameter(f"the path {path[:80]!r} names no field: it starts with $")
    return segments


def distinct_stages(segments: Segments, conditions: Sequence[Document]) -> list[Document]:
    """A pipeline whose groups stand for all that matches: in ``_id`` they have the path's first field.

    So only its different values leave the place where the documents are read. Where the field is missing it
    is missing in the group, too.
    """
    name = segments[0][0]
    return [{"$match": {"$and": list(conditions)}}, {"$group": {"_id": {name: f"${name}"}}}]


def distinct_values(documents: Iterable[Document], segments: Segments, bytes_max: int) -> list[Value]:
    """What the path leads to, each value once and in order; of an array its elements (one level).

    Documents without the field add nothing, null is a value. Raises ResultTooLarge if the stored form of the
    values takes more than ``bytes_max``.
    """
    found: dict[OrderKey, Value] = {}
    size = 0
    for document in documents:
        for leaf in resolve(document, segments):
            for value in leaf if type(leaf) is list else (leaf,):
                if value is MISSING:
                    continue
                key = order_key(value)
                if key in found:
                    continue
                found[key] = value
                size += len(encode_value(value))
                if size > bytes_max:
                    raise ResultTooLarge(f"the different values take more than {bytes_max} bytes")
    return [found[key] for key in sorted(found)]
