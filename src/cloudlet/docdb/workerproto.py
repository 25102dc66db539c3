"""What passes between the server and a scanning worker: one job in, one answer out, each a framed record."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from cloudlet.docdb.base import Found, Read, Row, Want
from cloudlet.docdb.body import decode_body, decode_value, encode_value
from cloudlet.docdb.filter import where
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.sort import parse_sort, sort_value
from cloudlet.model import errors
from cloudlet.model.errors import Internal, PlatformError

HEADER: Final = struct.Struct(">I")
FRAME_BYTES_MAX: Final = 512 * 1024 * 1024


class StoredRow(msgspec.Struct, array_like=True, frozen=True):
    """A row whose document is still the stored text."""

    did: int
    id_key: bytes
    rev: int
    body: str


class Job(msgspec.Struct, frozen=True, tag="read"):
    """One query, and the file or the rows it is about."""

    collection: str
    conditions: list[str]
    sort: str
    skip: int
    limit: int | None
    want: str
    seconds: float
    result_bytes_max: int
    path: str | None = None
    rows: list[StoredRow] | None = None
    postgres: tuple[str, str] | None = None
    """Address of a database, which may hold a password, and environment."""


class PipelineJob(msgspec.Struct, frozen=True, tag="pipeline"):
    """One aggregation pipeline, and the file or the rows of each collection it is about."""

    collection: str
    stages: str
    now_ms: int
    conditions: dict[str, list[str]] | None
    seconds: float
    result_bytes_max: int
    document_bytes_max: int
    path: str | None = None
    rows: dict[str, list[StoredRow]] | None = None
    postgres: tuple[str, str] | None = None
    """Address of a database, which may hold a password, and environment."""


class Answer(msgspec.Struct, frozen=True):
    """What was found, or the name and text of the error."""

    rows: list[StoredRow] = []
    keys: list[tuple[bytes, int, int]] = []
    count: int = 0
    examined: int = 0
    index: str | None = None
    documents: list[str] = []
    """What a pipeline made."""
    error: str | None = None
    message: str = ""


job_decoder: Final = msgspec.msgpack.Decoder(Job | PipelineJob)
answer_decoder: Final = msgspec.msgpack.Decoder(Answer)
_encoder: Final = msgspec.msgpack.Encoder()


def frame(record: Job | PipelineJob | Answer) -> bytes:
    """The bytes on the pipe."""
    body = _encoder.encode(record)
    return HEADER.pack(len(body)) + body


def make_job(
    read: Read,
    limits: DocdbLimits,
    path: str | None = None,
    rows: list[StoredRow] | None = None,
    postgres: tuple[str, str] | None = None,
) -> Job:
    """The job for a read, on a file, on a database or on rows that are sent along."""
    return Job(
        collection=read.collection,
        conditions=[encode_value(condition) for condition in read.where.conditions],
        sort=encode_value(sort_value(read.sort)),
        skip=read.skip,
        limit=read.limit,
        want=read.want.value,
        seconds=limits.scan_time_s,
        result_bytes_max=limits.result_bytes_max,
        path=path,
        rows=rows,
        postgres=postgres,
    )


def job_read(job: Job) -> Read:
    """The read a job stands for."""
    conditions = [decode_value(condition) for condition in job.conditions]
    sort = parse_sort(decode_value(job.sort) or None)
    return Read(
        job.collection, where(*conditions, subject_max=None), sort, job.skip, job.limit, Want(job.want)
    )


def stored_row(row: Row) -> StoredRow:
    """A row for the pipe."""
    return StoredRow(row.did, row.id_key, row.rev, encode_value(row.document))


def row(stored: StoredRow) -> Row:
    """A row with its document read."""
    return Row(stored.did, stored.id_key, stored.rev, len(stored.body), decode_body(stored.body))


def answer_found(answer: Answer) -> Found:
    """What a worker found; raises the error it reports."""
    check_answer(answer)
    rows = [row(stored) for stored in answer.rows]
    return Found(rows, answer.count, answer.keys, answer.examined, answer.index)


def check_answer(answer: Answer) -> None:
    """Raises the error a worker reports."""
    if answer.error is not None:
        kind = getattr(errors, answer.error, Internal)
        if not (isinstance(kind, type) and issubclass(kind, PlatformError)):
            kind = Internal
        raise kind(answer.message)
