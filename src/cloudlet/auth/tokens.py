"""Access tokens: ES256 JSON Web Tokens that say who calls. The edge checks the same tokens from the same
keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from cloudlet.auth.keys import ACCESS_TOKEN_LIFE_S, LoadedKey
from cloudlet.model.errors import TokenExpired, Unauthenticated
from cloudlet.model.identity import Identity

ISSUER = "cloudlet"
ALGORITHM = "ES256"
TOKEN_BYTES_MAX = 4096

_TEXT_CLAIMS = ("openid", "appid", "unionid", "login_type", "src")


class Verifiers(Protocol):
    """Where public keys come from."""

    def verifier(self, kid: str) -> ec.EllipticCurvePublicKey | None: ...


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a valid token says."""

    identity: Identity
    source: str
    """Where the session was opened: ``wx_client``, ``web_client`` …"""
    expires_at: float


def mint(
    identity: Identity, source: str, key: LoadedKey, now: float, life_s: float = ACCESS_TOKEN_LIFE_S
) -> str:
    """A token for `identity`, valid from `now` for `life_s` seconds (at most 15 minutes)."""
    issued_at = int(now)
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "env": identity.environment,
        "sub": identity.uid,
        "sid": identity.session_id,
        "iat": issued_at,
        "exp": issued_at + int(min(life_s, ACCESS_TOKEN_LIFE_S)),
    }
    texts = (identity.openid, identity.appid, identity.unionid, identity.login_type, source)
    # Absent, not empty: the edge turns a claim that is there into a header.
    claims.update({name: text for name, text in zip(_TEXT_CLAIMS, texts, strict=True) if text})
    return jwt.encode(claims, key.private, ALGORITHM, headers={"kid": key.kid})


def verify(token: str, keys: Verifiers, now: float) -> AccessToken:
    """Return what `token` says. Raise TokenExpired (no clock skew is allowed) or Unauthenticated."""
    key = keys.verifier(_key_id(token))
    if key is None:
        raise Unauthenticated("the token was not issued here")
    claims = _claims(token, key)
    if claims["exp"] <= now:
        raise TokenExpired
    # A time of issue in the future is no forgery, only a clock that was set back; the edge takes it, too.
    if claims["exp"] - claims["iat"] > ACCESS_TOKEN_LIFE_S:
        raise Unauthenticated("the token's times are not possible")
    identity = Identity(
        environment=claims["env"],
        uid=claims["sub"],
        openid=claims.get("openid", ""),
        appid=claims.get("appid", ""),
        unionid=claims.get("unionid", ""),
        login_type=claims.get("login_type", ""),
        session_id=claims["sid"],
    )
    return AccessToken(identity, claims.get("src", ""), float(claims["exp"]))


def _key_id(token: str) -> str:
    if len(token) > TOKEN_BYTES_MAX:
        raise Unauthenticated("the token is too long")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError as error:
        raise Unauthenticated("the token cannot be read") from error
    kid = header.get("kid")
    if header.get("alg") != ALGORITHM or not isinstance(kid, str):
        raise Unauthenticated("the token was not issued here")
    return kid


def _claims(token: str, key: ec.EllipticCurvePublicKey) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            # The times are checked by the caller, with the time it was given.
            options={
                "require": ["iss", "env", "sub", "sid", "iat", "exp"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
                "verify_aud": False,
            },
        )
    except jwt.InvalidTokenError as error:
        raise Unauthenticated("the token is not valid") from error
    if not all(isinstance(claims[name], str) and claims[name] for name in ("env", "sub", "sid")):
        raise Unauthenticated("the token is not valid")
    if not all(type(claims[name]) is int for name in ("iat", "exp")):
        raise Unauthenticated("the token is not valid")
    if not all(isinstance(claims.get(name, ""), str) for name in _TEXT_CLAIMS):
        raise Unauthenticated("the token is not valid")
    return claims
