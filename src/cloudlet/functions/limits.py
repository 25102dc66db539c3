"""How large a deploy may be, and what a function's settings may be.

The numbers of the vendors are kept where projects rely on them (name, package size, variables).
"""

from __future__ import annotations

import re

from cloudlet.model.errors import InvalidProject
from cloudlet.model.function import MEMORY_MB_MAX, MEMORY_MB_MIN, TIMEOUT_S_MAX, FunctionConfig

PACKAGE_BYTES_MAX = 500 * 1024 * 1024
"""Unpacked code of one function, and of its dependencies."""
PACKAGE_FILES_MAX = 50_000
UPLOAD_BYTES_MAX = 512 * 1024 * 1024
PATH_CHARS_MAX = 1024
FUNCTIONS_MAX = 500
"""Functions in one deploy."""
VARIABLES_BYTES_MAX = 4096
"""Names and values of a function's environment variables together."""
CONCURRENCY_MAX = 1000
INSTANCES_MAX = 10_000
KEEP_ALIVE_S_MAX = 86_400.0
TRIGGERS_MAX = 50
INSTALL_TIMEOUT_S = 300.0
BUILD_LOG_BYTES_MAX = 256 * 1024
BUILDS_AT_ONCE = 2
"""Installers that run side by side; each of them uses more than one core while it unpacks."""
LAYERS_MAX = 200
"""Dependency layers kept in the cache; the least recently used go first."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_HANDLER = re.compile(r"[A-Za-z0-9_$./-]{1,200}\Z")


def check_config(config: FunctionConfig, where: str) -> FunctionConfig:
    """Return `config` or raise InvalidProject with `where` (a file) and what to change."""
    _between(config.timeout_s, 0.1, TIMEOUT_S_MAX, where, "timeout", "seconds")
    _between(config.memory_mb, MEMORY_MB_MIN, MEMORY_MB_MAX, where, "memorySize", "MB")
    _between(config.concurrency, 1, CONCURRENCY_MAX, where, "concurrency", "invocations")
    _check_handler(config.handler, where)
    _check_scale(config, where)
    _check_variables(config, where)
    return config


def _check_handler(handler: str, where: str) -> None:
    path, dot, name = handler.rpartition(".")
    if not (_HANDLER.match(handler) and dot and path and name) or path.startswith("/") or ".." in path:
        raise InvalidProject(
            f"{where}: handler {handler[:60]!r} is not allowed: write FILE.EXPORT, for example 'index.main'"
        )


def _check_scale(config: FunctionConfig, where: str) -> None:
    scale = config.scale
    _between(scale.instances_max, 1, INSTANCES_MAX, where, "instancesMax", "instances")
    _between(scale.instances_min, 0, scale.instances_max, where, "instancesMin", "instances")
    _between(scale.keep_alive_s, 0, KEEP_ALIVE_S_MAX, where, "keepAlive", "seconds")


def _check_variables(config: FunctionConfig, where: str) -> None:
    size = 0
    for name, value in config.environment_variables.items():
        if not _VARIABLE.match(name) or "\0" in value:
            raise InvalidProject(
                f"{where}: environment variable {name[:60]!r} is not allowed: use letters, digits and '_'"
            )
        size += len(name.encode()) + len(value.encode())
    if size > VARIABLES_BYTES_MAX:
        raise InvalidProject(
            f"{where}: environment variables are {size} bytes, the limit is {VARIABLES_BYTES_MAX}"
        )


def _between(value: float, low: float, high: float, where: str, name: str, unit: str) -> None:
    if not low <= value <= high:
        raise InvalidProject(f"{where}: {name} is {value:g}, use {low:g} to {high:g} {unit}")
