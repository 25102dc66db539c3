"""On whose behalf documents are read and written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Access:
    """The part of an identity that document permissions look at."""

    environment: str
    admin: bool = False
    """Server-side callers: presets and rules do not apply, `_openid` is not stamped."""
    openid: str = ""
    uid: str = ""
    transaction: str = ""
    """The id of the transaction this is a part of; empty: none."""
    login_type: str = ""
    """How the user signed in, as rules see it (``auth.loginType``); empty: not known."""
