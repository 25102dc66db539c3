"""What Envoy says by itself, rewritten into the caller's dialect.

The table is a value handed in by the wiring (``dialects/errors.py`` owns it); here is only its shape and
how it becomes ``local_reply_config``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cloudlet.model.invocation import REQUEST_ID

from .files import JsonObject

TIMEOUT_TEXT = "Invoking task timed out after %METADATA(ROUTE:cloudlet:timeout)% seconds"
"""Message of the 504 of a function route; Envoy fills in the timeout of the version it routed to."""

_CEL_FILTER = "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"


@dataclass(frozen=True, slots=True)
class LocalReply:
    """One row: which of Envoy's own answers, and what the caller reads instead. The first that fits wins."""

    path_prefix: str
    """Requests whose path starts so; empty = every path."""
    status: int
    """Envoy's own status; 0 = any."""
    flags: tuple[str, ...]
    """Response flags of which one must be set (``UC``, ``UF``, ``UH``, …); empty = not looked at."""
    http_status: int
    """The status the caller gets."""
    code: str
    message: str
    """Text, with Envoy's command operators allowed (write a percent sign as ``%%``)."""
    details: str = ""
    """Text that Envoy's response code details must contain (``Jwt_is_expired``); empty = not looked at."""


def local_reply_config(replies: Iterable[LocalReply]) -> JsonObject:
    """``LocalReplyConfig`` of the table. Answers without a row keep their status and become JSON too.

    ``requestId`` is null when Envoy refuses before the request has an id (malformed or oversized head).
    """
    return {
        "mappers": [_mapper(reply) for reply in replies],
        "body_format": {"json_format": _body("SYS_ERR", "%LOCAL_REPLY_BODY%")},
    }


def _mapper(reply: LocalReply) -> JsonObject:
    return {
        "filter": _filter(reply),
        "status_code": reply.http_status,
        "body_format_override": {"json_format": _body(reply.code, reply.message)},
    }


def _body(code: str, message: str) -> JsonObject:
    return {"code": code, "message": message, "requestId": f"%REQ({REQUEST_ID})%"}


def _filter(reply: LocalReply) -> JsonObject:
    filters = list(_filters(reply))
    if len(filters) == 1:
        return filters[0]
    return {"and_filter": {"filters": filters}}


def _filters(reply: LocalReply) -> Iterable[JsonObject]:
    # The status filter is always there, so that every row has at least one condition.
    comparison = {
        "op": "EQ",
        "value": {"default_value": reply.status, "runtime_key": "cloudlet.reply.status"},
    }
    if not reply.status:
        comparison = {"op": "GE", "value": {"default_value": 100, "runtime_key": "cloudlet.reply.any"}}
    yield {"status_code_filter": {"comparison": comparison}}
    if reply.path_prefix:
        yield {"header_filter": {"header": {"name": ":path", "string_match": {"prefix": reply.path_prefix}}}}
    if reply.flags:
        yield {"response_flag_filter": {"flags": list(reply.flags)}}
    if reply.details:
        expression = f"response.code_details.contains({reply.details!r})"
        yield {
            "extension_filter": {
                "name": "details",
                "typed_config": {"@type": _CEL_FILTER, "expression": expression},
            }
        }
