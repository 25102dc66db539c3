"""Rendering of routes and clusters."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloudlet.gateway.envoy.structure import (
    EdgeEnvironment,
    EdgeFunction,
    EdgeModel,
    cluster_name,
    clusters,
    route_configuration,
    seconds_text,
    version_of,
)
from cloudlet.model.app import Environment
from cloudlet.model.function import Alias, FunctionConfig, Version, VersionKey
from cloudlet.state.base import Snapshot

ADD = VersionKey("env-1", "add", "aaaa")


def rendered(*functions: EdgeFunction, aliases: tuple[str, ...] = ()) -> dict[str, Any]:
    environments = (EdgeEnvironment("env-1", aliases),)
    host: dict[str, Any] = route_configuration(EdgeModel(environments, functions))["virtual_hosts"][0]
    return host


def routes_of(host: dict[str, Any], environment: str, function: str) -> list[dict[str, Any]]:
    branch = host["matcher"]["matcher_tree"]["exact_match_map"]["map"][environment]["matcher"]
    paths = branch["on_no_match"]["matcher"]["matcher_tree"]["prefix_match_map"]["map"]
    routes: list[dict[str, Any]] = paths[f"/v1/functions/{function}"]["action"]["typed_config"]["routes"]
    return routes


def test_without_functions_everything_goes_to_api() -> None:
    host = rendered()
    assert "matcher" not in host
    too_large, route = host["routes"]
    assert too_large["direct_response"]["status"] == 413
    assert (route["match"], route["route"]["cluster"]) == ({"prefix": "/"}, "api")


def test_a_late_function_goes_to_the_activator_with_time_to_start() -> None:
    huge, too_large, late, fallback = routes_of(
        rendered(EdgeFunction("env-1", "add", "aaaa", 3.0)), "env-1", "add"
    )
    assert huge["direct_response"]["status"] == 413
    assert too_large["route"]["cluster"] == "api"
    assert late["match"] == {"path": "/v1/functions/add"}
    assert late["route"]["cluster"] == "activator"
    assert late["route"]["timeout"] == "63.000s"
    assert fallback["route"]["cluster"] == "api"


def test_an_early_function_goes_to_its_own_cluster_and_may_be_refused_once() -> None:
    host = rendered(EdgeFunction("env-1", "add", "aaaa", 0.5, early=True))
    _, _, early, late, *_ = routes_of(host, "env-1", "add")
    action = early["route"]
    assert action["cluster"] == "v/env-1/add/aaaa"
    assert action["timeout"] == "31.000s"
    assert action["retry_policy"]["per_try_timeout"] == "0.550s"
    assert action["retry_policy"]["num_retries"] == 1
    assert action["retry_policy"]["retry_on"] == "connect-failure,reset-before-request,retriable-headers"
    assert early["request_body_buffer_limit"] == 1024 * 1024
    assert late["route"]["cluster"] == "activator"


def test_no_retry_of_ours_repeats_a_call_that_was_running() -> None:
    functions = (EdgeFunction("env-1", "a", "1", 3.0, early=True), EdgeFunction("env-1", "b", "2", 3.0))
    text = json.dumps(rendered(*functions))
    policies = {part.split('"')[0] for part in text.split('"retry_on": "')[1:]}
    allowed = {"connect-failure", "reset-before-request", "retriable-headers"}
    assert policies
    assert all(set(policy.split(",")) <= allowed for policy in policies)


@pytest.mark.parametrize("early", [True, False])
def test_headers_of_a_function_replace_what_a_client_sent(early: bool) -> None:
    host = rendered(EdgeFunction("env-1", "add", "aaaa", 0.5, early))
    for route in routes_of(host, "env-1", "add")[2:-1]:
        headers = {
            entry["header"]["key"]: entry["header"]["value"] for entry in route["request_headers_to_add"]
        }
        assert headers == {
            "x-cloudlet-function": "add",
            "x-cloudlet-version": "aaaa",
            "x-cloudlet-timeout-ms": "500",
        }
        actions = {entry["append_action"] for entry in route["request_headers_to_add"]}
        assert actions == {"OVERWRITE_IF_EXISTS_OR_ADD"}
        assert route["metadata"]["filter_metadata"] == {"cloudlet": {"timeout": "0.5"}}


def test_environments_are_told_apart_by_case() -> None:
    functions = (EdgeFunction("Env", "add", "1", 3.0), EdgeFunction("env", "add", "2", 3.0))
    host = route_configuration(EdgeModel((), functions))["virtual_hosts"][0]
    assert set(host["matcher"]["matcher_tree"]["exact_match_map"]["map"]) == {"Env", "env"}


def test_equal_models_render_equal_text() -> None:
    one = EdgeFunction("env-1", "a", "1", 3.0)
    other = EdgeFunction("env-2", "b", "2", 3.0)
    assert route_configuration(EdgeModel((), (one, other))) == route_configuration(
        EdgeModel((), (other, one))
    )


def test_names_in_expressions_are_quoted() -> None:
    host = rendered(EdgeFunction("env-1", "add", "1", 3.0), aliases=("a.b|c",))
    assert r"a\.b\|c" in json.dumps(host).replace("\\\\", "\\")


def test_clusters_of_early_versions_are_sorted_and_never_panic() -> None:
    other = VersionKey("env-1", "Zoo", "bbbb")
    first, second = clusters([ADD, other])
    assert [first["name"], second["name"]] == ["v/env-1/Zoo/bbbb", "v/env-1/add/aaaa"]
    assert first["common_lb_config"] == {"healthy_panic_threshold": {"value": 0}}
    assert first["circuit_breakers"]["thresholds"][0]["max_retries"] >= 10_000
    assert first["eds_cluster_config"]["eds_config"]["initial_fetch_timeout"] == "0.5s"


def test_a_cluster_name_leads_back_to_its_version_only() -> None:
    assert version_of(cluster_name(ADD)) == ADD
    assert cluster_name(VersionKey("a-b", "c", "1")) != cluster_name(VersionKey("a", "b-c", "1"))
    assert version_of("activator") is None
    assert version_of("v/a/b") is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.0, "3"), (0.5, "0.5"), (60.0, "60"), (900.0, "900"), (1.25, "1.25")]
)
def test_seconds_are_written_as_the_dialects_do(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def version(function: str, digest: str, timeout_s: float) -> Version:
    config = FunctionConfig(timeout_s=timeout_s)
    return Version("env-1", function, digest, 1, config, "/code", 0.0)


def test_a_snapshot_becomes_what_the_latest_aliases_name() -> None:
    snapshot = Snapshot(
        sequence=1,
        environments=(Environment("env-1", 0.0, ("old-id",)),),
        versions=(version("add", "aaaa", 3.0), version("sub", "bbbb", 5.0)),
        aliases=(
            Alias("env-1", "add", "$LATEST", "aaaa", 0.0),
            Alias("env-1", "add", "canary", "cccc", 0.0),
            Alias("env-1", "sub", "$LATEST", "bbbb", 0.0),
            Alias("env-1", "gone", "$LATEST", "dddd", 0.0),
        ),
    )
    model = EdgeModel.of(snapshot, frozenset({ADD}))
    assert model.environments == (EdgeEnvironment("env-1", ("old-id",)),)
    assert model.functions == (
        EdgeFunction("env-1", "add", "aaaa", 3.0, early=True),
        EdgeFunction("env-1", "sub", "bbbb", 5.0),
    )
    assert model.early == {ADD}
    assert model.with_early([]).early == frozenset()
