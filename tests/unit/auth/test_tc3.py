"""The TC3 check against recordings of both published signing libraries and a small signer of our own."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudlet.auth.tc3 import SignedRequest, credential_id, verify_tc3
from cloudlet.model.errors import SignatureInvalid

NOW = 1_700_000_000
SECRET_ID, SECRET_KEY = "AKIDx", "k"
HOST, PATH, QUERY = "127.0.0.1:8787", "/admin", "env=default&seqId=1"

RECORDED_BODY = (
    '{"action":"database.getDocument","limit":100,"collectionName":"库","multi":false,"x":null,"empty":"",'
    '"o":{"b":[1,1.5,"é\u2028"]}}'
).encode()
RECORDED_HEADERS = {
    "content-type": "application/json",
    "host": HOST,
    "user-agent": "tcb-node-sdk/2.11.0",
    "x-tcb-source": ",unknown",
    "x-timestamp": str(NOW),
    "x-signature-expires": "600",
}
RECORDED = {
    "1.0.0-beta.0": "action;collectionname;empty;limit;multi;o;x",
    "2.2.0": "action;collectionname;limit;multi;o;x",
}
RECORDED_SIGNATURE = "730f0bcb1ebd888675ece8926a59a08341b341c196125661b5d43f576b0a289d"


def _find(secret_id: str) -> str | None:
    return SECRET_KEY if secret_id == SECRET_ID else None


def _request(headers: dict[str, str], body: bytes) -> SignedRequest:
    return SignedRequest(
        "POST", HOST, PATH, QUERY, headers, msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    )


def _recorded(version: str) -> SignedRequest:
    header = (
        f"TC3-HMAC-SHA256 Credential={SECRET_ID}/2023-11-14/tcb/tc3_request, "
        f"SignedParams={RECORDED[version]}, "
        f"SignedHeaders=content-type;host;user-agent;x-tcb-source, Signature={RECORDED_SIGNATURE}"
    )
    return _request({**RECORDED_HEADERS, "authorization": header}, RECORDED_BODY)


def _sign(body: dict[str, Any], timestamp: int = NOW, key: str = SECRET_KEY) -> SignedRequest:
    """The signer's side, written from the description: wire-protocol 2.1."""
    headers = dict(RECORDED_HEADERS, **{"x-timestamp": str(timestamp)})
    names = ["content-type", "host", "user-agent", "x-tcb-source"]
    texts = {}
    for name, value in body.items():
        text = value.strip() if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        if text:
            texts[quote(name.lower(), safe="-_.~")] = text
    signed = sorted(texts)
    payload = hashlib.sha256("".join(f"&{n}={texts[n]}\r\n" for n in signed).encode()).hexdigest()
    lines = "".join(f"{name}:{headers[name].lower()}\n" for name in names)
    canonical = f"post\n//{HOST}{PATH}\n{QUERY}\n{lines}\n{';'.join(names)}\n{payload}"
    date = time.strftime("%Y-%m-%d", time.gmtime(timestamp))
    scope = f"{date}/tcb/tc3_request"
    text = f"TC3-HMAC-SHA256\n{timestamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    secret = f"TC3{key}".encode()
    for part in (date, "tcb", "tc3_request"):
        secret = hmac.new(secret, part.encode(), "sha256").digest()
    signature = hmac.new(secret, text.encode(), "sha256").hexdigest()
    headers["authorization"] = (
        f"TC3-HMAC-SHA256 Credential={SECRET_ID}/{scope}, SignedParams={';'.join(signed)}, "
        f"SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    return _request(headers, json.dumps(body, separators=(",", ":")).encode())


@pytest.mark.parametrize("version", RECORDED)
def test_requests_of_the_published_libraries_are_accepted(version: str) -> None:
    assert verify_tc3(_recorded(version), _find, NOW + 30) == SECRET_ID


def test_our_reference_signer_agrees_with_the_library() -> None:
    body = json.loads(RECORDED_BODY)
    body["o"]["b"][2] = "plain"
    assert verify_tc3(_sign(body), _find, NOW) == SECRET_ID


@pytest.mark.parametrize(
    ("offset", "accepted"),
    [(0, True), (600, True), (601, False), (-300, True), (-301, False), (86400, False)],
)
def test_a_captured_request_can_be_replayed_only_for_a_while(offset: int, accepted: bool) -> None:
    request = _sign({"action": "x"})
    if accepted:
        assert verify_tc3(request, _find, NOW + offset) == SECRET_ID
    else:
        with pytest.raises(SignatureInvalid, match="clock"):
            verify_tc3(request, _find, NOW + offset)


def test_nobody_can_stretch_the_expiry() -> None:
    request = _sign({"action": "x"})
    stretched = replace(request, headers={**request.headers, "x-signature-expires": "999999999"})
    with pytest.raises(SignatureInvalid, match="expired"):
        verify_tc3(stretched, _find, NOW + 901)


def test_moving_the_timestamp_breaks_the_signature() -> None:
    request = _sign({"action": "x"})
    with pytest.raises(SignatureInvalid, match="does not match"):
        verify_tc3(replace(request, headers={**request.headers, "x-timestamp": str(NOW + 1)}), _find, NOW)
    with pytest.raises(SignatureInvalid, match="day"):
        verify_tc3(
            replace(request, headers={**request.headers, "x-timestamp": str(NOW + 86400)}), _find, NOW + 86400
        )


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer abc",
        "TC3-HMAC-SHA256",
        "TC3-HMAC-SHA256 Credential=/2023-11-14/tcb/tc3_request, SignedParams=, SignedHeaders=a, Signature=0",
        f"TC3-HMAC-SHA256 Credential=a/2023-11-14/tcb/tc3_request, SignedHeaders=host, Signature={'0' * 64}",
        f"TC3-HMAC-SHA256 Credential=a/2023-11-14/scf/tc3_request, SignedParams=a, SignedHeaders=host, "
        f"Signature={'0' * 64}",
    ],
)
def test_what_is_not_a_signature_is_refused(header: str) -> None:
    request = _sign({"action": "x"})
    with pytest.raises(SignatureInvalid):
        verify_tc3(replace(request, headers={**request.headers, "authorization": header}), _find, NOW)


