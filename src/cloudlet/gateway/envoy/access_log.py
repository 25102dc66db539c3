"""One JSON object for each call that ended, on Envoy's standard output. Off unless asked for: people read
it while they write an app."""

from __future__ import annotations

from cloudlet.model.invocation import ENVIRONMENT, FUNCTION, OPENID, REQUEST_ID

from .files import JsonObject

EVENT = "edge_call"
FLUSH_MS = 100
"""Envoy collects what it prints for ten seconds by default, and somebody is waiting."""


def stdout_access_log() -> JsonObject:
    """A logger for the connection manager. Paths are logged without their query, which may hold secrets."""
    return {
        "name": "stdout",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {
                "json_format": {
                    "event": EVENT,
                    "t": "%START_TIME(%s.%3f)%",
                    "method": "%REQ(:METHOD)%",
                    "path": "%PATH(NQ:PATH)%",
                    "status": "%RESPONSE_CODE%",
                    "ms": "%DURATION%",
                    "request_id": f"%REQ({REQUEST_ID})%",
                    "environment": f"%REQ({ENVIRONMENT})%",
                    "function": f"%REQ({FUNCTION})%",
                    "openid": f"%REQ({OPENID})%",
                    "timing": "%RESP(server-timing)%",
                    "details": "%RESPONSE_CODE_DETAILS%",
                    "flags": "%RESPONSE_FLAGS%",
                }
            },
        },
    }
