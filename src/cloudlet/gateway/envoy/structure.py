"""Which call goes where: the routes and clusters of one state of the functions, as pure rendering.

Routes are a matcher tree (environment of the token → path → route), so ten thousand functions cost no more
than one. What the tree does not know goes to api, which answers in the dialect.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from msgspec import Raw

from cloudlet.model.function import VersionKey
from cloudlet.model.ids import LATEST
from cloudlet.model.invocation import (
    BUSY,
    CLIENT_IP,
    ENVIRONMENT,
    EVENT_BYTES_MAX,
    FUNCTION,
    TIMEOUT_MS,
    VERSION,
)
from cloudlet.state.base import Snapshot

from .cors import FILTER_NAME as CORS
from .cors import permissive_policy
from .files import JsonObject

ACTIVATOR = "activator"
API = "api"
XDS = "xds"
ROUTE_CONFIGURATION = "functions"
METADATA = "cloudlet"
FUNCTIONS_PATH = "/v1/functions/"

REPEATABLE_BODY_BYTES_MAX = 1024 * 1024
"""A body up to here is kept, so that a refused call can be repeated; larger ones are late-bound at once."""
START_ALLOWANCE_S = 60.0
"""How long a late-bound call may wait for an instance before its function begins."""
CLOCK_SLACK_S = 0.05
"""The edge's clock of one try runs this much longer than the function's: the shim can answer first."""
API_TIMEOUT_S = 1000.0
"""api invokes functions for signed callers: 900 s at most and their start."""
ANSWERED_BODY_BYTES_MAX = 64 * 1024 * 1024
"""A body up to here is read to its end by api, which then says that it is too large. A client that is cut
off while it writes sees a broken connection instead of the answer: the edge itself cuts larger ones only."""

_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class EdgeEnvironment:
    """An environment with the other ids that callers may use for it."""

    name: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EdgeFunction:
    """A function with the version its calls go to, and how they are bound."""

    environment: str
    function: str
    digest: str
    timeout_s: float
    early: bool = False
    """True: straight to an instance; False: the activator chooses."""

    @property
    def key(self) -> VersionKey:
        return VersionKey(self.environment, self.function, self.digest)


@dataclass(frozen=True, slots=True)
class EdgeModel:
    """All that routes and clusters depend on. Instances are not in it: they travel on the endpoint stream."""

    environments: tuple[EdgeEnvironment, ...] = ()
    functions: tuple[EdgeFunction, ...] = ()

    @classmethod
    def of(cls, snapshot: Snapshot, early: Collection[VersionKey] = frozenset()) -> EdgeModel:
        """The model of what ``$LATEST`` points to; versions in `early` are bound early."""
        versions = {version.key: version for version in snapshot.versions}
        functions = []
        for alias in snapshot.aliases:
            key = VersionKey(alias.environment, alias.function, alias.digest)
            if alias.name == LATEST and key in versions:
                timeout_s = versions[key].config.timeout_s
                functions.append(
                    EdgeFunction(key.environment, key.function, key.digest, timeout_s, key in early)
                )
        environments = (EdgeEnvironment(e.name, e.aliases) for e in snapshot.environments)
        return cls(tuple(environments), tuple(functions))

    @property
    def early(self) -> frozenset[VersionKey]:
        """Versions that have a cluster of their own."""
        return frozenset(function.key for function in self.functions if function.early)

    def with_early(self, early: Iterable[VersionKey]) -> EdgeModel:
        """The same functions, of which exactly these versions are bound early."""
        keys = frozenset(early)
        if keys == self.early:
            return self
        functions = (replace(function, early=function.key in keys) for function in self.functions)
        return replace(self, functions=tuple(functions))


def cluster_name(key: VersionKey) -> str:
    """Name of a version's cluster. Slashes, because environment and function names may contain dashes."""
    return f"v/{key.environment}/{key.function}/{key.digest}"


def version_of(cluster: str) -> VersionKey | None:
    """The version whose cluster has this name; None for the static clusters."""
    match cluster.split("/"):
        case ["v", environment, function, digest]:
            return VersionKey(environment, function, digest)
    return None


def clusters(early: Iterable[VersionKey]) -> list[JsonObject]:
    """One cluster for each early-bound version, sorted by name."""
    return [_version_cluster(cluster_name(key)) for key in sorted(early)]


def static_cluster(name: str, socket: Path) -> JsonObject:
    """A cluster with one unix socket, present for the life of the process."""
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": _no_breakers(),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(socket)}}}}]}],
        },
    }


def function_branch(function: EdgeFunction) -> JsonObject:
    """Where the tree of paths ends for calls of `function`."""
    return _routes(_function_routes(function))


