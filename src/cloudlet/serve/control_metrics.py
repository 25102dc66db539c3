"""The numbers of control: what the scheduler knows and how publishing goes."""

from __future__ import annotations

import time
from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import Metric

from cloudlet.model.errors import Internal, PlatformError
from cloudlet.observe.metrics import DURATIONS_S, Reader, gauge
from cloudlet.scheduler.status import SchedulerStatus, VersionStatus

_VERSION_LABELS = ("environment", "function", "version")


class ControlMetrics:
    """Publications as they happen; the rest is read from the scheduler's status at every scrape."""

    def __init__(
        self, registry: CollectorRegistry, status: Callable[[], SchedulerStatus], published: Callable[[], int]
    ) -> None:
        """`published`: sequence of the records that the edge has confirmed."""
        self._publications = Counter(
            "cloudlet_control_publications_total",
            "Changes of the records to be put into effect, by outcome: ok, or the code of the error",
            ["outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "cloudlet_control_publication_seconds",
            "Time until the scheduler and the edge worked with changed records",
            buckets=DURATIONS_S,
            registry=registry,
        )
        registry.register(Reader(lambda: scheduler_families(status(), published())))

    @contextmanager
    def publication(self) -> Iterator[None]:
        """Count and measure the publication in the block."""
        began, outcome = time.perf_counter(), Internal.code
        try:
            yield
            outcome = "ok"
        except PlatformError as error:
            outcome = error.code
            raise
        finally:
            self._publications.labels(outcome).inc()
            self._seconds.observe(time.perf_counter() - began)


def scheduler_families(status: SchedulerStatus, published: int) -> Iterable[Metric]:
    """The scheduler now. Versions are named only while they have instances or calls, which bounds them."""
    phases: Count[str] = Count()
    for version in status.versions:
        phases.update(version.phases)
    early = sum(version.early for version in status.versions)
    sums: tuple[tuple[str, str, float], ...] = (
        ("cloudlet_scheduler_node_connected", "1 while the node can be reached", status.node_connected),
        ("cloudlet_scheduler_records_sequence", "Sequence of the records it works with", status.sequence),
        ("cloudlet_control_published_sequence", "Sequence of the records the edge has confirmed", published),
        ("cloudlet_scheduler_early_versions", "Versions that the edge calls by itself", early),
        (
            "cloudlet_scheduler_failing_versions",
            "Versions whose last start failed",
            sum(bool(version.error) for version in status.versions),
        ),
    )
    for name, text, value in sums:
        yield gauge(name, text, [((), float(value))])
    yield gauge(
        "cloudlet_scheduler_instances",
        "Instances, by phase of their life",
        [((phase,), count) for phase, count in sorted(phases.items())],
        ("phase",),
    )
    used = [each for each in status.versions if each.phases or each.running or each.waiting]
    for what, text, read in _BY_VERSION:
        values = [((each.environment, each.function, each.digest), read(each)) for each in used]
        yield gauge(f"cloudlet_scheduler_version_{what}", f"{text}, by version", values, _VERSION_LABELS)


_BY_VERSION: tuple[tuple[str, str, Callable[[VersionStatus], float]], ...] = (
    ("desired_instances", "Instances that there should be", lambda each: each.desired),
    ("running_calls", "Late-bound calls that run", lambda each: each.running),
    ("waiting_calls", "Calls that wait for an instance", lambda each: each.waiting),
)
