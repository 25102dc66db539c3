"""What surrounds a pipeline in the document service: permissions, the number of rows, writes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cloudlet.docdb.base import CollectionInfo, Decision, Keys, Put, Read, Row, Select, Turn, Want, id_key
from cloudlet.docdb.filter import where
from cloudlet.docdb.limits import DocdbLimits
from cloudlet.docdb.paths import resolve, split_path
from cloudlet.docdb.permissions import Reading
from cloudlet.docdb.pipeline.execute import NOTHING, Aggregation, make_aggregation
from cloudlet.docdb.pipeline.expressions import refused
from cloudlet.docdb.pipeline.expressions.base import nullish
from cloudlet.docdb.pipeline.parse import Pipeline, has_stage
from cloudlet.docdb.pipeline.writing import Merge, WhenMatched, WhenNotMatched
from cloudlet.docdb.transactions.base import Documents
from cloudlet.docdb.values import Document, Value, prepare
from cloudlet.model.errors import DuplicateKey, InvalidDocument, InvalidFilter, PermissionDenied


@dataclass(frozen=True, slots=True)
class Rows:
    """How many documents a pipeline may return.

    ``default``: so many if it has no ``$limit`` of its own. ``most``: never more than so many.
    """

    default: int | None = None
    most: int | None = None


ALL_ROWS: Final = Rows()


def with_limit(stages: Value, rows: Rows) -> Value:
    """The stages, with a ``$limit`` at the end where the caller's dialect wants one."""
    if type(stages) is not list or any(has_stage(stages, name) for name in ("$out", "$merge")):
        return stages
    if rows.default is not None and not has_stage(stages, "$limit"):
        return [*stages, {"$limit": rows.default}]
    return stages if rows.most is None else [*stages, {"$limit": rows.most}]


def first_match(stages: Value) -> Value:
    """The filter by which rules judge a pipeline: its first stage if that is ``$match``, else everything."""
    if type(stages) is list and stages and type(stages[0]) is dict and "$match" in stages[0]:
        return stages[0]["$match"]
    return {}


async def for_client(
    collection: str,
    stages: Value,
    now_ms: int,
    catalog: Callable[[str], CollectionInfo | None],
    may_read: Callable[[CollectionInfo, Value], Awaitable[Reading]],
    documents: Documents,
) -> Aggregation:
    """The pipeline as a client may run it: owners' conditions in front, other collections narrowed.

    ``may_read`` says what a filter may find in a collection. Raises PermissionDenied, InvalidFilter.
    """
    pipeline = make_aggregation(collection, stages, now_ms).pipeline
    if pipeline.write is not None:
        raise PermissionDenied("only the server may use $out and $merge")
    info = catalog(collection)
    conditions: dict[str, tuple[Document, ...]] = {}
    for name in pipeline.foreign:
        other = catalog(name)
        # One that is made in the meantime is not shown either.
        conditions[name] = NOTHING if other is None else _shown(name, await may_read(other, {})).conditions
    if info is not None:
        reading = _shown(collection, await may_read(info, first_match(stages)))
        await _checked(collection, reading, documents)
        stages = _narrowed(conditions, collection, stages, pipeline, reading)
    return make_aggregation(collection, stages, now_ms, conditions)


def _narrowed(
    conditions: dict[str, tuple[Document, ...]],
    collection: str,
    stages: Value,
    pipeline: Pipeline,
    reading: Reading,
) -> Value:
    """The stages with all conditions in the first ``$match``, whose filter the reading repeats."""
    if pipeline.sources:
        conditions[collection] = reading.conditions
        return stages
    conditions.setdefault(collection, ())
    rest = stages[1:] if has_stage(stages[:1], "$match") else stages
    wanted = [condition for condition in reading.conditions if condition]
    return [{"$match": {"$and": wanted}}, *rest] if wanted else rest


def _shown(collection: str, reading: Reading) -> Reading:
    if reading.hides:
        raise PermissionDenied(
            f"{collection[:80]} has fields that are hidden from you; query it without a pipeline"
        )
    return reading


async def _checked(collection: str, reading: Reading, documents: Documents) -> None:
    """Rules that can only be judged by the stored document, of which there is one at most."""
    if reading.checks:
        found = await documents.read(Read(collection, where(*reading.conditions)))
        for row in found.rows:
            await reading.check(row.document)


# Writing the result.


