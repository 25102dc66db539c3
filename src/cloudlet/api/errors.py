"""The one table from our errors to the statuses of the admin interface."""

from __future__ import annotations

import msgspec

from cloudlet.model import errors as e

_STATUS: dict[type[e.PlatformError], int] = {
    e.PlatformError: 500,
    e.InvalidRequest: 400,
    e.BodyTooLarge: 413,
    e.Unauthenticated: 401,
    e.PermissionDenied: 403,
    e.NotFound: 404,
    e.Conflict: 409,
    e.LimitExceeded: 429,
    e.ResultTooLarge: 422,
    e.FunctionError: 422,
    e.BuildFailed: 422,
    e.Unavailable: 503,
}


def status_of(error: e.PlatformError) -> int:
    """The status of the nearest class above `error` that has one."""
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def error_body(error: e.PlatformError, request_id: str) -> bytes:
    """``{"code", "message", "requestId"}`` with the stable code of the error."""
    return msgspec.json.encode({"code": error.code, "message": error.message, "requestId": request_id})
