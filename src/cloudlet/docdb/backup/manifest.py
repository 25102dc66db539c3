"""What is in a backup directory: manifests of whole copies, and the names of pieces of the change log.

``<environment>/full-<seq>-<ms>.db`` (``.db.sealed`` if encrypted) and ``full-<seq>-<ms>.json``, which is
written last: without it there is no backup. ``log-<line>-<after seq>-<last seq>-<ms>.gz`` (``.gz.sealed``).
A *line* is a stretch of the change log without a gap: after one, or when the log went back, a new line
begins with a whole copy. Copies and pieces of one environment are made one at a time, so that their times
order them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import structlog

from cloudlet.docdb.newfile import new_file
from cloudlet.model.errors import NotFound, StoreUnavailable
from cloudlet.model.ids import check_environment_name

log = structlog.get_logger(__name__)

FORM: Final = 1
_SEGMENT: Final = re.compile(r"log-([0-9a-f]{8})-(\d{1,19})-(\d{1,19})-(\d{1,15})\.gz(\.sealed)?")
_FULL: Final = re.compile(r"full-\d{1,19}-\d{1,15}")


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One collection in a copy. ``sha256`` is over ids, revisions and bodies in order of insertion."""

    documents: int
    sha256: str
    indexes: tuple[str, ...] = ()


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One whole copy. Times are Unix milliseconds, sizes bytes."""

    id: str
    environment: str
    line: str
    seq: int
    """The last change that is in it."""
    at_ms: int
    """When it had been copied: nothing in it is newer."""
    file: str
    size_bytes: int
    sha256: str
    """Of the document file before it was encrypted."""
    encrypted: bool
    collections: dict[str, Content]
    form: int = FORM
    mac: str = ""
    """For encrypted ones: HMAC-SHA256 of everything else here, with a key made from the copy's secret."""

    def mac_with(self, key: bytes) -> str:
        """What ``mac`` has to be."""
        text = msgspec.json.encode(msgspec.structs.replace(self, mac=""), order="sorted")
        return hmac.new(key, text, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the change log: changes above ``after_seq`` up to ``last_seq``, written at ``at_ms``."""

    path: Path
    line: str
    after_seq: int
    last_seq: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Shelf:
    """The backups of one environment."""

    directory: Path

    @staticmethod
    def of(root: Path, environment: str) -> Shelf:
        """Raises InvalidName."""
        return Shelf(root / check_environment_name(environment))

    def manifests(self) -> list[Manifest]:
        """The whole copies, the oldest first. Blocks; one that cannot be read is left out and logged."""
        found = []
        for path in self.directory.glob("full-*.json"):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Manifest))
            except (OSError, msgspec.MsgspecError) as exc:
                log.error("backup_manifest_unreadable", manifest=path.name, error=str(exc))
        return sorted(found, key=lambda each: (each.at_ms, each.seq))

    def find(self, backup_id: str) -> Manifest:
        """Raises NotFound, and StoreUnavailable for a manifest that cannot be read."""
        path = self.directory / f"{backup_id}.json"
        if not _FULL.fullmatch(backup_id) or not path.is_file():
            raise NotFound(f"there is no backup {backup_id[:80]!r}: see 'cloudlet db backups'")
        try:
            return msgspec.json.decode(path.read_bytes(), type=Manifest)
        except (OSError, msgspec.MsgspecError) as exc:
            raise StoreUnavailable(f"the manifest {path.name} is damaged: {exc}") from exc

    def save(self, manifest: Manifest) -> None:
        """Raises AlreadyExists, StoreUnavailable."""
        with new_file(self.directory / f"{manifest.id}.json") as part:
            part.write_bytes(msgspec.json.encode(manifest))

    def segments(self) -> list[Segment]:
        """The pieces of the change log, the oldest first. Blocks."""
        found = []
        for path in self.directory.glob("log-*"):
            match = _SEGMENT.fullmatch(path.name)
            if match:
                found.append(Segment(path, match[1], int(match[2]), int(match[3]), int(match[4])))
        return sorted(found, key=lambda each: each.at_ms)

    def remove(self, manifest: Manifest) -> None:
        """Remove a copy, its manifest first: what is listed is there. Blocks; raises OSError."""
        (self.directory / f"{manifest.id}.json").unlink(missing_ok=True)
        (self.directory / manifest.file).unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove what was never finished. Blocks; raises OSError."""
        known = {manifest.file for manifest in self.manifests()}
        for path in self.directory.glob(".*.part*"):
            path.unlink(missing_ok=True)
        for path in self.directory.glob("full-*.db*"):
            if path.name not in known and not (self.directory / f"{path.name.split('.')[0]}.json").exists():
                path.unlink(missing_ok=True)


def chain(manifest: Manifest, segments: list[Segment]) -> list[Segment]:
    """The pieces that follow a copy without a gap; ``segments`` are in order of time. Pure."""
    followed, seq = [], manifest.seq
    for segment in segments:
        if segment.line != manifest.line or segment.at_ms <= manifest.at_ms:
            continue
        if segment.after_seq > seq:
            break
        followed.append(segment)
        seq = segment.last_seq
    return followed


def outdated(
    manifests: list[Manifest], segments: list[Segment], keep: int
) -> tuple[list[Manifest], list[Segment]]:
    """What retention removes: all copies but the newest ``keep``, and the log before the oldest of those.

    ``manifests`` are in order of time; the newest is never removed. Pure.
    """
    kept = manifests[-max(1, keep) :]
    if not kept:
        return [], []
    oldest = kept[0]
    gone = [each for each in segments if each.at_ms <= oldest.at_ms]
    return manifests[: -len(kept)], gone
