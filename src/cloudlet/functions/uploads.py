"""Uploaded tars between PUT /uploads and the deploy that uses them."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import AsyncIterable
from dataclasses import dataclass
from pathlib import Path

from cloudlet.model.errors import BodyTooLarge, InvalidParameter, LimitExceeded, StoreUnavailable

from .limits import UPLOAD_BYTES_MAX
from .threads import in_thread

KEPT_S = 3600.0
"""An upload that no deploy took within this time is deleted."""
TOTAL_BYTES_MAX = 8 * UPLOAD_BYTES_MAX

_ID = re.compile(r"[0-9a-f]{24}\Z")
_WRITE_AT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """One stored upload."""

    id: str
    bytes: int


class Uploads:
    """A directory of uploads. Nothing in it must survive a restart."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def receive(self, chunks: AsyncIterable[bytes]) -> Upload:
        """Store a body. Nothing stays after an error.

        Raise BodyTooLarge (this one), LimitExceeded (all of them) or StoreUnavailable (disk full).
        """
        await in_thread(self._prepare)
        upload_id = secrets.token_hex(12)
        partial = self._directory / f"{upload_id}.part"
        try:
            size = await _write(partial, chunks)
            await in_thread(partial.rename, self._directory / f"{upload_id}.tar")
        except OSError as exc:
            raise StoreUnavailable(f"the upload cannot be stored: {exc.strerror}") from exc
        finally:
            partial.unlink(missing_ok=True)
        return Upload(upload_id, size)

    def path(self, upload_id: str) -> Path:
        """The tar of an upload. Raise InvalidParameter when there is none."""
        path = self._directory / f"{upload_id}.tar"
        if not _ID.match(upload_id) or not path.is_file():
            raise InvalidParameter(f"upload {upload_id[:40]!r} does not exist (any more): deploy again")
        return path

    def discard(self, upload_id: str) -> None:
        """Delete an upload; unknown ids are fine."""
        if _ID.match(upload_id):
            (self._directory / f"{upload_id}.tar").unlink(missing_ok=True)

    def _prepare(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        total = 0
        for path in self._directory.iterdir():
            info = path.stat()
            # Wall time, because that is what files carry.
            if info.st_mtime < time.time() - KEPT_S:
                path.unlink(missing_ok=True)
            else:
                total += info.st_size
        if total > TOTAL_BYTES_MAX:
            raise LimitExceeded("too many uploads are waiting for their deploy: try again later")


async def _write(path: Path, chunks: AsyncIterable[bytes]) -> int:
    size = 0
    buffer = bytearray()
    with path.open("xb") as file:
        async for chunk in chunks:
            size += len(chunk)
            if size > UPLOAD_BYTES_MAX:
                raise BodyTooLarge(f"the upload is larger than {UPLOAD_BYTES_MAX >> 20} MB")
            buffer += chunk
            if len(buffer) >= _WRITE_AT:
                await in_thread(file.write, bytes(buffer))
                buffer.clear()
        file.write(buffer)
    return size
