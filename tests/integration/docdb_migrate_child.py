"""A process that writes into an environment and moves it to and fro, until it is killed.

Its output is one line for each acknowledged document, and one for each move.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

from cloudlet.docdb.base import Preset
from cloudlet.docdb.migrate.record import read_record
from cloudlet.docdb.service import DocumentService
from cloudlet.docdb.stores import Stores
from cloudlet.model.access import Access
from cloudlet.model.clock import SystemClock
from cloudlet.model.errors import AlreadyExists

ADMIN = Access("e", admin=True)
WRITERS = 8


def say(line: str) -> None:
    """Told the parent before anything else happens."""
    os.write(1, f"{line}\n".encode())


async def write(service: DocumentService, prefix: str) -> None:
    """Insert documents one after the other."""
    number = 0
    while True:
        name = f"{prefix}-{number}"
        await service.insert(ADMIN, "c", [{"_id": name, "n": number}])
        say(f"wrote {name}")
        number += 1


async def main(directory: Path, url: str, round_: str) -> None:
    """Never ends by itself."""
    stores = Stores.in_directory(directory)
    service = DocumentService(stores, SystemClock())
    with contextlib.suppress(AlreadyExists):
        await service.create_collection("e", "c", Preset.PRIVATE)
    writing = [asyncio.create_task(write(service, f"{round_}-{client}")) for client in range(WRITERS)]
    moving = asyncio.create_task(move(stores, directory, url))
    done, _pending = await asyncio.wait([*writing, moving], return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def move(stores: Stores, directory: Path, url: str) -> None:
    """To the database and back, again and again."""
    while True:
        record = read_record(directory, "e")
        back = record is not None and record.place.engine == "postgresql"
        report = await stores.migrate("e", "sqlite" if back else url)
        say(f"moved {report.engine} {report.copied} {report.pause_s:.3f}")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
