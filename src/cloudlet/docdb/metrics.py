"""The numbers of the document database."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from itertools import accumulate
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from cloudlet.model.errors import Internal, PlatformError
from cloudlet.observe.metrics import DURATIONS_S, Reader

GROUPS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

P = ParamSpec("P")
T = TypeVar("T")


class DocumentMetrics:
    """All environments together. Without a registry the numbers are counted and shown nowhere."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._kinds: dict[str, _Kind] = {}
        if registry is not None:
            registry.register(Reader(self._families))
        self.group = Histogram(
            "cloudlet_documents_write_group_requests",
            "Requests that shared one transaction",
            buckets=GROUPS,
            registry=registry,
        )
        self.commit = Histogram(
            "cloudlet_documents_commit_seconds",
            "Time of one transaction, the disk's confirmation included",
            buckets=DURATIONS_S,
            registry=registry,
        )
        self.workers = Gauge(
            "cloudlet_documents_query_workers", "Processes that run slow queries", registry=registry
        )
        self.waiting = Gauge(
            "cloudlet_documents_waiting_queries",
            "Slow queries that wait for one of these processes",
            registry=registry,
        )
        self.killed = Counter(
            "cloudlet_documents_killed_queries_total",
            "Slow queries that were ended with their process, because they took too long or it died",
            registry=registry,
        )
        self.transactions = Gauge(
            "cloudlet_documents_open_transactions", "Transactions that are open", registry=registry
        )
        self.transactions_ended = Counter(
            "cloudlet_documents_transactions_total",
            "Transactions that have ended: committed, aborted, expired, conflict or failed",
            ["outcome"],
            registry=registry,
        )
        self.watches = Gauge("cloudlet_documents_open_watches", "Watches that are open", registry=registry)
        self.watch_events = Counter(
            "cloudlet_documents_watch_events_total", "Events that watches have told", registry=registry
        )
        self.watch_merged = Counter(
            "cloudlet_documents_watch_merged_total",
            "Changes that were merged with another one that had not been told yet",
            registry=registry,
        )
        self.watches_ended = Counter(
            "cloudlet_documents_watches_ended_total",
            "Watches that have ended: closed, or the code of the error that ended them",
            ["outcome"],
            registry=registry,
        )
        self.watch_dispatch = Histogram(
            "cloudlet_documents_watch_dispatch_seconds",
            "Time to hand one change to all watches it concerns",
            buckets=DURATIONS_S,
            registry=registry,
        )
        self.stores = Gauge(
            "cloudlet_documents_open_stores", "Environments whose documents are open", registry=registry
        )

    @contextmanager
    def operation(self, kind: str) -> Iterator[None]:
        """Count what is done in the block, and measure it."""
        began = time.perf_counter()
        try:
            yield
        except BaseException as error:
            self.ended(kind, began, error)
            raise
        self.ended(kind, began)

    def ended(self, kind: str, began: float, error: BaseException | None = None) -> None:
        """Count an operation that began at ``began`` (of ``perf_counter``) and is over, perhaps by an error.

        Called on the event loop, and so often that the library's own locked counters would show.
        """
        counts = self._kinds.get(kind)
        if counts is None:
            counts = self._kinds[kind] = _Kind()
        outcome = "ok" if error is None else _outcome(error)
        counts.outcomes[outcome] = counts.outcomes.get(outcome, 0) + 1
        seconds = time.perf_counter() - began
        counts.seconds += seconds
        counts.buckets[bisect_left(DURATIONS_S, seconds)] += 1

    def _families(self) -> Iterator[Metric]:
        operations = CounterMetricFamily(
            "cloudlet_documents_operations_total",
            "Operations, by kind and by outcome: ok, cancelled, or the code of the error",
            labels=["kind", "outcome"],
        )
        seconds = HistogramMetricFamily(
            "cloudlet_documents_operation_seconds",
            "Time of an operation inside the document service",
            labels=["kind"],
        )
        for kind, counts in self._kinds.items():
            for outcome, number in counts.outcomes.items():
                operations.add_metric([kind, outcome], number)
            cumulative = accumulate(counts.buckets)
            bounds = (*map(floatToGoString, DURATIONS_S), "+Inf")
            seconds.add_metric([kind], list(zip(bounds, cumulative, strict=True)), counts.seconds)
        yield operations
        yield seconds


@dataclass(slots=True)
class _Kind:
    """What is counted of one kind of operation."""

    outcomes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(DURATIONS_S) + 1))
    """One per bound, and one for what took longer."""


def _outcome(error: BaseException) -> str:
    if isinstance(error, PlatformError):
        return error.code
    return "cancelled" if isinstance(error, asyncio.CancelledError) else Internal.code


class HasMetrics(Protocol):
    """What the methods that are measured belong to."""

    @property
    def metrics(self) -> DocumentMetrics: ...


S = TypeVar("S", bound=HasMetrics)


Method = Callable[Concatenate[S, P], Coroutine[Any, Any, T]]


def measured(kind: str) -> Callable[[Method[S, P, T]], Method[S, P, T]]:
    """Count every call of a method as an operation of this kind."""

    def decorate(method: Method[S, P, T]) -> Method[S, P, T]:
        @wraps(method)
        async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
            began = time.perf_counter()
            try:
                result = await method(self, *args, **kwargs)
            except BaseException as error:
                self.metrics.ended(kind, began, error)
                raise
            self.metrics.ended(kind, began)
            return result

        return call

    return decorate
