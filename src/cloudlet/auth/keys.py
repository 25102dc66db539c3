"""Signing keys of the token issuer (ES256): which one signs, which ones verify, when they change.

A new key verifies at once but signs only after VERIFY_BEFORE_SIGN_S, so that every verifier (the edge above
all) knows it before the first token made with it arrives. A superseded key verifies until every token it
signed has expired, then it is deleted.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloudlet.model.errors import Internal
from cloudlet.state.base import KeyRecords, SigningKey

VERIFY_BEFORE_SIGN_S = 60.0
KEY_LIFE_S = 30 * 86400.0
ACCESS_TOKEN_LIFE_S = 900.0
"""The longest life of an access token (15 minutes)."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedKey:
    """A signing key ready for use."""

    kid: str
    private: ec.EllipticCurvePrivateKey
    public: ec.EllipticCurvePublicKey


class KeyRing:
    """The keys of one installation. `maintain` first; it may be called as often as one likes."""

    def __init__(self, records: KeyRecords) -> None:
        self._records = records
        self._stored: Sequence[SigningKey] = ()
        self._loaded: dict[str, LoadedKey] = {}

    async def maintain(self, now: float) -> bool:
        """Make the first key, a new one when the newest has reached its age, and delete those that verify
        nothing any more. Return whether the set of verifying keys changed: then publish `jwks` within
        VERIFY_BEFORE_SIGN_S."""
        before = {key.kid for key in self._stored}
        keys = self._records.signing_keys()
        usable = [key for key in keys if key.retired_at is None]
        if not usable or now - usable[0].created_at >= KEY_LIFE_S:
            await self._add(now)
        for kid in expired_keys(self._records.signing_keys(), now):
            await self._records.delete_signing_key(kid)
        self._load()
        return {key.kid for key in self._stored} != before

    def signer(self, now: float) -> LoadedKey:
        """The key that signs now. Raise Internal before `maintain`."""
        return self._loaded[signing_key(self._stored, now).kid]

    def verifier(self, kid: str) -> ec.EllipticCurvePublicKey | None:
        """The public key with this id, if it is one of ours."""
        key = self._loaded.get(kid)
        return key.public if key else None

    def jwks(self) -> dict[str, object]:
        """Every verifying key as a JSON Web Key Set."""
        return jwks(self._stored)

    async def _add(self, now: float) -> None:
        key = new_key(now)
        await self._records.add_signing_key(key)
        log.info("signing_key_added", kid=key.kid)

    def _load(self) -> None:
        self._stored = tuple(self._records.signing_keys())
        self._loaded = {key.kid: self._loaded.get(key.kid) or load_key(key) for key in self._stored}


def signing_key(keys: Sequence[SigningKey], now: float) -> SigningKey:
    """Of keys given newest first: the newest that verifiers have known long enough, else the oldest."""
    usable = [key for key in keys if key.retired_at is None]
    if not usable:
        raise Internal("there is no signing key: the key ring was not prepared")
    return next((key for key in usable if key.created_at + VERIFY_BEFORE_SIGN_S <= now), usable[-1])


def expired_keys(keys: Sequence[SigningKey], now: float) -> list[str]:
    """Ids of keys, given newest first, whose last token has expired: superseded (or retired) long enough
    ago."""
    found = []
    for newer, key in zip((None, *keys), keys, strict=False):
        superseded_at = key.retired_at
        if superseded_at is None and newer is not None:
            superseded_at = newer.created_at + VERIFY_BEFORE_SIGN_S
        if superseded_at is not None and superseded_at + ACCESS_TOKEN_LIFE_S < now:
            found.append(key.kid)
    return found


def new_key(now: float) -> SigningKey:
    """A fresh P-256 key. Its id is the first 16 characters of its RFC 7638 thumbprint."""
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    x, y = _coordinates(private.public_key())
    thumbprint = hashlib.sha256(f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode()).digest()
    return SigningKey(_base64url(thumbprint)[:16], pem.decode(), now)


def load_key(key: SigningKey) -> LoadedKey:
    """Raise Internal when the stored key cannot be read."""
    try:
        private = serialization.load_pem_private_key(key.private_pem.encode(), None)
    except ValueError as error:
        raise Internal(f"signing key {key.kid} cannot be read") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise Internal(f"signing key {key.kid} is not an elliptic curve key")
    return LoadedKey(key.kid, private, private.public_key())


def jwks(keys: Sequence[SigningKey]) -> dict[str, object]:
    """The public halves of `keys` as a JSON Web Key Set (RFC 7517)."""
    return {"keys": [_jwk(load_key(key)) for key in keys]}


def _jwk(key: LoadedKey) -> dict[str, str]:
    x, y = _coordinates(key.public)
    return {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": key.kid, "x": x, "y": y}


def _coordinates(public: ec.EllipticCurvePublicKey) -> tuple[str, str]:
    numbers = public.public_numbers()
    return _base64url(numbers.x.to_bytes(32, "big")), _base64url(numbers.y.to_bytes(32, "big"))


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