def test_unknown_ids_wrong_keys_and_missing_headers_are_refused() -> None:
    request = _sign({"action": "x"})
    with pytest.raises(SignatureInvalid, match="not known"):
        verify_tc3(request, lambda _: None, NOW)
    with pytest.raises(SignatureInvalid, match="does not match"):
        verify_tc3(_sign({"action": "x"}, key="other"), _find, NOW)
    without = {name: value for name, value in request.headers.items() if name != "x-tcb-source"}
    with pytest.raises(SignatureInvalid, match="x-tcb-source"):
        verify_tc3(replace(request, headers=without), _find, NOW)
    for value in ("", "abc", "-1", "1e9", "٣"):
        with pytest.raises(SignatureInvalid, match="x-timestamp"):
            verify_tc3(replace(request, headers={**request.headers, "x-timestamp": value}), _find, NOW)


def test_a_parameter_smuggled_in_beside_the_signed_ones_is_noticed() -> None:
    request = _sign({"action": "x"})
    added = {**request.body, "collectionName": msgspec.Raw(b'"orders"')}
    with pytest.raises(SignatureInvalid, match="not signed"):
        verify_tc3(replace(request, body=added), _find, NOW)
    shadowed = {**request.body, "ACTION": msgspec.Raw(b'"x"')}
    with pytest.raises(SignatureInvalid, match="case only"):
        verify_tc3(replace(request, body=shadowed), _find, NOW)


def test_the_credential_id_is_found_without_checking() -> None:
    assert credential_id(_recorded("2.2.0").headers["authorization"]) == SECRET_ID
    assert credential_id("") == credential_id("Bearer x") == ""


_bodies = st.dictionaries(
    st.text(st.characters(categories=("Ll", "Nd")), min_size=1, max_size=8),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-1000, 1000),
        st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp", "Cf")), max_size=12),
        st.lists(st.integers(0, 9), max_size=3),
    ),
    min_size=1,
    max_size=5,
)


@given(body=_bodies, data=st.data())
def test_what_was_signed_passes_and_any_change_fails(body: dict[str, Any], data: st.DataObject) -> None:
    request = _sign(body)
    assert verify_tc3(request, _find, NOW) == SECRET_ID
    name = data.draw(st.sampled_from(sorted(body)))
    value = data.draw(st.text(st.characters(categories=("Ll", "Nd")), min_size=1, max_size=9))
    changed = replace(request, body={**request.body, name: msgspec.Raw(msgspec.json.encode(value + "~"))})
    with pytest.raises(SignatureInvalid):
        verify_tc3(changed, _find, NOW)


@given(data=st.data())
def test_any_changed_character_outside_the_body_fails(data: st.DataObject) -> None:
    request = _sign({"action": "x", "limit": 3})
    header = data.draw(
        st.sampled_from(["content-type", "host", "user-agent", "x-tcb-source", "authorization"])
    )
    part = data.draw(st.sampled_from(["host", "path", "query", "header"]))
    text = {"host": HOST, "path": PATH, "query": QUERY, "header": request.headers[header]}[part]
    at = data.draw(st.integers(0, len(text) - 1))
    new = data.draw(st.sampled_from([c for c in "az09-=/;,Q" if c.lower() != text[at].lower()]))
    altered = text[:at] + new + text[at + 1 :]
    parts = {"host": HOST, "path": PATH, "query": QUERY, part: altered}
    headers = {**request.headers, header: altered} if part == "header" else request.headers
    changed = replace(request, host=parts["host"], path=parts["path"], query=parts["query"], headers=headers)
    with pytest.raises(SignatureInvalid):
        verify_tc3(changed, _find, NOW)
