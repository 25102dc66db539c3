"""The numbers of the document database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cloudlet.model.errors import Internal, PlatformError
from cloudlet.observe.metrics import DURATIONS_S

GROUPS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

P = ParamSpec("P")
T = TypeVar("T")


class DocumentMetrics:
    """All environments together. Without a registry the numbers are counted and shown nowhere."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._operations = Counter(
            "cloudlet_documents_operations_total",
            "Operations, by kind and by outcome: ok, cancelled, or the code of the error",
            ["kind", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "cloudlet_documents_operation_seconds",
            "Time of an operation inside the document service",
            ["kind"],
            buckets=DURATIONS_S,
            registry=registry,
        )
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
        self.stores = Gauge(
            "cloudlet_documents_open_stores", "Environments whose documents are open", registry=registry
        )

    @contextmanager
    def operation(self, kind: str) -> Iterator[None]:
        """Count what is done in the block, and measure it."""
        began = time.perf_counter()
        outcome = Internal.code
        try:
            yield
            outcome = "ok"
        except PlatformError as error:
            outcome = error.code
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._operations.labels(kind, outcome).inc()
            self._seconds.labels(kind).observe(time.perf_counter() - began)


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
            with self.metrics.operation(kind):
                return await method(self, *args, **kwargs)

        return call

    return decorate
