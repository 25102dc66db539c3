"""The numbers of a node: what it runs, what it started and what ended."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import Metric

from cloudlet.model.function import Runtime
from cloudlet.model.sandbox import EndReason, InstanceState, InstanceStatus, NodeReport, StartTiming
from cloudlet.observe.metrics import DURATIONS_S, counter, gauge, resident_bytes

_MB = 1024 * 1024


class NodeMetrics:
    """What happened, counted as it happens. Without a registry it is shown nowhere."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._starts = Counter(
            "cloudlet_node_instance_starts_total",
            "Instances that became ready, by runtime and by whether their cell had been waiting",
            ["runtime", "pooled"],
            registry=registry,
        )
        self._seconds = Histogram(
            "cloudlet_node_instance_start_seconds",
            "Time from a cell's making (none when it had been waiting) to the end of the load",
            ["runtime"],
            buckets=DURATIONS_S,
            registry=registry,
        )
        self._ends = Counter(
            "cloudlet_node_instance_ends_total",
            "Instances that ended, by reason",
            ["reason"],
            registry=registry,
        )
        for reason in EndReason:
            self._ends.labels(reason.value)

    def started(self, runtime: Runtime, timing: StartTiming) -> None:
        """An instance became ready."""
        self._starts.labels(runtime.value, "yes" if timing.pooled else "no").inc()
        self._seconds.labels(runtime.value).observe((timing.sandbox_ms + timing.load_ms) / 1000)

    def ended(self, reason: EndReason) -> None:
        """An instance is gone."""
        self._ends.labels(reason.value).inc()


def node_families(report: NodeReport, targets: Mapping[Runtime, int]) -> Iterable[Metric]:
    """What there is now. `targets`: cells that should wait, by runtime."""
    yield from _instances(report.instances)
    yield gauge(
        "cloudlet_node_pool_cells",
        "Cells that wait, by runtime",
        [((runtime.value,), count) for runtime, count in report.pools.items()],
        ("runtime",),
    )
    yield gauge(
        "cloudlet_node_pool_target_cells",
        "Cells that should wait, by runtime",
        [((runtime.value,), count) for runtime, count in targets.items()],
        ("runtime",),
    )
    yield from _processes(report)


def _instances(instances: Iterable[InstanceStatus]) -> Iterable[Metric]:
    states = Count({state.value: 0 for state in InstanceState if state is not InstanceState.ENDED})
    memory_mb = 0.0
    for one in instances:
        states[one.state.value] += 1
        memory_mb += one.memory_mb
    yield gauge(
        "cloudlet_node_instances",
        "Instances, by state",
        [((state,), count) for state, count in states.items()],
        ("state",),
    )
    yield gauge(
        "cloudlet_node_instances_memory_bytes",
        "Memory of all instances together, as it counts against their limits",
        [((), memory_mb * _MB)],
    )


def _processes(report: NodeReport) -> Iterable[Metric]:
    yield gauge(
        "cloudlet_node_process_ready",
        "1 for each of the platform's own processes that answers, else 0",
        [((each.name,), float(each.ready)) for each in report.processes],
        ("process",),
    )
    yield counter(
        "cloudlet_node_process_restarts_total",
        "How often each of them was started again",
        [((each.name,), each.restarts) for each in report.processes],
        ("process",),
    )
    pids = {"node": report.pid, **{each.name: each.pid for each in report.processes if each.pid}}
    yield gauge(
        "cloudlet_node_process_memory_bytes",
        "Resident memory of each of them, and of the node itself (Linux)",
        [((name,), resident_bytes(pid)) for name, pid in pids.items()],
        ("process",),
    )
