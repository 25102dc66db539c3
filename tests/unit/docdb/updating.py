"""Applying one update in a test, and saying that it is refused."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from cloudlet.docdb.filter import where
from cloudlet.docdb.filter.position import matched_index
from cloudlet.docdb.update import parse_update
from cloudlet.docdb.values import Document, identical
from cloudlet.model.errors import InvalidUpdate

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Refused:
    """The error of an update: MongoDB's number and a part of the text."""

    number: int
    text: str


Case = tuple[Document, Any, Document | Refused]
"""A document, an update, and the document afterwards or the error."""


def apply(
    document: Document, update: Any, condition: Any = None, inserting: bool = False, filters: Any = None
) -> Document:
    node = where(condition or {}).node
    return parse_update(update, filters).apply(
        document, NOW, lambda path: matched_index(node, document, path), inserting=inserting
    )


def check(
    document: Document, update: Any, expected: Document | Refused, condition: Any = None, filters: Any = None
) -> None:
    """The update does what is expected, types and order of fields included, and leaves its input alone."""
    kept = deepcopy((document, update))
    if isinstance(expected, Refused):
        with pytest.raises(InvalidUpdate) as caught:
            apply(document, update, condition, filters=filters)
        assert expected.text in caught.value.message
        assert (caught.value.number, f", {expected.number})" in caught.value.message) == (
            expected.number,
            True,
        )
    else:
        found = apply(document, update, condition, filters=filters)
        assert identical(found, expected), found
        assert (found is document) == identical(found, document)
    assert identical([document, update], list(kept))


def operator(name: str, rows: list[tuple[Any, Any, Any]], *more: Case) -> list[Case]:
    """Cases of one operator on the field ``a``: old value, operand, new value (``...``: none); and more."""
    cases = [(_field(old), {name: {"a": operand}}, _expected(new)) for old, operand, new in rows]
    return [*cases, *more]


def _field(value: Any) -> Document:
    return {"_id": 1} if value is ... else {"_id": 1, "a": value}


def _expected(value: Any) -> Document | Refused:
    return value if isinstance(value, Refused) else _field(value)
