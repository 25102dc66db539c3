"""``$geoNear``: documents by their distance from a point. Manual: "$geoNear (aggregation)".

The stage is a read with a ``$near`` condition, so that indexes, permissions and limits are those of any read.
``limit`` (or ``num``), which newer servers no longer know, is what the vendor's documentation offers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from cloudlet.docdb.base import CollectionInfo
from cloudlet.docdb.filter import where
from cloudlet.docdb.filter.geo import measure, near_of, read_centre, read_distance, refused
from cloudlet.docdb.filter.reader import path_of, shown
from cloudlet.docdb.geo.places import Place, Point
from cloudlet.docdb.geo.reading import NotAPlace, number
from cloudlet.docdb.geo.sphere import EARTH_RADIUS_M
from cloudlet.docdb.numeric import is_number, whole_64
from cloudlet.docdb.paths import leaves
from cloudlet.docdb.pipeline.expressions import Variables
from cloudlet.docdb.pipeline.reader import Sought
from cloudlet.docdb.pipeline.stages.base import Parsing, Run
from cloudlet.docdb.values import Document, Value

_OPTIONS: Final = frozenset(
    {
        "near",
        "distanceField",
        "spherical",
        "maxDistance",
        "minDistance",
        "query",
        "distanceMultiplier",
        "includeLocs",
        "key",
        "limit",
        "num",
        "uniqueDocs",
    }
)
_ANY_PATH: Final = "place"
"""Stands for the field while it is not known which one has the index."""


def parse_geo_near(parsing: Parsing, spec: Value) -> Callable[[Run, Variables], Iterator[Document]]:
    """What makes the documents of a ``$geoNear`` stage. Raises InvalidFilter."""
    stage = _read(spec)
    found = where(stage.condition(stage.key or _ANY_PATH, stage.spherical), stage.query)
    parsing.compiler.facts.costly = parsing.compiler.facts.costly or found.costly
    return stage.run


@dataclass(frozen=True, slots=True)
class GeoNear:
    """One stage."""

    near: Value
    centre: Point
    metres: bool
    """Distances are in metres, not in radians or degrees."""
    spherical: bool
    limits: Document
    query: Document
    distance_field: tuple[str, ...]
    locations_field: tuple[str, ...]
    """Empty: none."""
    multiplier: float
    key: str | None
    limit: int | None

    def condition(self, key: str, spherical: bool) -> Document:
        """The filter for the documents."""
        if self.metres:
            return {key: {"$nearSphere": {"$geometry": self.near, **self.limits}}}
        return {key: {"$nearSphere" if spherical else "$near": list(self.centre), **self.limits}}

    def run(self, run: Run, _variables: Variables) -> Iterator[Document]:
        """The documents, nearest first. Raises InvalidFilter if no index can tell them."""
        key, spherical = self.key, self.spherical
        if key is None or not spherical:
            key, spherical = self._indexed(run.reader.info(run.collection))
        conditions = (self.condition(key, spherical), self.query)
        segments = path_of(key).segments
        for document in run.reader.find(Sought(run.collection, conditions, limit=self.limit)):
            found = [
                pair for leaf in leaves(document, segments) for pair in measure(leaf, self.centre, spherical)
            ]
            distance, place = min(found, key=lambda pair: pair[0])
            unit = EARTH_RADIUS_M if self.metres else 1.0
            made = _placed(document, self.distance_field, distance * unit * self.multiplier)
            yield _placed(made, self.locations_field, place) if self.locations_field else made

    def _indexed(self, info: CollectionInfo | None) -> tuple[str, bool]:
        """The field, and whether its index is one of the sphere, which then decides."""
        parts = [part for index in info.indexes for part in index.places] if info is not None else []
        known = [part for part in parts if self.key is None or part.path == self.key]
        for kind in ("2dsphere",) if self.metres else ("2d", "2dsphere"):
            paths = {part.path for part in known if part.kind == kind}
            if len(paths) > 1:
                raise refused(
                    27, f"There is more than one {kind} index; unsure which to use for $geoNear: give its key"
                )
            if paths:
                return paths.pop(), self.spherical or kind == "2dsphere"
        raise refused(27, "$geoNear requires a 2d or 2dsphere index, but none were found")


def _read(spec: Value) -> GeoNear:
    if type(spec) is not dict:
        raise refused(10065, "the $geoNear stage specification must be an object")
    for name in spec:
        if name not in _OPTIONS:
            raise refused(40415, f"Unrecognized option to $geoNear: {name[:80]}")
    if "near" not in spec:
        raise refused(16605, "$geoNear requires a 'near' option as an Array or a GeoJSON Point")
    centre = read_centre("$geoNear", spec["near"])
    if isinstance(centre, Place) and centre.flat is None:
        raise refused(2, "$near requires geojson point")
    point = centre.flat if isinstance(centre, Place) else centre
    query = spec.get("query", {})
    if type(query) is not dict:
        raise refused(10065, f"the query of $geoNear must be an object, not {shown(query)}")
    if near_of(where(query).node) is not None:
        raise refused(2, "the query of $geoNear cannot hold a $near")
    return GeoNear(
        spec["near"],
        point or (0.0, 0.0),
        isinstance(centre, Place),
        isinstance(centre, Place) or _flag(spec, "spherical"),
        {
            f"${name}": read_distance(name, spec[name])
            for name in ("minDistance", "maxDistance")
            if name in spec
        },
        query,
        _field(spec, "distanceField", 16606, required=True),
        _field(spec, "includeLocs", 16607, required=False),
        _multiplier(spec.get("distanceMultiplier", 1)),
        _key(spec),
        _limit(spec.get("limit", spec.get("num"))),
    )


def _field(spec: Document, name: str, code: int, *, required: bool) -> tuple[str, ...]:
    value = spec.get(name)
    if value is None and not required:
        return ()
    if type(value) is not str or not value or value.startswith("$"):
        raise refused(code, f"$geoNear requires that the '{name}' option is a field path as a String")
    return tuple(step for step, _ in path_of(value).segments)


def _key(spec: Document) -> str | None:
    key = spec.get("key")
    if key is not None and (type(key) is not str or not key or key.startswith("$")):
        raise refused(2, "$geoNear parameter 'key' must be a non-empty field path as a String")
    return None if key is None else path_of(key).text


def _flag(spec: Document, name: str) -> bool:
    value = spec.get(name, False)
    return value is not None and value is not False and not (is_number(value) and value == 0)


def _multiplier(value: Value) -> float:
    try:
        found = number(value)
    except NotAPlace as exc:
        raise refused(2, "$geoNear requires a number as 'distanceMultiplier'") from exc
    if found < 0:
        raise refused(2, "the 'distanceMultiplier' of $geoNear must be nonnegative")
    return found


def _limit(value: Value) -> int | None:
    if value is None:
        return None
    limit = whole_64(value)
    if limit is None or limit < 1:
        raise refused(2, f"the 'limit' of $geoNear must be a positive whole number, not {shown(value)}")
    return limit


def _placed(document: Document, names: tuple[str, ...], value: Value) -> Document:
    """A copy with a value at a path; what is in the way and no object is replaced."""
    name, *rest = names
    if rest:
        inner = document.get(name)
        value = _placed(inner if type(inner) is dict else {}, tuple(rest), value)
    return {**document, name: value}
