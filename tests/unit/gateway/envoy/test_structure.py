"""Rendering of routes and clusters."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudlet.gateway.envoy.files import to_json
from cloudlet.gateway.envoy.fragments import Fragments
from cloudlet.gateway.envoy.structure import (
    EdgeEnvironment,
    EdgeFunction,
    EdgeModel,
    at_least,
    cluster_name,
    clusters,
    route_configuration,
    seconds_text,
    version_of,
)
from cloudlet.model.app import Environment
from cloudlet.model.function import Alias, FunctionConfig, Version, VersionKey
from cloudlet.model.invocation import EVENT_BYTES_MAX
from cloudlet.state.base import Snapshot

ADD = VersionKey("env-1", "add", "aaaa")


def rendered(*functions: EdgeFunction, aliases: tuple[str, ...] = ()) -> dict[str, Any]:
    environments = (EdgeEnvironment("env-1", aliases),)
    host: dict[str, Any] = route_configuration(EdgeModel(environments, functions))["virtual_hosts"][0]
    return host


def tree_of(host: dict[str, Any]) -> dict[str, Any]:
    """The tree of environments, which small enough calls come to."""
    tree: dict[str, Any] = host["matcher"]["on_no_match"]["matcher"]["matcher_tree"]
    return tree


def routes_of(host: dict[str, Any], environment: str, function: str) -> list[dict[str, Any]]:
    branch = tree_of(host)["exact_match_map"]["map"][environment]["matcher"]
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
    late, fallback = routes_of(rendered(EdgeFunction("env-1", "add", "aaaa", 3.0)), "env-1", "add")
    assert late["match"] == {"path": "/v1/functions/add"}
    assert late["route"]["cluster"] == "activator"
    assert late["route"]["timeout"] == "63.000s"
    assert fallback["route"]["cluster"] == "api"


def test_an_event_that_is_too_large_goes_to_api_before_any_function_is_looked_for() -> None:
    host = rendered(EdgeFunction("env-1", "add", "aaaa", 3.0))
    (matcher,) = host["matcher"]["matcher_list"]["matchers"]
    predicate = matcher["predicate"]["single_predicate"]
    assert predicate["input"]["typed_config"]["header_name"] == "content-length"
    expression = predicate["value_match"]["safe_regex"]["regex"]
    sizes = (0, 1, EVENT_BYTES_MAX - 1, EVENT_BYTES_MAX, EVENT_BYTES_MAX + 1, 64 * 1024 * 1024, 10**15)
    found = [bool(re.fullmatch(expression, str(size))) for size in sizes]
    assert found == [size > EVENT_BYTES_MAX for size in sizes]
    huge, api = matcher["on_match"]["action"]["typed_config"]["routes"]
    assert huge["direct_response"]["status"] == 413
    assert api["route"]["cluster"] == "api"


@given(st.integers(1, 10**9), st.integers(0, 10**10), st.integers(0, 3))
def test_at_least_is_true_for_the_numbers_from_there_upwards(number: int, other: int, zeros: int) -> None:
    for value in (other, number - 1, number, number + 1):
        text = "0" * zeros + str(value)
        assert bool(re.fullmatch(at_least(number), text)) == (value >= number), (number, text)


def test_kept_fragments_render_the_same_routes() -> None:
    fragments = Fragments()
    first, second = EdgeFunction("env-1", "a", "1", 3.0), EdgeFunction("env-2", "b", "2", 0.5, early=True)
    models = [EdgeModel((), each) for each in ((first,), (first, second), (replace(first, early=True),), ())]
    for model in models:
        assert to_json(fragments.route_configuration(model)) == to_json(route_configuration(model))


def test_an_early_function_goes_to_its_own_cluster_and_may_be_refused_once() -> None:
    host = rendered(EdgeFunction("env-1", "add", "aaaa", 0.5, early=True))
    early, late, _ = routes_of(host, "env-1", "add")
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
    for route in routes_of(host, "env-1", "add")[:-1]:
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
    assert set(tree_of(host)["exact_match_map"]["map"]) == {"Env", "env"}


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