def route_configuration(
    model: EdgeModel, branch: Callable[[EdgeFunction], JsonObject | Raw] = function_branch
) -> JsonObject:
    """The one ``RouteConfiguration`` of the listener. `branch` may know a function's end of the tree
    already."""
    host: JsonObject = {
        "name": "all",
        "domains": ["*"],
        "include_request_attempt_count": True,
        "retry_policy": _not_started_retries(),
        "typed_per_filter_config": {CORS: permissive_policy()},
    }
    environments = {environment.name: environment for environment in model.environments}
    functions = sorted(model.functions, key=attrgetter("environment", "function"))
    branches = {
        name: _environment(environments.get(name, EdgeEnvironment(name)), group, branch)
        for name, group in groupby(functions, key=attrgetter("environment"))
    }
    if branches:
        tree = {
            "matcher_tree": {"input": _header_input(ENVIRONMENT), "exact_match_map": {"map": branches}},
            "on_no_match": _routes([_api_route()]),
        }
        # Looked at once for all functions: two routes more in each of them nearly doubled Envoy's work at
        # every publish.
        too_large = {"predicate": _too_large(), "on_match": _routes(_api_routes())}
        host["matcher"] = {"matcher_list": {"matchers": [too_large]}, "on_no_match": {"matcher": tree}}
    else:
        # An empty map is refused, so without functions there is no tree.
        host["routes"] = _api_routes()
    return {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": ROUTE_CONFIGURATION,
        # Clusters come and go in a file of their own.
        "validate_clusters": False,
        "virtual_hosts": [host],
        "request_headers_to_add": [_set_header(CLIENT_IP, "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")],
        "response_headers_to_add": [
            {
                "header": {
                    "key": "server-timing",
                    "value": "edge;dur=%COMMON_DURATION(DS_RX_BEG:US_TX_BEG:ms)%, "
                    "upstream;dur=%COMMON_DURATION(US_TX_BEG:US_RX_BEG:ms)%",
                },
                "append_action": "APPEND_IF_EXISTS_OR_ADD",
            }
        ],
    }


def _environment(
    environment: EdgeEnvironment,
    functions: Iterable[EdgeFunction],
    branch: Callable[[EdgeFunction], JsonObject | Raw],
) -> JsonObject:
    """The branch of one environment: disagreeing requests to api, then the tree of paths."""
    paths = {FUNCTIONS_PATH + function.function: branch(function) for function in functions}
    tree = {
        "matcher_tree": {"input": _header_input(":path"), "prefix_match_map": {"map": paths}},
        "on_no_match": _routes([_api_route()]),
    }
    disagrees = {"predicate": _disagreement(environment), "on_match": _routes([_api_route()])}
    return {"matcher": {"matcher_list": {"matchers": [disagrees]}, "on_no_match": {"matcher": tree}}}


def _disagreement(environment: EdgeEnvironment) -> JsonObject:
    """True for a request that names an environment which is neither the token's nor one of its aliases.

    Route trees can look at headers only, hence the query by expressions over the path. An empty value counts
    as absent; a repeated ``x-env`` is joined by a comma and does not agree.
    """
    names = "|".join(re.escape(name) for name in (environment.name, *environment.aliases))
    return {
        "or_matcher": {
            "predicate": [
                _matches_but("x-env", ".+", names),
                _matches_but(":path", r"[^?]*\?(.*&)?env=[^&].*", rf"[^?]*\?(.*&)?env=({names})(&.*)?"),
            ]
        }
    }


def _matches_but(header: str, expression: str, exception: str) -> JsonObject:
    """True when the whole header matches `expression` and does not match `exception`."""
    return {
        "and_matcher": {
            "predicate": [_matches(header, expression), {"not_matcher": _matches(header, exception)}]
        }
    }


def _too_large() -> JsonObject:
    """True for a body that is known to be larger than an event may be, whichever function it is for."""
    return _matches("content-length", at_least(EVENT_BYTES_MAX + 1))


def _matches(header: str, expression: str) -> JsonObject:
    """True when the whole header matches `expression`."""
    value = {"safe_regex": {"google_re2": {}, "regex": expression}}
    return {"single_predicate": {"input": _header_input(header), "value_match": value}}


def at_least(number: int) -> str:
    """A regular expression for whole decimal numbers from `number` (above 0) upwards: route trees cannot
    compare numbers."""
    digits = str(number)
    larger = [
        f"{digits[:place]}[{int(digit) + 1}-9][0-9]{{{len(digits) - place - 1}}}"
        for place, digit in enumerate(digits)
        if digit != "9"
    ]
    return f"0*(?:{'|'.join([digits, *larger])}|[1-9][0-9]{{{len(digits)},}})"


