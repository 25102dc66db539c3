"""What a deploy would change about a function, in words for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloudlet.model.function import FunctionConfig

SHOWN_MAX = 20
"""Changed files that are named one by one."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a version is made of."""

    files: Mapping[str, str] | None
    """Digest by path, without installed dependencies; None: not known."""
    layers: tuple[str, ...]
    """Keys of the dependency layers."""
    config: FunctionConfig


def changes(former: Source, new: Source) -> tuple[str, ...]:
    """Files with ``+``, ``~`` or ``-``, dependencies and settings. Values of variables are not shown."""
    found = _files(former.files, new.files)
    if former.layers != new.layers:
        found.append("dependencies")
    return (*found, *_settings(former.config, new.config))


def _files(former: Mapping[str, str] | None, new: Mapping[str, str] | None) -> list[str]:
    if former is None or new is None:
        return []
    found = [f"+ {path}" for path in sorted(new.keys() - former.keys())]
    found += [f"~ {path}" for path in sorted(new.keys() & former.keys()) if new[path] != former[path]]
    found += [f"- {path}" for path in sorted(former.keys() - new.keys())]
    rest = len(found) - SHOWN_MAX
    return found if rest <= 0 else [*found[:SHOWN_MAX], f"and {rest} more files"]


def _settings(former: FunctionConfig, new: FunctionConfig) -> list[str]:
    pairs = [
        ("runtime", str(former.runtime), str(new.runtime)),
        ("handler", former.handler, new.handler),
        ("timeout", f"{former.timeout_s:g} s", f"{new.timeout_s:g} s"),
        ("memory", f"{former.memory_mb} MB", f"{new.memory_mb} MB"),
        ("concurrency", str(former.concurrency), str(new.concurrency)),
        ("instances", _range(former), _range(new)),
        ("keep alive", f"{former.scale.keep_alive_s:g} s", f"{new.scale.keep_alive_s:g} s"),
    ]
    found = [f"{name} {old} → {now}" for name, old, now in pairs if old != now]
    old_variables, variables = former.environment_variables, new.environment_variables
    names = sorted(
        name
        for name in old_variables.keys() | variables.keys()
        if old_variables.get(name) != variables.get(name)
    )
    return [*found, *(f"variable {name}" for name in names)]


def _range(config: FunctionConfig) -> str:
    return f"{config.scale.instances_min} to {config.scale.instances_max}"
