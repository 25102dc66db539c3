"""Who is let in and what strangers read: tokens, names and paths at the real edge."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.acceptance.player import Answer, Player
from tests.integration.platform import Platform, running

PROJECT = Path(__file__).parent / "projects" / "behaviour"
pytestmark = pytest.mark.xdist_group("door")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("door"), PROJECT, "--only", "echo") as platform:
        yield platform


def call_with(platform: Platform, token: str, function: str = "echo") -> Answer:
    with Player(platform.installation.url, token) as player:
        return player.call(function, {})


def tampered(token: str) -> str:
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["openid"] = "somebody-else"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"{head}.{forged}.{signature}"


def claims_of(token: str) -> dict[str, object]:
    found: dict[str, object] = jwt.decode(token, options={"verify_signature": False})
    return found


def unsigned(token: str) -> str:
    return jwt.encode(claims_of(token), "", algorithm="none")


def symmetric(token: str) -> str:
    return jwt.encode(claims_of(token), "k" * 32, algorithm="HS256", headers=key_id(token))


def foreign(token: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(claims_of(token), key, algorithm="ES256", headers=key_id(token))


def key_id(token: str) -> dict[str, str]:
    return {"kid": jwt.get_unverified_header(token)["kid"]}


def expired(token: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(
        claims_of(token) | {"exp": int(time.time()) - 10}, key, algorithm="ES256", headers=key_id(token)
    )


@pytest.mark.parametrize(
    "change", [tampered, unsigned, symmetric, foreign, expired, lambda token: "", lambda token: "x"]
)
def test_only_our_tokens_open_the_door(platform: Platform, change: object) -> None:
    assert callable(change)
    answer = call_with(platform, change(platform.installation.token("user-a")))
    assert answer.status == 401
    assert answer.body.keys() == {"code", "message", "requestId"}
    assert answer.body["code"]


def test_an_anonymous_user_signs_in_and_calls(platform: Platform) -> None:
    with Player(platform.installation.url) as nobody:
        signed_in = nobody.post("/auth/v1/signin/anonymously", b"{}")
    assert signed_in.status == 200
    assert signed_in.body["token_type"] == "Bearer"
    assert signed_in.body["expires_in"] > 0
    answer = call_with(platform, signed_in.body["access_token"])
    assert answer.status == 200
    assert answer.body["openid"] is None


def test_a_digit_only_openid_is_refused_with_the_reason(platform: Platform) -> None:
    with pytest.raises(Exception, match="number"):
        platform.installation.token("123456")


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("nobody-made-this", 404),
        ("..", 404),
        ("__proto__", 404),
        ("a" * 61, 404),
        ("echo/..", 404),
        ("echo2", 404),
        ("..;/echo", 404),
        ("%2e%2e/echo", 404),
        ("echo%2fx", 400),
    ],
)
def test_names_and_paths_that_lead_nowhere(platform: Platform, name: str, status: int) -> None:
    answer = platform.player().call(name, {})
    assert answer.status in {status, 400, 404}
    assert answer.body.keys() >= {"code", "message", "requestId"}


def test_headers_of_ours_from_outside_are_nothing(platform: Platform) -> None:
    answer = platform.player().call(
        "echo", {}, headers={"x-cloudlet-openid": "somebody-else", "x-cloudlet-env": "other"}
    )
    assert answer.body["openid"] == "user-a"


def test_a_request_for_another_environment_is_refused(platform: Platform) -> None:
    answer = platform.player().call("echo", {}, headers={"x-env": "some-other-environment"})
    assert answer.status in {400, 403, 404}
    assert answer.body["code"] == "INVALIID_ENV"


def test_unsigned_admin_calls_are_refused(platform: Platform) -> None:
    with Player(platform.installation.url) as nobody:
        answer = nobody.post(
            "/admin?env=default", b'{"action": "database.getDocument", "collectionName": "x"}'
        )
    assert answer.status == 200
    assert answer.body["code"] == "SIGN_PARAM_INVALID"