def _function_routes(function: EdgeFunction) -> list[JsonObject]:
    """First match wins. The prefix map leads here from longer names, too, hence exact path and fallback."""
    path = FUNCTIONS_PATH + function.function
    routes: list[JsonObject] = []
    if function.early:
        # Only bodies of a known, small length are kept for a second try; chunked ones have no length.
        small = {"path": path, "headers": [_length(0, REPEATABLE_BODY_BYTES_MAX + 1)]}
        early = _function_route(function, small, _early_action(function))
        routes.append(early | {"request_body_buffer_limit": REPEATABLE_BODY_BYTES_MAX})
    routes.append(_function_route(function, {"path": path}, _late_action(function)))
    return [*routes, _api_route()]


def _function_route(function: EdgeFunction, match: JsonObject, action: JsonObject) -> JsonObject:
    return {
        "match": match,
        "route": action,
        "metadata": {"filter_metadata": {METADATA: {"timeout": seconds_text(function.timeout_s)}}},
        "request_headers_to_add": [
            _set_header(FUNCTION, function.function),
            _set_header(VERSION, function.digest),
            _set_header(TIMEOUT_MS, str(round(function.timeout_s * 1000))),
        ],
    }


def _late_action(function: EdgeFunction) -> JsonObject:
    return {"cluster": ACTIVATOR, "timeout": _duration(function.timeout_s + START_ALLOWANCE_S)}


def _early_action(function: EdgeFunction) -> JsonObject:
    timeout_s = 2 * function.timeout_s + START_ALLOWANCE_S / 2
    return {
        "cluster": cluster_name(function.key),
        "timeout": _duration(timeout_s),
        "retry_policy": {
            # Nothing more: `reset` and `5xx` repeat calls that were running (facts/edge-mechanisms 2).
            "retry_on": "connect-failure,reset-before-request,retriable-headers",
            "num_retries": 1,
            "per_try_timeout": _duration(function.timeout_s + CLOCK_SLACK_S),
            "retriable_headers": [{"name": BUSY, "present_match": True}],
            "retry_back_off": {"base_interval": "0.001s"},
            "retry_priority": {
                "name": "envoy.retry_priorities.previous_priorities",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3"
                    ".PreviousPrioritiesConfig",
                    "update_frequency": 1,
                },
            },
        },
    }


def _api_route() -> JsonObject:
    return {"match": {"prefix": "/"}, "route": {"cluster": API, "timeout": _duration(API_TIMEOUT_S)}}


def _api_routes() -> list[JsonObject]:
    too_large = {
        "match": {"prefix": "/", "headers": [_length(ANSWERED_BODY_BYTES_MAX + 1, _INT64_MAX)]},
        "direct_response": {"status": 413, "body": {"inline_string": "the body is larger than 64 MB"}},
    }
    return [too_large, _api_route()]


def _not_started_retries() -> JsonObject:
    """For routes without a policy of their own, which lead to the static clusters: a connection that a
    restarted process no longer knows is tried again."""
    return {
        "retry_on": "connect-failure,reset-before-request",
        "num_retries": 2,
        "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.05s"},
    }


def _version_cluster(name: str) -> JsonObject:
    return {
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "connect_timeout": "1s",
        "eds_cluster_config": {
            "eds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0.5s"}
        },
        # Without it a cluster with few healthy hosts would spread calls over dead ones.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "load_balancing_policy": {
            "policies": [
                {
                    "typed_extension_config": {
                        "name": "envoy.load_balancing_policies.least_request",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies"
                            ".least_request.v3.LeastRequest",
                            "selection_method": "FULL_SCAN",
                        },
                    }
                }
            ]
        },
        "circuit_breakers": _no_breakers(),
    }


def _no_breakers() -> JsonObject:
    """Limits are the instance's queue and the activator's; Envoy's default of 3 retries loses calls."""
    high = 100_000
    threshold = {
        "max_requests": high,
        "max_pending_requests": high,
        "max_connections": high,
        "max_retries": high,
    }
    return {"thresholds": [threshold]}


def _routes(routes: list[JsonObject]) -> JsonObject:
    """The end of a branch: a list of routes of which the first that matches is taken."""
    return {
        "action": {
            "name": "routes",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.route.v3.RouteList",
                "routes": routes,
            },
        }
    }


def _header_input(name: str) -> JsonObject:
    return {
        "name": name,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
            "header_name": name,
        },
    }


def _length(start: int, end: int) -> JsonObject:
    """Matches ``content-length`` from `start` up to, not including, `end`."""
    return {"name": "content-length", "range_match": {"start": start, "end": end}}


def _set_header(name: str, value: str) -> JsonObject:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _duration(value_s: float) -> str:
    return f"{value_s:.3f}s"


def seconds_text(value_s: float) -> str:
    """A timeout as the dialects print it: ``3``, ``0.5``."""
    return f"{value_s:.3f}".rstrip("0").rstrip(".")
