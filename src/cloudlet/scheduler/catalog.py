"""Which version a call goes to: an index over one snapshot of the control records. Pure."""

from __future__ import annotations

from cloudlet.model.errors import EnvironmentNotFound, FunctionNotFound
from cloudlet.model.function import Version, VersionKey
from cloudlet.model.ids import LATEST
from cloudlet.state.base import Snapshot


class Catalog:
    """The versions that aliases point to."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.sequence = snapshot.sequence
        self._versions = {version.key: version for version in snapshot.versions}
        self._environments = {environment.name: environment.name for environment in snapshot.environments}
        for environment in snapshot.environments:
            for alias in environment.aliases:
                self._environments.setdefault(alias, environment.name)
        self._latest = {
            (alias.environment, alias.function): VersionKey(alias.environment, alias.function, alias.digest)
            for alias in snapshot.aliases
            if alias.name == LATEST
        }

    @property
    def versions(self) -> dict[VersionKey, Version]:
        return self._versions

    def resolve(self, environment: str, function: str, digest: str = "") -> Version:
        """The version a call takes: the one the edge drew when an alias still points to it, otherwise the
        one of ``$LATEST``. Raise EnvironmentNotFound or FunctionNotFound."""
        name = self._environments.get(environment)
        if name is None:
            raise EnvironmentNotFound(f"environment {environment!r} does not exist")
        drawn = self._versions.get(VersionKey(name, function, digest)) if digest else None
        if drawn is not None:
            return drawn
        latest = self._latest.get((name, function))
        version = self._versions.get(latest) if latest is not None else None
        if version is None:
            raise FunctionNotFound(f"function {function!r} does not exist in environment {name!r}")
        return version

    def has_function(self, environment: str, function: str) -> bool:
        return (environment, function) in self._latest


EMPTY = Snapshot(sequence=-1, environments=(), versions=(), aliases=())
