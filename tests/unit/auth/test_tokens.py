from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from cloudlet.auth.keys import ACCESS_TOKEN_LIFE_S, KeyRing, LoadedKey, load_key, new_key
from cloudlet.auth.tokens import ISSUER, mint, verify
from cloudlet.model.errors import TokenExpired, Unauthenticated
from cloudlet.model.identity import Identity
from cloudlet.state.memory import MemoryRecords

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000.5
WHO = Identity("default", "u1", "oA", "wx1", "", "WECHAT", "s1")


async def _ring() -> KeyRing:
    ring = KeyRing(MemoryRecords())
    await ring.maintain(NOW)
    return ring


def _signed(ring: KeyRing, changes: dict[str, Any], algorithm: str = "ES256") -> str:
    key = ring.signer(NOW)
    claims = {"iss": ISSUER, "env": "default", "sub": "u", "sid": "s", "iat": int(NOW), "exp": int(NOW) + 60}
    claims.update(changes)
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key.private, algorithm, headers={"kid": key.kid})


async def test_a_token_says_what_was_put_in() -> None:
    ring = await _ring()
    token = verify(mint(WHO, "wx_client", ring.signer(NOW), NOW), ring, NOW)
    assert token.identity == WHO and token.source == "wx_client"
    assert token.expires_at == int(NOW) + ACCESS_TOKEN_LIFE_S


async def test_unknown_ids_are_absent_from_the_claims() -> None:
    ring = await _ring()
    claims = jwt.decode(
        mint(WHO, "", ring.signer(NOW), NOW), options={"verify_signature": False, "verify_exp": False}
    )
    assert "unionid" not in claims and "src" not in claims
    assert claims["iss"] == "cloudlet" and claims["openid"] == "oA"


async def test_no_token_lives_longer_than_the_limit() -> None:
    ring = await _ring()
    token = mint(WHO, "", ring.signer(NOW), NOW, life_s=1e9)
    assert verify(token, ring, NOW).expires_at == int(NOW) + ACCESS_TOKEN_LIFE_S


async def test_a_token_expires_to_the_second() -> None:
    ring = await _ring()
    token = mint(WHO, "", ring.signer(NOW), NOW, life_s=60)
    verify(token, ring, int(NOW) + 59.999)
    with pytest.raises(TokenExpired):
        verify(token, ring, int(NOW) + 60)


async def test_a_token_from_before_the_clock_was_set_back_holds() -> None:
    ring = await _ring()
    token = _signed(ring, {"iat": int(NOW) + 7200, "exp": int(NOW) + 7260})
    assert verify(token, ring, NOW).identity.uid == "u"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "somebody"},
        {"iss": None},
        {"env": None},
        {"env": 7},
        {"sub": ""},
        {"sid": None},
        {"exp": None},
        {"exp": NOW + 60.5},
        {"exp": int(NOW) + 100_000},
        {"openid": ["oA"]},
    ],
)
async def test_impossible_claims_are_refused(changes: dict[str, Any]) -> None:
    ring = await _ring()
    verify(_signed(ring, {}), ring, NOW)
    with pytest.raises(Unauthenticated):
        verify(_signed(ring, changes), ring, NOW)


async def test_a_foreign_key_is_refused_even_under_our_id() -> None:
    ring = await _ring()
    foreign = load_key(new_key(NOW))
    with pytest.raises(Unauthenticated):
        verify(mint(WHO, "", foreign, NOW), ring, NOW)
    disguised = LoadedKey(ring.signer(NOW).kid, foreign.private, foreign.public)
    with pytest.raises(Unauthenticated):
        verify(mint(WHO, "", disguised, NOW), ring, NOW)


async def test_alg_none_and_other_algorithms_are_refused() -> None:
    ring = await _ring()
    kid = ring.signer(NOW).kid
    claims = {"iss": ISSUER, "env": "default", "sub": "u", "sid": "s", "iat": int(NOW), "exp": int(NOW) + 60}

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    for header in (
        {"alg": "none", "kid": kid},
        {"alg": "None"},
        {"alg": "ES256"},
        {"alg": "ES256", "kid": 1},
    ):
        with pytest.raises(Unauthenticated):
            verify(f"{part(header)}.{part(claims)}.", ring, NOW)
    public = ring.signer(NOW).public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    # The well-known confusion: our public key taken as the secret of a symmetric algorithm.
    secret = base64.b64encode(public).decode()
    with pytest.raises(Unauthenticated):
        verify(jwt.encode(claims, secret, "HS256", headers={"kid": kid}), ring, NOW)


async def test_any_changed_character_is_noticed() -> None:
    ring = await _ring()
    token = mint(WHO, "", ring.signer(NOW), NOW)
    head, body, signature = token.split(".")
    for broken in (
        token[:-8] + ("A" if token[-8] != "A" else "B") + token[-7:],
        f"{head}.{body[:10]}{'A' if body[10] != 'A' else 'B'}{body[11:]}.{signature}",
        f"{head}.{body}",
        "",
        "..",
        "x" * 5000,
    ):
        with pytest.raises(Unauthenticated):
            verify(broken, ring, NOW)
