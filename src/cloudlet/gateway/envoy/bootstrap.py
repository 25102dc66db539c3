"""What Envoy starts with: the listener, the order of work on a call, and where the changing parts come from.

Nothing here changes while the process lives, because changing a listener cuts its connections. Structure
comes from files, endpoints from a stream (``endpoints.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudlet.model.invocation import HEADER_PREFIX, REQUEST_ID

from . import bans, cors, keys
from .access_log import stdout_access_log
from .files import JsonObject
from .options import EdgeOptions
from .replies import local_reply_config
from .structure import ACTIVATOR, API, ROUTE_CONFIGURATION, XDS, static_cluster

STAT_PREFIX = "edge"
NODE_ID = "edge"

_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"


@dataclass(frozen=True, slots=True)
class Candidate:
    """The content of the dynamic files. Envoy validates what is inline and does not open files, so a
    candidate is checked by putting it into a throw-away bootstrap."""

    clusters: tuple[Mapping[str, Any], ...]
    routes: Mapping[str, Any]
    keys: Mapping[str, Any]
    bans: Mapping[str, Any]


def bootstrap(options: EdgeOptions, inline: Candidate | None = None) -> JsonObject:
    """Envoy's bootstrap; with `inline` one that is only good for ``--mode validate``."""
    static: list[Mapping[str, Any]] = [
        static_cluster(ACTIVATOR, options.activator_socket),
        static_cluster(API, options.api_socket),
        _xds_cluster(options.xds_socket),
    ]
    dynamic: JsonObject = {"ads_config": _endpoint_stream()}
    if inline is None:
        dynamic["cds_config"] = _file_source(options.files.clusters)
    else:
        static.extend(_without_type(cluster) for cluster in inline.clusters)
    return {
        "node": {"id": NODE_ID, "cluster": "cloudlet"},
        "admin": {"address": {"pipe": {"path": str(options.files.admin_socket), "mode": 0o600}}},
        "static_resources": {"clusters": static, "listeners": [_listener(options, inline)]},
        "dynamic_resources": dynamic,
        "overload_manager": _overload_manager(options),
        "stats_config": _stats_config(),
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
    }


def _listener(options: EdgeOptions, inline: Candidate | None) -> JsonObject:
    listener: JsonObject = {
        "name": "edge",
        "address": {"socket_address": {"address": options.host, "port_value": options.port}},
        # With it a second platform started by mistake would silently take a share of the calls.
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": options.limits.buffer_bytes,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": _connection_manager(options, inline),
                    }
                ]
            }
        ],
    }
    if options.concurrency > 1:
        # Workers share one listening socket, so connections have to be dealt out.
        listener["connection_balance_config"] = {"exact_balance": {}}
    return listener


def _connection_manager(options: EdgeOptions, inline: Candidate | None) -> JsonObject:
    limits = options.limits
    manager: JsonObject = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": STAT_PREFIX,
        "codec_type": "AUTO",
        "server_name": "cloudlet",
        "use_remote_address": True,
        "xff_num_trusted_hops": options.trusted_hops,
        # No caller is "internal": internal ones may steer Envoy by headers.
        "internal_address_config": {},
        "preserve_external_request_id": options.trusted_hops > 0,
        "always_set_request_id_in_response": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "request_headers_timeout": _seconds(limits.headers_s),
        "request_timeout": _seconds(limits.request_s),
        "stream_idle_timeout": _seconds(limits.stream_idle_s),
        "max_request_headers_kb": limits.headers_kb_max,
        "common_http_protocol_options": {
            "idle_timeout": _seconds(limits.idle_connection_s),
            "max_headers_count": limits.headers_max,
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65_536,
            "initial_connection_window_size": 1_048_576,
        },
        # Only a route that enables it may be upgraded to; functions answer calls, one after the other.
        "upgrade_configs": [{"upgrade_type": "websocket", "enabled": False}],
        "early_header_mutation_extensions": [_early_removal(options.trusted_hops)],
        "local_reply_config": local_reply_config(options.replies),
        "http_filters": _http_filters(options, inline),
    }
    if options.access_log:
        manager["access_log"] = [stdout_access_log()]
    if inline is None:
        source = _file_source(options.files.routes)
        manager["rds"] = {"route_config_name": ROUTE_CONFIGURATION, "config_source": source}
    else:
        manager["route_config"] = _without_type(inline.routes)
    return manager


