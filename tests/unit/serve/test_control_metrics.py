"""The numbers of control."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from cloudlet.model.errors import EdgeUnavailable
from cloudlet.scheduler.status import SchedulerStatus, VersionStatus
from cloudlet.serve.control_metrics import ControlMetrics


def version(name: str, **changes: object) -> VersionStatus:
    fields = {"desired": 0, "running": 0, "waiting": 0, "phases": {}, "live": True, "early": False} | changes
    return VersionStatus("default", name, "d" * 16, **fields)  # type: ignore[arg-type]


def test_only_versions_with_instances_or_calls_are_named() -> None:
    versions = (
        version("used", desired=2, running=1, phases={"ready": 2}, early=True),
        version("waiting", waiting=3, error="it does not load"),
        *(version(f"idle-{number}") for number in range(1000)),
    )
    registry = CollectorRegistry()
    ControlMetrics(registry, lambda: SchedulerStatus(True, 7, 2, versions), lambda: 6)
    named = {
        sample.labels["function"]
        for family in registry.collect()
        for sample in family.samples
        if "function" in sample.labels
    }
    assert named == {"used", "waiting"}
    assert registry.get_sample_value("cloudlet_scheduler_instances", {"phase": "ready"}) == 2
    assert registry.get_sample_value("cloudlet_scheduler_early_versions") == 1
    assert registry.get_sample_value("cloudlet_scheduler_failing_versions") == 1
    assert registry.get_sample_value("cloudlet_scheduler_records_sequence") == 7
    assert registry.get_sample_value("cloudlet_control_published_sequence") == 6


def test_publications_are_counted_by_outcome() -> None:
    registry = CollectorRegistry()
    metrics = ControlMetrics(registry, lambda: SchedulerStatus(True, 1, 0, ()), lambda: 1)
    with metrics.publication():
        pass
    with pytest.raises(EdgeUnavailable), metrics.publication():
        raise EdgeUnavailable
    with pytest.raises(ZeroDivisionError), metrics.publication():
        raise ZeroDivisionError
    for outcome in ("ok", "edge_unavailable", "internal"):
        assert registry.get_sample_value("cloudlet_control_publications_total", {"outcome": outcome}) == 1, (
            outcome
        )
    assert registry.get_sample_value("cloudlet_control_publication_seconds_count") == 3
