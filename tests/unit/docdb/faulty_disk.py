"""A file system layer under SQLite that fails when it is told to, and forgets what was not synced."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import apsw

SECTOR = 512


@dataclass
class Unsynced:
    """A write that a power failure may undo."""

    offset: int
    old: bytes
    new: bytes
    old_size: int


@dataclass
class Disk:
    """Counts writes and syncs, and fails with ``error`` from number ``at`` on, ``times`` times.

    ``dead``: after the first failure nothing is written any more, as if the power were off.
    """

    at: int
    error: Callable[[], Exception]
    times: int = 1
    dead: bool = False
    kinds: frozenset[str] = frozenset({"write", "sync"})
    done: int = 0
    failed: int = 0
    armed: bool = False
    pending: dict[str, list[Unsynced]] = field(default_factory=dict)

    def step(self, kind: str) -> None:
        """One operation; raises the error when it is time."""
        if self.dead and self.failed:
            raise self.error()
        if not self.armed or kind not in self.kinds:
            return
        self.done += 1
        if self.done >= self.at and self.failed < self.times:
            self.failed += 1
            raise self.error()

    def wrote(self, name: str, data: bytes, offset: int) -> None:
        """Remember what a write is about to replace."""
        with Path(name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            old = os.pread(file.fileno(), len(data), offset)
        self.pending.setdefault(name, []).append(Unsynced(offset, old, data, size))

    def lose_power(self, random: Random) -> None:
        """Undo what was not synced, but for some writes, of which the last may be torn."""
        for name, writes in self.pending.items():
            if not Path(name).exists():
                continue
            with Path(name).open("r+b") as file:
                for write in reversed(writes):
                    os.pwrite(file.fileno(), write.old, write.offset)
                    os.ftruncate(file.fileno(), write.old_size)
                for write in writes:
                    if random.random() < 0.5:
                        kept = random.choice(
                            [len(write.new), random.randrange(0, len(write.new) + 1, SECTOR)]
                        )
                        os.pwrite(file.fileno(), write.new[:kept], write.offset)
        self.pending.clear()


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else name

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.step("write")
        if self._name is not None:
            self._disk.wrote(self._name, bytes(data), offset)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._disk.step("sync")
        super().xSync(flags)
        self._disk.pending.pop(self._name, None)


class _Layer(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        super().__init__("faulty", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> _File:
        return _File(self._disk, name, flags)


@contextmanager
def under_sqlite(disk: Disk) -> Iterator[Disk]:
    """Every database that is opened in the block lies on this disk."""
    layer = _Layer(disk)
    try:
        yield disk
    finally:
        layer.unregister()
