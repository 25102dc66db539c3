"""Reading the records of a file from any byte offset on, in batches that depend on nothing but the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal, TypeAlias

from cloudlet.docdb.transfer.csvrows import parse_header, parse_row
from cloudlet.docdb.transfer.jsonlines import ARRAY_HINT, parse_line
from cloudlet.docdb.values import Document, prepare
from cloudlet.model.errors import InvalidDocument, InvalidRequest

Format: TypeAlias = Literal["json", "csv"]

RECORD_BYTES_MAX: Final = 48 * 1024 * 1024
"""Canonical Extended JSON of a document of the largest size."""
BATCH_RECORDS: Final = 200
BATCH_BYTES: Final = 2 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its document, or why it is none. ``line`` is the file's line in which it begins."""

    line: int
    document: Document | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Records:
    """A batch, and where the file goes on after it."""

    records: tuple[Record, ...]
    offset: int
    line: int


class RecordReader:
    """Reads batches. Blocks; close it. The same offset always gives the same batch."""

    def __init__(self, path: Path, format: Format, offset: int, line: int, now_ms: int) -> None:
        """``line`` is the number of the first line at ``offset``; dates of the server are ``now_ms``.

        Raises InvalidRequest with what to do about it for a file that is not of the format.
        """
        self._format = format
        self._now_ms = now_ms
        self._columns: tuple[str, ...] = ()
        self._file: IO[bytes] = path.open("rb")
        try:
            self._offset, self._line = self._begin()
            if offset > self._offset:
                self._file.seek(offset)
                self._offset, self._line = offset, line
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def next(self) -> Records | None:
        """The next batch; None at the end. Raises InvalidDocument if the rest of the file cannot be
        read.
        """
        records: list[Record] = []
        begun = self._offset
        while len(records) < BATCH_RECORDS and self._offset - begun < BATCH_BYTES:
            line = self._line
            raw = self._record()
            if not raw:
                break
            if raw.strip():
                records.append(self._parsed(line, raw))
        if self._offset == begun:
            return None
        return Records(tuple(records), self._offset, self._line)

    def _begin(self) -> tuple[int, int]:
        """Skip the mark and the header; the offset and line where the records begin."""
        head = self._file.read(4)
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise InvalidDocument("the file is UTF-16: save it as UTF-8")
        if head[:2] == b"\x1f\x8b" or head == b"PK\x03\x04":
            raise InvalidDocument("the file is compressed: unpack it first")
        self._offset, self._line = (3 if head[:3] == _BOM else 0), 1
        self._file.seek(self._offset)
        if self._format == "csv":
            raw = self._record()
            if not raw.strip():
                raise InvalidDocument("the file has no header: its first line must name the fields")
            try:
                self._columns = parse_header(_text(raw))
            except InvalidDocument as exc:
                raise InvalidDocument(f"the header in line 1: {exc.message}") from exc
        else:
            start = self._file.read(4096).lstrip()[:1]
            self._file.seek(self._offset)
            if start == b"[":
                raise InvalidDocument(ARRAY_HINT)
        return self._offset, self._line

    def _parsed(self, line: int, raw: bytes) -> Record:
        try:
            if len(raw) > RECORD_BYTES_MAX:
                raise InvalidDocument(f"the record has more than {RECORD_BYTES_MAX} bytes")
            text = _text(raw)
            read = parse_row(self._columns, text) if self._format == "csv" else parse_line(text)
            document: Document = prepare(read, self._now_ms)
            for name in document:
                if name.startswith("$"):
                    raise InvalidDocument(f"the field name {name[:80]!r} begins with a dollar sign")
        except InvalidRequest as exc:
            return Record(line, None, exc.message)
        return Record(line, document)

    def _record(self) -> bytes:
        """The raw bytes of the next record; empty at the end of the file."""
        lines = list(self._lines()) if self._format == "csv" else [self._one_line()]
        return b"".join(lines)

    def _lines(self) -> Iterator[bytes]:
        """Lines up to one after which no quote is open: an odd number of quotes means there is one."""
        quotes = size = 0
        first = self._line
        while raw := self._one_line():
            yield raw
            quotes += raw.count(b'"')
            size += len(raw)
            if quotes % 2 == 0:
                return
            if size > RECORD_BYTES_MAX:
                raise InvalidDocument(f"a quote that opens in line {first} is not closed")
        if quotes:
            raise InvalidDocument(f"a quote that opens in line {first} is not closed before the file ends")

    def _one_line(self) -> bytes:
        """One line; of one that is too long a piece that is too long as well."""
        raw = self._file.readline(RECORD_BYTES_MAX + 1)
        self._offset += len(raw)
        rest = raw
        while len(rest) > RECORD_BYTES_MAX and not rest.endswith(b"\n"):
            rest = self._file.readline(RECORD_BYTES_MAX + 1)
            self._offset += len(rest)
        if raw:
            self._line += 1
        return raw


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise InvalidDocument(f"this is not UTF-8 (byte {exc.start}): save the file as UTF-8") from exc
