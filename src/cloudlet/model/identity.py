"""Who is calling."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller of one request, as the edge or the platform socket established it.

    Empty strings mean "not known"; a caller without `uid` is nobody and may only sign in.
    """

    environment: str
    uid: str = ""
    openid: str = ""
    appid: str = ""
    unionid: str = ""
    login_type: str = ""
    """``WECHAT``, ``ANONYMOUS``, ``CUSTOM`` … (facts: loginType)."""
    session_id: str = ""
    admin: bool = False
    """True for callers that hold the environment's secret or are one of its functions: rules do not apply."""

    @property
    def anonymous(self) -> bool:
        return self.login_type == "ANONYMOUS"


@dataclass(frozen=True, slots=True)
class User:
    """A registered user of one environment."""

    environment: str
    uid: str
    login_type: str
    created_at: float
    openid: str = ""
    appid: str = ""
    unionid: str = ""
