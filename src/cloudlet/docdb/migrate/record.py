"""Which engine holds an environment's documents: a small file beside them, replaced at once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from cloudlet.docdb.newfile import replace_file
from cloudlet.model.errors import StoreUnavailable
from cloudlet.model.ids import check_environment_name


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An engine, and for PostgreSQL the address, which may hold a password: never log it."""

    engine: Literal["sqlite", "postgresql"]
    url: str | None = None

    def __repr__(self) -> str:
        return f"Place({self.engine})"


SQLITE = Place("sqlite")


class Former(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the documents were before, untouched since: the copy there is equal up to this change."""

    place: Place
    seq: int
    collections: dict[str, int]
    """The numbers that the collections have at the new place; a collection made anew has another one."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the file."""

    place: Place
    former: Former | None = None


def record_path(directory: Path, environment: str) -> Path:
    """The record of an environment. Raises InvalidName."""
    return directory / f"{check_environment_name(environment)}.json"


def read_record(directory: Path, environment: str) -> Record | None:
    """The record if there is one. Raises StoreUnavailable if it cannot be read."""
    path = record_path(directory, environment)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as exc:
        raise StoreUnavailable(f"{path.name} cannot be read: {exc}") from exc


def write_record(directory: Path, environment: str, record: Record) -> None:
    """Replace the record: after a crash it is the old one or the new one. Readable by its owner only."""
    directory.mkdir(parents=True, exist_ok=True)
    replace_file(record_path(directory, environment), msgspec.json.encode(record))
