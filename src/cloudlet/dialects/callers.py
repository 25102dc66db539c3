"""Who is calling, for every dialect: the edge's headers, or an instance's socket with its invocation
token."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from cloudlet.model.errors import EnvironmentMismatch, Unauthenticated
from cloudlet.model.identity import Identity
from cloudlet.model.invocation import (
    APPID,
    CLIENT_IP,
    ENVIRONMENT,
    LOGIN_TYPE,
    OPENID,
    SESSION_ID,
    SOURCE,
    UID,
    UNIONID,
)
from cloudlet.state.base import EnvironmentRecords

SOURCE_FUNCTION = "scf"
SOURCE_CHARS_MAX = 256
TOKEN_CHARS_MAX = 4096
SESSIONS_KEPT = 4096
"""Identities of users that are not made anew for each of their requests."""


@dataclass(frozen=True, slots=True)
class InstanceIdentity:
    """Which instance a platform socket belongs to: whoever speaks there is this instance."""

    instance_id: str
    environment: str
    function: str
    secret_id: str
    session_token: str = ""
    """``TENCENTCLOUD_SESSIONTOKEN`` of the instance: it speaks for itself, for no user."""


@dataclass(slots=True)
class Caller:
    """The caller of one request. Nobody changes it (see `Request`)."""

    identity: Identity
    source: str = ""
    depth: int = 0
    client_ip: str = ""


class _InvocationToken(msgspec.Struct, frozen=True):
    """``runtime/contract.md``, Invocation token."""

    r: str = ""
    u: str = ""
    o: str = ""
    a: str = ""
    n: str = ""
    l: str = ""  # noqa: E741 - the contract's name
    s: str = ""
    c: str = ""
    d: int = 0
    i: str = ""


_token_decoder = msgspec.json.Decoder(_InvocationToken)


def caller_of_token(token: str, instance: InstanceIdentity) -> Caller:
    """The user on whose behalf a function of `instance` makes a nested call. Without a token: the function
    itself.

    Only for what arrived on the instance's own socket: the token is not signed. Raise Unauthenticated when it
    cannot be read.
    """
    if not token or (instance.session_token and token == instance.session_token):
        return Caller(Identity(instance.environment, admin=True), SOURCE_FUNCTION, depth=1)
    if len(token) > TOKEN_CHARS_MAX:
        raise Unauthenticated("the invocation token is too long")
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        said = _token_decoder.decode(raw)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise Unauthenticated("the invocation token cannot be read") from error
    if said.d < 0 or not all(
        _is_plain(text) for text in (said.u, said.o, said.a, said.n, said.l, said.s, said.i)
    ):
        raise Unauthenticated("the invocation token holds what no token of ours holds")
    identity = Identity(
        environment=instance.environment,
        uid=said.u,
        openid=said.o,
        appid=said.a,
        unionid=said.n,
        login_type=said.l,
        session_id=said.s,
        admin=True,
    )
    return Caller(identity, chained(said.c), said.d + 1, said.i)


def caller_of_edge(headers: Mapping[str, str]) -> Caller | None:
    """The caller whose token the edge verified; None when there was none."""
    get = headers.get
    environment, uid = get(ENVIRONMENT, ""), get(UID, "")
    if not environment or not uid:
        return None
    identity = _user(
        environment,
        uid,
        get(OPENID, ""),
        get(APPID, ""),
        get(UNIONID, ""),
        get(LOGIN_TYPE, ""),
        get(SESSION_ID, ""),
    )
    return Caller(identity, get(SOURCE, ""), 0, get(CLIENT_IP, ""))


@lru_cache(maxsize=SESSIONS_KEPT)
def _user(
    environment: str, uid: str, openid: str, appid: str, unionid: str, login_type: str, session_id: str
) -> Identity:
    return Identity(environment, uid, openid, appid, unionid, login_type, session_id)


def chained(source: str) -> str:
    """The source chain that a function called by a function sees: ``<caller>,scf``, cut from the left when
    it gets too long."""
    parts = [part for part in source.split(",") if part and _is_plain(part)]
    return ",".join([*parts, SOURCE_FUNCTION])[-SOURCE_CHARS_MAX:].lstrip(",")


def check_environment(records: EnvironmentRecords, own: str, *named: str) -> None:
    """Raise EnvironmentMismatch when a request names another environment than the caller's own (aliases are
    the same environment), EnvironmentNotFound when it names none there is. Empty names mean the own one."""
    for name in named:
        if name and name != own:
            found = records.resolve_environment(name).name
            if found != own:
                raise EnvironmentMismatch(f"the caller belongs to environment {own!r}, not to {name[:80]!r}")


def _is_plain(text: str) -> bool:
    """These become headers: visible ASCII, short."""
    return len(text) <= SOURCE_CHARS_MAX and all("!" <= character <= "~" for character in text)
