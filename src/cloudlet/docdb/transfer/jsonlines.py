"""One document a line, as MongoDB's Extended JSON (canonical, relaxed, and the vendors' older forms)."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from cloudlet.docdb.ejson import decode
from cloudlet.docdb.limits import DEPTH_MAX
from cloudlet.docdb.transfer.names import nested
from cloudlet.docdb.values import Document
from cloudlet.model.errors import InvalidDocument

ARRAY_HINT = (
    "the file is a JSON array, an import reads one object a line: "
    "convert it with  jq -c '.[]' FILE > FILE.jsonl"
)


def parse_line(text: str) -> Document:
    """The document of a line. Raises InvalidDocument.

    A name given twice is refused (most readers of JSON silently take the last one), and a dotted name is a
    path.
    """
    try:
        value = _decoder.decode(text)
    except RecursionError as exc:
        raise InvalidDocument(f"the document is nested more than {DEPTH_MAX} levels deep") from exc
    except ValueError as exc:
        hint = ": each document must be on one line" if text.strip() in ("{", "[") else ""
        raise InvalidDocument(f"this is not valid JSON: {exc}{hint}") from exc
    if type(value) is not dict:
        raise InvalidDocument("a document must be an object, { … }")
    document = decode(value, InvalidDocument)
    if type(document) is not dict:
        raise InvalidDocument("a document must be an object with fields, not a single value")
    return nested(document)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice[:80]!r} is given twice")
    return made


def _constant(name: str) -> NoReturn:
    raise ValueError(f'{name} is not JSON: write {{"$numberDouble": "{name}"}}')


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
