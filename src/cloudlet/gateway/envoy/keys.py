"""Session tokens at the edge: the ``jwt_authn`` filter, in a file of its own so that keys can change
without touching the listener.

Only ES256 keys are accepted, so a token signed in any other way (``none``, HS256 with the public key as the
secret, …) finds no key. A valid token becomes identity headers; the token itself stays at the edge.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from cloudlet.model.errors import InvalidParameter
from cloudlet.model.invocation import (
    APPID,
    ENVIRONMENT,
    LOGIN_TYPE,
    OPENID,
    SESSION_ID,
    SOURCE,
    UID,
    UNIONID,
)

from .files import JsonObject, to_json

ISSUER = "cloudlet"
KEYS_MAX = 16
FILTER_NAME = "jwt"
FILTER_TYPE = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"

CLAIM_HEADERS: Mapping[str, str] = {
    "env": ENVIRONMENT,
    "sub": UID,
    "openid": OPENID,
    "appid": APPID,
    "unionid": UNIONID,
    "login_type": LOGIN_TYPE,
    "sid": SESSION_ID,
    "src": SOURCE,
}
"""Which claim arrives in which header. Envoy appends: the edge removes these headers first."""

_CACHE_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that verifies tokens: an elliptic-curve P-256 public key with its id."""

    kid: str
    x: str
    """Coordinates in base64url without padding, 32 bytes each."""
    y: str

    @classmethod
    def of_pem(cls, kid: str, public_pem: str) -> PublicKey:
        """Raise InvalidParameter unless the PEM holds a P-256 public key."""
        try:
            key = load_pem_public_key(public_pem.encode())
        except ValueError as exc:
            raise InvalidParameter(f"key {kid!r} is not a public key in PEM form") from exc
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise InvalidParameter(f"key {kid!r} is not an elliptic-curve P-256 key")
        return cls._of_numbers(kid, key.public_numbers())

    @classmethod
    def of_jwk(cls, jwk: Mapping[str, object]) -> PublicKey:
        """Raise InvalidParameter unless it is an EC P-256 key with a ``kid``; private parts are dropped."""
        kid, x, y = jwk.get("kid"), jwk.get("x"), jwk.get("y")
        if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256" or jwk.get("alg", "ES256") != "ES256":
            raise InvalidParameter("only ES256 keys (kty EC, crv P-256) verify session tokens")
        if not (isinstance(kid, str) and kid and isinstance(x, str) and isinstance(y, str)):
            raise InvalidParameter("a JSON web key needs kid, x and y")
        return cls(kid, x, y)

    @classmethod
    def unusable(cls) -> PublicKey:
        """A key whose private half is forgotten at once: no token verifies. It holds the place before the
        real keys are known, because Envoy does not accept an empty key set."""
        return cls._of_numbers("none", ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers())

    @classmethod
    def _of_numbers(cls, kid: str, numbers: ec.EllipticCurvePublicNumbers) -> PublicKey:
        return cls(kid, _base64url(numbers.x), _base64url(numbers.y))

    @property
    def jwk(self) -> dict[str, str]:
        return {
            "kty": "EC",
            "crv": "P-256",
            "alg": "ES256",
            "use": "sig",
            "kid": self.kid,
            "x": self.x,
            "y": self.y,
        }


def session_filter(keys: Sequence[PublicKey]) -> JsonObject:
    """The filter as a ``TypedExtensionConfig``. Raise InvalidParameter without keys or with over KEYS_MAX.

    ``/v1`` needs a token. ``/auth`` takes one if it is good and ignores it otherwise (a refresh arrives with
    an expired one); there it is also passed on. Everything else goes to api without being looked at.
    """
    if not 0 < len(keys) <= KEYS_MAX:
        raise InvalidParameter(f"between 1 and {KEYS_MAX} keys verify session tokens, not {len(keys)}")
    return {
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": FILTER_NAME,
        "typed_config": {
            "@type": FILTER_TYPE,
            "providers": {"session": _provider(keys, forward=False), "open": _provider(keys, forward=True)},
            "rules": [
                {"match": {"prefix": "/v1/"}, "requires": {"provider_name": "session"}},
                {
                    "match": {"prefix": "/auth/"},
                    "requires": {
                        "requires_any": {
                            "requirements": [{"provider_name": "open"}, {"allow_missing_or_failed": {}}]
                        }
                    },
                },
            ],
        },
    }


def _provider(keys: Sequence[PublicKey], *, forward: bool) -> JsonObject:
    return {
        "issuer": ISSUER,
        "local_jwks": {"inline_string": to_json({"keys": [key.jwk for key in keys]}).decode()},
        "forward": forward,
        "require_expiration": True,
        # 0 would mean Envoy's default of 60 s; 1 is the least it can be told.
        "clock_skew_seconds": 1,
        # Listed, because by default the query's access_token counts too: two tokens would be two identities.
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "claim_to_headers": [
            {"header_name": header, "claim_name": claim} for claim, header in CLAIM_HEADERS.items()
        ],
        # The environment of the token decides the route.
        "clear_route_cache": True,
        "jwt_cache_config": {"jwt_cache_size": _CACHE_TOKENS},
    }


def _base64url(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()
