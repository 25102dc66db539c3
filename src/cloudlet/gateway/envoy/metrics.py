"""The edge's numbers in our words, from what Envoy counts.

Envoy is asked for a narrow choice, and its names (which change with its releases) stay in this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from cloudlet.observe.metrics import Reader, counter, exposition, gauge

from .admin import AdminClient
from .bans import FILTER_NAME as BANS
from .bootstrap import STAT_PREFIX
from .keys import FILTER_NAME as KEYS
from .structure import ACTIVATOR, API, ROUTE_CONFIGURATION, version_of

_FILES: Final = {
    "envoy_cluster_manager_cds": "clusters",
    "envoy_http_rds": "routes",
    f"envoy_extension_config_discovery_http_filter_{KEYS}": "keys",
    f"envoy_extension_config_discovery_http_filter_{BANS}": "bans",
}
"""Beginning of Envoy's counters → the file that they are about."""
_REFUSALS: Final = ("update_rejected", "update_failure")
"""Understood and refused, and not understood."""
_VERSION_LABELS: Final = ("environment", "function", "version")

PATTERN: Final = "|".join(
    (
        r"^cluster\.[^.]*\.upstream_rq_(total|active|retry)$",
        rf"^http\.{STAT_PREFIX}\.(downstream_(rq_(active|time|[1-5]xx)|cx_active)"
        rf"|rds\.{ROUTE_CONFIGURATION}\.update_(rejected|failure))$",
        r"^cluster_manager\.cds\.update_(rejected|failure)$",
        rf"^extension_config_discovery\.http_filter\.({KEYS}|{BANS})\.update_(rejected|failure)$",
    )
)
"""Names of the statistics that are read. Clusters exist only for early-bound versions, of which there are no
more than instances."""


async def edge_metrics(admin: AdminClient) -> bytes:
    """The edge's metrics in the text form. Raise EdgeUnavailable."""
    registry = CollectorRegistry()
    text = await admin.prometheus(PATTERN)
    registry.register(Reader(lambda: translated(text)))
    return exposition(registry)


def translated(text: str) -> Iterable[Metric]:
    """Our families from Envoy's text. What Envoy does not mention has never been counted."""
    # The parser gives every counter the ending that Envoy gives only some.
    samples: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name.removesuffix("_total"), []).append(sample)
    yield from _calls(samples)
    yield from _clusters(samples)
    refused = dict.fromkeys(_FILES.values(), 0.0)
    for name, file in _FILES.items():
        for refusal in _REFUSALS:
            refused[file] += sum(sample.value for sample in samples.get(f"{name}_{refusal}", ()))
    yield counter(
        "cloudlet_edge_rejected_updates_total",
        "Configurations that Envoy refused, by file",
        [((file,), value) for file, value in refused.items()],
        ("file",),
    )


def _calls(samples: dict[str, list[Sample]]) -> Iterable[Metric]:
    """What came in from outside."""
    yield counter(
        "cloudlet_edge_calls_total",
        "Answered requests, by class of status",
        [
            ((f"{sample.labels['envoy_response_code_class']}xx",), sample.value)
            for sample in samples.get("envoy_http_downstream_rq_xx", ())
        ],
        ("class",),
    )
    for ours, theirs, text in (
        ("cloudlet_edge_active_calls", "envoy_http_downstream_rq_active", "Requests that run now"),
        ("cloudlet_edge_active_connections", "envoy_http_downstream_cx_active", "Connections of clients"),
    ):
        yield gauge(ours, text, [((), sum(sample.value for sample in samples.get(theirs, ())))])
    yield _durations(samples)


def _durations(samples: dict[str, list[Sample]]) -> Metric:
    """Envoy counts milliseconds, and tells them for the first time some seconds after the first call."""
    name = "envoy_http_downstream_rq_time"
    buckets = [(sample.labels["le"], sample.value) for sample in samples.get(f"{name}_bucket", ())]
    total = sum(sample.value for sample in samples.get(f"{name}_sum", ()))
    family = HistogramMetricFamily(
        "cloudlet_edge_call_duration_seconds", "Time from a request's arrival to the end of its answer"
    )
    in_seconds = [("+Inf" if le == "+Inf" else repr(float(le) / 1000), value) for le, value in buckets]
    family.add_metric((), in_seconds or [("+Inf", 0.0)], total / 1000)
    return family


def _clusters(samples: dict[str, list[Sample]]) -> Iterable[Metric]:
    """What went on to instances, and to the processes beside them."""

    def by_version(theirs: str) -> list[tuple[tuple[str, ...], float]]:
        found: list[tuple[tuple[str, ...], float]] = []
        for sample in samples.get(theirs, ()):
            version = version_of(sample.labels["envoy_cluster_name"])
            if version is not None:
                found.append(((version.environment, version.function, version.digest), sample.value))
        return found

    families: tuple[tuple[Callable[..., Metric], str, str, str], ...] = (
        (counter, "calls_total", "upstream_rq", "Tries to have an instance run a call"),
        (counter, "refused_calls_total", "upstream_rq_retry", "Tries that were repeated at the activator"),
        (gauge, "active_calls", "upstream_rq_active", "Calls that run at instances"),
    )
    for kind, ours, theirs, text in families:
        name = f"cloudlet_edge_version_{ours}"
        values = by_version(f"envoy_cluster_{theirs}")
        yield kind(name, f"{text}, by early-bound version", values, _VERSION_LABELS)
    yield counter(
        "cloudlet_edge_forwarded_calls_total",
        "Tries to give a request to a process of the platform, by process",
        [
            ((sample.labels["envoy_cluster_name"],), sample.value)
            for sample in samples.get("envoy_cluster_upstream_rq", ())
            if sample.labels["envoy_cluster_name"] in (ACTIVATOR, API)
        ],
        ("upstream",),
    )
