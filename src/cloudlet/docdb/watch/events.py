"""What a watch tells (facts: api-surface 3.5, wire-protocol 4.7), and how two states of a document differ."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from cloudlet.docdb.values import Document, Value, identical


class QueueType(Enum):
    """What happens to the result."""

    INIT = "init"
    ENQUEUE = "enqueue"
    DEQUEUE = "dequeue"
    UPDATE = "update"


class DataType(Enum):
    """Why it happens: to the document itself, or because others moved in front of it or away (LIMIT)."""

    INIT = "init"
    ADD = "add"
    UPDATE = "update"
    REPLACE = "replace"
    """An update that paths cannot tell exactly: the document has to be taken as a whole."""
    REMOVE = "remove"
    LIMIT = "limit"


@dataclass(slots=True)
class DocChange:
    """One change of a result. Watches share these records and their documents: nobody changes them.

    ``document`` is the state that is reached, of a document that leaves the last one that was told.
    ``updated_fields`` (by dotted path) and ``removed_fields`` lead from the last state to this one; both are
    only there with queue type UPDATE and data type UPDATE.
    """

    queue_type: QueueType
    data_type: DataType
    document_id: Value
    document: Document
    updated_fields: dict[str, Any] | None = None
    removed_fields: list[str] | None = None


@dataclass(slots=True)
class WatchEvent:
    """Changes that belong together: after them the result is what the query returned at one moment.

    ``id`` grows by one with each event of a watch (0: the first ``init``). ``token`` lets a later watch go on
    after this event. ``initial``: the changes are the whole result; what was told before is void.
    """

    id: int
    initial: bool
    changes: list[DocChange]
    token: str


def difference(before: Document, after: Document) -> tuple[dict[str, Any], list[str]] | None:
    """Fields to set and to remove, by dotted path, that make ``before`` exactly ``after``.

    Setting keeps a field's place or appends it. None if paths cannot say it (order of fields, odd names).
    """
    updated: dict[str, Any] = {}
    removed: list[str] = []
    return (updated, removed) if _differ(before, after, "", updated, removed) else None


def _differ(
    before: Document, after: Document, prefix: str, updated: dict[str, Any], removed: list[str]
) -> bool:
    kept = [name for name in before if name in after]
    appended = [name for name in after if name not in before]
    if kept + appended != list(after):
        return False
    gone = [name for name in before if name not in after]
    for name in gone:
        if not _is_plain(name):
            return False
        removed.append(prefix + name)
    for name, value in after.items():
        old = before.get(name, _NOTHING)
        if old is not _NOTHING and identical(old, value):
            continue
        if not _is_plain(name):
            return False
        path = prefix + name
        if type(old) is dict and type(value) is dict and old and value:
            inner_updated: dict[str, Any] = {}
            inner_removed: list[str] = []
            if _differ(old, value, path + ".", inner_updated, inner_removed):
                updated.update(inner_updated)
                removed += inner_removed
                continue
        updated[path] = value
    return True


def _is_plain(name: str) -> bool:
    """Whether every client reads the name in a path as it is meant."""
    return bool(name) and not any(character in name for character in ".[]\"'")


_NOTHING = object()
