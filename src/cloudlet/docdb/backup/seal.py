"""Files that are encrypted and authenticated, piece by piece, so that any size takes little memory.

``CLDSEAL1``, the cost of scrypt (log2 n, r, p: a byte each), a salt of 16 bytes, a nonce of 16 bytes; then
pieces of 1 MiB, each AES-256-GCM with a tag of 16 bytes. The key is scrypt(secret, salt), the file's own key
HKDF-SHA256(key, salt = nonce). The 12 bytes of a piece's nonce are its number (11 bytes) and whether it is
the last one; the head is authenticated with every piece. So a piece that was changed, moved, left out or cut
off, and a head that was changed, are all noticed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloudlet.model.errors import InvalidParameter, PermissionDenied, StoreUnavailable

MAGIC: Final = b"CLDSEAL1"
PIECE_BYTES: Final = 1024 * 1024
SECRET_BYTES_MIN: Final = 8
SECRET_BYTES_MAX: Final = 4096
_TAG_BYTES: Final = 16
_HEAD_BYTES: Final = len(MAGIC) + 3 + 16 + 16
_COST: Final = (15, 8, 1)
"""About 0.1 s and 32 MB for each secret that somebody tries."""
_COST_MAX: Final = (20, 16, 4)
_KEYS_MAX: Final = 64


@dataclass(slots=True, repr=False)
class Secret:
    """A passphrase or the content of a key file. Derived keys are kept, because deriving is slow."""

    raw: bytes
    _salt: bytes = field(default_factory=lambda: os.urandom(16))
    _keys: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises InvalidParameter for what is too short to be a secret."""
        if not SECRET_BYTES_MIN <= len(self.raw) <= SECRET_BYTES_MAX:
            raise InvalidParameter(
                f"a passphrase or key file has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, "
                f"this one has {len(self.raw)}"
            )

    def __repr__(self) -> str:
        return "Secret(…)"

    def new_head(self) -> bytes:
        """The head of a new file."""
        return MAGIC + bytes(_COST) + self._salt + os.urandom(16)

    def cipher(self, head: bytes) -> AESGCM:
        """The cipher of the file with this head. Raises StoreUnavailable if the head is damaged."""
        own = HKDF(hashes.SHA256(), 32, salt=head[27:43], info=b"cloudlet backup")
        return AESGCM(own.derive(self.key_of(head)))

    def key_of(self, head: bytes) -> bytes:
        """The key that all files with this salt share. Raises StoreUnavailable."""
        cost, salt = head[8:11], head[11:27]
        key = self._keys.get((cost, salt))
        if key is None:
            key = self._derived(cost, salt)
            if len(self._keys) >= _KEYS_MAX:
                self._keys.clear()
            self._keys[cost, salt] = key
        return key

    def _derived(self, cost: bytes, salt: bytes) -> bytes:
        log_n, r, p = cost
        if not all(1 <= given <= most for given, most in zip(cost, _COST_MAX, strict=True)):
            raise StoreUnavailable("the head of the encrypted file is damaged")
        memory = 256 * 2**log_n * r
        return hashlib.scrypt(self.raw, salt=salt, n=2**log_n, r=r, p=p, maxmem=memory, dklen=32)


class SecretFile:
    """The secret in a file, read again when the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: tuple[int, Secret] | None = None

    def __call__(self) -> Secret:
        """Raises InvalidParameter if the file cannot be read or holds no secret. Blocks for a moment."""
        try:
            changed = self._path.stat().st_mtime_ns
            if self._known is None or self._known[0] != changed:
                with self._path.open("rb") as file:
                    self._known = changed, secret_of(file.read(SECRET_BYTES_MAX + 3))
        except OSError as exc:
            raise InvalidParameter(f"the key file of backups cannot be read: {exc}") from exc
        return self._known[1]


def secret_of(text: bytes) -> Secret:
    """The secret in a file: one line break at its end does not count. Raises InvalidParameter."""
    return Secret(text.removesuffix(b"\n").removesuffix(b"\r"))


def is_sealed(head: bytes) -> bool:
    """Whether a file that begins so is encrypted."""
    return head.startswith(MAGIC)


def seal(source: IO[bytes], target: IO[bytes], secret: Secret) -> None:
    """Encrypt everything of ``source``. Raises OSError."""
    head = secret.new_head()
    cipher = secret.cipher(head)
    target.write(head)
    piece, number = source.read(PIECE_BYTES), 0
    while True:
        following = source.read(PIECE_BYTES)
        target.write(cipher.encrypt(_nonce(number, not following), piece, head))
        if not following:
            return
        piece, number = following, number + 1


def unsealed(source: IO[bytes], secret: Secret) -> Iterator[bytes]:
    """The pieces of an encrypted file.

    Raises PermissionDenied if the secret is wrong (or the first piece was changed), StoreUnavailable if a
    later piece was changed or is missing.
    """
    head = source.read(_HEAD_BYTES)
    if len(head) < _HEAD_BYTES or not is_sealed(head):
        raise StoreUnavailable("this is not an encrypted backup, or its head is cut off")
    cipher = secret.cipher(head)
    size = PIECE_BYTES + _TAG_BYTES
    piece, number = source.read(size), 0
    while True:
        following = source.read(size)
        try:
            yield cipher.decrypt(_nonce(number, not following), piece, head)
        except InvalidTag as exc:
            if number == 0:
                raise PermissionDenied("the passphrase or key is wrong, or the backup was changed") from exc
            raise StoreUnavailable(f"the backup was changed or cut off after {number} MiB") from exc
        if not following:
            return
        piece, number = following, number + 1


def copied(pieces: Iterator[bytes], target: IO[bytes], note: Callable[[bytes], None]) -> None:
    """Write pieces to a file, and note each (for a checksum)."""
    for piece in pieces:
        note(piece)
        target.write(piece)


def plain_pieces(source: IO[bytes]) -> Iterator[bytes]:
    """The pieces of a file that is not encrypted."""
    while piece := source.read(PIECE_BYTES):
        yield piece


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
