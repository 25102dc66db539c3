"""One call of a function: the headers it travels with and how it ends.

The header names are the contract between the edge, the activator and the shims
(``runtime/contract.md``). Everything that starts with ``x-cloudlet-`` is removed from what
comes from outside, so inside the platform these values can be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from .function import VersionKey
from .identity import Identity

HEADER_PREFIX = "x-cloudlet-"
REQUEST_ID = "x-request-id"
ENVIRONMENT = "x-cloudlet-env"
FUNCTION = "x-cloudlet-function"
VERSION = "x-cloudlet-version"
UID = "x-cloudlet-uid"
OPENID = "x-cloudlet-openid"
APPID = "x-cloudlet-appid"
UNIONID = "x-cloudlet-unionid"
LOGIN_TYPE = "x-cloudlet-login-type"
SESSION_ID = "x-cloudlet-sid"
SOURCE = "x-cloudlet-source"
CLIENT_IP = "x-cloudlet-client-ip"
TIMEOUT_MS = "x-cloudlet-timeout-ms"
DEPTH = "x-cloudlet-depth"
BOUND = "x-cloudlet-bound"
QUEUED_US = "x-cloudlet-queued-us"

BUSY = "x-cloudlet-busy"
"""Reply header: the call was refused before it started and may be given to another instance."""
FINAL = "x-cloudlet-final"
"""Reply header: the instance ends after this reply and must be given nothing more."""
ERROR = "x-cloudlet-error"
"""Reply header: `code` of a FunctionError; the body is the dialect D error object."""

DEPTH_MAX = 8
"""How deeply functions may call functions."""
RESULT_BYTES_MAX = 1024 * 1024
EVENT_BYTES_MAX = 6 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Invocation:
    """A call that the platform makes itself (nested calls, CLI, triggers)."""

    identity: Identity
    function: str
    body: bytes
    """The event as JSON; empty means ``{}``."""
    request_id: str
    source: str = ""
    """Chain of callers, e.g. ``wx_client,scf``."""
    depth: int = 0
    client_ip: str = ""


@dataclass(frozen=True, slots=True)
class InvocationResult:
    """What the function returned. Errors are raised instead, as FunctionError and the rest of the tree."""

    body: bytes
    """JSON of the return value."""
    request_id: str
    timing: Mapping[str, float]
    """Milliseconds by stage (queue, schedule, sandbox, load, init, handler)."""


class Invoker(Protocol):
    """Calls a function on the platform's behalf, late-bound, with the caller's identity."""

    async def invoke(self, invocation: Invocation) -> InvocationResult:
        """Raise FunctionNotFound, FunctionError, ConcurrencyExceeded, DepthExceeded, Unavailable or
        OutcomeUnknown."""
        ...


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One finished call, as the activator measured it: input of the binding decision."""

    version: VersionKey
    started_at: float
    duration_s: float
    """How long the function took."""
    elapsed_s: float
    """The same on the activator's clock: with the time in which it was busy with other calls."""
    failed: bool