def _early_removal(trusted_hops: int) -> JsonObject:
    """Before anything looks at them: headers that only the platform may set."""
    mutations: list[JsonObject] = [
        {"remove_on_match": {"key_matcher": {"prefix": prefix}}} for prefix in (HEADER_PREFIX, "x-envoy-")
    ]
    if not trusted_hops:
        # Without a proxy in front these come from the client itself.
        mutations += [{"remove": name} for name in (REQUEST_ID, "x-forwarded-for", "x-real-ip", "forwarded")]
    return {
        "name": "early_removal",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3"
            ".HeaderMutation",
            "mutations": mutations,
        },
    }


def _http_filters(options: EdgeOptions, inline: Candidate | None) -> list[JsonObject]:
    """In this order on the way in, the reverse on the way out."""
    hidden = [
        {"remove_on_match": {"key_matcher": {"prefix": prefix}}} for prefix in (HEADER_PREFIX, "x-envoy-")
    ]
    return [
        {
            "name": "hide",
            "typed_config": {
                "@type": f"{_FILTERS}.header_mutation.v3.HeaderMutation",
                "mutations": {"response_mutations": hidden},
            },
        },
        {"name": cors.FILTER_NAME, "typed_config": {"@type": f"{_FILTERS}.cors.v3.Cors"}},
        _file_filter(keys.FILTER_NAME, keys.FILTER_TYPE, options.files.keys, inline.keys if inline else None),
        _file_filter(bans.FILTER_NAME, bans.FILTER_TYPE, options.files.bans, inline.bans if inline else None),
        {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{_FILTERS}.router.v3.Router", "suppress_envoy_headers": True},
        },
    ]


def _file_filter(name: str, type_url: str, path: Path, inline: Mapping[str, Any] | None) -> JsonObject:
    if inline is not None:
        return {"name": name, "typed_config": inline["typed_config"]}
    return {
        "name": name,
        "config_discovery": {"type_urls": [type_url], "config_source": _file_source(path)},
    }


def _file_source(path: Path) -> JsonObject:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def _endpoint_stream() -> JsonObject:
    # The default back-off took 11.6 s to find a control process that was back (facts/edge-mechanisms 8).
    back_off = {"retry_back_off": {"base_interval": "0.1s", "max_interval": "0.5s"}}
    return {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": XDS, "retry_policy": back_off}}],
    }


def _xds_cluster(socket: Path) -> JsonObject:
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return static_cluster(XDS, socket) | {
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
        }
    }


def _overload_manager(options: EdgeOptions) -> JsonObject:
    monitors = "type.googleapis.com/envoy.extensions.resource_monitors"
    heap = "envoy.resource_monitors.fixed_heap"

    def at(action: str, value: float) -> JsonObject:
        return {
            "name": f"envoy.overload_actions.{action}",
            "triggers": [{"name": heap, "threshold": {"value": value}}],
        }

    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": heap,
                "typed_config": {
                    "@type": f"{monitors}.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": options.limits.heap_bytes_max,
                },
            },
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": f"{monitors}.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": options.limits.connections_max,
                },
            },
        ],
        "actions": [at("shrink_heap", 0.9), at("stop_accepting_requests", 0.97)],
    }


def _stats_config() -> JsonObject:
    """Only what the publisher and the scheduler read: all statistics of 5,000 clusters are 137 MB more."""
    suffixes = (
        "upstream_rq_active",
        ".upstream_rq_total",
        ".upstream_rq_retry",
        ".upstream_rq_time",
        ".upstream_rq_5xx",
    )
    prefixes = ("cluster_manager.", f"http.{STAT_PREFIX}.", "control_plane.", "extension_config_discovery.")
    patterns = [{"suffix": suffix} for suffix in suffixes] + [{"prefix": prefix} for prefix in prefixes]
    return {"stats_matcher": {"inclusion_list": {"patterns": patterns}}}


def _without_type(resource: Mapping[str, Any]) -> JsonObject:
    return {name: value for name, value in resource.items() if name != "@type"}


def _seconds(value_s: float) -> str:
    return f"{value_s:.3f}s"
