"""Functions, their versions and aliases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

TIMEOUT_S_DEFAULT = 3.0
TIMEOUT_S_MAX = 900.0
MEMORY_MB_DEFAULT = 256
MEMORY_MB_MIN = 64
MEMORY_MB_MAX = 3072


class Runtime(StrEnum):
    """What runs a version. Requested runtimes of the vendors are mapped to the nearest of these."""

    NODE24 = "node24"
    NODE22 = "node22"
    NODE20 = "node20"
    PYTHON3 = "python3"

    @property
    def language(self) -> str:
        """``node`` or ``python``."""
        return "python" if self is Runtime.PYTHON3 else "node"

    @property
    def unpatched(self) -> bool:
        """No current security fixes: Node.js 20 is out of support, and there is no recent wheel of 22."""
        return self in (Runtime.NODE22, Runtime.NODE20)


@dataclass(frozen=True, slots=True)
class ScaleRule:
    """How many instances a version may and must have."""

    instances_min: int = 0
    instances_max: int = 1000
    keep_alive_s: float = 60.0
    """How long an idle instance is kept before it is ended (until enough arrivals were measured)."""


@dataclass(frozen=True, slots=True)
class FunctionConfig:
    """What a deploy decides about a function. Equal configs and equal code give the same version."""

    runtime: Runtime = Runtime.NODE24
    handler: str = "index.main"
    timeout_s: float = TIMEOUT_S_DEFAULT
    memory_mb: int = MEMORY_MB_DEFAULT
    concurrency: int = 1
    """Invocations that one instance runs at the same time."""
    environment_variables: Mapping[str, str] = field(default_factory=dict)
    scale: ScaleRule = ScaleRule()


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable, content-addressed build of a function."""

    environment: str
    function: str
    digest: str
    """First 16 hex digits of the SHA-256 over code, dependencies and config."""
    number: int
    """1, 2, 3 … in order of creation, for people."""
    config: FunctionConfig
    code_dir: str
    """Absolute directory of the unpacked code on the machine that built it."""
    created_at: float

    @property
    def key(self) -> VersionKey:
        return VersionKey(self.environment, self.function, self.digest)


@dataclass(frozen=True, slots=True, order=True)
class VersionKey:
    """What names a version everywhere."""

    environment: str
    function: str
    digest: str

    def __str__(self) -> str:
        return f"{self.environment}/{self.function}@{self.digest}"


@dataclass(frozen=True, slots=True)
class Alias:
    """A name that callers use; ``$LATEST`` is the one every call takes by default."""

    environment: str
    function: str
    name: str
    digest: str
    updated_at: float
