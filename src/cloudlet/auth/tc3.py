"""The TC3 signature of dialect A (facts: wire-protocol 2.1), checked.

The signer hashes the parameters of the body one by one, each as its compact JSON text (texts without quotes
and trimmed). So the check works on the raw JSON text of each top-level value, exactly as it was sent. Two
published versions of the signing library differ in whether empty values are listed among the signed
parameters; both skip them in the hash, and so do we.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from cloudlet.model.errors import SignatureInvalid

ALGORITHM = "TC3-HMAC-SHA256"
SERVICE = "tcb"
EXPIRES_S_DEFAULT = 600
EXPIRES_S_MAX = 900
"""The expiry header is not signed: nobody may stretch the life of a captured request beyond this."""
CLOCK_AHEAD_S_MAX = 300
"""How far a signer's clock may be ahead of ours."""

_AUTHORIZATION = re.compile(
    r"TC3-HMAC-SHA256 Credential=(?P<id>[^/\s,]{1,128})/(?P<date>\d{4}-\d\d-\d\d)/tcb/tc3_request,"
    r" SignedParams=(?P<params>[^,\s]{0,4096}),"
    r" SignedHeaders=(?P<headers>[^,\s]{1,4096}),"
    r" Signature=(?P<signature>[0-9a-f]{64})\Z"
)
_JS_SPACE = (
    "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
"""What JavaScript's trim() removes."""


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """The parts of a request that a signature covers."""

    method: str
    host: str
    """As the client addressed it, with the port unless it is the scheme's own."""
    path: str
    query: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Mapping[str, msgspec.Raw]
    """Top-level members of the JSON body, each as its raw text."""


@dataclass(frozen=True, slots=True)
class Authorization:
    """The parsed header."""

    secret_id: str
    date: str
    signed_params: tuple[str, ...]
    signed_headers: tuple[str, ...]
    signature: str


def credential_id(authorization: str) -> str:
    """The credential id that the header names, without checking anything; empty when there is none."""
    start = authorization.find("Credential=")
    return authorization[start + 11 :].split("/", 1)[0][:128] if start >= 0 else ""


def verify_tc3(request: SignedRequest, find_key: Callable[[str], str | None], now: float) -> str:
    """Return the credential id that signed `request`. Raise SignatureInvalid with what is wrong.

    `find_key` gives the secret key of an id.
    """
    authorization = parse_authorization(request.headers.get("authorization", ""))
    timestamp = _check_time(request.headers, now)
    if authorization.date != _utc_date(timestamp):
        raise SignatureInvalid("the date in the credential is not the day of X-Timestamp")
    secret_key = find_key(authorization.secret_id)
    if secret_key is None:
        raise SignatureInvalid("the secret id is not known here")
    canonical = canonical_request(request, authorization)
    expected = sign(canonical, secret_key, timestamp, authorization.date)
    if not hmac.compare_digest(expected, authorization.signature):
        raise SignatureInvalid("the signature does not match: check the secret key")
    return authorization.secret_id


def parse_authorization(header: str) -> Authorization:
    """Raise SignatureInvalid when `header` is not a TC3 authorization."""
    if not header:
        raise SignatureInvalid("the request is not signed: the Authorization header is missing")
    match = _AUTHORIZATION.match(header)
    if match is None:
        raise SignatureInvalid("the Authorization header is not a TC3-HMAC-SHA256 signature")
    params = match["params"]
    return Authorization(
        match["id"],
        match["date"],
        tuple(params.split(";")) if params else (),
        tuple(match["headers"].split(";")),
        match["signature"],
    )


def canonical_request(request: SignedRequest, authorization: Authorization) -> str:
    """The text whose hash is signed. Raise SignatureInvalid when a named part is not there, or a parameter
    that is there is not named."""
    lines = "".join(_header_line(request.headers, name) for name in authorization.signed_headers)
    payload = _payload_hash(request.body, authorization.signed_params)
    return (
        f"{request.method.lower()}\n//{request.host}{request.path}\n{request.query}\n"
        f"{lines}\n{';'.join(authorization.signed_headers)}\n{payload}"
    )


def sign(canonical: str, secret_key: str, timestamp: int, date: str) -> str:
    """The signature of a canonical request, in lower-case hexadecimal digits."""
    text = f"{ALGORITHM}\n{timestamp}\n{date}/{SERVICE}/tc3_request\n{_sha256(canonical.encode())}"
    key = f"TC3{secret_key}".encode()
    for part in (date, SERVICE, "tc3_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def _check_time(headers: Mapping[str, str], now: float) -> int:
    timestamp = _number(headers, "x-timestamp", None)
    expires = min(_number(headers, "x-signature-expires", EXPIRES_S_DEFAULT), EXPIRES_S_MAX)
    if now > timestamp + expires:
        raise SignatureInvalid("the signature has expired: check the clock of the machine that signs")
    if timestamp > now + CLOCK_AHEAD_S_MAX:
        raise SignatureInvalid("the signature is from the future: check the clock of the machine that signs")
    return timestamp


def _number(headers: Mapping[str, str], name: str, default: int | None) -> int:
    text = headers.get(name, "")
    if not text and default is not None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise SignatureInvalid(f"the header {name} is not a number of seconds")
    return int(text)


def _header_line(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if value is None:
        raise SignatureInvalid(f"the signed header {name[:80]!r} is not there")
    if name == "content-type":
        # The library leaves this one value as it is, except that a multipart boundary is cut off.
        value = "multipart/form-data" if value.startswith("multipart/form-data") else value
    else:
        value = value.strip(_JS_SPACE).lower()
    return f"{name}:{value}\n"


def _payload_hash(body: Mapping[str, msgspec.Raw], signed: tuple[str, ...]) -> str:
    values = {name: text for name, text in _canonical_members(body) if text}
    if not set(values) <= set(signed):
        raise SignatureInvalid("a parameter of the body is not signed")
    digest = hashlib.sha256()
    for name in signed:
        if name in values:
            digest.update(f"&{name}={values[name]}\r\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _canonical_members(body: Mapping[str, msgspec.Raw]) -> list[tuple[str, str]]:
    members = [(_canonical_name(name), _canonical_value(raw)) for name, raw in body.items()]
    if len({name for name, _ in members}) != len(members):
        raise SignatureInvalid("two parameters differ in case only")
    return members


def _canonical_name(name: str) -> str:
    return quote(name.strip(_JS_SPACE).lower(), safe="-_.~")


def _canonical_value(raw: msgspec.Raw) -> str:
    text = bytes(raw)
    if text[:1] == b'"':
        value: str = msgspec.json.decode(text, type=str)
        return value.strip(_JS_SPACE)
    return text.decode()


def _utc_date(timestamp: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(timestamp))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
