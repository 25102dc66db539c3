"""Which environment a deploy goes to, and which of the ids that a project names are another word for it."""

from __future__ import annotations

from dataclasses import dataclass

from cloudlet.model.errors import EnvironmentNotFound, InvalidParameter
from cloudlet.state.base import EnvironmentRecords

from .wire import DeployRequest


@dataclass(frozen=True, slots=True)
class Target:
    """The decision."""

    environment: str
    aliases: tuple[str, ...] = ()
    """Ids that are to become aliases of it."""
    notices: tuple[str, ...] = ()


def choose_target(request: DeployRequest, records: EnvironmentRecords) -> Target:
    """The named environment, else the project's own if it is known, else the only one there is.

    Ids of a former cloud that nobody knows here become aliases when there is one environment only, because
    they can mean nothing else. Raise EnvironmentNotFound for a named one that does not exist,
    InvalidParameter when several are possible.
    """
    only = [environment.name for environment in records.environments()]
    environment = _environment(request, records, only)
    ids = dict.fromkeys(filter(None, (request.project_env, *request.environment_ids)))
    unknown = tuple(name for name in ids if _resolve(records, name) is None)
    if not unknown:
        return Target(environment)
    if len(only) == 1:
        names = ", ".join(unknown)
        verb = "would" if request.dry_run else "now"
        return Target(
            environment, unknown, (f"environment ids of the project {verb} mean {environment!r}: {names}",)
        )
    notices = tuple(
        f"the project names environment {name!r}, which is not known here: "
        f"'cloudlet env alias {name} {environment}' makes it mean {environment!r}"
        for name in unknown
    )
    return Target(environment, notices=notices)


def _environment(request: DeployRequest, records: EnvironmentRecords, names: list[str]) -> str:
    if request.env:
        name = _resolve(records, request.env)
        if name is None:
            raise EnvironmentNotFound(
                f"environment {request.env!r} does not exist: create it with "
                f"'cloudlet env create {request.env}' or use one of: {', '.join(names)}"
            )
        return name
    if request.project_env and (name := _resolve(records, request.project_env)):
        return name
    if len(names) == 1:
        return names[0]
    known = {name for alias in request.environment_ids if (name := _resolve(records, alias))}
    if len(known) == 1 and not request.project_env:
        return known.pop()
    raise InvalidParameter(f"there are several environments ({', '.join(names)}): name one with --env")


def _resolve(records: EnvironmentRecords, name: str) -> str | None:
    try:
        return records.resolve_environment(name).name
    except EnvironmentNotFound:
        return None
