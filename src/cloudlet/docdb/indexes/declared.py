"""Indexes that a project's ``cloudbaserc.json`` declares, in the words of the vendor's tools.

Two places are read: the inputs of the plugin ``@cloudbase/framework-plugin-database``, and ``database`` at
the top. Both hold ``collections``, each with ``collectionName`` and ``createIndexes``; an index is
``{"IndexName": …, "MgoKeySchema": {"MgoIndexKeys": [{"Name": …, "Direction": "1"}], "MgoIsUnique": false}}``.
``MgoIsSparse`` is known too; ``partialFilterExpression`` and ``expireAfterSeconds`` have MongoDB's names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from cloudlet.docdb.base import CreateIndex
from cloudlet.docdb.bytekeys import KeyKind, KeyPart
from cloudlet.docdb.catalog import check_index_name, key_part, new_index
from cloudlet.docdb.values import prepare
from cloudlet.model.errors import InvalidName, InvalidParameter, InvalidProject
from cloudlet.model.ids import check_collection_name

PLUGIN: Final = "@cloudbase/framework-plugin-database"
DECLARED_MAX: Final = 1_000
_FILE: Final = "cloudbaserc.json"
_DIRECTIONS: Final[dict[str, tuple[bool, KeyKind]]] = {
    "1": (False, "value"),
    "-1": (True, "value"),
    "2d": (False, "2d"),
    "2dsphere": (False, "2dsphere"),
}
_KEYS: Final = frozenset(
    {"MgoIndexKeys", "MgoIsUnique", "MgoIsSparse", "partialFilterExpression", "expireAfterSeconds"}
)


def declared_indexes(config: Mapping[str, Any]) -> tuple[CreateIndex, ...]:
    """The indexes of a ``cloudbaserc.json`` that was read; of the same name in one collection the last.

    Raises InvalidProject with the place in the file. Whether an index can be made (enough room, what
    the documents hold) is seen when it is.
    """
    found: dict[tuple[str, str], CreateIndex] = {}
    for where, collections in _places(config):
        for at, entry in enumerate(_list(collections, where)):
            for index in _of_collection(entry, f"{where}[{at}]"):
                found[index.collection, index.name] = index
    if len(found) > DECLARED_MAX:
        raise InvalidProject(f"{_FILE} declares {len(found)} indexes, the limit is {DECLARED_MAX}")
    return tuple(found.values())


def _places(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    framework = config.get("framework")
    plugins = framework.get("plugins") if isinstance(framework, dict) else None
    for name, plugin in plugins.items() if isinstance(plugins, dict) else ():
        if isinstance(plugin, dict) and plugin.get("use") == PLUGIN:
            inputs = plugin.get("inputs")
            if isinstance(inputs, dict) and "collections" in inputs:
                yield f"{_FILE} framework.plugins.{name}.inputs.collections", inputs["collections"]
    database = config.get("database")
    if isinstance(database, dict) and "collections" in database:
        yield f"{_FILE} database.collections", database["collections"]


def _of_collection(entry: Any, where: str) -> Iterator[CreateIndex]:
    name = _object(entry, where).get("collectionName")
    try:
        collection = check_collection_name(name if isinstance(name, str) else "")
    except InvalidName as exc:
        raise InvalidProject(f"{where}.collectionName: {exc.message}") from exc
    for key in ("createIndexes", "CreateIndexes"):
        if key in entry:
            for at, index in enumerate(_list(entry[key], f"{where}.{key}")):
                yield _index(collection, index, f"{where}.{key}[{at}]")


def _index(collection: str, index: Any, where: str) -> CreateIndex:
    name = _object(index, where).get("IndexName")
    schema = _object(index.get("MgoKeySchema"), f"{where}.MgoKeySchema")
    unknown = set(schema) - _KEYS
    if unknown:
        raise InvalidProject(
            f"{where}.MgoKeySchema: {sorted(unknown)[0]} is not known; known: {sorted(_KEYS)}"
        )
    partial, expire = schema.get("partialFilterExpression"), schema.get("expireAfterSeconds")
    if expire is not None and type(expire) is not int:
        raise InvalidProject(f"{where}.MgoKeySchema.expireAfterSeconds must be a whole number")
    keys = _list(schema.get("MgoIndexKeys"), f"{where}.MgoKeySchema.MgoIndexKeys")
    try:
        check_index_name(name if isinstance(name, str) else "")
        parts = tuple(_part(key, f"{where}.MgoKeySchema.MgoIndexKeys[{at}]") for at, key in enumerate(keys))
        made = CreateIndex(
            collection,
            str(name),
            parts,
            _flag(schema, "MgoIsUnique", where),
            _flag(schema, "MgoIsSparse", where),
            None if partial is None else prepare(_object(partial, where), 0, InvalidParameter),
            expire,
        )
        new_index(made, 0)
    except InvalidParameter as exc:
        raise InvalidProject(f"{where}: {exc.message}") from exc
    return made


def _part(key: Any, where: str) -> KeyPart:
    path, direction = _object(key, where).get("Name"), str(key.get("Direction", "1"))
    if not isinstance(path, str) or direction not in _DIRECTIONS:
        raise InvalidProject(f"{where}: a key has a Name and a Direction, one of {', '.join(_DIRECTIONS)}")
    return key_part(path, *_DIRECTIONS[direction])


def _flag(schema: Mapping[str, Any], name: str, where: str) -> bool:
    value = schema.get(name, False)
    if not isinstance(value, bool):
        raise InvalidProject(f"{where}.MgoKeySchema.{name} must be true or false")
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidProject(f"{where} must be an object")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidProject(f"{where} must be a list")
    return value
