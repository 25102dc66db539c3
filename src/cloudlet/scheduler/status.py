"""What the scheduler says about itself, for people and for `cloudlet status`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version, for people."""

    environment: str
    function: str
    digest: str
    live: bool
    early: bool
    desired: int
    running: int
    waiting: int
    phases: dict[str, int]
    """Instances by phase."""
    error: str = ""
    """Why its last start failed."""


@dataclass(frozen=True, slots=True)
class SchedulerStatus:
    """The whole scheduler, for people."""

    node_connected: bool
    sequence: int
    """Of the control records it works with; -1 before the first."""
    instances: int
    versions: tuple[VersionStatus, ...]
