"""The numbers of the document database."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from cloudlet.docdb.metrics import DocumentMetrics
from cloudlet.docdb.service import DocumentService, Query
from cloudlet.docdb.stores import Stores
from cloudlet.docdb.values import Regex
from cloudlet.model.access import Access
from cloudlet.model.errors import CollectionNotFound, PermissionDenied

pytestmark = pytest.mark.anyio

ADMIN = Access("e", admin=True)


async def test_operations_are_counted_by_kind_and_outcome_and_writes_by_group(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    stores = Stores.in_directory(tmp_path, metrics=DocumentMetrics(registry))
    service = DocumentService(stores)

    def counted(kind: str, outcome: str) -> float | None:
        labels = {"kind": kind, "outcome": outcome}
        return registry.get_sample_value("cloudlet_documents_operations_total", labels)

    try:
        await service.create_collection("e", "notes")
        await asyncio.gather(*(service.insert(ADMIN, "notes", [{"n": n}]) for n in range(10)))
        await service.find(ADMIN, "notes", Query({"n": 3}))
        with pytest.raises(CollectionNotFound):
            await service.find(ADMIN, "nothing", Query())
        with pytest.raises(PermissionDenied):
            await service.insert(Access("e"), "notes", [{"n": 1}])
        assert counted("define", "ok") == 1
        assert counted("insert", "ok") == 10
        assert counted("insert", "permission_denied") == 1
        assert counted("find", "ok") == 1
        assert counted("find", "collection_not_found") == 1
        took = registry.get_sample_value("cloudlet_documents_operation_seconds_count", {"kind": "insert"})
        assert took == 11
        assert registry.get_sample_value("cloudlet_documents_write_group_requests_sum") == 10
        groups = registry.get_sample_value("cloudlet_documents_write_group_requests_count")
        assert groups == registry.get_sample_value("cloudlet_documents_commit_seconds_count")
        assert registry.get_sample_value("cloudlet_documents_open_stores") == 1
        assert registry.get_sample_value("cloudlet_documents_query_workers") == 0
        await service.find(ADMIN, "notes", Query({"t": Regex("(a+)+$", "")}))
        assert registry.get_sample_value("cloudlet_documents_query_workers") == 1
        assert registry.get_sample_value("cloudlet_documents_waiting_queries") == 0
        assert registry.get_sample_value("cloudlet_documents_killed_queries_total") == 0
    finally:
        await stores.close()
    assert registry.get_sample_value("cloudlet_documents_open_stores") == 0


async def test_an_operation_that_is_given_up_is_no_error_of_ours() -> None:
    registry = CollectorRegistry()
    metrics = DocumentMetrics(registry)
    with pytest.raises(asyncio.CancelledError), metrics.operation("find"):
        raise asyncio.CancelledError
    labels = {"kind": "find", "outcome": "cancelled"}
    assert registry.get_sample_value("cloudlet_documents_operations_total", labels) == 1
