"""Pipelines in a worker process: what is sent, how it is run there, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from cloudlet.docdb.base import find_collection
from cloudlet.docdb.body import decode_value, encode_value
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.pipeline.execute import Aggregated, Aggregation, run_through
from cloudlet.docdb.pipeline.parse import parse_pipeline
from cloudlet.docdb.pipeline.reader import CollectionReader, Examined, RowsReader
from cloudlet.docdb.pipeline.sqlite_reader import SqliteReader
from cloudlet.docdb.sqlite_file import load_catalog, open_reader, snapshot
from cloudlet.docdb.workerproto import Answer, PipelineJob, StoredRow, check_answer, row


def make_pipeline_job(
    work: Aggregation,
    limits: DocdbLimits,
    path: str | None = None,
    rows: Mapping[str, list[StoredRow]] | None = None,
    postgres: tuple[str, str] | None = None,
) -> PipelineJob:
    """The job for a pipeline, on a file, on a database or on rows that are sent along."""
    conditions = None
    if work.conditions is not None:
        conditions = {name: [encode_value(item) for item in found] for name, found in work.conditions.items()}
    return PipelineJob(
        collection=work.collection,
        stages=encode_value(work.stages),
        now_ms=work.now_ms,
        conditions=conditions,
        seconds=limits.scan_time_s,
        result_bytes_max=limits.result_bytes_max,
        document_bytes_max=limits.document_bytes_max,
        path=path,
        rows=None if rows is None else dict(rows),
        postgres=postgres,
    )


def answer_aggregated(answer: Answer) -> Aggregated:
    """What a worker made; raises the error it reports."""
    check_answer(answer)
    return Aggregated([decode_value(text) for text in answer.documents], answer.examined)


def run_job(job: PipelineJob) -> Answer:
    """Run a pipeline in the worker. Raises what the pipeline raises."""
    examined = Examined()
    if job.postgres is not None:
        # Installations without PostgreSQL have no driver for it.
        from cloudlet.docdb.postgres.pipeline import run_on_postgres

        return run_on_postgres(job, examined, *job.postgres)
    if job.path is None:
        rows = {
            name: [row(stored) for stored in stored_rows] for name, stored_rows in (job.rows or {}).items()
        }
        return run_job_on(job, RowsReader(rows, examined=examined, subject_max=None), examined)
    with closing(open_reader(Path(job.path))) as connection, snapshot(connection):
        catalog = load_catalog(connection)
        find_collection(catalog, job.collection)
        with closing(SqliteReader(connection, catalog, examined, subject_max=None)) as reader:
            return run_job_on(job, reader, examined)


def run_job_on(job: PipelineJob, reader: CollectionReader, examined: Examined) -> Answer:
    """Run a pipeline on a reader, without a limit on steps."""
    pipeline = parse_pipeline(decode_value(job.stages), subject_max=None)
    conditions = None
    if job.conditions is not None:
        conditions = {
            name: tuple(decode_value(text) for text in texts) for name, texts in job.conditions.items()
        }
    work = Aggregation(job.collection, [], pipeline, job.now_ms, conditions)
    limits = replace(
        DocdbLimits(), result_bytes_max=job.result_bytes_max, document_bytes_max=job.document_bytes_max
    )
    documents = run_through(work, pipeline, reader, limits)
    return Answer(documents=[encode_value(document) for document in documents], examined=examined.count)
