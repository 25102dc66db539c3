"""Making a whole copy of an environment, and opening one again."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloudlet.docdb import sqlite_file
from cloudlet.docdb.aside import in_thread
from cloudlet.docdb.backup.content import contents
from cloudlet.docdb.backup.manifest import Manifest, Shelf
from cloudlet.docdb.backup.seal import Secret, copied, is_sealed, plain_pieces, seal, unsealed
from cloudlet.docdb.base import Store
from cloudlet.docdb.migrate.home import remove_files
from cloudlet.docdb.newfile import new_file
from cloudlet.model.errors import InvalidParameter, PermissionDenied, StoreUnavailable

_MAC_INFO: Final = b"cloudlet backup manifest"


@dataclass(frozen=True, slots=True)
class Place:
    """Which environment a copy is of, and to which line of its change log it belongs."""

    environment: str
    line: str


async def make_full(
    store: Store, place: Place, shelf: Shelf, work: Path, secret: Secret | None, now_ms: Callable[[], int]
) -> Manifest:
    """Copy everything of one moment; writes go on meanwhile. The backup is complete, or it is not there.

    ``work`` is where the copy lies until it is encrypted. Raises StoreUnavailable.
    """
    raw = work / f"{secrets.token_hex(8)}.db"
    try:
        await in_thread(lambda: _make(shelf.directory, work))
        seq = await store.backup(raw)
        at_ms = now_ms()
        return await in_thread(lambda: _keep(raw, place, seq, shelf, secret, at_ms))
    finally:
        await in_thread(lambda: remove_files(raw))


def open_full(shelf: Shelf, manifest: Manifest, secret: Secret | None, target: Path) -> None:
    """Write the document file of a copy to ``target``, checked and decrypted. Blocks.

    Raises PermissionDenied for a wrong secret, InvalidParameter if one is needed, StoreUnavailable if the
    copy was changed, is cut off or is not there. Nothing is left of ``target`` then.
    """
    digest = hashlib.sha256()
    path = shelf.directory / manifest.file
    if path.parent != shelf.directory:
        raise StoreUnavailable("the manifest names a file elsewhere")
    try:
        with path.open("rb") as source, new_file(target) as part, part.open("wb") as file:
            sealed = is_sealed(source.read(8))
            source.seek(0)
            if sealed != manifest.encrypted:
                raise StoreUnavailable(f"the backup {manifest.id} is not what its manifest says")
            if not sealed:
                pieces = plain_pieces(source)
            elif secret is None:
                raise InvalidParameter(f"the backup {manifest.id} is encrypted: give its passphrase or key")
            else:
                pieces = unsealed(source, secret)
            copied(pieces, file, digest.update)
            if digest.hexdigest() != manifest.sha256:
                raise StoreUnavailable(f"the backup {manifest.id} was changed: its checksum is another one")
            if secret is not None and sealed and manifest.mac != manifest.mac_with(_mac_key(path, secret)):
                raise PermissionDenied(f"the manifest of {manifest.id} was changed")
    except OSError as exc:
        raise StoreUnavailable(f"the backup {manifest.id} cannot be read: {exc}") from exc


def make_directory(path: Path) -> None:
    """A directory for its owner only. Raises StoreUnavailable."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        raise StoreUnavailable(f"the directory {path.name} cannot be made: {exc}") from exc


def _make(*directories: Path) -> None:
    for path in directories:
        make_directory(path)


def _keep(raw: Path, place: Place, seq: int, shelf: Shelf, secret: Secret | None, at_ms: int) -> Manifest:
    with closing(sqlite_file.open_reader(raw)) as connection:
        collections = contents(connection)
    backup_id = f"full-{seq:012d}-{at_ms}"
    target = shelf.directory / (f"{backup_id}.db.sealed" if secret else f"{backup_id}.db")
    try:
        digest = _stored(raw, target, secret)
        manifest = Manifest(
            id=backup_id,
            environment=place.environment,
            line=place.line,
            seq=seq,
            at_ms=at_ms,
            file=target.name,
            size_bytes=target.stat().st_size,
            sha256=digest,
            encrypted=secret is not None,
            collections=collections,
        )
        if secret is not None:
            key = _mac_key(target, secret)
            manifest = msgspec.structs.replace(manifest, mac=manifest.mac_with(key))
        shelf.save(manifest)
    except OSError as exc:
        target.unlink(missing_ok=True)
        raise StoreUnavailable(f"the backup cannot be written: {exc}") from exc
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return manifest


def _stored(raw: Path, target: Path, secret: Secret | None) -> str:
    """Put the document file in its place; returns its checksum."""
    digest = hashlib.sha256()
    with raw.open("rb") as source, new_file(target) as part, part.open("wb") as file:
        part.chmod(0o600)
        if secret is None:
            copied(plain_pieces(source), file, digest.update)
        else:
            while piece := source.read(1024 * 1024):
                digest.update(piece)
            source.seek(0)
            seal(source, file, secret)
    return digest.hexdigest()


def _mac_key(path: Path, secret: Secret) -> bytes:
    """A key of the manifest, made from the secret and the head of the file it belongs to."""
    with path.open("rb") as file:
        head = file.read(43)
    return HKDF(hashes.SHA256(), 32, salt=head, info=_MAC_INFO).derive(secret.key_of(head))
