"""Writing what a group has staged: a few statements for any number of documents."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, TypeVar

from cloudlet.docdb.postgres.catalog import Catalog
from cloudlet.docdb.postgres.sql import Names, statement
from cloudlet.docdb.postgres.stage import CollectionWrites, Held, Logged, Stage
from cloudlet.model.errors import Internal

T = TypeVar("T")

BYTES_MAX: Final = 16 * 1024 * 1024
"""About how many bytes one statement carries."""
ROWS_MAX: Final = 10_000
JOINED_MAX: Final = 48
"""Steps that are run as one statement: a document with all the indexes it may have."""
_VALUE: Final = re.compile(r"\$(\d+)")


@dataclass(frozen=True, slots=True)
class Step:
    """A named statement for a collection or an index, its columns, and how many rows it must change."""

    name: str
    c: int
    x: int
    columns: Sequence[Sequence[Any]]
    expected: int | None = None


async def flush(connection: Any, at: Names, stage: Stage, since: Catalog, logged: int) -> Catalog:
    """Bring the database to the stage; returns the catalog as it is stored now.

    ``since``: the catalog that is stored; ``logged``: rows of the log that are.
    """
    outcome = stage.outcome()
    steps = [step for writes in outcome for step in _document_steps(writes)]
    steps += [Step("log", 0, 0, _log_columns(rows)) for rows in _pieces(stage.log[logged:], _logged_size)]
    # Steps are cut into pieces of bounded size, so few of them are a bounded statement.
    together = 1 if any(map(_order_matters, outcome)) or len(steps) > JOINED_MAX else len(steps)
    for start in range(0, len(steps), max(1, together)):
        await _run(connection, at, steps[start : start + together])
    if stage.catalog is not since:
        await write_flags(connection, at, since, stage.catalog)
        stage.catalog = replace(stage.catalog, version=since.version + 1)
    return stage.catalog


async def write_flags(connection: Any, at: Names, since: Catalog, catalog: Catalog) -> None:
    """Store what indexes have met, and tell everybody that the catalog is another one."""
    for name, info in catalog.collections.items():
        known = {index.number: index for index in since.collections[name].indexes}
        for index in info.indexes:
            before = known[index.number]
            if (index.multikey, index.lossy) != (before.multikey, before.lossy):
                text = statement("set_index_flags", at)
                await connection.execute(text, index.multikey, index.lossy, index.number)
            if before.ready and not index.ready:
                await connection.execute(statement("withdraw_index", at), index.number)
    await connection.execute(statement("next_version", at))


def _document_steps(writes: CollectionWrites) -> Iterator[Step]:
    """Removals come before what may take their place."""
    number = writes.info.number
    for index, entries in writes.removed.items():
        yield from _entry_steps("remove_entries", index, entries)
    if writes.deletes:
        yield Step("delete_documents", number, 0, (writes.deletes,), len(writes.deletes))
    for held in _pieces(writes.updates, _held_size):
        columns = ([h.row.did for h in held], [h.row.rev for h in held], [h.body for h in held])
        yield Step("update_documents", number, 0, columns, len(held))
    for held in _pieces(writes.inserts, _held_size):
        rows = [h.row for h in held]
        ids = ([row.did for row in rows], [row.id_key for row in rows], [row.rev for row in rows])
        yield Step("insert_documents", number, 0, (*ids, [h.body for h in held]))
    for index, entries in writes.added.items():
        yield from _entry_steps("add_entries", index, entries)


def _entry_steps(name: str, index: int, entries: Sequence[tuple[bytes, int]]) -> Iterator[Step]:
    for piece in _pieces(entries, lambda entry: len(entry[0])):
        yield Step(name, 0, index, ([key for key, _ in piece], [did for _, did in piece]))


def _order_matters(writes: CollectionWrites) -> bool:
    """Whether a key may be given up and taken by another document at once."""
    unique = {index.number for index in writes.info.indexes if index.unique}
    return bool(writes.deletes) or any(writes.removed.get(number) for number in unique)


async def _run(connection: Any, at: Names, steps: Sequence[Step]) -> None:
    """Run steps as one statement, in which none sees what another does."""
    text = _joined(at, tuple((step.name, step.c, step.x, step.expected is not None) for step in steps))
    values = [column for step in steps for column in step.columns]
    counts = await connection.fetchrow(text, *values)
    expected = [step.expected for step in steps if step.expected is not None]
    if expected and list(counts) != expected:
        # The lock makes sure that nothing has changed since it was read; if not, nothing may be written.
        raise Internal("a document changed under the environment's lock")


@lru_cache(maxsize=4096)
def _joined(at: Names, parts: tuple[tuple[str, int, int, bool], ...]) -> str:
    """One statement for several, their values one after the other; it returns the counts asked for."""
    offset = 0
    pieces, counts = [], []
    for number, (name, c, x, counted) in enumerate(parts):
        text = statement(name, at, c, x)
        values = max(int(found) for found in _VALUE.findall(text))
        shifted = _VALUE.sub(lambda found, by=offset: f"${int(found[1]) + by}", text)  # type: ignore[misc]
        offset += values
        pieces.append(f"p{number} AS ({shifted}{' RETURNING 1' if counted else ''})")
        if counted:
            counts.append(f"(SELECT count(*) FROM p{number})")  # noqa: S608
    return f"WITH {', '.join(pieces)} SELECT {', '.join(counts) or '1'}"


def _log_columns(rows: Sequence[Logged]) -> tuple[list[Any], ...]:
    return (
        [row.seq for row in rows],
        [row.info.name for row in rows],
        [row.operation.value for row in rows],
        [row.seq for row in rows],
        [row.before.body if row.before else None for row in rows],
        [row.after.body if row.after else None for row in rows],
        [row.at_ms for row in rows],
    )


def _held_size(held: Held) -> int:
    return held.row.size


def _logged_size(row: Logged) -> int:
    return (row.before.row.size if row.before else 0) + (row.after.row.size if row.after else 0)


def _pieces(items: Sequence[T], size_of: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """The items in parts of bounded number and size; a part has at least one."""
    if len(items) <= 1:
        if items:
            yield items
        return
    piece: list[T] = []
    size = 0
    for item in items:
        if piece and (size + size_of(item) > BYTES_MAX or len(piece) == ROWS_MAX):
            yield piece
            piece, size = [], 0
        piece.append(item)
        size += size_of(item)
    yield piece