@dataclass(frozen=True, slots=True)
class Writer:
    """Puts the result of a pipeline into a collection, in turns of bounded size.

    ``$out`` is one atomic turn if the collection held few documents and gets few. Otherwise new documents are
    put in place turn by turn and those that are not in the result are removed last: readers meanwhile see old
    and new documents, never an empty collection, and running the pipeline again mends what a crash left.
    """

    documents: Documents
    limits: DocdbLimits
    now_ms: int
    next_id: Callable[[], str]

    async def out(self, collection: str, found: Sequence[Document]) -> None:
        """Replace everything. Raises DuplicateKey, InvalidDocument."""
        wanted = self._prepared(found)
        ids = set(wanted)
        if len(ids) <= self.limits.turn_documents_max:
            everything = where({})
            most = self.limits.examined_inline_max
            keys = (await self.documents.read(Read(collection, everything, limit=most, want=Want.KEYS))).keys
            if len(keys) < most:
                target = Select(everything, None)
                await self.documents.commit(Turn(collection, self.now_ms, _replaced(wanted), target))
                return
        for piece in self._pieces(list(wanted)):
            decide = _stored({key: wanted[key] for key in piece})
            await self.documents.commit(Turn(collection, self.now_ms, decide, Keys(piece)))
        keys = (await self.documents.read(Read(collection, where({}), want=Want.KEYS))).keys
        for piece in self._pieces([key for key, _, _ in keys if key not in ids]):
            await self.documents.commit(Turn(collection, self.now_ms, _removed, Keys(piece)))

    async def merge(self, info: CollectionInfo, merge: Merge, found: Sequence[Document]) -> None:
        """Put each document where one with the same values is. Raises DuplicateKey, InvalidFilter."""
        if merge.on == ("_id",):
            wanted = self._prepared(found)
            for piece in self._pieces(list(wanted)):
                decide = _merged(merge, {key: wanted[key] for key in piece})
                await self.documents.commit(Turn(info.name, self.now_ms, decide, Keys(piece)))
            return
        _check_unique(info, merge)
        for document in found:
            condition = where(*[{path: {"$eq": _join_value(document, path)}} for path in merge.on])
            target = Select(condition, 1)
            await self.documents.commit(
                Turn(info.name, self.now_ms, _merged_one(merge, self._complete(document)), target)
            )

    def _prepared(self, found: Sequence[Document]) -> dict[bytes, Document]:
        made: dict[bytes, Document] = {}
        for document in found:
            complete = self._complete(document)
            key = id_key(complete["_id"])
            if key in made:
                raise DuplicateKey(
                    f"E11000 duplicate key error: two results have the _id {complete['_id']!r}"
                )
            made[key] = complete
        return made

    def _complete(self, document: Document) -> Document:
        prepared: Document = prepare(document, self.now_ms)
        for name in prepared:
            if name.startswith("$"):
                raise InvalidDocument(f"the dollar ($) prefixed field '{name[:80]}' is not valid for storage")
        return prepared if "_id" in prepared else {"_id": self.next_id(), **prepared}

    def _pieces(self, keys: list[bytes]) -> list[list[bytes]]:
        size = self.limits.turn_documents_max
        return [keys[at : at + size] for at in range(0, len(keys), size)]


def _replaced(wanted: dict[bytes, Document]) -> Callable[[Sequence[Row]], Decision[None]]:
    def decide(rows: Sequence[Row]) -> Decision[None]:
        before = {row.id_key: row for row in rows}
        puts = [Put(document, before.get(key)) for key, document in wanted.items()]
        return Decision(None, puts, [row for row in rows if row.id_key not in wanted])

    return decide


def _stored(wanted: dict[bytes, Document]) -> Callable[[Sequence[Row]], Decision[None]]:
    def decide(rows: Sequence[Row]) -> Decision[None]:
        before = {row.id_key: row for row in rows}
        return Decision(None, [Put(document, before.get(key)) for key, document in wanted.items()])

    return decide


def _removed(rows: Sequence[Row]) -> Decision[None]:
    return Decision(None, deletes=rows)


def _merged(merge: Merge, wanted: dict[bytes, Document]) -> Callable[[Sequence[Row]], Decision[None]]:
    def decide(rows: Sequence[Row]) -> Decision[None]:
        before = {row.id_key: row for row in rows}
        puts = [_put(merge, document, before.get(key)) for key, document in wanted.items()]
        return Decision(None, [put for put in puts if put is not None])

    return decide


def _merged_one(merge: Merge, document: Document) -> Callable[[Sequence[Row]], Decision[None]]:
    def decide(rows: Sequence[Row]) -> Decision[None]:
        put = _put(merge, document, rows[0] if rows else None)
        return Decision(None, [] if put is None else [put])

    return decide


def _put(merge: Merge, document: Document, before: Row | None) -> Put | None:
    if before is None:
        if merge.not_matched is WhenNotMatched.FAIL:
            raise refused(
                13113,
                "$merge could not find a matching document in the target for at least one of the source",
            )
        return Put(document) if merge.not_matched is WhenNotMatched.INSERT else None
    if merge.matched is WhenMatched.FAIL:
        raise DuplicateKey(
            f"E11000 duplicate key error: $merge found a document with _id {before.document['_id']!r}"
        )
    if merge.matched is WhenMatched.KEEP:
        return None
    old = before.document
    if merge.matched is WhenMatched.REPLACE:
        return Put({**document, "_id": old["_id"]}, before)
    return Put({**old, **document, "_id": old["_id"]}, before)


def _check_unique(info: CollectionInfo, merge: Merge) -> None:
    wanted = set(merge.on)
    for index in info.indexes:
        if index.unique and {part.path for part in index.parts} == wanted:
            return
    raise refused(51183, f"$merge needs a unique index of {info.name} on {', '.join(merge.on)}")


def _join_value(document: Document, path: str) -> Value:
    found = resolve(document, split_path(path, InvalidFilter))
    if len(found) != 1 or type(found[0]) is list or nullish(found[0]):
        raise refused(51132, f"$merge needs a single value, not null or an array, at {path[:80]!r}")
    return found[0]
