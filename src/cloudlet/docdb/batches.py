"""What a batch means, the same for every engine: which documents it writes, and what must hold before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudlet.docdb.base import Batch, Expected, id_key
from cloudlet.docdb.values import Document
from cloudlet.model.errors import Internal, RevisionConflict


@dataclass(frozen=True, slots=True)
class BatchStep:
    """One expectation, and what is done once all of them hold: nothing, a put or a removal."""

    expected: Expected
    writes: bool = False
    document: Document | None = None


def batch_steps(batch: Batch) -> Sequence[BatchStep]:
    """What is read only, then what is removed (its unique values may move to others), then what is put.

    Raises Internal if something is written that is not expected, or written twice; InvalidDocument for a
    document without a usable id.
    """
    left = {(item.collection, item.id_key): item for item in batch.expected}
    if len(left) != len(batch.expected):
        raise Internal("a batch expects one document twice")
    puts = [((name, id_key(document.get("_id"))), document) for name, document in batch.puts]
    written: list[BatchStep] = []
    for where, document in [*((where, None) for where in batch.deletes), *puts]:
        expected = left.pop(where, None)
        if expected is None:
            raise Internal("a batch writes a document that it does not expect, or writes it twice")
        written.append(BatchStep(expected, True, document))
    return [*map(BatchStep, left.values()), *written]


def check_revision(expected: Expected, rev: int | None) -> None:
    """Raises RevisionConflict unless the document is as expected; ``rev`` is None if it does not exist."""
    if rev != expected.rev:
        raise RevisionConflict(f"a document of {expected.collection} was changed in the meantime")
