from __future__ import annotations

import pytest

from cloudlet.auth.keys import (
    ACCESS_TOKEN_LIFE_S,
    KEY_LIFE_S,
    VERIFY_BEFORE_SIGN_S,
    KeyRing,
    expired_keys,
    jwks,
    load_key,
    new_key,
    signing_key,
)
from cloudlet.model.errors import Internal
from cloudlet.state.base import SigningKey
from cloudlet.state.memory import MemoryRecords

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000.0


def _keys(*created_at: float) -> list[SigningKey]:
    return [SigningKey(f"k{n}", "", at) for n, at in enumerate(created_at)]


def test_the_only_key_signs_at_once() -> None:
    assert signing_key(_keys(NOW), NOW).kid == "k0"


def test_a_new_key_verifies_before_it_signs() -> None:
    keys = _keys(NOW, NOW - 1000)
    assert signing_key(keys, NOW + VERIFY_BEFORE_SIGN_S - 1).kid == "k1"
    assert signing_key(keys, NOW + VERIFY_BEFORE_SIGN_S).kid == "k0"


def test_no_key_is_a_fault_of_ours() -> None:
    with pytest.raises(Internal):
        signing_key([], NOW)


def test_a_superseded_key_lives_until_its_last_token_expired() -> None:
    keys = _keys(NOW, NOW - 1000)
    last = NOW + VERIFY_BEFORE_SIGN_S + ACCESS_TOKEN_LIFE_S
    assert expired_keys(keys, last) == []
    assert expired_keys(keys, last + 1) == ["k1"]


def test_a_retired_key_signs_nothing_and_expires() -> None:
    retired = SigningKey("bad", "", NOW, NOW + 5)
    keys = [retired, *_keys(NOW - 1000)]
    assert signing_key(keys, NOW + 3600).kid == "k0"
    assert expired_keys([retired], NOW + 5 + ACCESS_TOKEN_LIFE_S + 1) == ["bad"]


async def test_the_ring_makes_the_first_key_and_keeps_it() -> None:
    records = MemoryRecords()
    ring = KeyRing(records)
    assert await ring.maintain(NOW)
    assert not await ring.maintain(NOW + 1)
    again = KeyRing(records)
    assert await again.maintain(NOW + 2)
    assert again.signer(NOW + 2).kid == ring.signer(NOW).kid
    assert len(records.signing_keys()) == 1


async def test_the_ring_rotates_by_age_and_forgets_the_old_key() -> None:
    records = MemoryRecords()
    ring = KeyRing(records)
    await ring.maintain(NOW)
    first = ring.signer(NOW).kid
    later = NOW + KEY_LIFE_S
    assert await ring.maintain(later)
    assert ring.signer(later).kid == first
    second = ring.signer(later + VERIFY_BEFORE_SIGN_S).kid
    assert second != first and ring.verifier(first) is not None
    assert await ring.maintain(later + VERIFY_BEFORE_SIGN_S + ACCESS_TOKEN_LIFE_S + 1)
    assert ring.verifier(first) is None
    assert [key.kid for key in records.signing_keys()] == [second]


def test_the_published_set_holds_public_halves_only() -> None:
    key = new_key(NOW)
    [published] = jwks([key])["keys"]  # type: ignore[misc]
    assert set(published) == {"kty", "crv", "alg", "use", "kid", "x", "y"}  # type: ignore[has-type]
    assert published["kid"] == key.kid and len(published["x"]) == len(published["y"]) == 43  # type: ignore[has-type]


def test_a_damaged_key_is_named() -> None:
    with pytest.raises(Internal, match="k9"):
        load_key(SigningKey("k9", "nonsense", NOW))
