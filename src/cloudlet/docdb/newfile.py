"""Making a file that is either whole, synced and under its name, or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloudlet.model.errors import AlreadyExists, StoreUnavailable

_COMPANIONS = ("", "-journal", "-wal", "-shm")
"""What SQLite puts beside a file."""


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A path to write to in the block; afterwards its content is ``target``.

    Raises AlreadyExists, StoreUnavailable. What the block raises leaves nothing behind.
    """
    if target.exists():
        raise AlreadyExists(f"{target.name} exists already: a copy is written to a new file")
    part = target.with_name(f".{target.name}.part")
    try:
        _remove(part)
        yield part
        sync(part)
        part.rename(target)
        sync(target.parent)
    except OSError as exc:
        raise StoreUnavailable(f"{target.name} cannot be written: {exc}") from exc
    finally:
        _remove(part)


def replace_file(target: Path, content: bytes, mode: int = 0o600) -> None:
    """Put new content under a name at once: a crash leaves the old or the new. Raises StoreUnavailable."""
    part = target.with_name(f".{target.name}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            os.write(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.rename(target)
        sync(target.parent)
    except OSError as exc:
        raise StoreUnavailable(f"{target.name} cannot be written: {exc}") from exc


def sync(path: Path) -> None:
    """Wait until a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(part: Path) -> None:
    for suffix in _COMPANIONS:
        try:
            part.with_name(part.name + suffix).unlink(missing_ok=True)
        except OSError as exc:
            raise StoreUnavailable(f"an unfinished copy cannot be removed: {exc}") from exc
