"""Pipelines over a database in the worker process: collections are read page by page from one snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from cloudlet.docdb.base import CollectionInfo, Read, Row, find_collection
from cloudlet.docdb.filter import where
from cloudlet.docdb.pipeline.jobs import run_job_on
from cloudlet.docdb.pipeline.reader import Examined, Sought, chosen, is_indexed
from cloudlet.docdb.planner import Plan
from cloudlet.docdb.postgres.candidates import Table, choose
from cloudlet.docdb.postgres.catalog import Catalog
from cloudlet.docdb.postgres.sql import Names, statement
from cloudlet.docdb.postgres.worker import candidates, snapshot
from cloudlet.docdb.values import Document
from cloudlet.docdb.workerproto import Answer, PipelineJob


def run_on_postgres(job: PipelineJob, examined: Examined, url: str, environment: str) -> Answer:
    """Run a pipeline. Raises what the pipeline raises, StoreUnavailable, CollectionNotFound."""
    with snapshot(url, environment, job.seconds) as (runner, connection, at, catalog):
        find_collection(catalog.collections, job.collection)
        return run_job_on(job, PostgresReader(runner, connection, at, catalog, examined), examined)


class PostgresReader:
    """A ``CollectionReader`` that waits for the database wherever it reads."""

    def __init__(
        self, runner: asyncio.Runner, connection: Any, at: Names, catalog: Catalog, examined: Examined
    ) -> None:
        self._runner = runner
        self._connection = connection
        self._at = at
        self._catalog = catalog
        self._examined = examined

    def find(self, sought: Sought) -> Iterator[Document]:
        info = self.info(sought.collection)
        if info is None:
            return iter(())
        read, found = self._planned(sought, info)
        rows: Iterator[Row] = candidates(self._runner, self._connection, self._table(info), found.source)
        return chosen(rows, sought, read.where, found.ordered, self._examined)

    def is_indexed(self, sought: Sought) -> bool:
        info = self.info(sought.collection)
        return info is None or is_indexed(self._planned(sought, info)[1].source)

    def info(self, collection: str) -> CollectionInfo | None:
        return self._catalog.collections.get(collection)

    def count(self, collection: str) -> int:
        info = self.info(collection)
        if info is None:
            return 0
        text = statement("count_documents", self._at, info.number)
        return int(self._runner.run(self._connection.fetchval(text, 2**62)))

    def _table(self, info: CollectionInfo) -> Table:
        return Table(self._at, info, self._catalog.version)

    def _planned(self, sought: Sought, info: CollectionInfo) -> tuple[Read, Plan]:
        condition = where(*sought.conditions, subject_max=None)
        read = Read(info.name, condition, sought.sort, sought.skip, sought.limit)
        return read, self._runner.run(choose(self._connection, self._table(info), read))
