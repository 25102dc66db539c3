"""A consistent copy of a document file that is being written to."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import apsw

from cloudlet.docdb import sqlite_file
from cloudlet.model.errors import AlreadyExists, StoreUnavailable


def back_up(source: Path, target: Path, connection: apsw.Connection) -> int:
    """Copy ``source``, open as ``connection``, to the new file ``target``; returns the last ``seq`` in it.

    Blocks. ``VACUUM INTO`` reads one snapshot: other commits neither wait for it nor start it over, as they
    do with SQLite's page-wise backup. The file is complete, synced and under its name, or absent. Raises
    AlreadyExists, StoreUnavailable.
    """
    if target.exists():
        raise AlreadyExists(f"{target.name} exists already: a backup is written to a new file")
    part = target.with_name(f".{target.name}.part")
    try:
        part.unlink(missing_ok=True)
        with sqlite_file.engine_errors():
            connection.execute("VACUUM INTO ?", (str(part),))
        with closing(sqlite_file.open_reader(part)) as copy, sqlite_file.engine_errors():
            seq = sqlite_file.last_seq(copy)
        _sync(part)
        part.rename(target)
        _sync(target.parent)
    except OSError as exc:
        raise StoreUnavailable(f"the backup of {source.name} cannot be written: {exc}") from exc
    finally:
        _remove(part)
    return seq


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(part: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        try:
            part.with_name(part.name + suffix).unlink(missing_ok=True)
        except OSError as exc:
            raise StoreUnavailable(f"an unfinished backup cannot be removed: {exc}") from exc
