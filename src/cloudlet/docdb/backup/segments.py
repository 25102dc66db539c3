"""Pieces of the change log beside the copies: what is needed to restore a moment between two of them.

A piece is gzip of lines: a head with the collections as they were when it was written, a line for each
change, and a last line with their number and SHA-256. It is encrypted as a whole like a copy.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from cloudlet.docdb.aside import in_thread
from cloudlet.docdb.backup.full import Place
from cloudlet.docdb.backup.manifest import Segment, Shelf
from cloudlet.docdb.backup.seal import Secret, is_sealed, seal, unsealed
from cloudlet.docdb.base import Change, CollectionInfo, Operation, Store
from cloudlet.docdb.body import decode_value, encode_value
from cloudlet.docdb.catalog import options_text, parts_text
from cloudlet.docdb.newfile import new_file
from cloudlet.docdb.values import Document, Value
from cloudlet.model.errors import InvalidParameter, StoreUnavailable

CHANGES_MAX: Final = 20_000
BYTES_MAX: Final = 16 * 1024 * 1024
"""Text of one piece; a single change may be larger."""
_PAGE: Final = 200
"""Read at once, in a few milliseconds."""


class IndexShape(msgspec.Struct, frozen=True):
    """An index, in the words of the stores' catalogs."""

    name: str
    parts: str
    unique: bool
    options: str


class Shape(msgspec.Struct, frozen=True):
    """A collection without its documents."""

    name: str
    number: int
    preset: str
    rule: str | None
    indexes: tuple[IndexShape, ...]


class Head(msgspec.Struct, frozen=True):
    """The first line of a piece."""

    environment: str
    line: str
    after_seq: int
    last_seq: int
    at_ms: int
    collections: tuple[Shape, ...]
    form: int = 1


@dataclass(frozen=True, slots=True)
class Logged:
    """A change as it is replayed: the document afterwards, None if it was removed."""

    seq: int
    collection: str
    at_ms: int
    id: Value
    after: Document | None


def shapes(catalog: Mapping[str, CollectionInfo]) -> tuple[Shape, ...]:
    """The collections of a store, without what is just being made."""
    return tuple(
        Shape(
            info.name,
            info.number,
            info.preset.value,
            info.rule,
            tuple(
                IndexShape(index.name, parts_text(index.parts), index.unique, options_text(index))
                for index in info.indexes
                if index.ready
            ),
        )
        for info in catalog.values()
    )


async def write_segment(
    store: Store, place: Place, shelf: Shelf, after_seq: int, secret: Secret | None, at_ms: int
) -> Segment:
    """Write the next piece, which may be without a change.

    Raises ChangesPruned if the log no longer reaches back, StoreUnavailable; nothing is left then.
    """
    lines: list[bytes] = []
    size, last = 0, after_seq
    while len(lines) < CHANGES_MAX and size < BYTES_MAX:
        page = await store.changes(last, _PAGE)
        for change in page:
            lines.append(_line(change))
            size += len(lines[-1])
            last = change.seq
        if len(page) < _PAGE:
            break
        await asyncio.sleep(0)  # Reading may not have waited for anything: others get their turn.
    head = Head(place.environment, place.line, after_seq, last, at_ms, shapes(store.catalog()))
    path = shelf.directory / f"log-{place.line}-{after_seq:012d}-{last:012d}-{at_ms}.gz"
    if secret is not None:
        path = path.with_name(path.name + ".sealed")
    await in_thread(lambda: _write(path, head, lines, secret))
    return Segment(path, place.line, after_seq, last, at_ms)


def read_segment(segment: Segment, secret: Secret | None) -> tuple[Head, list[Logged]]:
    """The head and changes of a piece, checked. Blocks.

    Raises PermissionDenied for a wrong secret, InvalidParameter if one is needed, StoreUnavailable if the
    piece was changed or is cut off.
    """
    try:
        raw = _opened(segment.path, secret)
        text = gzip.decompress(raw)
        *lines, tail, rest = text.split(b"\n")
        head = msgspec.json.decode(lines[0], type=Head)
        count, digest = msgspec.json.decode(tail, type=tuple[int, str])
        changes = [_logged(line) for line in lines[1:]]
    except (OSError, EOFError, zlib.error, msgspec.MsgspecError, LookupError, ValueError, TypeError) as exc:
        raise StoreUnavailable(f"the piece {segment.path.name} of the change log is damaged: {exc}") from exc
    named = (segment.line, segment.after_seq, segment.last_seq, segment.at_ms)
    if (
        rest
        or count != len(changes)
        or digest != _digest(lines)
        or named != (head.line, head.after_seq, head.last_seq, head.at_ms)
    ):
        raise StoreUnavailable(f"the piece {segment.path.name} of the change log was changed")
    return head, changes


def _write(path: Path, head: Head, lines: Sequence[bytes], secret: Secret | None) -> None:
    text = [msgspec.json.encode(head), *lines]
    tail = msgspec.json.encode((len(lines), _digest(text)))
    raw = gzip.compress(b"\n".join([*text, tail, b""]), 3, mtime=0)
    with new_file(path) as part, part.open("wb") as file:
        if secret is None:
            file.write(raw)
        else:
            seal(io.BytesIO(raw), file, secret)


def _opened(path: Path, secret: Secret | None) -> bytes:
    raw = path.read_bytes()
    if not is_sealed(raw):
        return raw
    if secret is None:
        raise InvalidParameter(f"the piece {path.name} of the change log is encrypted: give its passphrase")
    return b"".join(unsealed(io.BytesIO(raw), secret))


def _line(change: Change) -> bytes:
    removed = change.operation is Operation.DELETE
    value = encode_value(change.document_id if removed else change.after)
    return msgspec.json.encode((change.seq, change.collection, change.at_ms, removed, value))


def _logged(line: bytes) -> Logged:
    seq, collection, at_ms, removed, text = msgspec.json.decode(line, type=tuple[int, str, int, bool, str])
    value: Any = decode_value(text)
    return Logged(seq, collection, at_ms, value if removed else value["_id"], None if removed else value)


def _digest(lines: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line + b"\n")
    return digest.hexdigest()


def pieces_of(lines: Iterator[Logged], most: int) -> Iterator[list[Logged]]:
    """Neighbouring changes of one collection together, at most so many."""
    piece: list[Logged] = []
    for each in lines:
        if piece and (len(piece) == most or piece[0].collection != each.collection):
            yield piece
            piece = []
        piece.append(each)
    if piece:
        yield piece
