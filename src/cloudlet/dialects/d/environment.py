"""Which environment a sign-in request is for."""

from __future__ import annotations

from cloudlet.dialects.http import Request
from cloudlet.model.errors import EnvironmentMismatch, EnvironmentNotFound
from cloudlet.model.ids import DEFAULT_ENVIRONMENT
from cloudlet.state.base import EnvironmentRecords


def requested_environment(records: EnvironmentRecords, request: Request, *named: str) -> str:
    """The environment that the request names (`named` in the body and query, or ``x-env``), else the one
    whose name is the first label of the host, else the default.

    Raise EnvironmentNotFound for a name nobody has, EnvironmentMismatch when two names disagree.
    """
    names = [name for name in (*named, request.headers.get("x-env", "")) if name]
    if not names:
        return _of_host(records, request.headers.get("host", ""))
    found = {records.resolve_environment(name).name for name in names}
    if len(found) > 1:
        raise EnvironmentMismatch(f"the request names more than one environment: {', '.join(sorted(found))}")
    return found.pop()


def _of_host(records: EnvironmentRecords, host: str) -> str:
    label, dot, _ = host.partition(".")
    # An IP address or a bare name says nothing about environments.
    if not dot or label.isdigit():
        return DEFAULT_ENVIRONMENT
    try:
        return records.resolve_environment(label).name
    except EnvironmentNotFound:
        return DEFAULT_ENVIRONMENT
