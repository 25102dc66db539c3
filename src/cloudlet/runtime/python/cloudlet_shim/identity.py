"""Who is calling: from the platform's headers to the variables of one invocation (contract, section 3)."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode

_FIELDS = {
    "x-request-id": "request_id",
    "x-cloudlet-env": "environment",
    "x-cloudlet-function": "function",
    "x-cloudlet-uid": "uid",
    "x-cloudlet-openid": "openid",
    "x-cloudlet-appid": "appid",
    "x-cloudlet-unionid": "unionid",
    "x-cloudlet-login-type": "login_type",
    "x-cloudlet-sid": "session_id",
    "x-cloudlet-source": "source",
    "x-cloudlet-client-ip": "client_ip",
    "x-cloudlet-timeout-ms": "timeout_ms",
    "x-cloudlet-depth": "depth",
}
"""Header → field of Caller. Each may come once."""

INVOCATION_VARIABLES = (
    "TCB_CONTEXT_KEYS",
    "WX_CONTEXT_KEYS",
    "TCB_ENV",
    "TCB_SEQID",
    "TRIGGER_SRC",
    "TCB_SESSIONTOKEN",
    "TCB_SOURCE",
    "TCB_UUID",
    "TCB_ISANONYMOUS_USER",
    "TCB_SOURCE_IP",
    "LOGINTYPE",
    "WX_APPID",
    "WX_OPENID",
    "WX_UNIONID",
    "WX_API_TOKEN",
    "WX_CLIENTIP",
)
"""The variables that belong to one invocation. All others live as long as the instance."""

_NUMBER_DIGITS_MAX = 9
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Caller:
    """What the headers of a call say; empty = not known."""

    __slots__ = ("problem", *_FIELDS.values())

    request_id: str
    environment: str
    function: str
    uid: str
    openid: str
    appid: str
    unionid: str
    login_type: str
    session_id: str
    source: str
    client_ip: str
    timeout_ms: str
    depth: str

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        """`headers`: names in lower case, values as latin-1. Never raises: see `problem`."""
        self.problem = ""
        """What is wrong with the headers; empty = nothing."""
        found: dict[str, str] = {}
        for name, value in headers:
            field = _FIELDS.get(name)
            if field is None:
                continue
            if field in found:
                self.problem = f"header {name} is given twice"
            found[field] = value if value.isascii() else value.encode("latin-1").decode("utf-8", "replace")
        get = found.get
        self.request_id = get("request_id", "")
        self.environment = get("environment", "")
        self.function = get("function", "")
        self.uid = get("uid", "")
        self.openid = get("openid", "")
        self.appid = get("appid", "")
        self.unionid = get("unionid", "")
        self.login_type = get("login_type", "")
        self.session_id = get("session_id", "")
        self.source = get("source", "")
        self.client_ip = get("client_ip", "")
        self.timeout_ms = get("timeout_ms", "")
        self.depth = get("depth", "")
        for field in ("timeout_ms", "depth"):
            number = get(field, "")
            if number and not (number.isascii() and number.isdigit() and len(number) <= _NUMBER_DIGITS_MAX):
                self.problem = f"header x-cloudlet-{field.replace('_', '-')} is not a number"


def variables_of(caller: Caller, environment: str) -> dict[str, str]:
    """The variables of one invocation; what is not known is absent. `environment` is the instance's own."""
    token = _invocation_token(caller)
    anonymous = ("true" if caller.login_type == "ANONYMOUS" else "false") if caller.uid else ""
    tcb = {
        "TCB_ENV": environment,
        "TCB_SEQID": caller.request_id,
        "TCB_SESSIONTOKEN": token,
        "TCB_SOURCE": caller.source,
        "TCB_UUID": caller.uid,
        "TCB_ISANONYMOUS_USER": anonymous,
        "TCB_SOURCE_IP": caller.client_ip,
    }
    wx = {
        "WX_APPID": caller.appid,
        "WX_OPENID": caller.openid,
        "WX_UNIONID": caller.unionid,
        "WX_API_TOKEN": token,
        "WX_CLIENTIP": caller.client_ip,
    }
    variables = {name: value for name, value in tcb.items() if value}
    variables["TCB_CONTEXT_KEYS"] = ",".join(variables)
    known = {name: value for name, value in wx.items() if value}
    variables.update(known)
    variables["WX_CONTEXT_KEYS"] = ",".join(known)
    variables["TRIGGER_SRC"] = "tcb"
    if caller.login_type:
        variables["LOGINTYPE"] = caller.login_type
    return variables


def _invocation_token(caller: Caller) -> str:
    """Carries the caller into nested calls; believed only on the instance's own platform socket."""
    claims = {
        "r": caller.request_id,
        "u": caller.uid,
        "o": caller.openid,
        "a": caller.appid,
        "n": caller.unionid,
        "l": caller.login_type,
        "s": caller.session_id,
        "c": caller.source,
        "d": int(caller.depth or "0"),
        "i": caller.client_ip,
    }
    return urlsafe_b64encode(_encode(claims).encode()).rstrip(b"=").decode()
