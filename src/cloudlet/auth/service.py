"""Sessions: who may get one, how it is kept, how it ends."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from cloudlet.auth.keys import ACCESS_TOKEN_LIFE_S, KeyRing
from cloudlet.auth.tokens import AccessToken, mint, verify
from cloudlet.model.clock import Clock
from cloudlet.model.errors import InvalidParameter, PermissionDenied, Unauthenticated
from cloudlet.model.identity import Identity, User
from cloudlet.model.ids import new_secret
from cloudlet.state.base import RefreshToken, UserRecords

REFRESH_TOKEN_LIFE_S = 30 * 86400.0
REFRESH_TOKEN_CHARS_MAX = 256
OPENID_CHARS_MAX = 128
LOGIN_ANONYMOUS = "ANONYMOUS"
LOGIN_WECHAT = "WECHAT"
SOURCE_WEB = "web_client"
SOURCE_WECHAT = "wx_client"

SessionRevoked = Callable[[str, float], Awaitable[None]]
"""Told the session id and until when its access tokens must be refused (the edge's ban list)."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Session:
    """What a client gets from signing in."""

    access_token: str
    refresh_token: str
    expires_in_s: int
    user: User


class AuthService:
    """Sign-in, refresh, sign-out and the check of access tokens.

    Refresh tokens are stored as hashes and change with every use. One that is used twice was copied: its
    whole session ends.
    """

    def __init__(
        self,
        records: UserRecords,
        keys: KeyRing,
        clock: Clock,
        anonymous_sign_in: bool = True,
        on_revoked: SessionRevoked | None = None,
    ) -> None:
        self._records = records
        self._keys = keys
        self._clock = clock
        self._anonymous_sign_in = anonymous_sign_in
        self._on_revoked = on_revoked
        self._revoked = records.revoked_sessions(clock.now())

    async def sign_in_anonymously(self, environment: str) -> Session:
        """A new user nobody knows. Raise PermissionDenied when the installation does not want that."""
        if not self._anonymous_sign_in:
            raise PermissionDenied("anonymous sign-in is switched off on this installation")
        user = User(environment, secrets.token_hex(16), LOGIN_ANONYMOUS, self._clock.now())
        return await self._open(await self._records.create_user(user), SOURCE_WEB)

    async def user_for_openid(
        self, environment: str, openid: str, appid: str = "", unionid: str = ""
    ) -> User:
        """The user with this openid, made at the first time. Raise InvalidParameter, EnvironmentNotFound."""
        check_openid(openid)
        _check_id("appid", appid)
        _check_id("unionid", unionid)
        return await self._records.user_for_openid(
            environment, openid, appid, unionid, LOGIN_WECHAT, self._clock.now()
        )

    async def sign_in_openid(
        self, environment: str, openid: str, appid: str = "", unionid: str = ""
    ) -> Session:
        """A session for somebody whose openid is already proved. Raise InvalidParameter,
        EnvironmentNotFound."""
        return await self._open(
            await self.user_for_openid(environment, openid, appid, unionid), SOURCE_WECHAT
        )

    async def refresh(self, environment: str, refresh_token: str) -> Session:
        """Exchange a refresh token for a new pair. Raise Unauthenticated when it is unknown, expired, of
        another environment, or was used before; in the last case the session is over for whoever holds
        it."""
        if not refresh_token or len(refresh_token) > REFRESH_TOKEN_CHARS_MAX:
            raise Unauthenticated("the refresh token is not valid")
        now = self._clock.now()
        found = await self._records.use_refresh_token(_hash(refresh_token), now)
        if found is None or found.environment != environment or found.expires_at <= now:
            raise Unauthenticated("the refresh token is not valid or has expired")
        if found.used_at is not None:
            log.warning("refresh_token_reused", environment=environment, session=found.session_id)
            await self._revoke(environment, found.session_id)
            raise Unauthenticated("the refresh token was used before: the session has been ended")
        user = self._records.find_user(environment, found.uid)
        if user is None:
            raise Unauthenticated("the user does not exist any more")
        source = SOURCE_WEB if user.login_type == LOGIN_ANONYMOUS else SOURCE_WECHAT
        return await self._issue(user, found.session_id, source)

    async def revoke(self, identity: Identity) -> None:
        """End the caller's session: its refresh tokens at once, its access tokens as soon as the edge
        knows."""
        await self._revoke(identity.environment, identity.session_id)

    def verify(self, access_token: str) -> AccessToken:
        """Raise TokenExpired or Unauthenticated."""
        now = self._clock.now()
        token = verify(access_token, self._keys, now)
        if self._revoked.get(token.identity.session_id, 0.0) > now:
            raise Unauthenticated("the session has been ended")
        return token

    def user(self, identity: Identity) -> User:
        """The stored user. Raise Unauthenticated when it is gone."""
        user = self._records.find_user(identity.environment, identity.uid)
        if user is None:
            raise Unauthenticated("the user does not exist any more")
        return user

    async def _open(self, user: User, source: str) -> Session:
        return await self._issue(user, secrets.token_hex(16), source)

    async def _issue(self, user: User, session_id: str, source: str) -> Session:
        now = self._clock.now()
        refresh_token = new_secret("cr_", 32)
        await self._records.add_refresh_token(
            RefreshToken(
                _hash(refresh_token), user.environment, user.uid, session_id, now + REFRESH_TOKEN_LIFE_S
            )
        )
        access_token = mint(identity_of(user, session_id), source, self._keys.signer(now), now)
        return Session(access_token, refresh_token, int(ACCESS_TOKEN_LIFE_S), user)

    async def _revoke(self, environment: str, session_id: str) -> None:
        now = self._clock.now()
        until = now + ACCESS_TOKEN_LIFE_S
        self._revoked = {sid: end for sid, end in self._revoked.items() if end > now}
        self._revoked[session_id] = until
        await self._records.revoke_session(environment, session_id, until)
        if self._on_revoked is not None:
            await self._on_revoked(session_id, until)


def identity_of(user: User, session_id: str = "") -> Identity:
    """The identity under which `user` calls."""
    return Identity(
        environment=user.environment,
        uid=user.uid,
        openid=user.openid,
        appid=user.appid,
        unionid=user.unionid,
        login_type=user.login_type,
        session_id=session_id,
    )


def check_openid(openid: str) -> str:
    """Return `openid` or raise InvalidParameter.

    All digits are refused because the vendors' SDKs turn such a value into a number (facts: wire-protocol
    5.3): a function would compare it with text and find nobody.
    """
    if not openid:
        raise InvalidParameter("the openid is missing")
    _check_id("openid", openid)
    if openid.isdigit():
        raise InvalidParameter(
            f"the openid {openid[:40]!r} consists of digits only: SDKs inside functions turn such a value "
            "into a number; use one with at least one letter"
        )
    return openid


def _check_id(name: str, text: str) -> None:
    """These travel in headers: visible ASCII only."""
    if len(text) > OPENID_CHARS_MAX:
        raise InvalidParameter(f"the {name} is longer than {OPENID_CHARS_MAX} characters")
    if not all("!" <= character <= "~" for character in text):
        raise InvalidParameter(f"the {name} may hold visible ASCII characters only, without spaces")


def _hash(refresh_token: str) -> str:
    return hashlib.sha256(refresh_token.encode()).hexdigest()
