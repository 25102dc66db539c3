"""Encrypted files: whatever is done to one is noticed."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudlet.docdb.backup import seal as module
from cloudlet.docdb.backup.seal import Secret, SecretFile, seal, secret_of, unsealed
from cloudlet.model.errors import InvalidParameter, PermissionDenied, StoreUnavailable

PIECE = 1024
HEAD = 43
SEALED = PIECE + 16
SECRET = Secret(b"a passphrase")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", PIECE)


def sealed(content: bytes, secret: Secret = SECRET) -> bytes:
    out = io.BytesIO()
    seal(io.BytesIO(content), out, secret)
    return out.getvalue()


def opened(raw: bytes, secret: Secret = SECRET) -> bytes:
    return b"".join(unsealed(io.BytesIO(raw), secret))


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE])
def test_what_was_sealed_is_opened_with_the_same_secret_only(size: int) -> None:
    content = os.urandom(size)
    raw = sealed(content)
    assert opened(raw, Secret(b"a passphrase")) == content
    assert size < 16 or content[:16] not in raw
    with pytest.raises(PermissionDenied):
        opened(raw, Secret(b"A passphrase"))


def test_the_same_content_never_looks_the_same() -> None:
    first, second = sealed(b"x" * 100), sealed(b"x" * 100)
    assert first[HEAD:] != second[HEAD:]


def piece(raw: bytes, number: int) -> bytes:
    return raw[HEAD + number * SEALED : HEAD + (number + 1) * SEALED]


HARM: dict[str, Callable[[bytes], bytes]] = {
    "two pieces exchanged": lambda raw: raw[:HEAD] + piece(raw, 1) + piece(raw, 0) + raw[HEAD + 2 * SEALED :],
    "a piece left out": lambda raw: raw[:HEAD] + piece(raw, 0) + raw[HEAD + 2 * SEALED :],
    "cut between pieces": lambda raw: raw[: HEAD + 2 * SEALED],
    "cut inside a piece": lambda raw: raw[:-1],
    "cut in the head": lambda raw: raw[:20],
    "nothing left": lambda raw: b"",
    "only a head": lambda raw: raw[:HEAD],
    "something added": lambda raw: raw + b"x",
    "a piece of another file": lambda raw: (
        raw[:HEAD] + piece(sealed(b"y" * 4 * PIECE), 0) + raw[HEAD + SEALED :]
    ),
    "other costs": lambda raw: raw[:8] + b"\x0e" + raw[9:],
    "costs beyond reason": lambda raw: raw[:8] + b"\xff\xff\xff" + raw[11:],
    "another nonce": lambda raw: raw[:30] + b"\x00" + raw[31:],
}


@pytest.mark.parametrize("harm", HARM)
def test_harm_is_noticed(harm: str) -> None:
    raw = sealed(os.urandom(3 * PIECE + 5))
    changed = HARM[harm](raw)
    assert changed != raw
    with pytest.raises((PermissionDenied, StoreUnavailable)):
        opened(changed)


def test_a_key_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "key"
    read = SecretFile(path)
    with pytest.raises(InvalidParameter, match="cannot be read"):
        read()
    path.write_bytes(b"first passphrase\n")
    assert read().raw == b"first passphrase" and read() is read()
    path.write_bytes(b"second passphrase\r\n")
    os.utime(path, ns=(1, 1))
    assert read().raw == b"second passphrase"
    assert "second" not in repr(read())
    assert secret_of(b"with \n inside\n").raw == b"with \n inside"
