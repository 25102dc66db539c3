from __future__ import annotations

import pytest

from cloudlet.auth.keys import KeyRing
from cloudlet.auth.service import REFRESH_TOKEN_LIFE_S, AuthService, check_openid
from cloudlet.model.errors import InvalidParameter, PermissionDenied, TokenExpired, Unauthenticated
from cloudlet.state.memory import MemoryRecords

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000.0


class MovingClock:
    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


class Rig:
    def __init__(self, anonymous: bool = True) -> None:
        self.clock = MovingClock()
        self.records = MemoryRecords(self.clock)
        self.keys = KeyRing(self.records)
        self.banned: list[tuple[str, float]] = []
        self.anonymous = anonymous

    async def start(self) -> AuthService:
        await self.keys.maintain(self.clock.now())
        return AuthService(self.records, self.keys, self.clock, self.anonymous, self._ban)

    async def _ban(self, session_id: str, until: float) -> None:
        self.banned.append((session_id, until))


async def test_anonymous_sign_in_makes_a_new_user_each_time() -> None:
    auth = await Rig().start()
    a, b = await auth.sign_in_anonymously("default"), await auth.sign_in_anonymously("default")
    who = auth.verify(a.access_token)
    assert who.identity.anonymous and who.identity.environment == "default" and who.identity.openid == ""
    assert who.source == "web_client"
    assert a.user.uid == who.identity.uid != b.user.uid


async def test_anonymous_sign_in_can_be_switched_off() -> None:
    auth = await Rig(anonymous=False).start()
    with pytest.raises(PermissionDenied):
        await auth.sign_in_anonymously("default")


async def test_an_openid_keeps_its_user_over_sessions() -> None:
    auth = await Rig().start()
    a, b = (
        await auth.sign_in_openid("default", "oA"),
        await auth.sign_in_openid("default", "oA", "wx1", "un1"),
    )
    first, second = auth.verify(a.access_token).identity, auth.verify(b.access_token).identity
    assert first.uid == second.uid and first.openid == second.openid == "oA"
    assert first.session_id != second.session_id
    assert (second.appid, second.unionid, second.login_type) == ("wx1", "un1", "WECHAT")


@pytest.mark.parametrize("openid", ["", "12345", "0", "a b", "ü", "x" * 129, "a\n", "a\r\nx-cloudlet-env: b"])
async def test_openids_that_would_not_travel_are_refused(openid: str) -> None:
    auth = await Rig().start()
    with pytest.raises(InvalidParameter):
        await auth.sign_in_openid("default", openid)


def test_the_reason_for_refusing_digits_is_given() -> None:
    with pytest.raises(InvalidParameter, match="turn such a value into a number"):
        check_openid("10001")
    assert check_openid("o10001") == "o10001"


async def test_a_refresh_token_works_once_and_keeps_the_session() -> None:
    rig = Rig()
    auth = await rig.start()
    first = await auth.sign_in_openid("default", "oA")
    rig.clock.at += 1000
    with pytest.raises(TokenExpired):
        auth.verify(first.access_token)
    second = await auth.refresh("default", first.refresh_token)
    assert second.refresh_token != first.refresh_token
    assert auth.verify(second.access_token).identity.uid == first.user.uid
    assert auth.verify(second.access_token).source == "wx_client"


async def test_using_a_refresh_token_again_ends_the_whole_session() -> None:
    rig = Rig()
    auth = await rig.start()
    first = await auth.sign_in_openid("default", "oA")
    second = await auth.refresh("default", first.refresh_token)
    with pytest.raises(Unauthenticated, match="used before"):
        await auth.refresh("default", first.refresh_token)
    with pytest.raises(Unauthenticated):
        await auth.refresh("default", second.refresh_token)
    with pytest.raises(Unauthenticated, match="ended"):
        auth.verify(second.access_token)
    [(session, until)] = rig.banned
    assert until == rig.clock.at + 900
    assert rig.records.revoked_sessions(rig.clock.at) == {session: until}


async def test_another_environment_cannot_refresh() -> None:
    rig = Rig()
    auth = await rig.start()
    await rig.records.create_environment("b")
    session = await auth.sign_in_openid("default", "oA")
    with pytest.raises(Unauthenticated):
        await auth.refresh("b", session.refresh_token)


@pytest.mark.parametrize("token", ["", "nonsense", "x" * 300])
async def test_unknown_refresh_tokens_are_refused(token: str) -> None:
    auth = await Rig().start()
    with pytest.raises(Unauthenticated):
        await auth.refresh("default", token)


async def test_a_refresh_token_expires() -> None:
    rig = Rig()
    auth = await rig.start()
    session = await auth.sign_in_openid("default", "oA")
    rig.clock.at += REFRESH_TOKEN_LIFE_S
    with pytest.raises(Unauthenticated):
        await auth.refresh("default", session.refresh_token)


async def test_revoking_ends_one_session_only_also_after_a_restart() -> None:
    rig = Rig()
    auth = await rig.start()
    a, b = await auth.sign_in_openid("default", "oA"), await auth.sign_in_openid("default", "oA")
    await auth.revoke(auth.verify(a.access_token).identity)
    again = await rig.start()
    for service in (auth, again):
        with pytest.raises(Unauthenticated):
            service.verify(a.access_token)
        assert service.verify(b.access_token).identity.openid == "oA"
    assert [session for session, _ in rig.banned] != []


async def test_a_deleted_user_cannot_go_on() -> None:
    rig = Rig()
    auth = await rig.start()
    await rig.records.create_environment("b")
    session = await auth.sign_in_openid("b", "oA")
    identity = auth.verify(session.access_token).identity
    assert auth.user(identity).openid == "oA"
    await rig.records.delete_environment("b")
    with pytest.raises(Unauthenticated):
        auth.user(identity)


async def test_refresh_tokens_are_stored_as_hashes_only() -> None:
    rig = Rig()
    auth = await rig.start()
    session = await auth.sign_in_openid("default", "oA")
    stored = list(rig.records._environments["default"].refresh_tokens)
    assert len(stored) == 1 and session.refresh_token not in stored[0] and len(stored[0]) == 64
