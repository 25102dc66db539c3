"""What both stores of control records decide alike."""

from __future__ import annotations

from dataclasses import replace

from cloudlet.model.app import Credential
from cloudlet.model.errors import Conflict
from cloudlet.model.identity import User
from cloudlet.model.ids import DEFAULT_ENVIRONMENT, new_secret


def refuse_default(name: str) -> None:
    """Raise Conflict for the environment that must always exist."""
    if name == DEFAULT_ENVIRONMENT:
        raise Conflict(f"the environment {DEFAULT_ENVIRONMENT!r} cannot be deleted")


def new_credential(environment: str, now: float) -> Credential:
    """A random key pair; the id's prefix is what the vendors' SDKs show in their messages."""
    return Credential(environment, new_secret("AKID", 24), new_secret("", 32), now)


def completed(user: User, appid: str, unionid: str) -> User:
    """`user` with the ids that were unknown at the first sign-in; what is known stays."""
    return replace(user, appid=user.appid or appid, unionid=user.unionid or unionid)
