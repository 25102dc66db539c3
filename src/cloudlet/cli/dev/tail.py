"""New lines of the log files of an installation on this machine.

``cloudlet dev`` has the files before it, so it reads them itself: no line is asked for twice, none depends on
a clock, and what the api process prints can be read while it is away.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

READ_BYTES_MAX = 1024 * 1024
"""Of one file at one look; the rest comes with the next."""
LINE_BYTES_MAX = 256 * 1024
FILES_MAX = 2_000


class FileTail:
    """Lines that are appended to a file, which is moved to ``NAME.1`` when it is full."""

    def __init__(self, path: Path, *, from_start: bool) -> None:
        self._path = path
        self._moved = path.with_name(path.name + ".1")
        self._inode = 0
        self._offset = 0
        self._partial = b""
        if not from_start and (found := _identity(path)):
            self._inode, self._offset = found

    def lines(self) -> list[bytes]:
        """Whole lines since the last look."""
        found = _identity(self._path)
        if found is None:
            return []
        if found[0] != self._inode:
            rest = self._rest_of_moved()
            if rest is not None:
                return rest
            self._inode, self._offset, self._partial = found[0], 0, b""
        if found[1] < self._offset:
            self._offset, self._partial = 0, b""  # somebody has emptied it
        return self._read(self._path) if found[1] > self._offset else []

    def _rest_of_moved(self) -> list[bytes] | None:
        """What came before the file was moved aside; None when there is nothing more."""
        moved = _identity(self._moved)
        if not self._inode or moved is None or moved[0] != self._inode or moved[1] <= self._offset:
            return None
        return self._read(self._moved)

    def _read(self, path: Path) -> list[bytes]:
        try:
            with path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(READ_BYTES_MAX)
        except OSError:
            return []
        self._offset += len(data)
        *whole, rest = (self._partial + data).split(b"\n")
        self._partial = rest if len(rest) <= LINE_BYTES_MAX else b""
        return [line for line in whole if line]


@dataclass(frozen=True, slots=True)
class FunctionLine:
    """A line of the log of one function."""

    environment: str
    function: str
    raw: bytes


class FunctionTails:
    """The logs of all functions: ``<directory>/<environment>/<function>.jsonl``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tails: dict[Path, FileTail] = {}
        self._add_new(from_start=False)

    def lines(self) -> list[FunctionLine]:
        """New lines of all functions; those of one function are in their order."""
        self._add_new(from_start=True)
        return [
            FunctionLine(path.parent.name, path.stem, raw)
            for path, tail in self._tails.items()
            for raw in tail.lines()
        ]

    def _add_new(self, *, from_start: bool) -> None:
        for path in self._directory.glob("[!_.]*/*.jsonl"):
            if path not in self._tails and len(self._tails) < FILES_MAX:
                self._tails[path] = FileTail(path, from_start=from_start)


def _identity(path: Path) -> tuple[int, int] | None:
    """Number of the file and its size."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_ino, info.st_size
