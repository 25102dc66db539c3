"""The log of calls that people read while they write an app."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

from cloudlet.dialects.errors import edge_replies
from cloudlet.gateway.envoy.bans import ban_filter
from cloudlet.gateway.envoy.bootstrap import Candidate, bootstrap
from cloudlet.gateway.envoy.command import argv, binary_path
from cloudlet.gateway.envoy.keys import PublicKey, session_filter
from cloudlet.gateway.envoy.options import EdgeFiles, EdgeOptions
from cloudlet.gateway.envoy.structure import EdgeModel, route_configuration


def options(folder: Path) -> EdgeOptions:
    return EdgeOptions(
        "127.0.0.1",
        0,
        EdgeFiles(folder / "edge", folder / "e.sock"),
        folder / "act.sock",
        folder / "api.sock",
        folder / "xds.sock",
        replies=tuple(edge_replies()),
        access_log=True,
    )


def test_calls_are_logged_only_when_that_is_asked_for(tmp_path: Path) -> None:
    loud = options(tmp_path)
    quiet = replace(loud, access_log=False)
    assert "StdoutAccessLog" in json.dumps(bootstrap(loud))
    assert "StdoutAccessLog" not in json.dumps(bootstrap(quiet))
    assert "--file-flush-interval-msec" in argv(loud)
    assert "--file-flush-interval-msec" not in argv(quiet)


def test_envoy_takes_it(tmp_path: Path) -> None:
    candidate = Candidate(
        (), route_configuration(EdgeModel()), session_filter([PublicKey.unusable()]), ban_filter(())
    )
    file = tmp_path / "bootstrap.json"
    file.write_text(json.dumps(bootstrap(options(tmp_path), candidate)))
    done = subprocess.run(
        [binary_path(), "--mode", "validate", "--config-path", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
