"""The actions of dialect A by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudlet.dialects.callers import Caller


@dataclass(frozen=True, slots=True)
class Call:
    """One request whose caller is known."""

    action: str
    body: bytes
    caller: Caller
    request_id: str
    sdk: str = ""
    """Which SDK speaks: ``X-SDK-Version``, for example ``wx-server-sdk/4.0.2``."""


Action = Callable[[Call], Awaitable[dict[str, Any]]]
"""Returns the members of the reply beside ``requestId``."""


def merged(*services: Mapping[str, Action]) -> dict[str, Action]:
    """All actions in one table."""
    return {name: action for service in services for name, action in service.items()}
