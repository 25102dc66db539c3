"""The logs of functions on disk: JSON lines, one file per function and one before it, and how they are asked
for."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from .wire import LogRecord

FILE_BYTES_MAX = 8 * 1024 * 1024
"""A function has at most two files of this size."""
OPEN_FILES_MAX = 64
QUERY_RECORDS_MAX = 10_000
_CHUNK_BYTES = 256 * 1024
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(LogRecord).decode
log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which records: the latest `limit` of a function that match, oldest first."""

    environment: str
    function: str
    request_id: str = ""
    since: float = 0.0
    """Records after this time (seconds since the Unix epoch)."""
    limit: int = 100


class RotatingFile:
    """Appends to a file that is moved aside (``NAME.1``) before it grows over `bytes_max`.

    A disk that cannot be written to loses lines, is reported once, and stops nothing else."""

    def __init__(self, path: Path, bytes_max: int = FILE_BYTES_MAX) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._descriptor = -1
        self._size = 0
        self._failing = False

    def append(self, data: bytes) -> None:
        """Write whole lines."""
        try:
            if self._descriptor < 0 or self._size + len(data) > self._bytes_max:
                self._open()
            os.write(self._descriptor, data)
            self._size += len(data)
            self._failing = False
        except OSError as exc:
            if not self._failing:
                reason = errno.errorcode.get(exc.errno or 0, str(exc))
                log.error("log_write_failed", path=str(self._path), reason=reason)
            self._failing = True

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        self.close()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._size and self._path.exists():
            self._path.replace(previous(self._path))
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._descriptor).st_size


class LogStore:
    """All function logs of this node under `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: OrderedDict[Path, RotatingFile] = OrderedDict()

    def write(self, environment: str, function: str, records: Iterable[LogRecord]) -> None:
        """Append records, in order."""
        data = b"".join(_encode(record) + b"\n" for record in records)
        if data:
            self._file(self.path(environment, function)).append(data)

    def path(self, environment: str, function: str) -> Path:
        return self._directory / environment / f"{function}.jsonl"

    async def query(self, query: LogQuery) -> list[LogRecord]:
        """Read backwards from the end, giving way to others after each chunk."""
        wanted = max(0, min(query.limit, QUERY_RECORDS_MAX))
        path = self.path(query.environment, query.function)
        found: list[LogRecord] = []
        for each in (path, previous(path)):
            for chunk in _chunks_backwards(each):
                for line in reversed(chunk):
                    record = _match(line, query)
                    if record is not None:
                        found.append(record)
                    if len(found) >= wanted or _is_older(line, query.since):
                        return found[::-1][-wanted:] if wanted else []
                await asyncio.sleep(0)
        return found[::-1]

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, path: Path) -> RotatingFile:
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = RotatingFile(path)
            if len(self._files) > OPEN_FILES_MAX:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(path)
        return file


def previous(path: Path) -> Path:
    """The file that was moved aside."""
    return path.with_name(path.name + ".1")


def _chunks_backwards(path: Path) -> Iterator[list[bytes]]:
    """The lines of a file in groups, the last group first, each group in order of the file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        position = file.seek(0, os.SEEK_END)
        rest = b""
        while position > 0:
            start = max(0, position - _CHUNK_BYTES)
            file.seek(start)
            block = file.read(position - start) + rest
            position = start
            rest, *lines = block.split(b"\n")
            if position == 0:
                lines.insert(0, rest)
            yield [line for line in lines if line]


def _match(line: bytes, query: LogQuery) -> LogRecord | None:
    if query.request_id and query.request_id.encode() not in line:
        return None
    try:
        record = _decode(line)
    except msgspec.DecodeError:
        return None  # a line that was cut when the machine stopped
    if record.t <= query.since or (query.request_id and record.request_id != query.request_id):
        return None
    return record


def _is_older(line: bytes, since: float) -> bool:
    """Whether this line, and with it everything before it, is not asked for."""
    if not since:
        return False
    try:
        return _decode(line).t <= since
    except msgspec.DecodeError:
        return False
