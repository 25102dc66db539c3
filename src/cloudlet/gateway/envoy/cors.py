"""Browsers of any origin may call: identity is a bearer token, never a cookie, so there is nothing that a
foreign page could borrow."""

from __future__ import annotations

from .files import JsonObject

FILTER_NAME = "cors"

_HEADERS = (
    # The star does not cover Authorization; the SDKs' own headers are named for clients that know no star.
    "authorization, content-type, x-sdk-version, x-request-id, x-device-id, accept-language, x-env, "
    "x-tcb-region, x-tcb-source, x-tcb-trace, x-seqid, *"
)
_MAX_AGE_S = 7200


def permissive_policy() -> JsonObject:
    """The CORS policy of the whole listener, as the configuration of filter ``cors`` on a virtual host."""
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"safe_regex": {"regex": ".+"}}],
        "allow_methods": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        "allow_headers": _HEADERS,
        "expose_headers": "x-request-id, server-timing",
        "max_age": str(_MAX_AGE_S),
    }
